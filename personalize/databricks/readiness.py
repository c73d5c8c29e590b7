"""Waiting until Databricks serves a new version: what it says meanwhile, and the end of its logs when it does not.

A container is built for as long as that takes; then a version has 60 minutes to come up on small and medium GPUs, 120
on large ones (docs.databricks.com, model-serving-timeouts). Databricks ends what takes longer. So the patience here is
for silence: it begins anew whenever the workspace says something new.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from personalize.databricks.entities import CPUS, see
from personalize.serving.endpoint import EndpointError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

REPORT_EVERY_S = 30
LOG_LINES = 30
SPARE_S = 15 * 60
_MEDIUM = ("GPU_SMALL", "GPU_MEDIUM", *CPUS)


def patience(workload_type: str) -> float:
    """Seconds of silence after which a version on this compute is given up."""
    return (60 if workload_type in _MEDIUM else 120) * 60 + SPARE_S


def await_ready(
    client: WorkspaceClient,
    name: str,
    served: str,
    patience_s: float,
    poll_s: float,
    report: Callable[[str], None],
) -> None:
    """Returns when the endpoint `name` has taken up `served`, reporting twice a minute.

    Raises:
        EndpointError: Databricks gave up, or nothing new was heard for `patience_s` seconds.
    """
    begun = told = news = time.monotonic()
    last, shown = "", 0
    while True:
        endpoint = see(client, name)
        if endpoint is None:
            raise EndpointError(f"Endpoint {name!r} was deleted while {served} was being put on it.")
        now = time.monotonic()
        waited = f"{(now - begun) / 60:.1f} min"
        said = f" ({endpoint.messages})" if endpoint.messages else ""
        if endpoint.update == "NOT_UPDATING" and endpoint.ready:
            return
        if endpoint.update in ("UPDATE_FAILED", "UPDATE_CANCELED"):
            raise EndpointError(
                f"{served} did not become ready on {name!r}: {endpoint.update} after {waited}{said}. The end of its "
                f"logs:\n{logs(client, name, served)}"
            )
        if now - told >= REPORT_EVERY_S:
            told = now
            lines = build_log(client, name, served)
            for line in lines[max(shown, len(lines) - 5) :]:
                report(f"  {line}")
            if len(lines) != shown or endpoint.messages != last:
                news, shown, last = now, len(lines), endpoint.messages
            report(f"{served}: {waited}{said}")
        if now - news > patience_s:
            raise EndpointError(
                f"{served} was not ready on {name!r} after {waited}, and nothing new was heard for "
                f"{patience_s / 60:.0f} min; Databricks may go on: `-P action=status` looks, the same command again "
                f"waits on. The end of its logs:\n{logs(client, name, served)}"
            )
        time.sleep(poll_s)


def build_log(client: WorkspaceClient, name: str, served: str) -> list[str]:
    """The lines of a version's build log, as far as they can be read."""
    from databricks.sdk.errors import DatabricksError

    try:
        return (client.serving_endpoints.build_logs(name, served).logs or "").splitlines()
    except DatabricksError:
        return []


def logs(client: WorkspaceClient, name: str, served: str) -> str:
    """The last lines of a version's build and server logs."""
    from databricks.sdk.errors import DatabricksError

    found = []
    for title, read in (("build", client.serving_endpoints.build_logs), ("server", client.serving_endpoints.logs)):
        try:
            lines = (read(name, served).logs or "").splitlines()
        except DatabricksError as error:
            lines = [f"(cannot be read: {error})"]
        found += [f"[{title}] {line}" for line in lines[-LOG_LINES:]]
    return "\n".join(found) or "(the logs are empty)"
