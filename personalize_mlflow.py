"""What MLflow finds of this project by entry points when it is imported, anywhere: no more than these names.

A server imports MLflow before it loads a model, and a model brings `personalize` as it was when it was registered. Were
that package imported here, the checkout's code would be served in place of the model's own.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any


def tracking_store(store_uri: str, artifact_uri: str | None = None, **more: Any) -> Any:
    """The store of a Databricks workspace: `personalize.databricks.sign_in`, or MLflow's own.

    The `personalize` that a served model brings has no such room, and needs none.
    """
    try:
        from personalize.databricks import sign_in
    except ImportError:
        from mlflow.tracking._tracking_service.utils import _get_databricks_rest_store

        return _get_databricks_rest_store(store_uri)
    return sign_in.tracking_store(store_uri, artifact_uri, **more)


def served_store(store_uri: str, artifact_uri: str | None = None, **_: Any) -> Any:
    """MLflow's own store of an http server; before `mlflow run` uses it, one look at whether it answers.

    MLflow itself asks a server that is away for two minutes, without a word.
    """
    from mlflow.tracking._tracking_service.utils import _get_rest_store

    if is_mlflow_run():
        with contextlib.suppress(ImportError):
            from personalize.recipe.tracking import refuse_unanswered

            refuse_unanswered(store_uri)
    return _get_rest_store(store_uri)


class ProjectExperiment:
    """The experiment of `mlflow run` in a workspace where none is named: MLflow itself has none there, and fails."""

    def in_context(self) -> bool:
        """Whether this process is such a run."""
        if not is_mlflow_run():
            return False
        try:
            from personalize.databricks import sign_in
        except ImportError:
            return False
        return sign_in.wants_experiment()

    def get_experiment_id(self) -> str | None:
        """That of the profile, made where it is missing."""
        from personalize.databricks import sign_in

        return sign_in.project_experiment()


def is_mlflow_run() -> bool:
    """Whether this process is `mlflow run`, as a person types it."""
    return sys.argv[1:2] == ["run"] and Path(sys.argv[0]).name in ("mlflow", "mlflow.exe", "__main__.py")
