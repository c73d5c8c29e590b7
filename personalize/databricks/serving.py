"""An endpoint on Databricks Model Serving.

What `deploy` does, in this order:

1. The endpoint is created with the version, or the version is added to the endpoint at 0 % of the traffic. Databricks
   builds a container and loads the model, which takes 10 minutes to over an hour; progress is reported, and when it
   fails, the end of the build log is in the error.
2. The new version alone is asked for a picture, past the traffic rules.
3. The traffic is turned to it. The version before stays at 0 % (`keep_previous`), so that `rollback` takes seconds;
   with scale-to-zero it costs nothing there.

Limits to know: 16 MB a request or answer; bodies over 1 MB are not written to the inference table, so ask for webp or
jpeg; about two minutes a request; a T4 (GPU_SMALL) has no bfloat16 and 16 GB are tight for SDXL at 1024 px. An
endpoint acts as its creator for ever: create it as a service principal. `stop` deletes the endpoint.

Sources: Databricks SDK 0.156 (`serving.py`); Databricks' documentation of custom model serving and AI Gateway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from personalize.databricks.entities import as_input, check_model_name, new_entity, routes, workload
from personalize.databricks.readiness import await_ready
from personalize.databricks.workspace import connect
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
    from databricks.sdk.service.serving import (
        Route,
        ServedEntityInput,
        ServedEntityOutput,
        ServingEndpointDetailed,
    )

SHORTEST_DEPLOY_WAIT_S = 90 * 60


@dataclass
class DatabricksEndpoint:
    """Serve a Unity Catalog model; see the module's docstring.

    Args:
        name: the endpoint's name in the workspace.
        cloud: decides which workload types there are.
        workload_type: the compute; empty takes the cloud's smallest GPU that fits SDXL.
        workload_size: how many requests at a time: Small 4, Medium 8 to 16, Large 16 to 64.
        scale_to_zero: release the compute when nobody asks.
        keep_previous: keep the outgoing version at 0 % of the traffic.
        inference_table: `catalog.schema` of a table for requests and answers; empty logs nothing.
        timeout_s: seconds a request may take.
        startup_timeout_s: seconds a version may take to be ready; at least 90 minutes are given.
        report: called with a line of progress.
        poll_s: seconds between looks at the endpoint's state.
    """

    name: str
    cloud: str = "aws"
    workload_type: str = ""
    workload_size: str = "Small"
    scale_to_zero: bool = True
    keep_previous: bool = True
    inference_table: str = ""
    timeout_s: float = 120
    startup_timeout_s: float = SHORTEST_DEPLOY_WAIT_S
    report: Callable[[str], None] = print
    poll_s: float = 10

    @cached_property
    def client(self) -> WorkspaceClient:
        """The workspace's client."""
        return connect(self.timeout_s + 10)

    def deploy(self, model: ModelVersion, smoke: Mapping[str, Any]) -> Status:
        """Serve `model`; see `Endpoint.deploy`.

        Raises:
            EndpointError: a name, a workload type or the state of the endpoint forbids it, the version did not become
                ready, or it did not paint what the smoke request asks for.
        """
        from databricks.sdk.errors import DatabricksError

        check_model_name(model)
        compute = workload(self.cloud, self.workload_type)
        try:
            before = self._find()
            self._refuse_while_updating(before)
            new = new_entity(model, compute, self.workload_size, self.scale_to_zero)
            previous = self._serving(before)
            if previous is not None and previous.name == new.name:
                previous = None
            kept = [as_input(previous)] if previous else []
            body = payload(smoke, *inputs_of(model.uri))
            if before is None:
                self._create([new], routes({str(new.name): 100}))
            else:
                share = {str(previous.name): 100, str(new.name): 0} if previous else {str(new.name): 100}
                self._update([*kept, new], routes(share))
            self._await_ready(new)
            self.report(f"{model} is ready; asking it for a picture")
            trial = self._try(new, previous, body, smoke)
            if previous is not None:
                self._turn_to(new, as_input(previous) if self.keep_previous else None)
            self._describe(model)
        except DatabricksError as error:
            raise EndpointError(f"Databricks refused to deploy {model} to {self.name!r}: {error}") from error
        return replace(self.status(), trial=trial)

    def status(self) -> Status:
        """What the endpoint is doing, from the workspace."""
        endpoint = self._find()
        if endpoint is None:
            return Status(self.name, "databricks", "stopped")
        served = self._serving(endpoint)
        ready = (
            endpoint.state is not None and endpoint.state.ready is not None and endpoint.state.ready.value == "READY"
        )
        update = str(endpoint.state.config_update.value) if endpoint.state and endpoint.state.config_update else ""
        state = "serving" if ready else "failed" if update == "UPDATE_FAILED" else "starting"
        notes = {"UPDATE_FAILED": "its last update failed", "IN_PROGRESS": "an update is in progress"}
        since = (endpoint.last_updated_timestamp or 0) / 1000
        return Status(
            self.name,
            "databricks",
            state,
            url=f"{self.client.config.host}/serving-endpoints/{self.name}",
            model=str(served.entity_name) if served else "",
            version=str(served.entity_version) if served else "",
            uri=f"models:/{served.entity_name}/{served.entity_version}" if served else "",
            uptime_s=round(time.time() - since, 1) if since and state == "serving" else None,
            note=notes.get(update, ""),
        )

    def stop(self) -> Status:
        """Delete the endpoint. Stopping what is not there is no error."""
        if self._find() is None:
            return Status(self.name, "databricks", "stopped", note="there was no such endpoint")
        self.client.serving_endpoints.delete(self.name)
        return Status(self.name, "databricks", "stopped")

    def query(self, request: Mapping[str, Any]) -> list[Prediction]:
        """Ask the version that has the traffic for pictures."""
        return self._ask(self.body(request))

    def body(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON body that `query` sends."""
        now = self.status()
        if now.state == "stopped" or not now.uri:
            raise EndpointError(
                f"There is no endpoint {self.name!r} in this workspace that serves a model. Deploy it first."
            )
        return payload(request, *inputs_of(now.uri))

    def rollback(self) -> Status:
        """Give all traffic back to the version that served before.

        Raises:
            EndpointError: there is no endpoint, or it keeps no earlier version.
        """
        endpoint = self._find()
        entities = list(endpoint.config.served_entities or []) if endpoint and endpoint.config else []
        current = self._serving(endpoint)
        earlier = [entity for entity in entities if current and entity.name != current.name]
        if current is None or not earlier:
            raise EndpointError(
                f"Endpoint {self.name!r} keeps no earlier version to go back to. Deploy the one you want by number: "
                "`-P deploy.model=models:/<catalog>.<schema>.<model>/<version>`."
            )
        self._refuse_while_updating(endpoint)
        self._turn_to(as_input(earlier[-1]), as_input(current))
        self.report(
            f"{self.name}: all traffic is back at {earlier[-1].entity_name} version {earlier[-1].entity_version}"
        )
        return self.status()

    def _find(self) -> ServingEndpointDetailed | None:
        from databricks.sdk.errors import NotFound

        try:
            return self.client.serving_endpoints.get(self.name)
        except NotFound:
            return None

    def _serving(self, endpoint: ServingEndpointDetailed | None) -> ServedEntityOutput | None:
        """The entity with the largest share of the traffic."""
        config = endpoint.config if endpoint else None
        if config is None or not config.served_entities:
            return None
        listed = (config.traffic_config.routes or []) if config.traffic_config else []
        share = {route.served_entity_name or route.served_model_name: route.traffic_percentage for route in listed}
        return max(config.served_entities, key=lambda entity: share.get(entity.name, 0))

    def _refuse_while_updating(self, endpoint: ServingEndpointDetailed | None) -> None:
        update = endpoint.state.config_update if endpoint and endpoint.state else None
        if update is not None and update.value == "IN_PROGRESS":
            raise EndpointError(
                f"Endpoint {self.name!r} is being updated by somebody. Try again when that has finished."
            )

    def _try(
        self,
        new: ServedEntityInput,
        previous: ServedEntityOutput | None,
        body: dict[str, Any],
        smoke: Mapping[str, Any],
    ) -> Prediction:
        """Ask the new version alone; when it fails it is taken off the endpoint again."""
        try:
            return check_smoke(lambda _: self._ask(body, served=str(new.name)), smoke)
        except EndpointError as error:
            if previous is None:
                raise
            self._turn_to(as_input(previous), None)
            raise EndpointError(
                f"{error}\nCallers notice nothing: version {previous.entity_version} keeps serving {self.name!r}."
            ) from error

    def _create(self, entities: list[ServedEntityInput], shares: list[Route]) -> None:
        from databricks.sdk.service.serving import (
            AiGatewayConfig,
            AiGatewayInferenceTableConfig,
            EndpointCoreConfigInput,
            TrafficConfig,
        )

        gateway = None
        if self.inference_table:
            catalog, schema = self.inference_table.split(".")
            gateway = AiGatewayConfig(
                inference_table_config=AiGatewayInferenceTableConfig(
                    enabled=True,
                    catalog_name=catalog,
                    schema_name=schema,
                    table_name_prefix=self.name.replace("-", "_"),
                )
            )
        config = EndpointCoreConfigInput(
            name=self.name, served_entities=entities, traffic_config=TrafficConfig(routes=shares)
        )
        self.client.serving_endpoints.create(self.name, config=config, ai_gateway=gateway)

    def _update(self, entities: list[ServedEntityInput], shares: list[Route]) -> None:
        from databricks.sdk.service.serving import TrafficConfig

        self.client.serving_endpoints.update_config(
            self.name, served_entities=entities, traffic_config=TrafficConfig(routes=shares)
        )

    def _turn_to(self, new: ServedEntityInput, kept: ServedEntityInput | None) -> None:
        """All traffic to `new`; `kept` stays at 0 %."""
        shares = {str(new.name): 100} | ({str(kept.name): 0} if kept else {})
        self._update([new, *([kept] if kept else [])], routes(shares))
        self._await_ready(new)

    def _await_ready(self, new: ServedEntityInput) -> None:
        patience_s = max(self.startup_timeout_s, SHORTEST_DEPLOY_WAIT_S)
        await_ready(self.client, self.name, str(new.name), patience_s, self.poll_s, self.report)

    def _ask(self, body: dict[str, Any], served: str = "") -> list[Prediction]:
        from databricks.sdk.errors import DatabricksError

        # `serving_endpoints.query` cannot carry a pyfunc's `params`, and knows nothing of a single served version.
        part = f"/served-models/{served}" if served else ""
        try:
            answer = self.client.api_client.do("POST", f"/serving-endpoints/{self.name}{part}/invocations", body=body)
        except DatabricksError as error:
            words = str(error).rpartition("\nError: ")[2]
            raise EndpointError(f"Endpoint {self.name!r} refused the request: {words[-2000:]}") from error
        return predictions(answer)

    def _describe(self, model: ModelVersion) -> None:
        from databricks.sdk.service.serving import EndpointTag

        tags = {"recipe": "dreambooth-lora-sdxl", "model_version": model.version}
        self.client.serving_endpoints.patch(
            self.name, add_tags=[EndpointTag(key=key, value=value) for key, value in tags.items()]
        )
