"""The base of a model that refers to one: found where the model says or this machine knows, and checked.

A version that carries its base has no use for this. One that refers to it names each file of the base by sha256, and
where such a base may be: a folder or a repository of the hub, and a registered version that carries it. The folder that
PERSONALIZE_BASE names comes before all of them.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from personalize import hub
from personalize.evidence import package
from personalize.evidence.statement import EvidenceError, Statement, differences
from personalize.files import file_digest, value_digest, whole

SETTING = "PERSONALIZE_BASE"
"""Environment variable of a server: the base's folder."""


def digest(files: Mapping[str, str]) -> str:
    """One name for a base: sha256 over its files' names and digests."""
    return value_digest(dict(files))


def refer(base: Path, model: str, revision: str | None = None, version: str = "") -> dict[str, Any]:
    """What a model says of a base that it does not carry.

    base: its folder; model, revision: a folder's name, or a hub's repository and its commit; version: the address of a
    registered version that carries it (`models:/<name>/<number>`).
    """
    from personalize.dreambooth.backbone import files

    digests = {name: file_digest(base / name, "sha256") for name in files(base)}
    return {"files": digests, "model": model, "revision": revision or "", "version": version}


def base_of(root: Path, dtype: str) -> Path:
    """`folder_of` for a model's folder, with a statement or, as models had none once, without."""
    statement = package.statement_of(root) if (root / package.PLACE).exists() else None
    return root / "artifacts" / package.BASE if statement is None else folder_of(root, statement, dtype)


def folder_of(root: Path, statement: Statement, dtype: str) -> Path:
    """The folder with the base of the model in the folder `root`, carried or found; exactly the files it names.

    Raises EvidenceError where it refers to one that is not here, or is another.
    """
    named = package.reference(statement)
    if named is None:
        return root / "artifacts" / package.BASE
    wanted, said = package.base_files(statement), []
    for place, look in _places(named, dtype):
        try:
            folder = look()
        except Exception as error:  # a hub, a registry, a file system: each has its own
            said.append(f"{place}: {str(error).splitlines()[0][:300] or type(error).__name__}")
            continue
        if folder is None:
            said.append(f"{place}: not here")
        elif wrong := _wrong(folder, wanted):
            said.append(f"{place} is another: {'; '.join(wrong[:2])}")
        else:
            return _only(folder, wanted)
    label = hub.label(named["model"], named["revision"])
    raise EvidenceError(
        f"This model is not loaded: it refers to base {digest(wanted)[:12]} ({label}), which is not found. "
        f"{'. '.join(said)}. Put that base's folder into {SETTING}."
    )


def _places(named: Mapping[str, Any], dtype: str) -> Iterator[tuple[str, Callable[[], Path | None]]]:
    """Where to look, the nearest first, and how: a folder, or None where there is none."""

    def here(folder: str) -> Path | None:
        return Path(folder) if Path(folder).is_dir() else None

    if setting := os.environ.get(SETTING, ""):
        yield f"{SETTING} {setting}", lambda: here(setting)
    model, revision = str(named["model"]), str(named["revision"])
    if not revision:
        yield model, lambda: here(model)
    if version := str(named["version"]):
        yield version, lambda: _registered(version, digest(named["files"]))
    if revision:
        yield hub.label(model, revision), lambda: _from_hub(model, revision, dtype)


def _from_hub(model: str, revision: str, dtype: str) -> Path:
    from personalize.dreambooth.backbone import local_folder

    return local_folder(model, revision, dtype)


def _registered(version: str, name: str) -> Path:
    """The base out of a registered version: where it lies, or fetched once into the user's cache."""
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts
    from mlflow.utils.file_utils import local_file_uri_to_path

    from personalize.serving.registry import resolve

    model = resolve(version)
    source = MlflowClient().get_model_version_download_uri(model.name, model.version) if model.version else model.uri
    inside = Path(local_file_uri_to_path(source), "artifacts", package.BASE)
    if inside.is_dir():
        return inside
    kept = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "personalize" / "bases" / name
    if not kept.is_dir():
        with whole(kept, first_wins=True) as part:
            part.mkdir()
            fetched = download_artifacts(artifact_uri=f"{model.uri}/artifacts/{package.BASE}", dst_path=str(part))
            for file in Path(fetched).iterdir():
                file.rename(part / file.name)
            Path(fetched).rmdir()
    return kept


def _wrong(folder: Path, wanted: Mapping[str, str]) -> list[str]:
    """How the files of a folder that the model names differ from what it names; others do not count."""
    there = [name for name in wanted if (folder / name).is_file()]
    return differences(wanted, {name: file_digest(folder / name, "sha256") for name in there})


def _only(folder: Path, wanted: Mapping[str, str]) -> Path:
    """A folder with the named files and no others: which of several a loader takes is not left to it."""
    from personalize.dreambooth.backbone import files

    if set(files(folder)) == set(wanted):
        return folder
    only = Path(tempfile.mkdtemp(prefix="personalize-base-"))
    atexit.register(shutil.rmtree, only, ignore_errors=True)
    for name in wanted:
        (only / name).parent.mkdir(parents=True, exist_ok=True)
        (only / name).symlink_to((folder / name).resolve())
    return only
