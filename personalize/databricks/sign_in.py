"""MLflow's store of a Databricks workspace, after a look at whether one is signed in; and the experiment of a run.

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

from personalize_mlflow import is_mlflow_run

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

    from personalize.databricks.workspace import WorkspaceError, connect, explained, profile_of

    profile = profile_of(store_uri)
    try:
        client = connect(profile=profile)
        if is_mlflow_run():
            with explained("signing in"):
                client.current_user.me()  # what is refused is refused before anything is begun
    except WorkspaceError as error:
        raise ExecutionException(str(error)) from error
    if is_mlflow_run() and client.config.auth_type not in HANDED_ON:
        _renew_for_children(client)
        store_uri = "databricks"
    elif profile and not is_mlflow_run():  # MLflow asks the SDK for artifacts, and does not tell it the profile
        os.environ.setdefault("DATABRICKS_CONFIG_PROFILE", profile)
    return _get_databricks_rest_store(store_uri)


def wants_experiment() -> bool:
    """Whether this is `mlflow run` in a workspace, of a run that is not there yet."""
    from mlflow.tracking import get_tracking_uri

    begun = any("_mlflow_local_backend_run_id" in word for word in sys.argv)
    return is_mlflow_run() and not begun and get_tracking_uri().startswith("databricks")


def project_experiment() -> str | None:
    """Id of the experiment that the profile of this `mlflow run` names, made where it is missing.

    A workspace's experiments have absolute paths, so a profile that names none has that of `databricks`. None without
    a recipe, or without a way in, which the run itself will say.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import ExecutionException

    from personalize.recipe.config import load_profile
    from personalize.recipe.errors import RecipeError

    words = [word.removeprefix("-P") for word in sys.argv[2:]]
    root = next((Path(word) for word in words if Path(word, "recipe.yaml").is_file()), None)
    named = [word.partition("=")[2] for word in words if word.startswith("profile=")]
    if root is None:
        return None
    for profile in (*named, "databricks"):
        try:
            name = str(load_profile(root, profile).experiment.get("name") or "")
        except RecipeError:
            continue
        if name.startswith("/"):
            break
    else:
        return None
    try:
        client = MlflowClient()
        found = client.get_experiment_by_name(name)
        return str(found.experiment_id) if found else str(client.create_experiment(name))
    except ExecutionException:
        return None


def _renew_for_children(client: WorkspaceClient) -> None:
    """From here on this process, and what it starts, asks a loopback service that this sign-in answers for."""
    import mlflow

    from personalize.databricks.renewal import renewing

    variables = _until_exit.enter_context(renewing(str(client.config.host), client.config.authenticate))
    os.environ.pop("DATABRICKS_CONFIG_PROFILE", None)
    os.environ.update(variables)
    mlflow.set_tracking_uri("databricks")
