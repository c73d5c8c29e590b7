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
    with _locks(root) as file:
        waited = not _lock(file, fingerprint)
        if waited:
            waiting()
            _lock(file, fingerprint, wait=True)
        yield waited


def held(root: Path, fingerprint: str) -> bool:
    """Whether another process is at it now. Not to be asked by who holds something: its own locks go with the file."""
    with _locks(root) as file:
        return not _lock(file, fingerprint)


@contextlib.contextmanager
def _locks(root: Path) -> Iterator[int | None]:
    """The file of all locks, open; None where no lock can be had."""
    file = None
    with contextlib.suppress(OSError):
        (root / LOCKS).parent.mkdir(parents=True, exist_ok=True)
        file = os.open(root / LOCKS, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield file
    finally:
        if file is not None:
            os.close(file)


def _lock(file: int | None, fingerprint: str, wait: bool = False) -> bool:
    """Takes the lock of what `fingerprint` names, until the file is closed; whether it could be had."""
    if fcntl is None or file is None:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, int(fingerprint[:15], 16))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks keeps nobody waiting
        return True
    return True
