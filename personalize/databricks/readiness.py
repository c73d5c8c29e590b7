"""Waiting until Databricks serves a new version: what it says meanwhile, and the end of its logs when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from personalize.serving.endpoint import EndpointError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.serving import ServedEntityOutput, ServingEndpointDetailed

REPORT_EVERY_S = 30
LOG_LINES = 30


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
        EndpointError: Databricks gave up, or `patience_s` seconds have passed.
    """
    begun = told = time.monotonic()
    while True:
        endpoint = client.serving_endpoints.get(name)
        update = endpoint.state.config_update if endpoint.state else None
        ready = endpoint.state.ready if endpoint.state else None
        waited = time.monotonic() - begun
        if update is not None and update.value == "NOT_UPDATING" and ready is not None and ready.value == "READY":
            return
        if update is not None and update.value in ("UPDATE_FAILED", "UPDATE_CANCELED"):
            raise EndpointError(
                f"{served} did not become ready on {name!r}: {update.value} after {waited / 60:.0f} min"
                f"{what_databricks_says(endpoint)}. The end of its logs:\n{logs(client, name, served)}"
            )
        if waited > patience_s:
            raise EndpointError(
                f"{served} was not ready on {name!r} after {waited / 60:.0f} min; Databricks may go on: "
                f"`-P action=status` looks. The end of its logs:\n{logs(client, name, served)}"
            )
        if time.monotonic() - told >= REPORT_EVERY_S:
            told = time.monotonic()
            report(f"{served}: {waited / 60:.1f} min{what_databricks_says(endpoint)}")
        time.sleep(poll_s)


def what_databricks_says(endpoint: ServingEndpointDetailed) -> str:
    """` (its messages about the versions on the endpoint)`, or nothing."""
    entities: list[ServedEntityOutput] = []
    for config in (endpoint.pending_config, endpoint.config):
        entities += (config.served_entities or []) if config else []
    messages = [entity.state.deployment_state_message for entity in entities if entity.state]
    said = "; ".join(dict.fromkeys(message for message in messages if message))
    return f" ({said})" if said else ""


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
