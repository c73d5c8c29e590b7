"""A project that was fetched: by `mlflow run <git address>` into a folder of its own, or its pinned data by DVC."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from personalize.recipe import git
from personalize.recipe.steps import StepConfig

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://.+|[\w.-]+@[\w.-]+:.+")


def repository(root: Path) -> str:
    """The address of the git remote that a checkout comes from, without a password; empty where it is a mere path."""
    said = git.said(root, "remote", "get-url", "origin").strip()
    if not _ADDRESS.fullmatch(said):
        return ""
    if "://" not in said:
        return said
    parts = urlsplit(said)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def typed(root: Path) -> tuple[str, ...]:
    """How the project is named after `mlflow run`: `.`, or the address and commit that MLflow has fetched it from.

    MLflow fetches into a new folder among the temporary files, and tells nobody where.
    """
    if "MLFLOW_RUN_ID" not in os.environ:
        return (".",)
    top, address = Path(git.said(root, "rev-parse", "--show-toplevel").strip() or root), repository(root)
    if not address or top.parent != Path(tempfile.gettempdir()).resolve():
        return (".",)
    inside = root.resolve().relative_to(top).as_posix()
    commit = git.said(root, "rev-parse", "HEAD").strip()
    return (address if inside == "." else f"{address}#{inside}", "-v", commit)


def unpulled(root: Path, configs: Iterable[StepConfig]) -> list[Path]:
    """The pins (data.dvc) of this commit whose data these configurations name and nobody has pulled yet."""
    named = {os.path.normpath(text) for config in configs for text in _texts(config.model_dump(mode="json"))}
    return [
        pin
        for pin in sorted(root.glob("*.dvc"))
        if pin.is_file()
        and not pin.with_suffix("").exists()
        and any(name == pin.stem or name.startswith(f"{pin.stem}/") for name in named)
    ]


def pull(root: Path, configs: Iterable[StepConfig]) -> None:
    """Pulls what these configurations name, the commit pins and nobody has pulled yet.

    Where that fails, what reads it says so.
    """
    for pin in unpulled(root, configs):
        print(f"pulling {pin.stem}, which {pin.name} pins", flush=True)
        command = [sys.executable, "-m", "dvc", "pull", "--quiet", pin.name]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"note: dvc pull {pin.name} failed: {done.stderr.strip()}", flush=True)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, str) and value:
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)
