"""A call: what a server knows of the request that a thread of it is answering, what it says beside its rows, and
whether there is one at all.

Imports no torch.
"""

from __future__ import annotations

import math
import os
import sys
import time
import uuid
from collections.abc import Callable, Hashable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from personalize.serving.engine import PRIORITIES, Gone, Late, Priority
from personalize.serving.request import RequestError

SERVER_TIMEOUT = "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"


@dataclass(frozen=True)
class Call:
    """A request's name, who sent it (None: nobody knows, so it is its own caller), and whether he still waits."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    caller: Hashable = None
    gone: Callable[[], bool] = lambda: False


CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)
"""Set by a server around a request (`app`); `asyncio.to_thread` takes it along. Elsewhere there is none."""


@dataclass(frozen=True)
class Asked:
    """How a request wants to be answered. deadline: by `time.monotonic`."""

    name: str
    caller: Hashable
    gone: Callable[[], bool]
    deadline: float
    priority: Priority = "normal"
    partial: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Asked:
        """What the params say (`request.PARAMS`), and the server's call. Raises RequestError for what they may not."""
        call = CURRENT.get() or Call()
        partial, priority = bool(params.get("partial")), params.get("priority") or "normal"
        if priority not in PRIORITIES:
            raise RequestError(f"priority {str(priority)[:60]!r} is not one of {', '.join(PRIORITIES)}.")
        return cls(
            name=str(params.get("request_id") or call.id)[:128],
            caller=params.get("caller") or call.caller or object(),
            gone=call.gone,
            deadline=time.monotonic() + _timeout(params.get("timeout_s"), partial),
            priority=priority,
            partial=partial,
        )

    @property
    def left_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def still_waits(self) -> None:
        """Raises Gone or Late where nobody waits for the answer any more."""
        if self.gone():
            raise Gone("The caller has gone.")
        if self.left_s < 0:
            raise Late("The request was given up while it waited for its adapters.")


def _timeout(asked: Any, partial: bool) -> float:
    """Seconds until nobody can hear the answer: what the caller says, and what MLflow's server waits at most.

    partial: what is done by then is still to be sent.
    """
    server = float(os.environ.get(SERVER_TIMEOUT) or math.inf) * (0.9 if partial else 1.0)
    if asked is None or asked != asked:
        return server
    if not asked > 0:
        raise RequestError(f"timeout_s {asked:g} is not above 0.")
    return min(server, float(asked))


SERVER = "mlflow.pyfunc.scoring_server.app"
"""The module that `mlflow models serve` runs; a process that has it answers strangers."""
MODEL_SERVING = "IS_IN_DB_MODEL_SERVING_ENV"
"""Environment variable that Databricks sets in a container of Model Serving."""


def served() -> bool:
    """Whether somebody else's server asks: then requests are bounded. In a notebook, a job or Spark they are not."""
    on_databricks = os.environ.get(MODEL_SERVING, "").lower() in ("true", "1")
    return CURRENT.get() is not None or SERVER in sys.modules or on_databricks
