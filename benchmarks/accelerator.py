"""A pyfunc like the one of Databricks' solution accelerator for personalised images: the first row, a raw array back.

What it fetches from a hub it finds in its artifacts here. A lock is added: MLflow's server calls from many threads.
"""

import threading
from typing import Any

import mlflow
from mlflow.pyfunc import PythonModel


class FirstRow(PythonModel):
    def load_context(self, context: Any) -> None:
        from diffusers import StableDiffusionXLPipeline

        self.pipe = StableDiffusionXLPipeline.from_pretrained(context.artifacts["base"], use_safetensors=True)
        self.pipe.load_lora_weights(context.artifacts["adapter"])
        self.pipe.set_progress_bar_config(disable=True)
        self.lock = threading.Lock()

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        import numpy as np

        row = model_input.iloc[0]
        with self.lock:
            picture = self.pipe(
                prompt=row["prompt"], num_inference_steps=int(row["num_inference_steps"]), width=128, height=128
            ).images[0]
        return np.asarray(picture)


mlflow.models.set_model(FirstRow())
