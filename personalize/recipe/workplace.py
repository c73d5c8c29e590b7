"""Where steps put what they make until it is logged; nothing of a killed process stays behind."""

import os
import shutil
import tempfile
from pathlib import Path

WORK = Path("build/recipe/work")


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
