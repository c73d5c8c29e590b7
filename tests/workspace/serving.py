"""Model Serving.

Rules (docs/machine-learning/model-serving, SDK service/serving.py): an endpoint's name is letters, digits, dashes and
underscores, up to 63, and does not begin with `databricks-`; an endpoint that is there already is 409 (cli); it serves
registered, READY versions that its creator may EXECUTE; workload type and size are among the known ones, and a type is
one of the cloud's; more than one entity needs an explicit traffic_config (cli), which adds up to 100 and names served
entities; at most 30 environment variables an entity; `{{secrets/scope/key}}` must name a secret; one update at a time
(409); a container is built before it answers, and a version that cannot load, or whose update is refused, leaves the
configuration before in force; a body over 16 MB is refused; a request over 297 s is 504, however long it was that a
version scaled to zero needed to come up, and that goes on coming up (model-serving-timeouts); at most 20 tags; a budget
policy is one that the creator may use (docs/admin/usage/budget-policies).

Requests are logged by the inference table of AI Gateway, which needs CREATE TABLE on its schema, or by telemetry, which
is not there on Default Storage and is 409 while an update is in progress (custom-model-serving-uc-logs; cli). A
workspace has one of them or both.

A served model is the registered one; `kind` says in what it runs.
"""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.workspace.catalog import Catalog
from tests.workspace.containers import Container, InProcess
from tests.workspace.errors import Refused, denied, exists, invalid, missing
from tests.workspace.jobs import check_policy
from tests.workspace.registry import Registry

CPUS = {"CPU", "CPU_MEDIUM", "CPU_LARGE"}
GPUS = {
    "aws": {"GPU_SMALL", "GPU_MEDIUM", "MULTIGPU_MEDIUM", "GPU_XLARGE", "GPU_XLARGE_8", "GPU_MEDIUM_8"},
    "azure": {"GPU_SMALL", "GPU_LARGE", "GPU_LARGE_2"},
    "gcp": {"GPU_MEDIUM"},
}
SIZES = {"Small", "Medium", "Large"}
MAX_PAYLOAD = 16_000_000
LONGEST_S = 297.0


class Serving:
    """looks_until_ready: how often an update is seen in progress. comes_up_s: of an endpoint scaled to zero."""

    def __init__(self, registry: Registry, catalog: Catalog, looks_until_ready: int = 2) -> None:
        self.registry, self.catalog = registry, catalog
        self.looks_until_ready = looks_until_ready
        self.cloud = "aws"
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.permissions: dict[str, list[dict[str, Any]]] = {}
        self.secrets: set[str] = set()
        self.kind: type[InProcess | Container] = InProcess
        self.loaded: dict[tuple[str, str], InProcess | Container] = {}
        self.longest_s, self.comes_up_s = LONGEST_S, 0.0
        self.asleep: set[str] = set()
        self.waking = threading.Lock()
        self.threads = ThreadPoolExecutor(8)
        self.policies: dict[str, set[str]] = {}
        self.has_gateway, self.has_telemetry = True, True
        self.refuse_updates = ""
        self.build_fails = ""

    def rest(self, method: str, rest: str, body: dict[str, Any], principal: str) -> Any:
        """/api/2.0/serving-endpoints..."""
        if method == "POST" and not rest:
            return self.create(body, principal)
        name, _, part = rest.partition("/")
        if method == "GET" and not part:
            level = self.level(name, principal)
            return {**self.look(name), "permission_level": level}
        endpoint = self.manage(name, principal)
        if method == "DELETE" and not part:
            del self.endpoints[name]
            return {}
        if method == "PUT" and part == "config":
            return self.update(name, body, principal)
        if method == "POST" and part in ("config:stop", "config:start"):
            return self.suspend(endpoint, part == "config:stop")
        if method == "PUT" and part == "ai-gateway":
            self.check_gateway(body, principal)
            endpoint["ai_gateway"] = body
            return body
        if method == "PATCH" and part == "telemetry-config":
            if endpoint["update"] == "IN_PROGRESS":
                raise Refused(409, "RESOURCE_CONFLICT", f"Endpoint '{name}' is being updated")
            self.check_telemetry(body.get("telemetry_config"), principal)
            endpoint["telemetry_config"] = body.get("telemetry_config")
            return self.describe(name)
        if method == "PATCH" and part == "tags":
            added = {tag["key"]: tag["value"] for tag in [*endpoint["tags"], *body.get("add_tags", [])]}
            if len(added) > 20:
                raise invalid("An endpoint can have at most 20 tags")
            endpoint["tags"] = [{"key": key, "value": value} for key, value in added.items()]
            return {"tags": endpoint["tags"]}
        if part.endswith("/build-logs"):
            return {"logs": endpoint["build_logs"].get(part.split("/")[1], "")}
        if part.endswith("/logs"):
            return {"logs": ""}
        raise missing(f"No API found for '{method} /serving-endpoints/{rest}'")

    def permit(self, endpoint_id: str, body: dict[str, Any], principal: str) -> dict[str, Any]:
        """PATCH /api/2.0/permissions/serving-endpoints/{id}: the id, not the name (SDK)."""
        name = next((name for name, one in self.endpoints.items() if one["id"] == endpoint_id), None)
        if name is None:
            raise missing(f"Endpoint {endpoint_id} does not exist.")
        self.manage(name, principal)
        self.permissions.setdefault(name, []).extend(body["access_control_list"])
        return {"access_control_list": self.permissions[name]}

    def suspend(self, endpoint: dict[str, Any], stop: bool) -> dict[str, Any]:
        """Stopping keeps the configuration; starting makes a new version of it, which is an update in progress."""
        if endpoint["update"] == "IN_PROGRESS":
            raise Refused(409, "RESOURCE_CONFLICT", f"Endpoint '{endpoint['name']}' is being updated")
        if stop:
            endpoint |= {"suspended": True}
        else:
            looks = self.looks_until_ready
            endpoint |= {"suspended": False, "pending": endpoint["active"], "looks": looks, "update": "IN_PROGRESS"}
        return self.describe(endpoint["name"])

    def level(self, name: str, principal: str) -> str:
        try:
            self.manage(name, principal)
        except Refused:
            return "CAN_QUERY" if name in self.endpoints else ""
        return "CAN_MANAGE"

    def manage(self, name: str, principal: str) -> dict[str, Any]:
        endpoint = self.endpoint(name)
        levels = [
            one["permission_level"]
            for one in self.permissions.get(name, [])
            if principal in (one.get("user_name"), one.get("service_principal_name"))
        ]
        if endpoint["creator"] != principal and "CAN_MANAGE" not in levels:
            raise denied(f"User {principal} does not have permission CAN_MANAGE on endpoint '{name}'.")
        return endpoint

    def check_config(self, config: dict[str, Any], principal: str) -> None:
        entities = config.get("served_entities") or []
        if not entities:
            raise invalid("served_entities must not be empty")
        names = [entity.get("name") for entity in entities]
        if len(set(names)) != len(names):
            raise invalid("served entity names must be unique")
        for entity in entities:
            self.check_entity(entity, principal)
        if len(entities) > 1 and not config.get("traffic_config"):
            raise invalid("traffic_config is required for more than one served entity")
        routes = (config.get("traffic_config") or {}).get("routes") or []
        if sum(route["traffic_percentage"] for route in routes) != 100:
            raise invalid("traffic percentages must sum up to 100")
        if {route.get("served_entity_name") for route in routes} - set(names):
            raise invalid("a traffic route names an entity that is not served")

    def check_entity(self, entity: dict[str, Any], principal: str) -> None:
        name, version = entity.get("entity_name", ""), entity.get("entity_version")
        if name.count(".") != 2:
            raise invalid(f"'{name}' is not a Unity Catalog model name")
        known = self.registry.models.get(name, {}).get("versions", {}).get(version)
        if known is None or known["status"] != "READY":
            raise missing(f"Version {version} of '{name}' does not exist or is not ready")
        self.catalog.need(name, principal, "EXECUTE")
        if entity.get("workload_type", "CPU") not in CPUS | GPUS[self.cloud]:
            raise invalid(f"Workload type '{entity['workload_type']}' is not supported")
        bounds = entity.get("min_provisioned_concurrency"), entity.get("max_provisioned_concurrency")
        if (entity.get("workload_size") is None) == (None in bounds):
            raise invalid("one of workload_size and min_ and max_provisioned_concurrency must be given")
        if entity.get("workload_size") not in {None, *SIZES}:
            raise invalid(f"Workload size '{entity.get('workload_size')}' is not one of Small, Medium, Large")
        if None not in bounds and (bounds[0] % 4 or bounds[1] % 4 or bounds[0] > bounds[1]):
            raise invalid("provisioned concurrency is a multiple of 4, and min is not above max")
        variables = entity.get("environment_vars") or {}
        if len(variables) > 30:
            raise invalid("at most 30 environment variables are allowed for a served entity")
        for value in variables.values():
            named = re.fullmatch(r"\{\{secrets/([^/]+/[^/]+)\}\}", value)
            if named and named[1] not in self.secrets:
                raise invalid(f"Secret {named[1]} does not exist or cannot be read")

    def check_gateway(self, gateway: dict[str, Any] | None, principal: str) -> None:
        table = (gateway or {}).get("inference_table_config")
        if table and not self.has_gateway:
            raise invalid("AI Gateway inference tables are not supported in this workspace.")
        if table and table.get("enabled"):
            self.catalog.need(f"{table['catalog_name']}.{table['schema_name']}", principal, "CREATE_TABLE")

    def check_telemetry(self, telemetry: dict[str, Any] | None, principal: str) -> None:
        if telemetry is None:
            return
        if not self.has_telemetry or self.catalog.default_storage:
            raise invalid("Endpoint telemetry is not supported in this workspace.")
        known = {"enabled_telemetry_features", "inference_table_config", "table_names", "telemetry_profile_id"}
        if set(telemetry) - known:
            raise invalid(f"unknown field in telemetry_config: {sorted(set(telemetry) - known)}")
        tables = [
            *(telemetry.get("table_names") or {}).values(),
            (telemetry.get("inference_table_config") or {}).get("name"),
        ]
        for table in filter(None, tables):
            for privilege in ("CREATE_TABLE", "MODIFY"):
                self.catalog.need(table.rpartition(".")[0], principal, privilege)

    def create(self, body: dict[str, Any], principal: str) -> dict[str, Any]:
        name = body["name"]
        if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,62}", name) or name.startswith("databricks-"):
            raise invalid(f"'{name}' is not a valid endpoint name")
        if name in self.endpoints:
            raise exists(f"Endpoint '{name}' already exists")
        self.check_config(body["config"], principal)
        check_policy(self.policies, body.get("budget_policy_id"), principal)
        self.check_gateway(body.get("ai_gateway"), principal)
        self.check_telemetry(body.get("telemetry_config"), principal)
        self.endpoints[name] = {
            "name": name, "id": f"id-of-{name}", "creator": principal, "active": None, "pending": body["config"],
            "looks": self.looks_until_ready, "update": "IN_PROGRESS", "suspended": False,
            "tags": body.get("tags") or [],
            "ai_gateway": body.get("ai_gateway"), "telemetry_config": body.get("telemetry_config"),
            "budget_policy_id": body.get("budget_policy_id"), "build_logs": {},
            "history": [body["config"]["traffic_config"]["routes"]],
        }  # fmt: skip
        return self.describe(name)

    def endpoint(self, name: str) -> dict[str, Any]:
        if name not in self.endpoints:
            raise missing(f"Endpoint with name '{name}' does not exist.")
        return self.endpoints[name]

    def update(self, name: str, config: dict[str, Any], principal: str) -> dict[str, Any]:
        endpoint = self.endpoint(name)
        if endpoint["update"] == "IN_PROGRESS":
            raise Refused(409, "RESOURCE_CONFLICT", f"Endpoint '{name}' is being updated")
        if self.refuse_updates:
            raise Refused(400, "BAD_REQUEST", self.refuse_updates)
        self.check_config(config, principal)
        endpoint |= {"pending": config, "looks": self.looks_until_ready, "update": "IN_PROGRESS"}
        endpoint["history"].append(config["traffic_config"]["routes"])
        return self.describe(name)

    def look(self, name: str) -> dict[str, Any]:
        """A GET: time passes, and at last the containers are there, or one is not."""
        endpoint = self.endpoint(name)
        if endpoint["update"] == "IN_PROGRESS":
            endpoint["looks"] -= 1
            for entity in endpoint["pending"]["served_entities"]:  # the log of what is built grows
                before = endpoint["build_logs"].get(entity["name"], "")
                endpoint["build_logs"][entity["name"]] = f"{before}step {before.count('step')} of the build\n"
            if endpoint["looks"] < 0:
                self.finish(endpoint)
        return self.describe(name)

    def finish(self, endpoint: dict[str, Any]) -> None:
        running = [entity["name"] for entity in (endpoint["active"] or {}).get("served_entities", [])]
        for entity in endpoint["pending"]["served_entities"]:
            try:
                if self.build_fails and entity["name"] not in running:
                    raise RuntimeError(self.build_fails)
                self.load(entity)
            except Exception as error:
                endpoint["build_logs"][entity["name"]] = f"Building the container\nStarting the model\n{error}"
                endpoint |= {"update": "UPDATE_FAILED", "pending": None}
                return
        endpoint |= {"active": endpoint["pending"], "pending": None, "update": "NOT_UPDATING"}

    def load(self, entity: dict[str, Any]) -> InProcess | Container:
        key = entity["entity_name"], entity["entity_version"]
        if key not in self.loaded:
            self.loaded[key] = self.kind(self.registry.folder(*key), entity.get("environment_vars") or {})
        return self.loaded[key]

    def scale_to_zero(self, name: str) -> None:
        """Nobody has asked for half an hour."""
        assert all(entity["scale_to_zero_enabled"] for entity in self.endpoints[name]["active"]["served_entities"])
        self.asleep.add(name)

    def close(self) -> None:
        self.threads.shutdown(cancel_futures=True)
        for loaded in self.loaded.values():
            loaded.close()

    def describe(self, name: str) -> dict[str, Any]:
        endpoint = self.endpoints[name]
        ready = "READY" if endpoint["active"] and not endpoint["suspended"] else "NOT_READY"
        described = {"name": name, "id": endpoint["id"], "creator": endpoint["creator"], "tags": endpoint["tags"]}
        described["state"] = {"ready": ready, "config_update": endpoint["update"]}
        if endpoint["suspended"]:
            described["state"]["suspend"] = "STOPPED"
        described["last_updated_timestamp"] = int(time.time() * 1000)
        if endpoint["ai_gateway"]:
            described["ai_gateway"] = endpoint["ai_gateway"]
        if endpoint["telemetry_config"]:
            described["telemetry_config"] = endpoint["telemetry_config"]
        for field, key in (("config", "active"), ("pending_config", "pending")):
            if endpoint[key]:
                described[field] = self.seen(endpoint[key], endpoint["creator"])
        return described

    def seen(self, config: dict[str, Any], creator: str) -> dict[str, Any]:
        """With what only an answer has; `burst_scaling_enabled` is not echoed (cli)."""
        entities = [
            {**entity, "creator": creator, "creation_timestamp": 1, "state": {"deployment_state_message": ""}}
            for entity in config["served_entities"]
        ]
        return {**config, "served_entities": entities}

    def invoke(self, name: str, served: str | None, data: bytes) -> tuple[int, bytes]:
        endpoint = self.endpoint(name)
        if not endpoint["active"] or endpoint["suspended"]:
            raise Refused(400, "INVALID_STATE", f"Endpoint '{name}' is not ready")
        if len(data) > MAX_PAYLOAD:
            raise Refused(413, "REQUEST_LIMIT_EXCEEDED", "The request is larger than 16 MB")
        if served is None:
            routes = endpoint["active"]["traffic_config"]["routes"]
            served = max(routes, key=lambda route: route["traffic_percentage"])["served_entity_name"]
        entity = next((one for one in endpoint["active"]["served_entities"] if one["name"] == served), None)
        if entity is None:
            raise missing(f"'{served}' is not served by '{name}'")
        asked = self.threads.submit(self.answer, name, entity, data)
        try:
            status, body = asked.result(timeout=self.longest_s)
        except TimeoutError:
            raise Refused(504, "DEADLINE_EXCEEDED", "upstream request timeout") from None
        if len(body) > MAX_PAYLOAD:
            raise Refused(500, "RESPONSE_LIMIT_EXCEEDED", "The response is larger than 16 MB")
        return status, body

    def answer(self, name: str, entity: dict[str, Any], data: bytes) -> tuple[int, bytes]:
        with self.waking:
            if name in self.asleep:
                time.sleep(self.comes_up_s)
                self.asleep.discard(name)
        return self.load(entity).ask(data)
