"""A model from code that paints plain rectangles: what the endpoint tests serve in place of a diffusion model.

It refuses a prompt that begins "refuse me" as a model should, sleeps for the prompt "slowly", and does not load at all
when a file `broken` lies among its artifacts.
"""

import base64
import io
import time
from pathlib import Path

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from PIL import Image


class Painter(PythonModel):
    """One picture a row, its colour drawn from the seed."""

    def load_context(self, context):
        if "broken" in (context.artifacts or {}):
            raise RuntimeError("the adapter file is damaged: " + Path(context.artifacts["broken"]).name)

    def predict(self, context, model_input: pd.DataFrame, params=None):
        rows = []
        for row in model_input.to_dict("records"):
            if row["prompt"].startswith("refuse me"):
                raise MlflowException.invalid_parameter_value("the prompt names no known subject")
            if row["prompt"] == "slowly":
                time.sleep(1.5)
            seed = int(row.get("seed") or 0)
            size = (int(row.get("width") or 32), int(row.get("height") or 32))
            encoded = io.BytesIO()
            Image.new("RGB", size, (seed % 256, 90, 120)).save(encoded, "PNG")
            image = base64.b64encode(encoded.getvalue()).decode()
            rows.append({"image": image, "format": "png", "width": size[0], "height": size[1], "seed": seed})
        return pd.DataFrame(rows)


set_model(Painter())
