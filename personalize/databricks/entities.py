"""What is served, and on what: served entities, their compute and their share of the traffic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from personalize.serving.endpoint import EndpointError
from personalize.serving.registry import ModelVersion

if TYPE_CHECKING:
    from databricks.sdk.service.serving import Route, ServedEntityInput, ServedEntityOutput, ServingModelWorkloadType

CPUS = ("CPU", "CPU_MEDIUM", "CPU_LARGE")
GPUS: dict[str, dict[str, str]] = {
    "aws": {
        "GPU_SMALL": "T4, 16 GB",
        "GPU_MEDIUM": "A10G, 24 GB",
        "MULTIGPU_MEDIUM": "4 x A10G",
        "GPU_XLARGE": "H100, 80 GB",
        "GPU_XLARGE_8": "8 x H100",
    },
    "azure": {"GPU_SMALL": "T4, 16 GB", "GPU_LARGE": "A100, 80 GB"},
    "gcp": {"GPU_MEDIUM": "L4, 24 GB"},
}
"""GPU workload types by cloud; which of them a region has, its administrators know."""

FITS_SDXL = {"aws": "GPU_MEDIUM", "azure": "GPU_LARGE", "gcp": "GPU_MEDIUM"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def new_entity(
    model: ModelVersion, compute: ServingModelWorkloadType, size: str, scale_to_zero: bool
) -> ServedEntityInput:
    """A version as it is first put on an endpoint, named `<model>-<version>`. It never asks a model hub."""
    from databricks.sdk.service.serving import ServedEntityInput

    return ServedEntityInput(
        name=f"{model.name.rsplit('.', 1)[-1]}-{model.version}",
        entity_name=model.name,
        entity_version=model.version,
        workload_type=compute,
        workload_size=size,
        scale_to_zero_enabled=scale_to_zero,
        environment_vars=OFFLINE,
    )


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


def workload(cloud: str, name: str) -> ServingModelWorkloadType:
    """The workload type of that name, or the cloud's smallest GPU that fits SDXL.

    Raises:
        EndpointError: the cloud or the SDK does not have it; the message lists those there are.
    """
    from databricks.sdk.service.serving import ServingModelWorkloadType

    wanted = name or FITS_SDXL[cloud]
    if wanted not in GPUS[cloud] and wanted not in CPUS:
        there_are = ", ".join([*(f"{kind} ({gpu})" for kind, gpu in GPUS[cloud].items()), *CPUS])
        raise EndpointError(f"There is no workload type {wanted!r} on {cloud}; there are {there_are}.")
    return ServingModelWorkloadType(wanted)


def routes(shares: Mapping[str, int]) -> list[Route]:
    """Traffic shares in percent by served entity; they must add up to 100."""
    from databricks.sdk.service.serving import Route

    if sum(shares.values()) != 100:
        raise ValueError(f"traffic shares must add up to 100, got {dict(shares)}")
    return [Route(served_entity_name=name, traffic_percentage=share) for name, share in shares.items()]


def as_input(entity: ServedEntityOutput) -> ServedEntityInput:
    """What must be sent to keep a served entity as it is."""
    from databricks.sdk.service.serving import ServedEntityInput

    return ServedEntityInput(
        name=entity.name,
        entity_name=entity.entity_name,
        entity_version=entity.entity_version,
        workload_type=entity.workload_type,
        workload_size=entity.workload_size,
        scale_to_zero_enabled=entity.scale_to_zero_enabled,
        environment_vars=entity.environment_vars,
        min_provisioned_concurrency=entity.min_provisioned_concurrency,
        max_provisioned_concurrency=entity.max_provisioned_concurrency,
    )
