"""The deployment job: made once, started by every new version, stopped until somebody approves."""

import itertools
import json
import shutil

import mlflow
import pytest

from personalize.databricks import deployment_job
from personalize.databricks.workspace import WorkspaceError, connect
from tests.databricks.conftest import MODEL, ROOT, VOLUME, committed, results
from tests.workspace import ME
from tests.workspace.jobs import can_isolate

CONFIG = {"accelerator": "GPU_1xA10", "volume": VOLUME}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The project's recipe and entry points, and a driver that runs `deployment` with this checkout's code."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    for name in ("personalize", "steps"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("recipe.yaml", "MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, folder)
    monkeypatch.chdir(folder)
    return committed(folder)


@pytest.fixture
def made(registry, project):
    """The id of the job, linked to the model."""
    number = deployment_job.make(connect(), project, CONFIG, MODEL, "databricks", "/Shared/personalize", "version")
    yield number
    registry.registry.models[MODEL]["deployment_job_id"] = ""


def test_the_job_has_the_three_tasks_of_the_workspaces_own_template(registry, made):
    settings = registry.jobs.jobs[made]["settings"]
    assert [task["task_key"] for task in settings["tasks"]] == ["Evaluation", "Approval_Check", "Deployment"]
    assert [one["name"] for one in settings["parameters"]] == ["model_name", "model_version"]
    assert all("compute" not in task for task in settings["tasks"]), "nothing here needs a GPU"
    assert registry.registry.models[MODEL]["deployment_job_id"] == str(made)


def test_making_it_again_changes_the_job_that_is_there(registry, made, project):
    again = deployment_job.make(connect(), project, CONFIG, MODEL, "databricks", "/Shared/personalize", "version")
    assert again == made


def test_a_job_may_follow_the_alias_instead(registry, project):
    number = deployment_job.make(connect(), project, CONFIG, MODEL, "databricks", "/Shared/personalize", "alias")
    settings = registry.jobs.jobs[number]["settings"]
    trigger = settings["trigger"]["model"]
    assert (trigger["condition"], trigger["aliases"]) == ("MODEL_ALIAS_SET", ["champion"])
    assert [task["task_key"] for task in settings["tasks"]] == ["Deployment"]


@pytest.fixture
def on_alias(registry, project):
    """The id of a job that follows the alias champion of the model."""
    yield deployment_job.make(connect(), project, CONFIG, MODEL, "databricks", "/Shared/personalize", "alias")
    registry.jobs.jobs.clear()


def test_the_champions_alias_starts_the_job_that_deploys_the_champion(registry, on_alias, monkeypatch):
    monkeypatch.setattr(registry.jobs, "no_capacity", True)  # what it runs, it runs here
    client = mlflow.MlflowClient(registry_uri="databricks-uc")
    assert registry.jobs.poll() == []
    client.set_registered_model_alias(MODEL, "challenger", "2")
    assert registry.jobs.poll() == [], "promote alone moves the champion"
    client.set_registered_model_alias(MODEL, "champion", "2")
    client.set_registered_model_alias(MODEL, "champion", "1")
    [number] = registry.jobs.poll()
    run = registry.jobs.runs[number]
    assert run["job_id"] == on_alias
    [task] = run["body"]["tasks"]
    words = [registry.jobs.expand(word, run) for word in task["spark_python_task"]["parameters"]]
    given = [after for word, after in itertools.pairwise(words) if word == "--parameter"]
    deployed = []
    monkeypatch.setattr("personalize.recipe.__main__.main", lambda words: deployed.append(words) or 0)
    assert deployment_job.main([word for one in given for word in ("--" + one).split("=", 1)]) == 0
    assert deployed == [
        ["run", "--profile", "databricks", "--MODEL_NAME", MODEL, "--step", "deploy", "--deploy.model", MODEL]
    ], "whatever is the champion when it runs, not what it was told of"


def test_an_alias_job_of_a_model_that_one_may_not_execute_is_refused(registry, project, monkeypatch):
    owners = dict.fromkeys(registry.catalog.owners, "other@example.com")
    monkeypatch.setattr(registry.catalog, "owners", {**owners, "main.personalize.files": "designers"})
    registry.catalog.grant("main", "designers", "USE_CATALOG", "USE_SCHEMA")
    with pytest.raises(WorkspaceError, match=r"does not allow making the deployment job.*EXECUTE"):
        deployment_job.make(connect(), project, CONFIG, MODEL, "databricks", "/Shared/personalize", "alias")
    registry.catalog.grants.clear()


def test_a_deployment_job_is_charged_to_the_budget_policy_of_its_compute(registry, project):
    registry.jobs.policies["studio-policy"] = {ME}
    config = {**CONFIG, "budget_policy_id": "studio-policy"}
    number = deployment_job.make(connect(), project, config, MODEL, "databricks", "/Shared/personalize", "version")
    assert registry.jobs.jobs[number]["settings"]["budget_policy_id"] == "studio-policy"
    registry.registry.models[MODEL]["deployment_job_id"] = ""


def test_a_new_version_starts_the_job_with_its_name_and_number(registry, made, monkeypatch):
    monkeypatch.setattr(registry.jobs, "no_capacity", True)  # what it runs is another test
    registry.new_version(str(made), MODEL, "2")
    run = registry.jobs.runs[max(registry.jobs.runs)]
    assert run["parameters"] == {"model_name": MODEL, "model_version": "2"}
    word = run["body"]["tasks"][1]["spark_python_task"]["parameters"]
    expanded = [registry.jobs.expand(one, run) for one in word]
    assert f"model_name={MODEL}" in expanded
    assert "model_version=2" in expanded
    assert "stage=approval" in expanded


def test_a_version_without_a_verdict_or_an_approval_goes_no_further(registry, capsys):
    client = mlflow.MlflowClient(registry_uri="databricks-uc")
    with pytest.raises(WorkspaceError, match="no evaluation card"):
        deployment_job.evaluation(MODEL, "2")
    client.set_model_version_tag(MODEL, "2", "card", "runs:/1/card.html")
    client.set_model_version_tag(MODEL, "2", "verdict", "failed")
    with pytest.raises(WorkspaceError, match="its gates failed"):
        deployment_job.evaluation(MODEL, "2")
    client.set_model_version_tag(MODEL, "2", "verdict", "passed")
    deployment_job.evaluation(MODEL, "2")
    with pytest.raises(WorkspaceError, match=r"not approved yet.*press Approve.*-e promote.*version=2"):
        deployment_job.approval(MODEL, "2")
    client.set_model_version_tag(MODEL, "2", "Approval_Check", "approved")
    deployment_job.approval(MODEL, "2")
    assert deployment_job.main(["--stage", "approval", "--model_name", MODEL, "--model_version", "3"]) == 2
    assert "error: main.personalize.painter version 3 is not approved yet" in capsys.readouterr().err


def test_the_approve_button_and_promote_speak_of_the_same_approval(registry):
    from steps import promote
    from steps.evidence import Chain

    client = mlflow.MlflowClient(registry_uri="databricks-uc")
    config = promote.Config(name=MODEL, version="2", approval_tag="Approval_Check")
    client.set_model_version_tag(MODEL, "2", "Approval_Check", "Approved")
    approval, lacks = promote.find_approval(config, client.get_model_version(MODEL, "2"), Chain([]))
    assert (approval.by, lacks) == ("the workspace's Approve button", [])
    assert "Approval_Check" in approval.reason
    spoken = promote.Config(name=MODEL, version="2", approval_tag="Approval_Check", approved_by="a", reason="the legs")
    assert promote.find_approval(spoken, client.get_model_version(MODEL, "2"), Chain([]))[0].by == "a"


def test_what_cannot_be_made_is_said(registry, project, capsys):
    (project / "cluster.json").write_text(json.dumps(CONFIG))
    assert deployment_job.main(["--config", "cluster.json", "--on", "tuesday"]) == 2
    assert "on=version or on=alias" in capsys.readouterr().err


@pytest.mark.end_to_end
@pytest.mark.skipif(not can_isolate(), reason="JOBS NOT TESTED: this machine allows no mount namespace")
def test_an_approval_in_the_workspace_does_not_stand_for_an_evaluation(registry, tracking, project, monkeypatch):
    def only_the_last(run, task):  # what the two before say of these tags is known from above
        return execute(run, task) if task["task"]["task_key"] == "Deployment" else "SUCCESS"

    execute = registry.jobs.execute
    monkeypatch.setattr(registry.jobs, "execute", only_the_last)
    client = mlflow.MlflowClient(registry_uri="databricks-uc")
    client.set_model_version_tag(MODEL, "2", "card", "runs:/1/card.html")
    client.set_model_version_tag(MODEL, "2", "verdict", "passed")
    client.set_model_version_tag(MODEL, "2", "Approval_Check", "Approved")  # what the button of the version's page does
    job = deployment_job.make(connect(), project, CONFIG, MODEL, "databricks", "/Users/a/personalize", "version")
    registry.new_version(str(job), MODEL, "2")
    came_to, logs = results(registry, max(registry.jobs.runs))
    assert came_to == {"Evaluation": "SUCCESS", "Approval_Check": "SUCCESS", "Deployment": "FAILED"}, logs
    assert "version 2 cannot be promoted: it has no statement of what it is made of" in logs
    assert "champion" not in client.get_model_version(MODEL, "2").aliases
    registry.registry.models[MODEL]["deployment_job_id"] = ""
