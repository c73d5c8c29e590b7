"""Digests of files and folders, in DVC's own terms: a folder's digest equals the md5 that `dvc add` would pin for it.

Content decides, never the clock. Digests of large files are remembered by (size, mtime, inode), as DVC and git do, so
asking again about a gigabyte of weights costs milliseconds.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MEMORY = Path("build/recipe/digests.json")  # relative to the working directory, like everything else the engine keeps
REMEMBER_FROM_BYTES = 1 << 20
_SETTLED_SECONDS = 2.0  # a file younger than this may change again within one clock tick


def file_digest(path: str | Path) -> str:
    """md5 of a file's bytes. Raises FileNotFoundError naming the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give the path of a file that exists")
    stat = path.stat()
    if stat.st_size < REMEMBER_FROM_BYTES:
        return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    known = _recall().get(str(path.resolve()))
    if known and known[:3] == stamp:
        return str(known[3])
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if time.time() - stat.st_mtime > _SETTLED_SECONDS:
        _remember(str(path.resolve()), [*stamp, digest])
    return digest


def tree_digest(path: str | Path) -> str:
    """DVC's digest of a folder (`<md5>.dir`), or of a single file. Raises FileNotFoundError naming the path."""
    root = Path(path)
    if root.is_file():
        return file_digest(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} does not exist; give a file or folder that does, or `dvc pull` it if it is pinned"
        )
    entries = [{"md5": file_digest(file), "relpath": file.relative_to(root).as_posix()} for file in _files(root)]
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def dvc_digest(pin: str | Path) -> str | None:
    """The md5 a .dvc file pins for its first output, or None where there is no such file or it pins none."""
    try:
        content = yaml.load(Path(pin).read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return str(content["outs"][0]["md5"])
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return None


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in (".git", ".dvc"))
        for name in sorted(names):
            file = Path(folder) / name
            if file.is_file():
                yield file


def _recall() -> dict[str, Any]:
    try:
        content = json.loads(MEMORY.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(path: str, entry: list[Any]) -> None:
    try:
        MEMORY.parent.mkdir(parents=True, exist_ok=True)
        staged = MEMORY.with_suffix(f".{os.getpid()}")
        staged.write_text(json.dumps({**_recall(), path: entry}), encoding="utf-8")
        staged.replace(MEMORY)
    except OSError:  # a read-only checkout only loses the shortcut
        return
