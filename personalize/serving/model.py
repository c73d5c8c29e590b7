"""The served model: a pyfunc from code (no pickle) that carries base weights and adapter, and needs no network.

MLflow runs this file when the model is logged and when it is loaded. Its companions travel with it under `code/`
(`package.modules`). A row in is a prompt with options (`request.INPUTS`); a row out is one picture. Rows of all
requests are drawn together, by one thread (`engine`); reading and encoding happen on the threads that ask.
"""

from __future__ import annotations

import base64
import copy
import logging
import math
import os
import random
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import (
    BAD_REQUEST,
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    REQUEST_LIMIT_EXCEEDED,
    TEMPORARILY_UNAVAILABLE,
    MlflowException,
)
from mlflow.pyfunc import PythonModel

from personalize.serving.call import CURRENT, Call, served
from personalize.serving.engine import Busy, Closed, Engine, Gone, Job, Late, Work
from personalize.serving.request import (
    MAX_SEED,
    OUTPUTS,
    Defaults,
    Limits,
    Order,
    RequestError,
    orders,
    read_rows,
    rows_of,
)
from personalize.serving.safety import NONE, load
from personalize.serving.sharing import alone_on

LOG = logging.getLogger("personalize.serving")
SERVER_TIMEOUT = "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"


class Painter:
    """The pipeline as the engine drives it: orders in, pictures out."""

    def __init__(self, artifacts: Mapping[str, str], device: str, dtype: str) -> None:
        """The one place where the weights of the model's artifacts are read."""
        from personalize.dreambooth.denoising import Denoising
        from personalize.dreambooth.sampling import ADAPTER, load_pipeline
        from personalize.hub import resolve_device

        self.device = resolve_device(device)
        with alone_on(self.device):
            self.pipe = load_pipeline(artifacts["base"], device=device, dtype=dtype)
            self.denoising = Denoising(self.pipe)
            self.denoising.adapters.load(artifacts["adapter"], ADAPTER)
            self.denoising.adapters.merge(ADAPTER)

    def begin(self, order: Order) -> Any:
        from personalize.dreambooth.sampling import ADAPTER

        with alone_on(self.device):
            return self.denoising.begin(order.prompt, order.seed, order.sampling, (ADAPTER, order.adapter_scale))

    def step(self, rows: Sequence[Any]) -> None:
        with alone_on(self.device, giving_back=False):
            self.denoising.step(rows)

    def left(self, row: Any) -> int:
        return int(row.left)

    def finish(self, rows: Sequence[Any]) -> Sequence[Any]:
        with alone_on(self.device):
            return self.denoising.finish(rows)


class PersonalizedPictures(PythonModel):
    """Draws the rows of all requests together: servers call `predict` from many threads."""

    def load_context(self, context: Any) -> None:
        """Everything from the model's own files: artifacts `base` and `adapter`, settings from `model_config`.

        Returns when a picture was drawn, so a server that has loaded the model is one that draws. Raises EvidenceError
        where the files are not those that were registered (artifact `evidence`).
        """
        from personalize.dreambooth.sampling import Sampling
        from personalize.evidence.manifest import signing
        from personalize.evidence.package import check_before_loading, origin
        from personalize.photographs.prompts import load_subjects

        check_before_loading(Path(context.artifacts["evidence"]))
        config: Mapping[str, Any] = context.model_config or {}
        self.subjects = load_subjects(context.artifacts["adapter"])
        self.fingerprint = str(config.get("fingerprint", ""))
        self.signing = signing(origin(Path(context.artifacts["evidence"]).parents[1]))
        if self.signing is None:
            LOG.warning("pictures are not signed: there is no signing key on this machine")
        self.safety = load(**config.get("safety", {"entry": NONE}))
        self.limits = Limits(**config.get("limits", {}))
        defaults = dict(config.get("defaults", {}))
        self.defaults = Defaults(format=defaults.pop("format", "webp"), sampling=Sampling(**defaults))
        device = os.environ.get("PERSONALIZE_DEVICE") or config.get("device", "auto")
        made: list[Painter] = []

        def make() -> Painter:
            made.append(Painter(context.artifacts, device, config.get("dtype", "float32")))
            return made[0]

        self.engine: Engine = Engine(make, self.limits.batch, self.limits.batch_pixels, self.limits.queue)
        # a model that is dropped, and a process that ends, end its thread
        weakref.finalize(self, self.engine.close)
        self.pipe = made[0].pipe
        # of their own: a tokenizer pads as it was last asked to, and requests are read while others are drawn
        self.tokenizers = copy.deepcopy((self.pipe.tokenizer, self.pipe.tokenizer_2))
        [first] = self._read([{"prompt": self.subjects[0].instance_prompt, "num_inference_steps": 1}])
        picture = self.engine.submit([(first, _work(first))])[0].future.result()
        self._encode(first, picture)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per picture, in the order of the rows that asked; `params` as in `request.PARAMS`.

        model_input: a frame, rows, columns, prompts or one prompt (`request.rows_of`); of any length where no server
        asks, and then it is drawn in parts.

        Raises:
            MlflowException: 4xx for what cannot be honoured, with the row; 429 when the queue is full; 504 when the
                pictures were not done in time; 499 when the caller has gone; 500 for what went wrong here.
        """
        begun = time.perf_counter()
        asked, call = params or {}, CURRENT.get() or Call()
        bounded = served()
        wanted = self._read(model_input, bounded)
        name = str(asked.get("request_id") or call.id)[:128]
        try:
            call = Call(call.id, asked.get("caller") or call.caller or (None if bounded else object()), call.gone)
            drawn = list(self._drawn(wanted, call, _timeout(asked.get("timeout_s")), bounded))
            if bounded:
                self._check_size([data for data, _, _ in drawn])
        except (Busy, Late, Gone, Closed) as error:
            LOG.info("request %s: %s", name, error)
            code = {Busy: REQUEST_LIMIT_EXCEEDED, Late: DEADLINE_EXCEEDED, Gone: CANCELLED}
            raise MlflowException(str(error), error_code=code.get(type(error), TEMPORARILY_UNAVAILABLE)) from error
        except (MlflowException, KeyboardInterrupt):
            raise
        except Exception as error:
            LOG.exception("request %s: the picture could not be drawn", name)
            raise MlflowException(
                f"The picture could not be drawn ({type(error).__name__}); the server's log has it under {name}.",
                error_code=INTERNAL_ERROR,
            ) from error
        milliseconds = round((time.perf_counter() - begun) * 1000, 1)
        LOG.info("request %s: %d pictures in %.0f ms", name, len(drawn), milliseconds)
        rows = [
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
                "queue_ms": round(queued_s * 1000, 1),
                "request_id": name,
                "safety": said,
            }
            for order, (data, said, queued_s) in zip(wanted, drawn, strict=True)
        ]
        return pd.DataFrame(rows, columns=None if rows else list(OUTPUTS))

    def _drawn(
        self, wanted: Sequence[Order], call: Call, timeout_s: float, bounded: bool
    ) -> Iterator[tuple[str, str, float]]:
        """Each picture as it is sent, what the safety check said, and the seconds that it was queued, in order.

        A server's request is queued as a whole or refused. Otherwise there are at most two full batches at a time in
        the queue, and a full one is waited for.
        """
        deadline = time.monotonic() + timeout_s
        left, jobs = deque(wanted), deque[tuple[Order, Job]]()
        most = len(wanted) if bounded else 2 * self.limits.batch
        try:
            while left or jobs:
                part = [left.popleft() for _ in range(min(len(left), most - len(jobs)))]
                remaining_s = deadline - time.monotonic()
                try:
                    asks = [(order, _work(order)) for order in part]
                    asked = self.engine.submit(asks, call.caller, remaining_s, call.gone) if part else []
                    jobs += zip(part, asked, strict=True)
                except Busy as busy:
                    if bounded:
                        raise
                    left.extendleft(reversed(part))
                    if not jobs:  # others fill the queue: one at a time goes in wherever there is room
                        if remaining_s < 0:
                            raise Late("The queue had no room in time.") from busy
                        most = 1
                        time.sleep(min(busy.retry_after, 1.0))
                        continue
                order, job = jobs[0]
                yield *self._encode(order, job.future.result()), job.queued_s
                jobs.popleft()
        finally:
            for _, job in jobs:
                job.future.cancel()

    def _read(self, asked: Any, bounded: bool = True) -> list[Order]:
        try:
            return (orders if bounded else read_rows)(
                rows_of(asked),
                self.defaults,
                self.limits,
                self.subjects,
                self.tokenizers,
                draw_seed=lambda: random.SystemRandom().randint(0, MAX_SEED),
            )
        except RequestError as error:
            raise MlflowException(str(error), error_code=INVALID_PARAMETER_VALUE) from error

    def _encode(self, order: Order, picture: Any) -> tuple[str, str]:
        """The file in base64, empty where it is withheld, and what the safety check said."""
        from personalize.serving.encoding import encode

        sent, said = self.safety.judged(picture, order.prompt) if self.safety else (True, "")
        if not sent:
            return "", said
        facts = {
            "prompt": order.prompt,
            "negative_prompt": order.sampling.negative_prompt,
            "seed": order.seed,
            "num_inference_steps": order.sampling.steps,
            "guidance_scale": order.sampling.guidance_scale,
            "adapter_scale": order.adapter_scale,
            "fingerprint": self.fingerprint,
        }
        return base64.b64encode(encode(picture, order.format, facts, self.signing)).decode("ascii"), said

    def _check_size(self, encoded: Sequence[str]) -> None:
        size = sum(map(len, encoded))
        if size > self.limits.response_bytes:
            raise MlflowException(
                f"The answer is {size / 1e6:.1f} MB, more than the {self.limits.response_bytes / 1e6:.1f} MB that may "
                "be sent back. Ask for webp instead of png, fewer pictures or a smaller size.",
                error_code=INVALID_PARAMETER_VALUE,
            )


def _work(order: Order) -> Work:
    return Work((order.sampling.width, order.sampling.height), order.sampling.steps)


def _timeout(asked: Any) -> float:
    """Seconds until nobody can hear the answer: what the caller says, and what MLflow's server waits at most.

    Raises MlflowException for what is no number of seconds.
    """
    server = float(os.environ.get(SERVER_TIMEOUT) or math.inf)
    if asked is None or asked != asked:
        return server
    if not asked > 0:
        raise MlflowException(f"timeout_s {asked:g} is not above 0.", error_code=BAD_REQUEST)
    return min(server, float(asked))


mlflow.models.set_model(PersonalizedPictures())
