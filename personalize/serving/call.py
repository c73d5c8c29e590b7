"""A call: what a server knows of the request that a thread of it is answering. Imports no torch."""

from __future__ import annotations

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
