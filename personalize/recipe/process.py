"""The process a recipe runs in: where steps put what they make until it is logged, and how it is stopped.

Nothing of a killed process stays behind; SIGTERM, as clusters and containers send it, is an exception like Ctrl-C's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

WORK = Path("build/recipe/work")
AGAIN_S = 0.02
"""After which an interrupt that a finalizer swallowed is sent again."""
STARTER_S = 1.0
"""Between two looks whether who started this process still lives."""
OTHERS_S = 0.2
"""For which it is looked whether others compute."""
SHELLS = ("sh", "bash", "dash", "zsh")


def workplace(root: Path, step: str) -> Path:
    """A fresh folder, on the project's disk where that can be written, else among the system's temporary files."""
    prefix = f"{step}-{os.getpid()}-"
    try:
        (root / WORK).mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=prefix, dir=root / WORK))
    except OSError:
        return Path(tempfile.mkdtemp(prefix=prefix))


def sweep(root: Path) -> None:
    """Remove the working folders of processes that no longer live (killed, or a machine that went down)."""
    for folder in (root / WORK).glob("*-*-*"):
        pid = folder.name.rsplit("-", 2)[1]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


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
        with interruptible():
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def ending_with_mlflow() -> Iterator[None]:
    """Inside, SIGTERM comes once the `mlflow run` that started this process has died: it passes none on itself.

    Without it a training goes on that nobody waits for. Shells stand between the two, by how the environment was
    entered, and are not looked at. Nothing is done for who was started otherwise.
    """
    starter = _starter() if "MLFLOW_RUN_ID" in os.environ else None
    if starter is None:
        yield
        return
    born = began(starter)

    def ended() -> bool:
        gone = born != began(starter)
        if gone:
            os.kill(os.getpid(), signal.SIGTERM)
        return gone

    with meanwhile(ended, STARTER_S, "mlflow run"):
        yield


def _starter() -> int | None:
    """The nearest ancestor that is no shell, where that is `mlflow`."""
    import psutil

    with contextlib.suppress(psutil.Error):
        nearest = next((each for each in psutil.Process().parents() if each.name() not in SHELLS), None)
        if nearest and "mlflow" in (Path(word).name for word in nearest.cmdline()):
            return nearest.pid
    return None


def began(pid: int) -> float | None:
    """When a process was started, which tells it from a later one of the same number; None where there is none."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time(), 1)
    except psutil.Error:
        return None


@contextlib.contextmanager
def meanwhile(do: Callable[[], bool], every_s: float, name: str) -> Iterator[None]:
    """Inside, a thread of that name does something every so many seconds, until it returns True: that was all."""
    left = threading.Event()

    def work() -> None:
        while not left.wait(every_s) and not do():
            pass

    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(timeout=5)


@contextlib.contextmanager
def giving_way() -> Iterator[None]:
    """Inside, where others take more than half of the processors now, PyTorch's threads sleep while they wait.

    By default they spin, and where more threads compute than there are processors one spins in the place of another
    that it waits for. It holds where torch is first imported inside. For what is soon over: alone, those who sleep are
    slower. As many threads compute, so the result is the same. A person's own OMP_WAIT_POLICY stands.
    """
    import psutil

    if "OMP_WAIT_POLICY" in os.environ or psutil.cpu_percent(OTHERS_S) <= 50:
        yield
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        yield
    finally:
        del os.environ["OMP_WAIT_POLICY"]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """No interrupt is lost inside: one that falls into a finalizer, where Python drops exceptions, is sent again."""
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if isinstance(dropped.exc_value, KeyboardInterrupt):
            number = signal.SIGTERM if isinstance(dropped.exc_value, Terminated) else signal.SIGINT
            threading.Timer(AGAIN_S, os.kill, (os.getpid(), number)).start()  # from here it would be dropped too
        else:
            before(dropped)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
