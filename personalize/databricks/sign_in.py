"""MLflow's store of a Databricks workspace, after a look at whether one is signed in.

MLflow finds this by an entry point of the installed project (`mlflow.tracking_store`, scheme `databricks`), so that the
first message about credentials is a sentence with a way out, and `mlflow run` takes every kind of sign-in: its local
backend would hand on a token or a service principal's secret only, and refuses what `databricks auth login` leaves.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

HANDED_ON = ("pat", "basic", "oauth-m2m", "metadata-service", "runtime", "model-serving")
_until_exit = contextlib.ExitStack()
atexit.register(_until_exit.close)  # a server thread answers no more once the interpreter drops its modules


def tracking_store(store_uri: str, artifact_uri: str | None = None, **_: Any) -> Any:
    """MLflow's own store for `databricks` and `databricks://PROFILE`.

    Raises:
        ExecutionException: no way in; `mlflow run` prints its message without a traceback.
    """
    from mlflow.exceptions import ExecutionException
    from mlflow.tracking._tracking_service.utils import _get_databricks_rest_store

    from personalize.databricks.workspace import WorkspaceError, connect, profile_of

    try:
        client = connect(profile=profile_of(store_uri))
    except WorkspaceError as error:
        raise ExecutionException(str(error)) from error
    if _is_mlflow_run(sys.argv) and client.config.auth_type not in HANDED_ON:
        _renew_for_children(client)
        store_uri = "databricks"
    return _get_databricks_rest_store(store_uri)


def _is_mlflow_run(words: list[str]) -> bool:
    return Path(words[0]).name in ("mlflow", "mlflow.exe", "__main__.py") and words[1:2] == ["run"]


def _renew_for_children(client: WorkspaceClient) -> None:
    """From here on this process, and what it starts, asks a loopback service that this sign-in answers for."""
    import mlflow

    from personalize.databricks.renewal import renewing

    variables = _until_exit.enter_context(renewing(str(client.config.host), client.config.authenticate))
    os.environ.pop("DATABRICKS_CONFIG_PROFILE", None)
    os.environ.update(variables)
    mlflow.set_tracking_uri("databricks")
