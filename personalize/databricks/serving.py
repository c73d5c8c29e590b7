"""An endpoint on Databricks Model Serving.

What `deploy` does, in this order:

1. The endpoint is created with the version, or the version is added to the endpoint at 0 % of the traffic. Databricks
   builds a container and loads the model, which takes 10 minutes to over an hour; progress is reported, and when it
   fails, the end of the build log is in the error. Where this was begun before and interrupted, it is waited for.
2. The new version alone is asked for a picture, past the traffic rules.
3. `traffic` percent of the traffic are turned to it. The version before keeps the rest, and stays at 0 % in the end
   (`keep_previous`), so that `rollback` takes seconds; with scale-to-zero it costs nothing there.

Limits to know: 16 MB a request or answer; bodies over 1 MB are not written to the inference table, so ask for webp or
jpeg; 297 seconds a request; a T4 (GPU_SMALL) has no bfloat16 and 16 GB are tight for SDXL at 1024 px. An endpoint acts
as its creator for ever: create it as a service principal. `stop` releases its compute, `delete` ends it.

Sources: Databricks SDK 0.156 (`serving.py`); Databricks' documentation of custom model serving and AI Gateway.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from personalize.databricks import request_logs
from personalize.databricks.entities import (
    Compute,
    Seen,
    check_endpoint_name,
    check_model_name,
    check_variables,
    kept,
    new_entity,
    routes,
    see,
    workload,
)
from personalize.databricks.readiness import await_ready, patience
from personalize.databricks.workspace import WorkspaceError, connect, explained
from personalize.serving.endpoint import (
    EndpointError,
    Prediction,
    Status,
    check_smoke,
    inputs_of,
    payload,
    predictions,
)
from personalize.serving.registry import ModelVersion

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

PREVIOUS = "previous_entity"
"""Tag of an endpoint: the entity that had the traffic before."""
NOTES = {"UPDATE_FAILED": "its last update failed", "IN_PROGRESS": "an update is in progress"}


@dataclass
class DatabricksEndpoint:
    """Serve a Unity Catalog model; see the module's docstring.

    Args:
        name: the endpoint's name in the workspace.
        cloud: decides which workload types there are.
        workload_type: the compute; empty takes the cloud's smallest GPU that fits SDXL.
        workload_size: how many requests at a time: Small 4, Medium 8 to 16, Large 16 to 64.
        concurrency: least and most requests at a time, multiples of 4, in place of a size.
        scale_to_zero: release the compute when nobody asks.
        traffic: percent of the traffic that a new version gets.
        keep_previous: keep the outgoing version at 0 % of the traffic.
        inference_table: `catalog.schema` of a table for requests and answers, by AI Gateway or, in a workspace that has
            none, by endpoint telemetry; empty leaves it as it is.
        environment: more environment variables of the served version; `{{secrets/scope/key}}` for a secret.
        can_query: users, groups and service principals who may ask it.
        tags: of the endpoint, for budgets and the like.
        budget_policy_id: of a new endpoint.
        timeout_s: seconds a request may take.
        patience_s: seconds of silence after which a version is given up; 0 is Databricks' own limit for its compute.
        report: called with a line of progress.
        poll_s: seconds between looks at the endpoint's state.
    """

    name: str
    cloud: str = "aws"
    workload_type: str = ""
    workload_size: str = "Small"
    concurrency: tuple[int, int] | None = None
    scale_to_zero: bool = True
    traffic: int = 100
    keep_previous: bool = True
    inference_table: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    can_query: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    budget_policy_id: str = ""
    timeout_s: float = 120
    patience_s: float = 0
    report: Callable[[str], None] = print
    poll_s: float = 10

    @cached_property
    def client(self) -> WorkspaceClient:
        """The workspace's client."""
        return connect(self.timeout_s + 10)

    def check(self) -> None:
        """Before anything is trained or built: whether an endpoint like this can be had.

        Raises:
            EndpointError: its name, its compute or a variable is not one that a workspace takes, or it is another's.
        """
        check_endpoint_name(self.name)
        workload(self.cloud, self.workload_type)
        check_variables(self.environment)
        with self._refusals(f"looking at {self.name!r}"):
            if (endpoint := see(self.client, self.name)) is not None:
                self._allowed(endpoint)

    def deploy(self, model: ModelVersion, smoke: Mapping[str, Any]) -> Status:
        """Serve `model`; see `Endpoint.deploy`.

        Raises:
            EndpointError: a name, a workload type or the state of the endpoint forbids it, the version did not become
                ready, or it did not paint what the smoke request asks for.
        """
        check_model_name(model)
        check_endpoint_name(self.name)
        compute = Compute(
            workload(self.cloud, self.workload_type), self.workload_size, self.scale_to_zero, self.concurrency
        )
        new = new_entity(model, compute, self.environment)
        with self._refusals(f"deploying {model} to {self.name!r}"):
            before = self._awake(new)
            previous = before.serving if before else None
            if previous is not None and previous["name"] == new["name"]:
                previous = None
            body = payload(smoke, *inputs_of(model.uri))
            if before is not None:
                request_logs.turn_on(self.client, self.name, self.inference_table, before)
            self._put_on(before, new, previous)
            self.report(f"{model} is ready; asking it for a picture")
            trial = self._try(new, previous, body, smoke)
            self._turn(new, previous, self.traffic)
            self._describe(model, previous)
        return replace(self.status(), trial=trial)

    def status(self) -> Status:
        """What the endpoint is doing, from the workspace."""
        endpoint = see(self.client, self.name)
        if endpoint is None or endpoint.suspended:
            return Status(self.name, "databricks", "stopped", note="its compute is released" if endpoint else "")
        served = endpoint.serving
        state = "serving" if endpoint.ready else "failed" if endpoint.update == "UPDATE_FAILED" else "starting"
        since = (endpoint.raw.get("last_updated_timestamp") or 0) / 1000
        split = {name: share for name, share in endpoint.shares.items() if share}
        shared = ", ".join(f"{name} {share} %" for name, share in split.items()) if len(split) > 1 else ""
        return Status(
            self.name,
            "databricks",
            state,
            url=f"{self.client.config.host}/serving-endpoints/{self.name}",
            model=str(served["entity_name"]) if served else "",
            version=str(served["entity_version"]) if served else "",
            uri=f"models:/{served['entity_name']}/{served['entity_version']}" if served else "",
            uptime_s=round(time.time() - since, 1) if since and state == "serving" else None,
            note="; ".join(filter(None, [NOTES.get(endpoint.update, ""), shared])),
        )

    def stop(self) -> Status:
        """Release the compute; deploying starts it again. Stopping what is stopped or not there is no error."""
        endpoint = see(self.client, self.name)
        if endpoint is None:
            return Status(self.name, "databricks", "stopped", note="there was no such endpoint")
        if not endpoint.suspended:
            with self._refusals(f"stopping {self.name!r}"):
                self.client.api_client.do("POST", f"/api/2.0/serving-endpoints/{self.name}/config:stop")
        return Status(self.name, "databricks", "stopped", note="its compute is released")

    def delete(self) -> Status:
        """End the endpoint. Deleting what is not there is no error."""
        if see(self.client, self.name) is None:
            return Status(self.name, "databricks", "stopped", note="there was no such endpoint")
        with self._refusals(f"deleting {self.name!r}"):
            self.client.serving_endpoints.delete(self.name)
        return Status(self.name, "databricks", "stopped", note="deleted")

    def query(self, request: Mapping[str, Any]) -> list[Prediction]:
        """Ask the version that has the traffic for pictures."""
        return self._ask(self.body(request))

    @property
    def token_variable(self) -> str:
        """The environment variable with the access token that a caller needs."""
        return "DATABRICKS_TOKEN"

    def body(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON body that `query` sends."""
        now = self.status()
        if now.state == "stopped" or not now.uri:
            raise EndpointError(
                f"There is no endpoint {self.name!r} in this workspace that serves a model. Deploy it first."
            )
        return payload(request, *inputs_of(now.uri))

    def rollback(self) -> Status:
        """Give all traffic back to the version that had it before.

        Raises:
            EndpointError: there is no endpoint, or it keeps no earlier version.
        """
        endpoint = see(self.client, self.name)
        others = [
            one for one in (endpoint.entities if endpoint else []) if endpoint and endpoint.shares[one["name"]] < 100
        ]
        if endpoint is None or not others:
            raise EndpointError(
                f"Endpoint {self.name!r} keeps no earlier version to go back to. Deploy the one you want by number: "
                "`-P deploy.model=models:/<catalog>.<schema>.<model>/<version>`."
            )
        self._allowed(endpoint)
        self._refuse_while_updating(endpoint)
        known = endpoint.named(endpoint.tags.get(PREVIOUS, ""))
        target = known if known in others else others[-1]
        assert target is not None
        current = next((one for one in endpoint.entities if one["name"] != target["name"]), None)
        with self._refusals(f"rolling {self.name!r} back"):
            self._turn(target, current, 100)
            self._tag(
                {"model_version": str(target["entity_version"]), **({PREVIOUS: current["name"]} if current else {})}
            )
        self.report(f"{self.name}: all traffic is back at {target['entity_name']} version {target['entity_version']}")
        return self.status()

    # What deploy is made of.

    def _awake(self, new: Mapping[str, Any]) -> Seen | None:
        """The endpoint with nothing in progress: a stopped one is started, our own unfinished update waited for."""
        endpoint = see(self.client, self.name)
        if endpoint is None:
            return None
        self._allowed(endpoint)
        if endpoint.suspended:
            self.report(f"{self.name} was stopped; starting it")
            self.client.api_client.do("POST", f"/api/2.0/serving-endpoints/{self.name}/config:start")
            self._await_ready(str((endpoint.serving or new)["name"]))
        elif endpoint.update == "IN_PROGRESS" and any(one["name"] == new["name"] for one in endpoint.pending):
            self.report(f"{new['name']} is being put on {self.name} already; waiting for it")
            self._await_ready(str(new["name"]))
        else:
            self._refuse_while_updating(endpoint)
        return see(self.client, self.name)

    def _put_on(self, before: Seen | None, new: dict[str, Any], previous: dict[str, Any] | None) -> None:
        """The version on the endpoint, at its present share of the traffic, or at none."""
        if before is None or not before.entities:
            if before is None:
                self._create(new)
            else:
                self._update([new], {new["name"]: 100})
        else:
            there = before.named(new["name"])
            if there is not None and kept(there) == new and before.update != "UPDATE_FAILED":
                return
            beside = (
                [kept(previous)] if previous else [kept(one) for one in before.entities if one["name"] != new["name"]]
            )
            shares = {str(one["name"]): 0 for one in (*beside, new)}
            shares[str(previous["name"] if previous else new["name"])] = 100
            self._update([*beside, new], shares)
        self._await_ready(new["name"])

    def _try(
        self,
        new: Mapping[str, Any],
        previous: Mapping[str, Any] | None,
        body: dict[str, Any],
        smoke: Mapping[str, Any],
    ) -> Prediction:
        """Ask the new version alone; when it fails it is taken off the endpoint again."""
        from databricks.sdk.errors import DatabricksError

        try:
            return check_smoke(lambda _: self._ask(body, served=str(new["name"])), smoke)
        except EndpointError as error:
            if previous is None:
                raise
            with contextlib.suppress(DatabricksError, EndpointError):  # at 0 % it does no harm
                self._update([kept(previous)], {str(previous["name"]): 100})
                self._await_ready(str(previous["name"]))
            raise EndpointError(
                f"{error}\nCallers notice nothing: version {previous['entity_version']} keeps serving {self.name!r}."
            ) from error

    def _turn(self, new: Mapping[str, Any], previous: Mapping[str, Any] | None, traffic: int) -> None:
        """`traffic` percent to `new`, the rest to `previous`, which stays at 0 % in the end."""
        shares = {str(new["name"]): 100}
        beside = []
        if previous is not None and (traffic < 100 or self.keep_previous):
            shares = {str(new["name"]): traffic, str(previous["name"]): 100 - traffic}
            beside = [kept(previous)]
        now = see(self.client, self.name)
        if now is not None and now.shares == shares:
            return
        self._update([kept(new), *beside], shares)
        self._await_ready(str(new["name"]))

    def _describe(self, model: ModelVersion, previous: Mapping[str, Any] | None) -> None:
        """What people find on the endpoint's page: tags, who may ask it."""
        before = {PREVIOUS: str(previous["name"])} if previous else {}
        self._tag({"recipe": "dreambooth-lora-sdxl", "model_version": model.version, **before, **self.tags})
        endpoint = see(self.client, self.name)
        if endpoint is None:
            return
        if self.can_query:
            access = [{**_principal(who), "permission_level": "CAN_QUERY"} for who in self.can_query]
            path = f"/api/2.0/permissions/serving-endpoints/{endpoint.raw['id']}"
            self.client.api_client.do("PATCH", path, body={"access_control_list": access})

    def _create(self, new: dict[str, Any]) -> None:
        tags = [{"key": key, "value": value} for key, value in self.tags.items()]
        body: dict[str, Any] = {
            "name": self.name,
            "config": {"name": self.name, "served_entities": [new], "traffic_config": routes({new["name"]: 100})},
            "tags": tags,
        }
        if self.budget_policy_id:
            body["budget_policy_id"] = self.budget_policy_id
        request_logs.create(self.client, body, self.inference_table)

    def _update(self, entities: list[dict[str, Any]], shares: Mapping[str, int]) -> None:
        body = {"served_entities": entities, "traffic_config": routes(shares)}
        self.client.api_client.do("PUT", f"/api/2.0/serving-endpoints/{self.name}/config", body=body)

    def _tag(self, tags: Mapping[str, str]) -> None:
        added = [{"key": key, "value": value} for key, value in tags.items()]
        self.client.api_client.do("PATCH", f"/api/2.0/serving-endpoints/{self.name}/tags", body={"add_tags": added})

    def _await_ready(self, served: str) -> None:
        patience_s = self.patience_s or patience(workload(self.cloud, self.workload_type))
        await_ready(self.client, self.name, served, patience_s, self.poll_s, self.report)

    def _allowed(self, endpoint: Seen) -> None:
        level = endpoint.raw.get("permission_level")
        if level not in (None, "CAN_MANAGE"):
            raise EndpointError(
                f"Endpoint {self.name!r} belongs to {endpoint.raw.get('creator')}, and you may not change it "
                f"({level}). Ask for CAN_MANAGE, or deploy under another name: -P deploy.name=..."
            )

    def _refuse_while_updating(self, endpoint: Seen) -> None:
        if endpoint.update == "IN_PROGRESS":
            raise EndpointError(
                f"Endpoint {self.name!r} is being updated by somebody. Try again when that has finished."
            )

    @contextlib.contextmanager
    def _refusals(self, doing: str) -> Iterator[None]:
        """What the workspace refuses becomes an EndpointError; an interruption says what goes on."""
        try:
            with explained(doing):
                yield
        except WorkspaceError as error:
            raise EndpointError(str(error)) from error
        except KeyboardInterrupt:
            self.report(f"Stopped waiting while {doing}; the workspace goes on. The same command again takes it up.")
            raise

    def _ask(self, body: dict[str, Any], served: str = "") -> list[Prediction]:
        from databricks.sdk.errors import DatabricksError, DeadlineExceeded

        # `serving_endpoints.query` cannot carry a pyfunc's `params`, and knows nothing of a single served version.
        part = f"/served-models/{served}" if served else ""
        try:
            answer = self.client.api_client.do("POST", f"/serving-endpoints/{self.name}{part}/invocations", body=body)
        except (DeadlineExceeded, TimeoutError) as error:
            raise EndpointError(
                f"Endpoint {self.name!r} did not answer in time. Where it was scaled to zero, it first waits for its "
                "compute and loads the model, which goes on: ask again in some minutes. A picture that takes longer "
                "than the 297 s which Databricks gives a request needs fewer steps or a smaller size."
            ) from error
        except DatabricksError as error:
            words = str(error).rpartition("\nError: ")[2]
            raise EndpointError(f"Endpoint {self.name!r} refused the request: {words[-2000:]}") from error
        return predictions(answer)


def _principal(who: str) -> dict[str, str]:
    """A user by address, a service principal by its id, else a group."""
    if "@" in who:
        return {"user_name": who}
    plain = who.replace("-", "")
    is_id = len(plain) == 32 and all(character in "0123456789abcdefABCDEF" for character in plain)
    return {"service_principal_name" if is_id else "group_name": who}
