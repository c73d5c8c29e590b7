"""Checking a model from outside, by the statement that it carries, before anything in it is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from personalize.evidence.package import ARTIFACT, PLACE, changed, miswired, other_packages, statement_of
from personalize.evidence.statement import EvidenceError, Statement, differences
from personalize.files import scratch, tree_files

if TYPE_CHECKING:
    from personalize.serving.registry import ModelVersion

BASE, ADAPTER = "artifacts/base", "artifacts/adapter"


def check_model(model: ModelVersion) -> tuple[Statement, list[str]]:
    """Its statement, and what is not as it says, each in a few words.

    A model on this disk is read whole. Of one that lies elsewhere everything but the base's weights is fetched; those
    it checks itself before it loads, with code that was checked here.

    Raises:
        EvidenceError: it has no statement that can be read, in words that follow `it has`.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.utils.file_utils import local_file_uri_to_path

    try:
        source = (
            MlflowClient().get_model_version_download_uri(model.name, model.version) if model.version else model.uri
        )
        here = Path(local_file_uri_to_path(source))
        if (here / "MLmodel").is_file():
            return _checked(here)
        with scratch("checking") as folder:
            _fetch(model.uri, folder)
            return _checked(folder, left_out=f"{BASE}/")
    except (MlflowException, OSError) as error:
        raise EvidenceError(f"files that cannot be had ({error})") from error


def check_adapter(name: str, version: str | int) -> tuple[Path, Statement, list[str]]:
    """The folder of a registered version's adapter, the model's statement, and what of the adapter is not as it says.

    Nothing else of the model is fetched. Raises EvidenceError in words that follow `it has`.
    """
    from mlflow.exceptions import MlflowException

    from personalize.serving.package import artifact_of

    try:
        adapter = artifact_of(name, version, "adapter")
        statement = statement_of(artifact_of(name, version, ARTIFACT).parents[1])
        found = {f"{ADAPTER}/{file}": digest for file, digest in tree_files(adapter).items()}
    except (MlflowException, OSError) as error:
        raise EvidenceError(f"no adapter with a statement of what it is ({error})") from error
    wanted = {file: digest for file, digest in statement.subjects.items() if file.startswith(f"{ADAPTER}/")}
    return adapter, statement, differences(wanted, found)


def check_folder(root: Path) -> list[str]:
    """What in a model's folder is not as its statement says; nothing of a model that carries none.

    Raises EvidenceError where its statement cannot be read.
    """
    return _checked(root)[1] if (root / PLACE).exists() else []


def _checked(root: Path, left_out: str = "") -> tuple[Statement, list[str]]:
    statement = statement_of(root)
    return statement, changed(statement, root, left_out) + miswired(statement, root) + other_packages(statement, root)


def _fetch(uri: str, folder: Path) -> None:
    """Everything in a model but the base, which has the gigabytes."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    repository = get_artifact_repository(uri)
    names = [each.path for each in repository.list_artifacts(None) if each.path != "artifacts"]
    names += [each.path for each in repository.list_artifacts("artifacts") if each.path != BASE]
    for name in names:
        repository.download_artifacts(name, dst_path=str(folder))
