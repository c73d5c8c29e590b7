"""A version in Unity Catalog, whose gigabytes go on where a registration before was cut.

MLflow makes a version, uploads the model's files and says that all are there; what was cut stays behind as a version
that is pending, and the next registration makes another and sends everything again. Here the pending version of the
very same logged model is taken up: its files that are whole are not sent again, and of a large one that is not, the
parts that this working directory remembers (`uploads`). A logged model never changes, so the files are the same.

Where a workspace stores models through the Files API, that is by parts; where it hands out credentials or addresses of
its cloud's own store, by files: of their uploads in parts MLflow keeps no session.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.store._unity_catalog.registry.rest_store import UcModelRegistryStore

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

PENDING = "PENDING_REGISTRATION"
AWAIT_S = 1800


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


def missing(store: ArtifactRepository, model: Path, folder: Path) -> list[str]:
    """Brings those files of `model` to `folder` that the store has not, or not whole; their names.

    A file in a store is there when it is whole, so its size tells.
    """
    there = dict(sizes(store, ""))
    found = []
    for file in sorted(path for path in model.rglob("*") if path.is_file()):
        name = file.relative_to(model).as_posix()
        if there.get(name) == file.stat().st_size:
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
