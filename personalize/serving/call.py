"""A call: what a server knows of the request that a thread of it is answering, and whether there is one at all.

Imports no torch.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Call:
    """A request's name, who sent it (None: nobody knows, so it is its own caller), and whether he still waits."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    caller: Hashable = None
    gone: Callable[[], bool] = lambda: False


CURRENT: ContextVar[Call | None] = ContextVar("call", default=None)
"""Set by a server around a request (`app`); `asyncio.to_thread` takes it along. Elsewhere there is none."""

SERVER = "mlflow.pyfunc.scoring_server.app"
"""The module that `mlflow models serve` runs; a process that has it answers strangers."""
MODEL_SERVING = "IS_IN_DB_MODEL_SERVING_ENV"
"""Environment variable that Databricks sets in a container of Model Serving."""


def served() -> bool:
    """Whether somebody else's server asks: then requests are bounded. In a notebook, a job or Spark they are not."""
    on_databricks = os.environ.get(MODEL_SERVING, "").lower() in ("true", "1")
    return CURRENT.get() is not None or SERVER in sys.modules or on_databricks
