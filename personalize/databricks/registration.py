"""A logged model and its version in Unity Catalog, whose gigabytes go on where they were cut before.

MLflow makes a logged model, packs its files, uploads them and says that they are all there; where that was cut, it says
that the model has failed, which is for good. Here it stays pending, and the next try goes on with it (`going_on`): what
is large and there is not sent again. What is small is, since MLmodel and statement are written anew.

MLflow makes a version, uploads the model's files and says that all are there; what was cut stays behind as a version
that is pending, and the next registration makes another and sends everything again. Here the pending version of the
very same logged model is taken up: its files that are whole are not sent again, and of a large one that is not, the
parts that this working directory remembers (`uploads`). A logged model never changes, so the files are the same.

Where a workspace stores models through the Files API, that is by parts; where it hands out credentials or addresses of
its cloud's own store, by files: of their uploads in parts MLflow keeps no session.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.store._unity_catalog.registry.rest_store import UcModelRegistryStore
from mlflow.store.artifact.databricks_logged_model_artifact_repo import DatabricksLoggedModelArtifactRepository

from personalize.databricks.workspace import WorkspaceError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

PENDING = "PENDING_REGISTRATION"
AWAIT_S = 1800


class _Cut(BaseException):
    """An upload was cut. Of an Exception MLflow makes a logged model that has failed, which is for good."""


@contextlib.contextmanager
def going_on() -> Iterator[None]:
    """A logged model that is uploaded inside to a workspace stays pending where that is cut, and can be gone on with.

    Raises:
        WorkspaceError: it was cut.
    """
    from mlflow.store.artifact import artifact_repository_registry
    from mlflow.store.artifact.dbfs_artifact_repo import dbfs_artifact_repo_factory

    def made(artifact_uri: str, *where: Any, **more: Any) -> ArtifactRepository:
        if DatabricksLoggedModelArtifactRepository.is_logged_model_uri(artifact_uri):
            return LoggedModelFiles(artifact_uri.rstrip("/"), *where, **more)
        return dbfs_artifact_repo_factory(artifact_uri, *where, **more)

    known = artifact_repository_registry._artifact_repository_registry
    known.register("dbfs", made)
    try:
        yield
    except _Cut as cut:
        raise WorkspaceError(
            f"The upload of the model was cut: {cut.__cause__} The same command again goes on with it."
        ) from cut.__cause__
    finally:
        known.register("dbfs", dbfs_artifact_repo_factory)


class LoggedModelFiles(DatabricksLoggedModelArtifactRepository):
    """MLflow's files of a logged model in a workspace; of those of a model, what is large and there is not sent again.

    Like MLflow's, it sends by the Files API, and what that could not by addresses of the cloud's own store.
    """

    def __init__(self, *where: Any, **more: Any) -> None:
        from personalize.databricks.uploads import resuming

        super().__init__(*where, **more)
        self.databricks_sdk_repo.wc._files = resuming(self.databricks_sdk_repo.wc)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        if artifact_path:
            return super().log_artifacts(local_dir, artifact_path)
        least = self.databricks_sdk_repo.wc.config.files_ext_multipart_upload_min_stream_size
        first: Exception | None = None
        for way in (self.databricks_sdk_repo, self.databricks_artifact_repo):
            try:
                with tempfile.TemporaryDirectory() as folder:
                    missing(self, Path(local_dir), Path(folder), least)
                    way.log_artifacts(folder)
                return
            except Exception as error:
                first = first or error
        raise _Cut from first


def register(model_uri: str, name: str, tags: Mapping[str, str]) -> ModelVersion:
    """A logged model as the newest version of `name` in Unity Catalog, by MLflow's own `register_model`.

    Raises:
        MlflowException: it is refused, or a file could not be sent; the same call again goes on from there.
    """
    import mlflow
    from mlflow.store._unity_catalog.registry.utils import get_uc_model_registry_store_class
    from mlflow.tracking._model_registry.registry import ModelRegistryStoreRegistry
    from mlflow.tracking._model_registry.utils import _get_store_registry

    if get_uc_model_registry_store_class() is UcModelRegistryStore:  # not where MLflow is told to take its other one
        _get_store_registry().register("databricks-uc", Store)
        ModelRegistryStoreRegistry._get_store_with_resolved_uri.cache_clear()  # it may have made one before
    return mlflow.register_model(model_uri, name, await_registration_for=AWAIT_S, tags=dict(tags))


class Store(UcModelRegistryStore):
    """MLflow's store of Unity Catalog, which takes up a version that is pending, of the same logged model."""

    def _create_and_finalize_model_version(self, **asked: Any) -> ModelVersion:
        from mlflow.utils._unity_catalog_utils import model_version_from_uc_proto

        name = asked["full_name"]
        begun = self._begun(name, asked["source"])
        if begun is None:
            return super()._create_and_finalize_model_version(**asked)
        print(f"version {begun.version} is of this very model, and its upload was cut; it is gone on with", flush=True)
        store = self._get_artifact_repo(begun, name)
        with tempfile.TemporaryDirectory() as folder:
            if missing(store, Path(asked["local_model_dir"]), Path(folder)):
                store.log_artifacts(local_dir=folder, artifact_path="")
        return model_version_from_uc_proto(self._finalize_model_version(name=name, version=begun.version))

    def _begun(self, name: str, source: str) -> Any:
        """The newest version of this source that is pending, as the catalog describes it; None where there is none."""
        from mlflow.protos.databricks_uc_registry_messages_pb2 import GetModelVersionRequest
        from mlflow.utils.proto_json_utils import message_to_json

        found = [one for one in self.search_model_versions(f"name='{name}'") if one.status == PENDING]
        of_this = [int(one.version) for one in found if one.source == source]
        if not of_this:
            return None
        asked = message_to_json(GetModelVersionRequest(name=name, version=str(max(of_this))))
        return self._call_endpoint(GetModelVersionRequest, asked).model_version

    def _get_artifact_repo(self, *asked: Any, **more: Any) -> ArtifactRepository:
        from mlflow.store.artifact.databricks_sdk_models_artifact_repo import DatabricksSDKModelsArtifactRepository

        from personalize.databricks.uploads import resuming

        found = super()._get_artifact_repo(*asked, **more)
        if isinstance(found, DatabricksSDKModelsArtifactRepository):
            found.client._files = resuming(found.client)
        return found


def missing(store: ArtifactRepository, model: Path, folder: Path, least: int = 0) -> list[str]:
    """Brings those files of `model` to `folder` that the store has not, or not whole; their names.

    A file in a store is there when it is whole, so its size tells; files of fewer bytes than `least` are all brought.
    """
    there = dict(sizes(store, ""))
    found = []
    for file in sorted(path for path in model.rglob("*") if path.is_file()):
        name = file.relative_to(model).as_posix()
        if least <= file.stat().st_size == there.get(name):
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(file.resolve(), target)
        found.append(name)
    return found


def sizes(store: ArtifactRepository, path: str) -> Iterator[tuple[str, int]]:
    """Name and size in bytes of every file below `path` of a store."""
    for entry in store.list_artifacts(path):
        if entry.is_dir:
            yield from sizes(store, entry.path)
        else:
            yield entry.path, int(entry.file_size or 0)
