"""What a job runs on: one GPU node of its own, a cluster that is there, or serverless GPUs."""

from __future__ import annotations

from dataclasses import fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from personalize.databricks.workspace import WorkspaceError, explained

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.service.jobs import JobEnvironment, SparkPythonTask, SubmitTask

PLACES = ("new_cluster", "existing_cluster_id", "accelerator")
KEYS = (*PLACES, "environment_version", "volume", "git_provider", "timeout_minutes", "budget_policy_id", "wait")
MLFLOWS_OWN = ("ENV_MANAGER", "SYNCHRONOUS", "DOCKER_ARGS", "STORAGE_DIR", "build_image", "docker_auth")
SERVERLESS_ENVIRONMENT = "5"
"""Python 3.12; the project builds its own environment on it."""
SINGLE_NODE = {
    "spark_conf": {"spark.databricks.cluster.profile": "singleNode", "spark.master": "local[*]"},
    "custom_tags": {"ResourceClass": "SingleNode"},
}


def check_config(backend_config: dict[str, Any]) -> dict[str, Any]:
    """The backend's own keys, checked. MLflow adds some that say nothing to a job.

    Raises:
        WorkspaceError: a key or a value is unknown, or it is not said where to run.
    """
    config = {key: value for key, value in backend_config.items() if key not in MLFLOWS_OWN}
    unknown = sorted(set(config) - set(KEYS))
    if unknown:
        raise WorkspaceError(f"Unknown key {unknown[0]!r} in the backend config; known are {', '.join(KEYS)}.")
    if sum(place in config for place in PLACES) != 1:
        raise WorkspaceError(
            f"The backend config must have one of {', '.join(PLACES)}. Take profiles/databricks-cluster.json, or "
            "profiles/databricks-serverless.json where a workspace has serverless compute only."
        )
    if "accelerator" in config:
        _accelerator(config["accelerator"])
    elif config.get("budget_policy_id"):
        raise WorkspaceError(
            "budget_policy_id of the backend config is of serverless compute, and would tag nothing here: give it with "
            'accelerator, or tag the cluster in its place: "new_cluster": {"custom_tags": {"cost_centre": "..."}}.'
        )
    if "new_cluster" in config:
        config["new_cluster"] = whole_cluster(config["new_cluster"])
    return config


def whole_cluster(spec: dict[str, Any]) -> dict[str, Any]:
    """A cluster's description with what a training here needs where it says nothing else.

    Dedicated access mode (Unity Catalog on ML runtimes knows no other), and a single node: training uses all GPUs of
    one.

    Raises:
        WorkspaceError: an unknown key, which the SDK would drop without a word, or no machine is named.
    """
    from databricks.sdk.service.compute import ClusterSpec

    known = [field.name for field in fields(ClusterSpec)]
    for key in spec:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise WorkspaceError(f"Unknown key {key!r} in new_cluster of the backend config{hint}")
    if not any(spec.get(key) for key in ("node_type_id", "instance_pool_id", "policy_id")):
        raise WorkspaceError(
            "new_cluster of the backend config names no machine: node_type_id, for example g5.4xlarge (AWS), "
            "Standard_NC24ads_A100_v4 (Azure) or g2-standard-16 (GCP)."
        )
    whole = {"data_security_mode": "SINGLE_USER", **spec}
    if not spec.get("num_workers") and "autoscale" not in spec and not spec.get("is_single_node"):
        whole["num_workers"] = 0
        for key, single in SINGLE_NODE.items():
            whole[key] = {**single, **spec.get(key, {})}
    return whole


def task_on(
    client: WorkspaceClient, config: dict[str, Any], python: SparkPythonTask
) -> tuple[SubmitTask, list[JobEnvironment] | None]:
    """The job's one task, and the serverless environment where it has one. config: from `check_config`."""
    from databricks.sdk.service.compute import ClusterSpec, Environment
    from databricks.sdk.service.jobs import Compute, JobEnvironment, SubmitTask

    if "accelerator" in config:
        task = SubmitTask(
            task_key="personalize",
            spark_python_task=python,
            environment_key="personalize",
            compute=Compute(hardware_accelerator=_accelerator(config["accelerator"])),
        )
        version = str(config.get("environment_version", SERVERLESS_ENVIRONMENT))
        return task, [JobEnvironment("personalize", Environment(environment_version=version))]
    if "existing_cluster_id" in config:
        cluster = config["existing_cluster_id"]
        return SubmitTask(task_key="personalize", spark_python_task=python, existing_cluster_id=cluster), None
    spec = dict(config["new_cluster"])
    if "spark_version" not in spec:
        with explained("looking for its newest GPU ML runtime with long-term support"):
            spec["spark_version"] = client.clusters.select_spark_version(
                long_term_support=True, ml=True, gpu=True, scala="2.13"
            )
    return SubmitTask(task_key="personalize", spark_python_task=python, new_cluster=ClusterSpec.from_dict(spec)), None


def _accelerator(name: str) -> Any:
    from databricks.sdk.service.compute import HardwareAcceleratorType

    try:
        return HardwareAcceleratorType(name)
    except ValueError:
        known = ", ".join(kind.value for kind in HardwareAcceleratorType)
        raise WorkspaceError(f"There is no serverless accelerator {name!r}; there are {known}.") from None
