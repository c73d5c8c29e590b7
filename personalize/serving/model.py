"""The served model: a pyfunc from code (no pickle) that carries base weights and adapter, and needs no network.

Or it refers to its base, and finds it (`base`). MLflow runs this file when the model is logged and when it is loaded.
Its companions travel with it under `code/` (`package.modules`). A row in is a prompt with options (`request.INPUTS`);
a row out is one picture. Rows of all requests are drawn together, by one thread (`engine`), each with the adapter of
the model or of another version (`versions`, `adapters`); reading, fetching and encoding happen on the threads that ask.
"""

from __future__ import annotations

import base64
import copy
import gc
import logging
import os
import random
import time
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pandas as pd
from mlflow.exceptions import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    REQUEST_LIMIT_EXCEEDED,
    TEMPORARILY_UNAVAILABLE,
    MlflowException,
)
from mlflow.pyfunc import PythonModel

from personalize.serving.adapters import DEFAULT_BYTES, SETTING, AdapterCache, TooLarge
from personalize.serving.call import Asked, served
from personalize.serving.engine import Busy, Closed, Engine, Gone, Job, Late, Work
from personalize.serving.request import (
    ANSWER,
    MAX_SEED,
    Defaults,
    Fault,
    Limits,
    Order,
    RequestError,
    all_of,
    orders,
    read_rows,
    rows_of,
)
from personalize.serving.safety import NONE, load
from personalize.serving.sharing import alone_on
from personalize.serving.versions import NotServed, Unreachable, Version, Versions

if TYPE_CHECKING:
    from personalize.evidence.manifest import Signing

LOG = logging.getLogger("personalize.serving")


class Painter:
    """The pipeline as the engine drives it: orders with their adapters in, pictures out."""

    def __init__(self, base: Path, adapter: str, device: str, dtype: str) -> None:
        """The one place where the weights of the model's artifacts are read."""
        from personalize.dreambooth.denoising import Denoising
        from personalize.dreambooth.sampling import load_pipeline
        from personalize.hub import resolve_device

        self.device = resolve_device(device)
        with alone_on(self.device):
            self.pipe = load_pipeline(base, device=device, dtype=dtype)
            self.denoising = Denoising(self.pipe)
            self.own = self.denoising.adapters.load(adapter, "own")
            self.denoising.adapters.merge(self.own)

    def begin(self, ask: tuple[Order, Any]) -> Any:
        """With the adapter that was lent for it, or else the model's own."""
        order, adapter = ask
        voice = (adapter or self.own, order.adapter_scale)
        with alone_on(self.device):
            return self.denoising.begin(order.prompt, order.seed, order.sampling, voice)

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
        where the files are not those that were registered (artifact `evidence`), or the base is not found.
        """
        from personalize.dreambooth.sampling import Sampling
        from personalize.evidence.manifest import signing
        from personalize.evidence.package import base_files, check_before_loading, origin
        from personalize.photographs.prompts import load_subjects
        from personalize.serving.base import folder_of

        # one that was loaded before and dropped, as in MLflow's own look at a logged model, makes room: collected, it
        # ends its thread, and what the thread had held is collected then
        for _ in range(2):
            gc.collect()
        evidence = Path(context.artifacts["evidence"])
        statement = check_before_loading(evidence)
        config: Mapping[str, Any] = context.model_config or {}
        own = Version(load_subjects(context.artifacts["adapter"]), str(config.get("fingerprint", "")))
        self.versions = Versions.of_environment(own, base_files(statement))
        self.signing = signing(origin(evidence.parents[1]))
        if self.signing is None:
            LOG.warning("pictures are not signed: there is no signing key on this machine")
        self.safety = load(**config.get("safety", {"entry": NONE}))
        self.limits = Limits(**config.get("limits", {}))
        defaults = dict(config.get("defaults", {}))
        self.defaults = Defaults(format=defaults.pop("format", "webp"), sampling=Sampling(**defaults))
        device = os.environ.get("PERSONALIZE_DEVICE") or config.get("device", "auto")
        dtype = str(config.get("dtype", "float32"))
        base = folder_of(evidence.parents[1], statement, dtype)
        made: list[Painter] = []

        def make() -> Painter:
            made.append(Painter(base, context.artifacts["adapter"], device, dtype))
            return made[0]

        self.engine: Engine = Engine(make, self.limits.batch, self.limits.batch_pixels, self.limits.queue)
        # a model that is dropped, and a process that ends, end its thread
        weakref.finalize(self, self.engine.close)
        self.pipe = made[0].pipe
        self.reader = made[0].denoising.adapters
        self.adapters = AdapterCache(self._fetch, int(os.environ.get(SETTING) or DEFAULT_BYTES))
        # of their own: a tokenizer pads as it was last asked to, and requests are read while others are drawn
        self.tokenizers = copy.deepcopy((self.pipe.tokenizer, self.pipe.tokenizer_2))
        [first], _ = self._read([{"prompt": own.subjects[0].instance_prompt, "num_inference_steps": 1}])
        picture = self.engine.submit([((first, None), _work(first))])[0].future.result()
        self._encode(first, picture)

    def close(self) -> None:
        """Gives back what it holds, for whoever has looked at it and goes on; it draws no more.

        MLflow itself keeps the model that was loaded last.
        """
        self.engine.close()
        del self.engine, self.pipe, self.reader, self.adapters
        gc.collect()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per picture, in the order of the rows that asked; `params` as in `request.PARAMS`.

        model_input: a frame, rows, columns, prompts or one prompt (`request.rows_of`); of any length where no server
        asks, and then it is drawn in parts. With `partial` a row that cannot be drawn is one row of the answer, with
        `error` and `status` and no picture.

        Raises:
            MlflowException: 4xx for what cannot be honoured, with the row; 429 when the queue is full; 504 when the
                pictures were not done in time; 499 when the caller has gone; 500 for what went wrong here.
        """
        begun = time.perf_counter()
        name = ""
        try:
            asked, bounded = Asked.of(params or {}), served()
            name = asked.name
            wanted, faults = self._read(model_input, bounded)
            if faults and not asked.partial:
                raise _error(all_of(faults), max(fault.status for fault in faults))
            answers = [*self._drawn(wanted, asked, bounded), *(_row_of(fault, name) for fault in faults)]
            if bounded:
                self._check_size([answer["image"] for answer in answers])
        except KNOWN as error:
            LOG.info("request %s: %s", name, type(error).__name__)
            raise _error(str(error), _status(error)) from error
        except (MlflowException, KeyboardInterrupt):
            raise
        except Exception as error:
            LOG.exception("request %s: the picture could not be drawn", name)
            raise _error(_what_went_wrong(error, name), 500) from error
        milliseconds = round((time.perf_counter() - begun) * 1000, 1)
        LOG.info("request %s: %d pictures in %.0f ms", name, len(answers), milliseconds)
        answers.sort(key=lambda answer: int(answer["row"]))
        return pd.DataFrame([{**answer, "latency_ms": milliseconds} for answer in answers], columns=list(ANSWER))

    def _drawn(self, wanted: Sequence[Order], asked: Asked, bounded: bool) -> Iterator[dict[str, Any]]:
        """The rows of the answer for what is to be drawn. Raises what went wrong with one, unless it is `partial`.

        A server's request is lent all its adapters, and queued, as a whole or refused. Otherwise as many rows at a time
        are lent theirs as have room together.
        """
        for some in [wanted] if bounded else self._fitting(wanted):
            yield from self._drawn_at_once(some, asked, bounded)

    def _drawn_at_once(self, some: Sequence[Order], asked: Asked, bounded: bool) -> Iterator[dict[str, Any]]:
        """Those whose adapters have room together. What was lent is forgotten before the next are lent theirs."""
        others = [order.version for order in some if order.version.sha256]
        with self.adapters.lent(others, asked.still_waits) as lent:
            absent = [each for each in lent.values() if isinstance(each, Exception)]
            if absent and not asked.partial:
                raise absent[0]
            yield from self._in_turn(some, lent, asked, len(some) if bounded else 2 * self.limits.batch, bounded)

    def _fitting(self, wanted: Sequence[Order]) -> Iterator[Sequence[Order]]:
        """Rows in their order, in parts whose adapters have room together."""
        part: list[Order] = []
        sizes: dict[str, int] = {}
        for order in wanted:
            more = {**sizes, order.version.sha256: order.version.size}
            if part and sum(more.values()) > self.adapters.limit:
                yield part
                part, more = [], {order.version.sha256: order.version.size}
            part.append(order)
            sizes = more
        if part:
            yield part

    def _in_turn(
        self, wanted: Sequence[Order], lent: Mapping[str, Any], asked: Asked, most: int, bounded: bool
    ) -> Iterator[dict[str, Any]]:
        """The rows of the answer in order, at most so many in the queue at a time; a full one is waited for, unless
        `bounded`.
        """
        left, jobs = deque(wanted), deque[tuple[Order, Job | Exception]]()
        try:
            while left or jobs:
                part = [left.popleft() for _ in range(min(len(left), most - len(jobs)))]
                adapters = [lent.get(order.version.sha256) for order in part]
                asks = [
                    ((order, adapter), _work(order))
                    for order, adapter in zip(part, adapters, strict=True)
                    if not isinstance(adapter, Exception)
                ]
                try:
                    made = (
                        self.engine.submit(asks, asked.caller, asked.left_s, asked.gone, asked.priority) if asks else []
                    )
                except Busy as busy:
                    if bounded:
                        raise
                    left.extendleft(reversed(part))
                    if not jobs and asked.left_s < 0:
                        jobs += ((order, Late("The queue had no room in time.")) for order in left)
                        left.clear()
                    elif not jobs:  # others fill the queue: one at a time goes in wherever there is room
                        most = 1
                        time.sleep(min(busy.retry_after, 1.0))
                        continue
                else:
                    begun = iter(made)
                    for order, adapter in zip(part, adapters, strict=True):
                        jobs.append((order, adapter if isinstance(adapter, Exception) else next(begun)))
                yield self._outcome(*jobs[0], asked)
                jobs.popleft()
        finally:
            for _, job in jobs:
                if isinstance(job, Job):
                    job.future.cancel()

    def _outcome(self, order: Order, job: Job | Exception, asked: Asked) -> dict[str, Any]:
        """The row of the answer for an order, when its picture is done or has failed."""
        try:
            if isinstance(job, Exception):
                raise job
            return self._answer(order, job, asked.name)
        except Exception as error:
            if not asked.partial or isinstance(error, Gone):
                raise
            return _row_of(_fault(order.row, error, asked.name), asked.name)

    def _fetch(self, version: Version) -> Any:
        """The adapter of another version, in memory."""
        data = self.versions.weights(version)
        if len(data) > version.size:
            raise NotServed(f"{version} is larger than its store says.")
        try:
            return self.reader.read(data, version.sha256)
        except ValueError as error:
            raise NotServed(f"{version} cannot be drawn with: {error}") from error

    def _answer(self, order: Order, job: Job, name: str) -> dict[str, Any]:
        """A row of the answer, when its picture is done. Raises what went wrong with it."""
        image, safety = self._encode(order, job.future.result())
        return {
            "image": image,
            "format": order.format,
            "width": order.sampling.width,
            "height": order.sampling.height,
            "seed": order.seed,
            "prompt": order.prompt,
            "row": order.row,
            "fingerprint": order.version.fingerprint,
            "queue_ms": round(job.queued_s * 1000, 1),
            "request_id": name,
            "model_version": str(order.version),
            "safety": safety,
            "status": 200,
            "error": "",
        }

    def _read(self, asked: Any, bounded: bool = True) -> tuple[list[Order], list[Fault]]:
        return (orders if bounded else read_rows)(
            rows_of(asked),
            self.defaults,
            self.limits,
            self.versions.find,
            self.tokenizers,
            draw_seed=lambda: random.SystemRandom().randint(0, MAX_SEED),
        )

    def _encode(self, order: Order, picture: Any) -> tuple[str, str]:
        """The file in base64, empty where it is withheld, and what the safety check said."""
        from personalize.serving.encoding import encode

        sent, said = self.safety.judged(picture, order.prompt) if self.safety else (True, "")
        if not sent:
            return "", said
        facts = {
            **order.facts,
            "fingerprint": order.version.fingerprint,
            **({"model_version": str(order.version)} if order.version.name else {}),
        }
        return base64.b64encode(encode(picture, order.format, facts, self._signing(order.version))).decode(
            "ascii"
        ), said

    def _signing(self, version: Version) -> Signing | None:
        """What signs this version's pictures: the manifest speaks of whose adapter drew, this model's or another's."""
        if self.signing is None or not version.sha256:
            return self.signing
        return replace(self.signing, origin=version.origin)

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


CODES = {
    400: INVALID_PARAMETER_VALUE,
    429: REQUEST_LIMIT_EXCEEDED,
    499: CANCELLED,
    500: INTERNAL_ERROR,
    503: TEMPORARILY_UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}
"""MLflow's names of the statuses that are used here."""


def _error(words: str, status: int) -> MlflowException:
    return MlflowException(words, error_code=CODES[status])


STATUS: Mapping[type[Exception], int] = {
    RequestError: 400,
    NotServed: 400,
    TooLarge: 400,
    Busy: 429,
    Gone: 499,
    Closed: 503,
    Unreachable: 503,
    Late: 504,
}
KNOWN = tuple(STATUS)


def _status(error: Exception) -> int:
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)


def _fault(row: int, error: Exception, name: str) -> Fault:
    """What to say of a row that failed; of what went wrong here the log has more."""
    status = _status(error)
    if status == 500:
        LOG.error("request %s: row %d could not be drawn", name, row, exc_info=error)
    return Fault(row, _what_went_wrong(error, name) if status == 500 else str(error), status)


def _row_of(fault: Fault, name: str) -> dict[str, Any]:
    """The row of the answer for one that was not drawn."""
    empty = {key: "" if kind is str else kind(0) for key, kind in ANSWER.items()}
    return {**empty, "row": fault.row, "request_id": name, "status": fault.status, "error": fault.words}


def _what_went_wrong(error: Exception, name: str) -> str:
    return f"The picture could not be drawn ({type(error).__name__}); the server's log has it under {name}."


mlflow.models.set_model(PersonalizedPictures())
