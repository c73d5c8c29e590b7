"""The served model: a pyfunc from code (no pickle) that carries base weights and adapter, and needs no network.

MLflow runs this file when the model is logged and when it is loaded. Its companions travel with it under `code/`
(`package.modules`). A row in is a prompt with options (`request.INPUTS`); a row out is one picture.
"""

from __future__ import annotations

import base64
import copy
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException
from mlflow.pyfunc import PythonModel

from personalize.serving.request import MAX_SEED, Defaults, Limits, Order, RequestError, orders
from personalize.serving.sharing import alone_on


class PersonalizedPictures(PythonModel):
    """Draws the rows of a request with one pipeline, a request at a time: servers call `predict` from many threads."""

    def load_context(self, context: Any) -> None:
        """Everything from the model's own files: artifacts `base` and `adapter`, settings from `model_config`.

        Raises EvidenceError where they are not those that were registered (artifact `evidence`).
        """
        from personalize.dreambooth.sampling import Sampling, load_pipeline
        from personalize.evidence.package import check_before_loading
        from personalize.hub import resolve_device
        from personalize.photographs.prompts import load_subjects

        check_before_loading(Path(context.artifacts["evidence"]))
        config: Mapping[str, Any] = context.model_config or {}
        self.subjects = load_subjects(context.artifacts["adapter"])
        self.fingerprint = str(config.get("fingerprint", ""))
        self.limits = Limits(**config.get("limits", {}))
        defaults = dict(config.get("defaults", {}))
        self.defaults = Defaults(format=defaults.pop("format", "webp"), sampling=Sampling(**defaults))
        self.device = resolve_device(os.environ.get("PERSONALIZE_DEVICE") or config.get("device", "auto"))
        with alone_on(self.device):
            self.pipe = load_pipeline(
                context.artifacts["base"],
                device=self.device,
                dtype=config.get("dtype", "float32"),
                lora=context.artifacts["adapter"],
            )
        # of their own: a tokenizer pads as it was last asked to, and requests are read while another is drawn
        self.tokenizers = copy.deepcopy((self.pipe.tokenizer, self.pipe.tokenizer_2))
        self.lock = threading.Lock()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per picture, in the order of the rows that asked. MlflowException 4xx for what cannot be honoured."""
        begun = time.perf_counter()
        try:
            wanted = orders(
                model_input.to_dict("records"),
                self.defaults,
                self.limits,
                self.subjects,
                self.tokenizers,
                draw_seed=lambda: random.SystemRandom().randint(0, MAX_SEED),
            )
        except RequestError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error
        with self.lock, alone_on(self.device):
            pictures = self._draw(wanted)
        encoded = [self._encode(order, picture) for order, picture in zip(wanted, pictures, strict=True)]
        self._check_size(encoded)
        milliseconds = round((time.perf_counter() - begun) * 1000, 1)
        return pd.DataFrame(
            {
                "image": data,
                "format": order.format,
                "width": order.sampling.width,
                "height": order.sampling.height,
                "seed": order.seed,
                "prompt": order.prompt,
                "row": order.row,
                "fingerprint": self.fingerprint,
                "latency_ms": milliseconds,
            }
            for order, data in zip(wanted, encoded, strict=True)
        )

    def _draw(self, wanted: Sequence[Order]) -> list[Any]:
        """Orders of the same settings are drawn together; the pictures come back in the orders' order."""
        from personalize.dreambooth.sampling import ADAPTER, sample

        alike: dict[tuple[Any, float], list[int]] = {}
        for place, order in enumerate(wanted):
            alike.setdefault((order.sampling, order.adapter_scale), []).append(place)
        pictures: dict[int, Any] = {}
        for (sampling, scale), places in alike.items():
            self.pipe.set_adapters(ADAPTER, adapter_weights=scale)
            batch = max(1, min(8, self.limits.pixels * 2 // (sampling.width * sampling.height)))
            prompts, seeds = [wanted[i].prompt for i in places], [wanted[i].seed for i in places]
            pictures |= zip(places, sample(self.pipe, prompts, seeds, sampling, batch_size=batch), strict=True)
        return [pictures[place] for place in range(len(wanted))]

    def _encode(self, order: Order, picture: Any) -> str:
        from personalize.serving.encoding import encode

        facts = {
            "prompt": order.prompt,
            "negative_prompt": order.sampling.negative_prompt,
            "seed": order.seed,
            "num_inference_steps": order.sampling.steps,
            "guidance_scale": order.sampling.guidance_scale,
            "adapter_scale": order.adapter_scale,
            "fingerprint": self.fingerprint,
        }
        return base64.b64encode(encode(picture, order.format, facts)).decode("ascii")

    def _check_size(self, encoded: Sequence[str]) -> None:
        size = sum(map(len, encoded))
        if size > self.limits.response_bytes:
            raise MlflowException(
                f"The answer is {size / 1e6:.1f} MB, more than the {self.limits.response_bytes / 1e6:.1f} MB that may "
                "be sent back. Ask for webp instead of png, fewer pictures or a smaller size.",
                error_code=INVALID_PARAMETER_VALUE,
            )


mlflow.models.set_model(PersonalizedPictures())
