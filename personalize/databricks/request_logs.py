"""Where an endpoint logs requests and answers: the table of AI Gateway or that of endpoint telemetry.

A workspace has one of them or both (telemetry is not there on Default Storage, nor in every region), and does not say
which. So AI Gateway is asked first, then telemetry, before anything is built.

Sources: docs.databricks.com, ai-gateway/configure-ai-gateway-endpoints and model-serving/custom-model-serving-uc-logs;
`AiGatewayConfig` and `TelemetryConfig` in the SDK's serving.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from personalize.databricks.workspace import WorkspaceError

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from personalize.databricks.entities import Seen

ENDPOINTS = "/api/2.0/serving-endpoints"


def configurations(name: str, schema: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the endpoint `name`, as parts of its description: by AI Gateway, by telemetry. schema: catalog.schema."""
    catalog, within = schema.split(".")
    prefix = name.replace("-", "_")
    gateway = {"catalog_name": catalog, "schema_name": within, "table_name_prefix": prefix, "enabled": True}
    telemetry = {
        "enabled_telemetry_features": ["TELEMETRY_FEATURE_INFERENCE_TABLE"],
        "inference_table_config": {"name": f"{schema}.{prefix}_payload", "sampling_fraction": 1.0},
    }
    return {"ai_gateway": {"inference_table_config": gateway}}, {"telemetry_config": telemetry}


def create(client: WorkspaceClient, body: dict[str, Any], schema: str) -> None:
    """A new endpoint that logs its requests in `schema`, or none where that is empty."""
    do = partial(client.api_client.do, "POST", ENDPOINTS)
    logged = configurations(body["name"], schema) if schema else ({},)
    _first([partial(do, body={**body, **one}) for one in logged], schema)


def turn_on(client: WorkspaceClient, name: str, schema: str, endpoint: Seen) -> None:
    """The same of an endpoint that is there; nothing where it does so already, or `schema` is empty."""
    if not schema:
        return
    gateway, telemetry = configurations(name, schema)
    has = endpoint.raw.get("ai_gateway") or {}
    if has.get("inference_table_config") == gateway["ai_gateway"]["inference_table_config"]:
        return
    if endpoint.raw.get("telemetry_config") == telemetry["telemetry_config"]:
        return
    do, path = client.api_client.do, f"{ENDPOINTS}/{name}"
    put = partial(do, "PUT", f"{path}/ai-gateway", body={**has, **gateway["ai_gateway"]})
    _first([put, partial(do, "PATCH", f"{path}/telemetry-config", body=telemetry)], schema)


def _first(ways: list[Callable[[], Any]], schema: str) -> None:
    """The first way that this workspace has. What all refuse alike is no matter of the way."""
    from databricks.sdk.errors import BadRequest, NotFound, NotImplemented

    refused: dict[str, Exception] = {}
    for way in ways:
        try:
            way()
        except (BadRequest, NotFound, NotImplemented) as error:
            refused.setdefault(str(error), error)
            continue
        return
    if len(refused) == 1:
        raise next(iter(refused.values()))
    said = " ".join(words.split("\n")[0].rstrip(".") + "." for words in refused)
    raise WorkspaceError(f"No requests can be logged in {schema}: {said} Deploy without deploy.inference_table.")
