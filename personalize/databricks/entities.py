"""What is served, and on what: served entities, their compute and their share of the traffic.

All of it as the REST API's own JSON: the SDK's types make None of an enum's value that they do not know, and an entity
sent back without its workload type becomes a CPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from personalize.serving.endpoint import EndpointError
from personalize.serving.registry import ModelVersion

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

CPUS = ("CPU", "CPU_MEDIUM", "CPU_LARGE")
GPUS: dict[str, dict[str, str]] = {
    "aws": {
        "GPU_SMALL": "T4, 16 GB",
        "GPU_MEDIUM": "A10G, 24 GB",
        "MULTIGPU_MEDIUM": "4 x A10G",
        "GPU_MEDIUM_8": "8 x A10G",
        "GPU_XLARGE": "H100, 80 GB",
        "GPU_XLARGE_8": "8 x H100",
    },
    "azure": {"GPU_SMALL": "T4, 16 GB", "GPU_LARGE": "A100, 80 GB", "GPU_LARGE_2": "2 x A100"},
    "gcp": {"GPU_MEDIUM": "L4, 24 GB"},
}
"""GPU workload types by cloud; which of them a region has, its administrators know."""

FITS_SDXL = {"aws": "GPU_MEDIUM", "azure": "GPU_LARGE", "gcp": "GPU_MEDIUM"}
SERVED = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "MLFLOW_MODELS_WORKERS": "1"}
"""A served model asks no hub, and needs one copy on its GPU: MLflow's own containers start a worker for each CPU."""
DEVICE = "PERSONALIZE_DEVICE"
MOST_VARIABLES = 30
READ_ONLY = ("state", "creator", "creation_timestamp", "foundation_model", "model_name", "model_version", "type")
SECRET = re.compile(r"\{\{secrets/[^/{}]+/[^/{}]+\}\}")


@dataclass(frozen=True)
class Compute:
    """What a version is served on. concurrency: least and most requests at a time, in place of a size."""

    workload_type: str
    size: str = "Small"
    scale_to_zero: bool = True
    concurrency: tuple[int, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Its part of a served entity."""
        asked: dict[str, Any] = {"workload_type": self.workload_type, "scale_to_zero_enabled": self.scale_to_zero}
        if self.concurrency is None:
            return {**asked, "workload_size": self.size}
        least, most = self.concurrency
        return {**asked, "min_provisioned_concurrency": least, "max_provisioned_concurrency": most}


def new_entity(model: ModelVersion, compute: Compute, variables: Mapping[str, str]) -> dict[str, Any]:
    """A version as it is first put on an endpoint, named `<model>-<version>`.

    It never asks a model hub, and draws on what it is put on: a GPU that is not there is an error, not a slow CPU.
    variables: more environment variables, `{{secrets/scope/key}}` for a secret; see `check_variables`.
    """
    check_variables(variables)
    device = "cpu" if compute.workload_type in CPUS else "cuda"
    environment = {**SERVED, DEVICE: device, **variables}
    return {
        "name": f"{model.name.rsplit('.', 1)[-1]}-{model.version}",
        "entity_name": model.name,
        "entity_version": model.version,
        **compute.as_dict(),
        "environment_vars": environment,
    }


def check_variables(variables: Mapping[str, str]) -> None:
    """Raises EndpointError where they are too many, or one names a secret in a way that Databricks does not know."""
    count = len({*SERVED, DEVICE, *variables})
    if count > MOST_VARIABLES:
        raise EndpointError(f"A version takes {MOST_VARIABLES} environment variables; these are {count}.")
    for name, value in variables.items():
        if "{{" in value and not SECRET.fullmatch(value):
            raise EndpointError(f"deploy.environment.{name}: a secret is written {{{{secrets/<scope>/<key>}}}}.")


def kept(entity: Mapping[str, Any]) -> dict[str, Any]:
    """What must be sent to keep a served entity as it is."""
    return {key: value for key, value in entity.items() if key not in READ_ONLY and value is not None}


def routes(shares: Mapping[str, int]) -> dict[str, Any]:
    """The traffic configuration for shares in percent by served entity; they must add up to 100."""
    if sum(shares.values()) != 100:
        raise ValueError(f"traffic shares must add up to 100, got {dict(shares)}")
    return {"routes": [{"served_entity_name": name, "traffic_percentage": share} for name, share in shares.items()]}


def check_model_name(model: ModelVersion) -> None:
    """Model Serving takes registered versions of Unity Catalog only.

    Raises:
        EndpointError: the name has not three levels, or there is no version.
    """
    if model.name.count(".") != 2 or not all(model.name.split(".")) or not model.version:
        raise EndpointError(
            f"{model} cannot be served by Databricks: it needs a registered version with a three-level name, "
            "<catalog>.<schema>.<model>. Register it with the registry databricks-uc (profile databricks)."
        )


def check_endpoint_name(name: str) -> None:
    """Raises EndpointError for a name that no workspace gives."""
    if not re.fullmatch(r"[A-Za-z0-9][\w-]{0,62}", name) or name.startswith("databricks-"):
        raise EndpointError(
            f"{name!r} is not the name of an endpoint: letters, digits, dashes and underscores, at most 63, and not "
            "beginning with databricks-, which is reserved. Give another: -P deploy.name=..."
        )


def workload(cloud: str, name: str) -> str:
    """The workload type of that name, or the cloud's smallest GPU that fits SDXL.

    Raises:
        EndpointError: the cloud does not have it; the message lists those there are.
    """
    wanted = name or FITS_SDXL[cloud]
    if wanted not in GPUS[cloud] and wanted not in CPUS:
        there_are = ", ".join([*(f"{kind} ({gpu})" for kind, gpu in GPUS[cloud].items()), *CPUS])
        raise EndpointError(f"There is no workload type {wanted!r} on {cloud}; there are {there_are}.")
    return wanted


@dataclass(frozen=True)
class Seen:
    """An endpoint as its workspace describes it now."""

    raw: Mapping[str, Any]

    @property
    def entities(self) -> list[dict[str, Any]]:
        """What the configuration in force serves."""
        return list((self.raw.get("config") or {}).get("served_entities") or [])

    @property
    def pending(self) -> list[dict[str, Any]]:
        """What the update in progress is to serve."""
        return list((self.raw.get("pending_config") or {}).get("served_entities") or [])

    @property
    def shares(self) -> dict[str, int]:
        """Percent of the traffic by entity."""
        listed = ((self.raw.get("config") or {}).get("traffic_config") or {}).get("routes") or []
        return {
            str(one.get("served_entity_name") or one.get("served_model_name")): int(one["traffic_percentage"])
            for one in listed
        }

    @property
    def serving(self) -> dict[str, Any] | None:
        """The entity with the largest share of the traffic."""
        shares = self.shares
        return max(self.entities, key=lambda entity: shares.get(entity["name"], 0), default=None)

    @property
    def update(self) -> str:
        """NOT_UPDATING, IN_PROGRESS, UPDATE_FAILED or UPDATE_CANCELED."""
        return str((self.raw.get("state") or {}).get("config_update", ""))

    @property
    def ready(self) -> bool:
        """Whether it can be asked."""
        return (self.raw.get("state") or {}).get("ready") == "READY"

    @property
    def suspended(self) -> bool:
        """Whether it was stopped."""
        return (self.raw.get("state") or {}).get("suspend") == "STOPPED"

    @property
    def tags(self) -> dict[str, str]:
        """Its tags."""
        return {tag["key"]: str(tag.get("value", "")) for tag in self.raw.get("tags") or []}

    def named(self, name: str) -> dict[str, Any] | None:
        """The entity of that name, if it is in force."""
        return next((entity for entity in self.entities if entity["name"] == name), None)

    @property
    def messages(self) -> str:
        """What Databricks says about the versions on it."""
        states = [entity.get("state") or {} for entity in (*self.pending, *self.entities)]
        said = [str(state.get("deployment_state_message") or "") for state in states]
        return "; ".join(dict.fromkeys(message for message in said if message))


def see(client: WorkspaceClient, name: str) -> Seen | None:
    """The endpoint, or None where there is no such one."""
    from databricks.sdk.errors import NotFound

    try:
        found: Any = client.api_client.do("GET", f"/api/2.0/serving-endpoints/{name}")
    except NotFound:
        return None
    return Seen(found)
