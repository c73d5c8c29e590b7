"""The way into a workspace, with errors that say what is missing."""

from __future__ import annotations

import configparser
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

KNOCK_S = 5
RETRY_S = 60
WAYS_IN = (
    "Sign in with `databricks auth login --profile NAME` and set MLFLOW_TRACKING_URI=databricks://NAME, or set "
    "DATABRICKS_HOST with DATABRICKS_TOKEN, or with a service principal's DATABRICKS_CLIENT_ID and "
    "DATABRICKS_CLIENT_SECRET."
)


class WorkspaceError(ValueError):
    """A workspace could not be reached, or forbids what was asked; the message says which, why and the way out."""


def connect(timeout_s: float = 60, profile: str = "") -> WorkspaceClient:
    """A client of the workspace that is meant; a request may take `timeout_s` seconds.

    profile: of ~/.databrickscfg; none is the one of MLFLOW_TRACKING_URI=databricks://PROFILE, else what the SDK finds.

    Raises:
        WorkspaceError: there are no credentials, they are incomplete or refused, or nothing answers at the host.
    """
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.config import Config

    profile = profile or profile_of(os.environ.get("MLFLOW_TRACKING_URI", ""))
    knock(profile)
    named: dict[str, Any] = {"profile": profile} if profile else {}
    try:
        config = Config(http_timeout_seconds=timeout_s, retry_timeout_seconds=RETRY_S, **named)
        config.authenticate()
    except Exception as error:  # SDK strategies raise what their HTTP client or a CLI raises
        raise WorkspaceError(f"No way into a Databricks workspace: {_first_line(error)} {WAYS_IN}") from error
    return WorkspaceClient(config=config)


def profile_of(tracking_uri: str) -> str:
    """`NAME` of `databricks://NAME`; `databricks://scope:prefix` names a secret, not a profile."""
    name = tracking_uri.partition("databricks://")[2].rstrip("/")
    return "" if ":" in name else name


def knock(profile: str = "") -> None:
    """Raises WorkspaceError within seconds where the host has no name or nothing answers there.

    The SDK would try for minutes. Behind a proxy it is the proxy that knows, so nothing is asked.
    """
    import requests.utils

    host = _host(profile)
    if not host:
        return
    parts = urlsplit(host if "//" in host else f"https://{host}")
    if requests.utils.get_environ_proxies(parts.geturl()):
        return
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 443), timeout=KNOCK_S):
            pass
    except OSError as error:
        raise WorkspaceError(f"Nothing answers at {host} ({error}). Check DATABRICKS_HOST or the profile.") from error


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """What the SDK raises inside becomes a WorkspaceError: what was being done, what the workspace says, who asks."""
    from databricks.sdk.errors import DatabricksError, PermissionDenied, Unauthenticated
    from requests.exceptions import RequestException

    try:
        yield
    except (PermissionDenied, Unauthenticated) as error:
        said = _first_line(error)
        way_out = f" {WAYS_IN}" if isinstance(error, Unauthenticated) or "access token" in said else ""
        raise WorkspaceError(f"The workspace does not allow {doing}: {said}{way_out}") from error
    except DatabricksError as error:
        raise WorkspaceError(f"The workspace refuses {doing}: {_first_line(error)}") from error
    except (TimeoutError, RequestException) as error:
        raise WorkspaceError(f"The workspace did not answer while {doing}: {_first_line(error)} Try again.") from error


def _host(profile: str) -> str:
    """Where the SDK would go, as far as environment and ~/.databrickscfg say."""
    profile = profile or os.environ.get("DATABRICKS_CONFIG_PROFILE", "")
    if not profile and "DATABRICKS_HOST" in os.environ:
        return os.environ["DATABRICKS_HOST"]
    file = configparser.ConfigParser()
    with contextlib.suppress(OSError, configparser.Error):
        file.read(Path(os.environ.get("DATABRICKS_CONFIG_FILE", "~/.databrickscfg")).expanduser())
    name = profile or "DEFAULT"
    return file.get(name, "host", fallback="") if name == "DEFAULT" or file.has_section(name) else ""


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0].partition(". Config: ")[0].partition(", please check http")[0]
    return (text or type(error).__name__).rstrip(".") + "."
