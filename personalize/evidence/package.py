"""The statement that a model carries: digests of every file that it is made of, and what they come from.

It lies among the model's own artifacts, so it travels to every registry and server with them. Whoever deploys checks it
from outside, with code of their own; the model checks it again before it loads. `MLmodel`, which MLflow writes, counts
by what it says of code and artifacts. A model that refers to its base names the base's files in its settings, by their
digests, instead of carrying them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personalize import files
from personalize.evidence.statement import SUFFIX, EvidenceError, Statement, differences, read, short, write

ARTIFACT = "evidence"
FILE = f"statement{SUFFIX}"
PLACE = f"artifacts/{ARTIFACT}/{FILE}"
"""Where it lies in a model."""
KIND = "urn:personalize:model:1"
LOADER, CODE, SERVED = "mlflow.pyfunc.loaders.code_model", "code", "model.py"
BASE, ADAPTER = "base", "adapter"
"""Artifacts of a model; the base is also the setting that refers to one which is not carried."""
REGISTERED = "registered_model_meta"
"""Where MLflow notes which registered version it fetched."""
VERSION = "PERSONALIZE_MODEL_VERSION"
"""Environment variable of a server: `<name>/<number>` of the version that it serves."""
TRUSTED = "PERSONALIZE_TRUSTED_KEYS"
"""Environment variable of a server: ids of keys, with commas between, of which one must have signed the model."""
CARD, SCORES = "card", "scores"
"""Subjects that lie elsewhere: the papers that the model was registered with."""


def statement_of(root: Path) -> Statement:
    """The statement in a model's folder, its signature checked. Raises EvidenceError in words that follow `it has`."""
    try:
        text = (root / PLACE).read_text(encoding="utf-8")
    except OSError as error:
        raise EvidenceError(f"no statement of what it is made of ({PLACE})") from error
    return read(text, KIND)


def origin(root: Path) -> dict[str, Any]:
    """What a picture's manifest says of the model in a folder: its statement's and its adapter's digests.

    Also its name and number, where MLflow fetched it from a registry and says them, or a server is told (VERSION).
    """
    found = sorted((root / "artifacts" / ADAPTER).glob("*.safetensors"))
    adapters = {path.relative_to(root).as_posix(): files.file_digest(path, "sha256") for path in found}
    stated = {"statement": files.file_digest(root / PLACE, "sha256")} if (root / PLACE).is_file() else {}
    name, _, version = os.environ.get(VERSION, "").rpartition("/")
    with contextlib.suppress(OSError, KeyError, TypeError, ValueError):
        said = files.parse_yaml((root / REGISTERED).read_text(encoding="utf-8"))
        if said["model_name"] and said["model_version"]:  # of a model that is no version yet it says null
            name, version = str(said["model_name"]), str(said["model_version"])
    known = {"registered_model": name, "version": version} if version else {}
    return {**known, **stated, "adapters": adapters}


def unsigned(subjects: Mapping[str, str], held: Mapping[str, Any]) -> str:
    """A statement that nobody signs, for a model that is not registered through the recipe."""
    return write(subjects, KIND, held, None)


def parts(subjects: Mapping[str, str]) -> dict[str, str]:
    """Those subjects that are files of the model."""
    return {name: digest for name, digest in subjects.items() if name not in (CARD, SCORES)}


def reference(statement: Statement) -> Mapping[str, Any] | None:
    """What a model says of the base that it refers to (`files`: sha256 by name); None of one that carries its base."""
    found: Mapping[str, Any] | None = statement.predicate["config"].get(BASE)
    return found


def base_files(statement: Statement) -> dict[str, str]:
    """sha256 of each file of the base by its name there, carried or not: who names the same has the same base."""
    if (referred := reference(statement)) is not None:
        return dict(referred["files"])
    top = f"artifacts/{BASE}/"
    return {name.removeprefix(top): of for name, of in statement.subjects.items() if name.startswith(top)}


def changed(statement: Statement, root: Path, left_out: str = "") -> list[str]:
    """Which files of a model are not as they were registered, in a few words each.

    left_out: the beginning of names that are not looked at. Python's own caches do not count: whoever serves from a
    folder that others may write to keeps them elsewhere (PYTHONPYCACHEPREFIX).
    """
    then = parts(statement.subjects)
    now = {SERVED: root / SERVED} if (root / SERVED).is_file() else {}
    for top in ("artifacts", CODE):
        for folder, folders, names in os.walk(root / top, followlinks=True):
            folders[:] = [name for name in folders if name != "__pycache__"]
            now |= {path.relative_to(root).as_posix(): path for name in names if (path := Path(folder, name)).is_file()}
    found = {name: path for name, path in now.items() if name != PLACE and not (left_out and name.startswith(left_out))}
    wanted = {name: digest for name, digest in then.items() if not (left_out and name.startswith(left_out))}
    return differences(wanted, {name: files.file_digest(path, "sha256") for name, path in sorted(found.items())})


def miswired(statement: Statement, root: Path) -> list[str]:
    """What `MLmodel` says of code, artifacts and settings other than what was registered, in a few words each."""
    try:
        content = files.parse_yaml((root / "MLmodel").read_text(encoding="utf-8"))
        flavor = content["flavors"]["python_function"]
        said = {
            "loader": flavor["loader_module"],
            "code folder": flavor["code"],
            "model": Path(flavor["model_code_path"]).name,
            "place of artifacts": {name: each["path"] for name, each in flavor["artifacts"].items()},
            "settings": flavor["config"],
        }
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        return [f"MLmodel cannot be read ({type(error).__name__}: {error})"]
    carried = (ADAPTER, ARTIFACT) if reference(statement) is not None else (BASE, ADAPTER, ARTIFACT)
    wanted = {
        "loader": LOADER,
        "code folder": CODE,
        "model": SERVED,
        "place of artifacts": {name: f"artifacts/{name}" for name in carried},
        "settings": statement.predicate["config"],
    }
    return [f"MLmodel names another {name}" for name in wanted if said[name] != wanted[name]]


def other_packages(statement: Statement, root: Path) -> list[str]:
    """Which of the files that a server installs from ask for other packages than were registered."""
    try:
        conda = files.parse_yaml((root / "conda.yaml").read_text(encoding="utf-8"))
        asked = {
            "requirements.txt": (root / "requirements.txt").read_text(encoding="utf-8").split(),
            "conda.yaml": next(each["pip"] for each in conda["dependencies"] if isinstance(each, dict)),
        }
    except (OSError, KeyError, TypeError, StopIteration, ValueError) as error:
        return [f"what it installs cannot be read ({type(error).__name__}: {error})"]
    wanted = sorted(statement.predicate["packages"])
    return [f"{name} asks for other packages" for name, packages in asked.items() if sorted(packages) != wanted]


def check_before_loading(folder: Path) -> Statement:
    """The model's own look at itself -> its statement. folder: its artifact `evidence`.

    Raises:
        EvidenceError: something in it is not as it was registered, or nobody whom this server trusts has signed it.
    """
    root = folder.parents[1]
    try:
        statement = statement_of(root)
    except EvidenceError as error:
        raise EvidenceError(f"This model is not loaded: it has {error}.") from error
    trusted = [key.strip() for key in os.environ.get(TRUSTED, "").split(",") if key.strip()]
    if trusted and statement.key not in trusted:
        raise EvidenceError(
            f"This model is not loaded: it is signed by {short(statement.key)}, and not with a key of {TRUSTED}."
        )
    if wrong := changed(statement, root) + miswired(statement, root):
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise EvidenceError(f"This model is not loaded, it is not the one that was registered: {wrong[0]}{more}.")
    print(f"{len(parts(statement.subjects))} files are as {short(statement.key)} has registered them", flush=True)
    return statement
