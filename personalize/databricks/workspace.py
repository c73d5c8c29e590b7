"""The way into a workspace, with errors that say what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient


class WorkspaceError(ValueError):
    """A workspace could not be reached, or forbids what was asked; the message says which, why and the way out."""


def connect(timeout_s: float = 60) -> WorkspaceClient:
    """A client of the workspace that the environment names; a request may take `timeout_s` seconds.

    Raises:
        WorkspaceError: there are no credentials, or they are incomplete.
    """
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.config import Config

    try:
        return WorkspaceClient(config=Config(http_timeout_seconds=timeout_s, retry_timeout_seconds=60))
    except ValueError as error:
        raise WorkspaceError(
            f"No way into a Databricks workspace: {error}\nSet DATABRICKS_HOST and DATABRICKS_TOKEN, or log in with "
            "`databricks auth login` and set DATABRICKS_CONFIG_PROFILE."
        ) from error
