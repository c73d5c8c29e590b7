"""One process at a time makes a thing: who wants it meanwhile waits, and then finds it made.

A lock is one byte of a file, at the place that the thing's fingerprint names: no file is left for each, and the system
lets go of it with the process that holds it. Processes that share the project's folder exclude each other.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: nobody is excluded, and a thing may be made twice
    fcntl = None  # type: ignore[assignment]

LOCKS = Path("build/recipe/locks")


@contextlib.contextmanager
def alone(root: Path, fingerprint: str, waiting: Callable[[], None]) -> Iterator[bool]:
    """Alone with what `fingerprint` names while the block lasts. Gives whether somebody else had it first.

    waiting: called before the wait. Where no lock can be had (a folder that cannot be written) nobody waits.
    """
    with contextlib.ExitStack() as stack:
        waited = False
        with contextlib.suppress(OSError):
            waited = _take(stack, root / LOCKS, int(fingerprint[:15], 16), waiting)
        yield waited


def held(root: Path, fingerprint: str) -> bool:
    """Whether another process is at it now."""
    with contextlib.ExitStack() as stack, contextlib.suppress(_Held):
        with contextlib.suppress(OSError):
            _take(stack, root / LOCKS, int(fingerprint[:15], 16), _refuse)
        return False
    return True


class _Held(Exception):
    pass


def _refuse() -> None:
    raise _Held


def _take(stack: contextlib.ExitStack, path: Path, place: int, waiting: Callable[[], None]) -> bool:
    if fcntl is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    stack.callback(os.close, file)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        return False
    except BlockingIOError:
        waiting()
        fcntl.lockf(file, fcntl.LOCK_EX, 1, place)
        return True
