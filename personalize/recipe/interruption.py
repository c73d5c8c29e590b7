"""SIGTERM, as clusters and containers send it, becomes an exception like Ctrl-C's."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C: the run is marked as killed and nothing half-made is kept."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Raises Terminated inside on SIGTERM; the handler of before is put back afterwards."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: a notebook's or a server's worker; its owner handles signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
