"""numba's njit with a cache that a read-only clone, an edited source and a second checkout cannot break.

numba keys a cached function on its own file only: a change in a function it calls, in another file, goes unnoticed.
Here the cache folder is named by a digest of every file that holds compiled functions, and lies in the user's cache
directory (or, where that cannot be written, in the temporary one), never in the checkout.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

SOURCES = (
    "compiled.py", "ground.py", "indoors.py", "march.py", "noise.py", "sdf.py", "surface.py", "surroundings.py",
)  # fmt: skip


def _cache_folder() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    name = f"miniature-scenes-{digest.hexdigest()[:16]}"
    for base in (os.environ.get("XDG_CACHE_HOME", ""), str(Path.home() / ".cache"), tempfile.gettempdir()):
        folder = Path(base) / name
        try:
            if base:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=folder):
                    return str(folder)
        except OSError:
            continue
    return tempfile.mkdtemp(prefix=name)


_FOLDER = _cache_folder()


def compiled(function: Callable[..., Any]) -> Any:
    """`numba.njit(function)` with strict floating point (a seed gives the same bytes) and the cache described above."""
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = _FOLDER
    try:
        return numba.njit(cache=True, fastmath=False)(function)
    finally:
        numba.config.CACHE_DIR = before
