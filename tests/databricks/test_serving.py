"""Model Serving, from registration to rollback, through the unmodified SDK and MLflow clients."""

import time
from concurrent.futures import ThreadPoolExecutor

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from personalize.databricks import readiness
from personalize.databricks.entities import kept, routes, workload
from personalize.databricks.serving import DatabricksEndpoint
from personalize.databricks.workspace import WorkspaceError
from personalize.serving.endpoint import EndpointError
from personalize.serving.registry import ModelVersion, resolve
from tests.databricks.conftest import MODEL
from tests.workspace import ME
from tests.workspace.containers import Container

SMOKE = {"prompt": "a chair", "width": 24, "height": 16}


@pytest.fixture
def endpoint(registry):
    endpoint = DatabricksEndpoint("chairs", poll_s=0.01, inference_table="main.personalize", report=lambda _: None)
    yield endpoint
    endpoint.delete()


def shares(workspace, name="chairs"):
    return [
        {route["served_entity_name"]: route["traffic_percentage"] for route in step}
        for step in workspace.serving.endpoints[name]["history"]
    ]


def test_the_champion_of_unity_catalog_is_served_and_answers(endpoint, registry):
    status = endpoint.deploy(resolve(f"models:/{MODEL}@champion"), SMOKE)
    assert (status.state, status.model, status.version) == ("serving", MODEL, "1")
    assert status.trial.open().size == (24, 16)
    assert status.url == f"{registry.url}/serving-endpoints/chairs"
    assert endpoint.query({"prompt": "a chair", "seed": 9})[0].facts["seed"] == 9

    made = registry.serving.endpoints["chairs"]
    [entity] = made["active"]["served_entities"]
    assert entity["workload_type"] == "GPU_MEDIUM", "the smallest GPU on AWS that fits SDXL"
    assert entity["scale_to_zero_enabled"] is True
    assert entity["environment_vars"]["HF_HUB_OFFLINE"] == "1", "a served model never asks a hub"
    table = made["ai_gateway"]["inference_table_config"]
    assert (table["catalog_name"], table["schema_name"], table["enabled"]) == ("main", "personalize", True)
    assert {"key": "model_version", "value": "1"} in made["tags"]


def test_a_new_version_gets_traffic_only_after_it_painted_and_rollback_gives_it_back(endpoint, registry):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    before = len(registry.requests)
    status = endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE)
    assert status.version == "2"
    assert shares(registry) == [
        {"painter-1": 100},
        {"painter-1": 100, "painter-2": 0},
        {"painter-2": 100, "painter-1": 0},
    ]
    calls = registry.requests[before:]
    trial = calls.index(("POST", "/serving-endpoints/chairs/served-models/painter-2/invocations"))
    turned = [i for i, call in enumerate(calls) if call == ("PUT", "/api/2.0/serving-endpoints/chairs/config")]
    assert turned[0] < trial < turned[1]

    assert endpoint.rollback().version == "1"
    assert shares(registry)[-1] == {"painter-1": 100, "painter-2": 0}


def test_a_version_that_cannot_load_shows_its_build_log_and_changes_nothing(endpoint, registry):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    with pytest.raises(EndpointError, match=r"(?s)UPDATE_FAILED.*\[build\] .*the adapter file is damaged"):
        endpoint.deploy(resolve(f"models:/{MODEL}/3"), SMOKE)
    assert endpoint.status().version == "1"
    assert len(endpoint.query(SMOKE)) == 1


def test_a_version_that_paints_the_wrong_thing_is_taken_off_again(endpoint, registry):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    with pytest.raises(EndpointError, match=r"(?s)names no known subject.*version 1 keeps serving 'chairs'"):
        endpoint.deploy(resolve(f"models:/{MODEL}/2"), {"prompt": "refuse me"})
    assert shares(registry)[-1] == {"painter-1": 100}


def test_nothing_to_roll_back_to_is_said_with_the_way_out(endpoint):
    with pytest.raises(EndpointError, match=r"keeps no earlier version.*-P deploy.model=models:/"):
        endpoint.rollback()
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    with pytest.raises(EndpointError, match="keeps no earlier version"):
        endpoint.rollback()


def test_deploying_the_same_version_again_keeps_it(endpoint):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    assert endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE).version == "1"


def test_stop_releases_the_compute_and_deploy_starts_it_again(endpoint, registry):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    assert endpoint.stop().state == endpoint.stop().state == "stopped"
    assert registry.serving.endpoints["chairs"]["suspended"]
    assert endpoint.status().note == "its compute is released"
    assert endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE).state == "serving"


def test_delete_ends_the_endpoint_and_may_be_said_twice(endpoint, registry):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    assert endpoint.delete().state == "stopped"
    assert "chairs" not in registry.serving.endpoints
    assert endpoint.delete().note == "there was no such endpoint"
    assert endpoint.status().state == "stopped"
    with pytest.raises(EndpointError, match="Deploy it first"):
        endpoint.query({"prompt": "a chair"})


def test_an_update_in_progress_is_not_disturbed(endpoint, registry):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    registry.serving.endpoints["chairs"] |= {
        "update": "IN_PROGRESS",
        "looks": 5,
        "pending": registry.serving.endpoints["chairs"]["active"],
    }
    with pytest.raises(EndpointError, match="being updated by somebody"):
        endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE)


def test_a_canary_gets_its_share_then_all_or_nothing(endpoint, registry):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    endpoint.traffic = 10
    status = endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE)
    assert shares(registry)[-1] == {"painter-2": 10, "painter-1": 90}
    assert (status.version, status.note) == ("1", "painter-2 10 %, painter-1 90 %")
    assert endpoint.rollback().version == "1"
    assert shares(registry)[-1] == {"painter-1": 100, "painter-2": 0}
    endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE)
    builds = len(shares(registry))
    endpoint.traffic = 100
    assert endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE).version == "2"
    assert len(shares(registry)) == builds + 1, "what is on the endpoint is not built again"


def test_an_interrupted_deployment_is_taken_up_by_the_next(endpoint, registry, monkeypatch):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    said = []
    endpoint.report = said.append
    with monkeypatch.context() as patch:
        patch.setattr(readiness.time, "sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE)
    assert "The same command again takes it up" in said[-1]
    assert registry.serving.endpoints["chairs"]["update"] == "IN_PROGRESS"
    assert endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE).version == "2"
    assert any("already; waiting for it" in line for line in said)


@pytest.mark.parametrize("fault", ["refuse_updates", "build_fails"])
def test_whatever_fails_the_version_before_keeps_serving_and_a_rerun_finishes(endpoint, registry, monkeypatch, fault):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    with monkeypatch.context() as patch:
        patch.setattr(registry.serving, fault, "no capacity in this region")
        with pytest.raises(EndpointError, match="no capacity in this region"):
            endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE)
        assert endpoint.status().version == "1"
        assert len(endpoint.query(SMOKE)) == 1
    assert endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE).version == "2"


def test_a_version_is_kept_on_the_compute_that_it_has(endpoint, registry):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    [entity] = registry.serving.endpoints["chairs"]["active"]["served_entities"]
    entity |= {"workload_type": "GPU_MEDIUM_8"}  # in use, and not among the SDK's
    endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE)
    after = registry.serving.endpoints["chairs"]["active"]["served_entities"]
    assert {one["name"]: one["workload_type"] for one in after} == {
        "painter-1": "GPU_MEDIUM_8",
        "painter-2": "GPU_MEDIUM",
    }
    assert kept({"name": "a", "state": {}, "creator": "x", "workload_type": "NEW"}) == {
        "name": "a",
        "workload_type": "NEW",
    }


def test_a_gpu_that_is_not_there_is_no_slow_cpu(endpoint, registry):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    [entity] = registry.serving.endpoints["chairs"]["active"]["served_entities"]
    assert entity["environment_vars"]["PERSONALIZE_DEVICE"] == "cuda"
    assert entity["environment_vars"]["MLFLOW_MODELS_WORKERS"] == "1", "four copies of SDXL do not fit in 24 GB"


def test_everything_asked_of_an_endpoint_is_on_it(endpoint, registry):
    registry.serving.secrets.add("studio/hub")
    endpoint.concurrency, endpoint.can_query = (4, 8), ("designers", "you@example.com")
    endpoint.tags, endpoint.environment = {"cost_centre": "studio"}, {"HUB": "{{secrets/studio/hub}}"}
    endpoint.inference_table = ""
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    made = registry.serving.endpoints["chairs"]
    [entity] = made["active"]["served_entities"]
    assert (entity["min_provisioned_concurrency"], entity["max_provisioned_concurrency"]) == (4, 8)
    assert entity["environment_vars"]["HUB"] == "{{secrets/studio/hub}}"
    assert {"key": "cost_centre", "value": "studio"} in made["tags"]
    asked = registry.serving.permissions["chairs"]
    assert [one.get("group_name") or one.get("user_name") for one in asked] == ["designers", "you@example.com"]
    assert made["ai_gateway"] is None
    endpoint.inference_table = "main.personalize"
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    assert made["ai_gateway"]["inference_table_config"]["schema_name"] == "personalize", "not only on create"


def test_an_endpoint_is_charged_to_a_budget_policy_that_one_may_use(endpoint, registry, monkeypatch):
    endpoint.budget_policy_id = "studio-policy"
    with pytest.raises(EndpointError, match=r"does not allow deploying.*budget policy studio-policy"):
        endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    assert "chairs" not in registry.serving.endpoints
    monkeypatch.setitem(registry.serving.policies, "studio-policy", {ME})
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    assert registry.serving.endpoints["chairs"]["budget_policy_id"] == "studio-policy"


@pytest.mark.parametrize(
    ("asked", "workers"),
    [
        pytest.param({}, 1, id="ours"),
        pytest.param({"MLFLOW_MODELS_WORKERS": "3"}, 3, id="three", marks=pytest.mark.slow),
    ],
)
def test_a_container_has_one_worker_or_as_many_as_are_asked_for(endpoint, registry, monkeypatch, asked, workers):
    monkeypatch.setattr(registry.serving, "kind", Container)
    monkeypatch.setattr(registry.serving, "loaded", {})
    endpoint.environment = asked
    try:
        endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
        [container] = registry.serving.loaded.values()
        assert container.workers() == workers, "each has a copy of the model on the GPU"
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda seed: endpoint.query({**SMOKE, "seed": seed}), range(8)))
        assert [answer[0].facts["seed"] for answer in answers] == list(range(8))
    finally:
        for container in registry.serving.loaded.values():
            container.close()


def test_where_a_workspace_has_no_gateway_requests_are_logged_by_telemetry(endpoint, registry, monkeypatch):
    monkeypatch.setattr(registry.serving, "has_gateway", False)
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    made = registry.serving.endpoints["chairs"]
    assert made["ai_gateway"] is None
    assert made["telemetry_config"]["inference_table_config"]["name"] == "main.personalize.chairs_payload"
    endpoint.inference_table = "main.default"
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    assert made["telemetry_config"]["inference_table_config"]["name"] == "main.default.chairs_payload"
    before = len(registry.requests)
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    assert not [path for _, path in registry.requests[before:] if "gateway" in path or "telemetry" in path]


def test_where_it_has_neither_nothing_is_built(endpoint, registry, monkeypatch):
    monkeypatch.setattr(registry.serving, "has_gateway", False)
    monkeypatch.setattr(registry.serving, "has_telemetry", False)
    with pytest.raises(EndpointError, match=r"No requests can be logged in main\.personalize.*without deploy\.inf"):
        endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    assert "chairs" not in registry.serving.endpoints


def test_an_endpoint_that_was_scaled_to_zero_says_when_to_ask_again(endpoint, registry, monkeypatch):
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    monkeypatch.setattr(registry.serving, "comes_up_s", 0.5)
    monkeypatch.setattr(registry.serving, "longest_s", 0.2)
    registry.serving.scale_to_zero("chairs")
    with pytest.raises(EndpointError, match=r"did not answer in time\. Where it was scaled to zero.*ask again"):
        endpoint.query(SMOKE)
    time.sleep(0.6)
    assert len(endpoint.query(SMOKE)) == 1, "it came up meanwhile"
    with pytest.raises(EndpointError, match=r"297 s .*needs fewer steps"):
        endpoint.query({"prompt": "slowly"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "databricks-chairs"}, "reserved"),
        ({"environment": {"HUB": "{{secrets/hub}}"}}, r"\{\{secrets/<scope>/<key>\}\}"),
        ({"environment": {"HUB": "{{secrets/studio/none}}"}}, "Secret studio/none does not exist"),
        ({"environment": {f"V{i}": "1" for i in range(30)}}, "30 environment variables"),
        ({"inference_table": "other.schema"}, "does not have|CREATE TABLE"),
        ({"workload_type": "GPU_LARGE"}, "there are"),
    ],
)
def test_what_a_workspace_would_refuse_is_explained(endpoint, change, words):
    for key, value in change.items():
        setattr(endpoint, key, value)
    with pytest.raises(EndpointError, match=words):
        endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    endpoint.name = "chairs"


def test_a_version_that_one_may_not_execute_is_refused_before_anything_is_built(endpoint, registry, monkeypatch):
    model = resolve(f"models:/{MODEL}/1")
    monkeypatch.setattr("personalize.databricks.serving.inputs_of", lambda uri: ({"prompt", "width", "height"}, set()))
    monkeypatch.setattr(registry.catalog, "owners", dict.fromkeys(registry.catalog.owners, "other@example.com"))
    with pytest.raises(EndpointError, match=r"does not have (USE CATALOG|EXECUTE) on"):
        endpoint.deploy(model, SMOKE)
    assert "chairs" not in registry.serving.endpoints


def test_the_log_of_what_is_built_is_shown_as_it_grows(endpoint, registry, monkeypatch):
    said = []
    endpoint.report = said.append
    monkeypatch.setattr(readiness, "REPORT_EVERY_S", 0)
    monkeypatch.setattr(registry.serving, "looks_until_ready", 4)
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    lines = [line.strip() for line in said if "of the build" in line]
    assert lines[:3] == [f"step {number} of the build" for number in range(3)], "each line once"
    assert any(line.startswith("painter-1: 0.0 min") for line in said)


def test_an_endpoint_of_somebody_else_is_left_alone(endpoint, registry):
    endpoint.check()
    endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)
    endpoint.check()
    registry.serving.endpoints["chairs"]["creator"] = "other@example.com"
    with pytest.raises(EndpointError, match=r"belongs to other@example\.com.*deploy\.name"):
        endpoint.check()  # before a training that would end there
    with pytest.raises(EndpointError, match=r"belongs to other@example\.com.*deploy\.name"):
        endpoint.deploy(resolve(f"models:/{MODEL}/2"), SMOKE)
    registry.serving.endpoints["chairs"]["creator"] = "me@example.com"


def test_patience_is_what_databricks_gives_a_deployment_and_some():
    assert readiness.patience("GPU_MEDIUM") > 60 * 60
    assert readiness.patience("GPU_LARGE") > 120 * 60


def test_silence_is_given_up_with_the_way_to_go_on(endpoint, registry, monkeypatch):
    endpoint.patience_s = 0.05
    monkeypatch.setattr(registry.serving, "looks_until_ready", 10**6)
    with pytest.raises(EndpointError, match=r"nothing new was heard.*the same command again waits on"):
        endpoint.deploy(resolve(f"models:/{MODEL}/1"), SMOKE)


def test_a_local_model_name_is_refused_before_anything_is_asked_of_the_workspace(endpoint, registry):
    before = len(registry.requests)
    with pytest.raises(EndpointError, match=r"three-level name.*profile databricks"):
        endpoint.deploy(ModelVersion("painter", "1", "models:/painter/1"), SMOKE)
    assert len(registry.requests) == before


def test_unity_catalog_takes_three_level_names_and_signed_models_only(registry, tmp_path):
    client = mlflow.MlflowClient()
    with pytest.raises(MlflowException, match="three levels"):
        client.create_registered_model("personalize.painter")


@pytest.mark.parametrize(
    ("cloud", "name", "expected"),
    [("aws", "", "GPU_MEDIUM"), ("azure", "", "GPU_LARGE"), ("gcp", "", "GPU_MEDIUM"), ("gcp", "CPU", "CPU")],
)
def test_the_workload_type_follows_the_cloud(cloud, name, expected):
    assert workload(cloud, name) == expected


def test_a_workload_type_that_the_cloud_lacks_is_named_with_those_it_has():
    with pytest.raises(EndpointError, match=r"'GPU_LARGE' on aws; there are .*GPU_MEDIUM \(A10G, 24 GB\)"):
        workload("aws", "GPU_LARGE")
    assert workload("aws", "GPU_XLARGE_8") == "GPU_XLARGE_8"


def test_traffic_adds_up():
    with pytest.raises(ValueError, match="add up to 100"):
        routes({"a": 60, "b": 60})


def test_without_credentials_the_way_in_is_explained(monkeypatch, tmp_path):
    for variable in ("DATABRICKS_HOST", "DATABRICKS_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(
        WorkspaceError,
        match=r"No way into .*configure default credentials\. Sign in with .*DATABRICKS_HOST with DATABRICKS_TOKEN",
    ):
        DatabricksEndpoint("chairs").status()


def test_a_wrong_token_is_reported(registry, monkeypatch):
    from databricks.sdk.errors import PermissionDenied

    monkeypatch.setenv("DATABRICKS_TOKEN", "somebody-elses")
    with pytest.raises((EndpointError, PermissionDenied), match="Invalid access token"):
        DatabricksEndpoint("chairs").status()
