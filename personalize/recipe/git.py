"""What git says of a checkout. Where there is no git, or it refuses, it says nothing."""

import subprocess
from pathlib import Path


def said(where: Path, *arguments: str) -> str:
    """git's answer as text; names that are not UTF-8 come out as Python writes them in paths."""
    return raw(where, *arguments).decode("utf-8", "surrogateescape")


def raw(where: Path, *arguments: str, also: int = 0) -> bytes:
    """The same as bytes. also: an exit status besides 0 that is an answer."""
    try:
        done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode in (0, also) else b""
