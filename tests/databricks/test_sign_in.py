"""Every way of signing in, through the SDK's own strategies; and the first thing that is said where there is none."""

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from personalize.databricks import renewal
from personalize.databricks.workspace import WorkspaceError, connect, profile_of
from tests.databricks.conftest import ROOT, VOLUME, committed, mlflow_run
from tests.serving.test_local import SIGNATURE
from tests.workspace import ME, TOKEN

SIGNED_OUT = ("DATABRICKS_HOST", "DATABRICKS_TOKEN", "DATABRICKS_CONFIG_PROFILE", "MLFLOW_TRACKING_URI")


@pytest.fixture
def signed_out(workspace, monkeypatch, tmp_path):
    """No credentials in the environment; ~/.databrickscfg is `tmp_path/cfg`."""
    for variable in SIGNED_OUT:
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "cfg"))
    return tmp_path / "cfg"


@pytest.fixture
def cli(signed_out, workspace, monkeypatch, tmp_path):
    """What `databricks auth login` leaves: a profile, and a CLI that gives a token of an hour (of a second, here)."""
    signed_out.write_text(f"[studio]\nhost = {workspace.url}\nauth_type = databricks-cli\n")
    program = tmp_path / "bin" / "databricks"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import datetime, json, sys, urllib.request\n"
        "if 'token' not in sys.argv: sys.exit('unknown command')\n"
        f"given = json.load(urllib.request.urlopen('{workspace.url}/cli-token'))\n"
        "ends = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=given['expires_in'])\n"
        "print(json.dumps(given | {'expiry': ends.isoformat()}))\n" + "#" * 1024 * 1024  # the SDK wants a whole CLI
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return program


def test_a_service_principal_signs_in_with_its_secret(workspace, signed_out, monkeypatch):
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "client-1")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "secret-1")
    assert connect().current_user.me().user_name == "robot@example.com"
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "wrong")
    with pytest.raises(WorkspaceError, match=r"No way into a Databricks workspace.*databricks auth login"):
        connect()


def test_a_profile_of_the_tracking_uri_is_the_one_that_is_used(workspace, signed_out, monkeypatch):
    signed_out.write_text(f"[studio]\nhost = {workspace.url}\ntoken = {TOKEN}\n")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks://studio")
    assert connect().current_user.me().user_name == ME
    assert profile_of("databricks") == profile_of("databricks://scope:prefix") == profile_of("http://x") == ""


def test_a_login_of_the_cli_is_a_way_in(workspace, cli, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks://studio")
    assert connect().current_user.me().user_name == ME


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a model."""
    import mlflow

    folder = tmp_path_factory.mktemp("saved") / "model"
    painter = str(ROOT / "tests" / "serving" / "painter.py")
    mlflow.pyfunc.save_model(str(folder), python_model=painter, signature=SIGNATURE, pip_requirements=["mlflow"])
    return folder


@pytest.mark.parametrize("way", ["token", "profile", "service principal", "login of the cli"])
def test_every_sign_in_submits_registers_promotes_and_deploys(
    workspace, signed_out, monkeypatch, request, project, model, way
):
    import mlflow

    from personalize.databricks import registration
    from personalize.databricks.backend import JobsBackend
    from personalize.databricks.serving import DatabricksEndpoint
    from personalize.recipe.tracking import registry_beside
    from personalize.serving.registry import resolve

    uri = "databricks"
    if way == "token":
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    elif way == "service principal":
        workspace.catalog.owners |= dict.fromkeys(("main", "main.personalize", "main.personalize.files"), "users")
        for name, value in {"HOST": workspace.url, "CLIENT_ID": "client-1", "CLIENT_SECRET": "secret-1"}.items():
            monkeypatch.setenv(f"DATABRICKS_{name}", value)
    elif way == "profile":
        uri = "databricks://tokens"
        signed_out.write_text(f"[tokens]\nhost = {workspace.url}\ntoken = {TOKEN}\n")
    else:
        uri = "databricks://studio"
        request.getfixturevalue("cli")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(workspace.jobs, "no_capacity", True)  # what a job runs is another test
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(registry_beside(uri, "databricks-uc"))
    try:
        experiment = mlflow.create_experiment(f"/Shared/{way}")
        run = mlflow.MlflowClient().create_run(experiment).info
        mlflow.MlflowClient().log_text(run.run_id, "a chair", "card.html")
        kept = workspace.path(f"/WorkspaceInternal/Mlflow/Artifacts/{experiment}/Runs/{run.run_id}/artifacts/card.html")
        assert kept.read_text() == mlflow.artifacts.load_text(f"{run.artifact_uri}/card.html") == "a chair"
        config = {"accelerator": "GPU_1xA10", "volume": VOLUME}
        job = JobsBackend().run(str(committed(project)), "main", {}, None, config, uri, experiment)
        assert job.job_run_id in workspace.jobs.runs
        name = f"main.personalize.{way.replace(' ', '_')}"
        assert registration.register(str(model), name, {"verdict": "passed"}).status == "READY"
        # what promote does there: it reads what is in the version, tags it and moves the alias
        assert Path(mlflow.artifacts.download_artifacts(f"models:/{name}/1"), "MLmodel").is_file()
        client = mlflow.MlflowClient()
        client.set_model_version_tag(name, "1", "Approval_Check", "Approved")
        client.set_registered_model_alias(name, "champion", "1")
        endpoint = DatabricksEndpoint(way.replace(" ", "-"), poll_s=0.01, report=lambda _: None)
        assert endpoint.deploy(resolve(f"models:/{name}@champion"), {"prompt": "a chair"}).version == "1"
        assert len(endpoint.query({"prompt": "a chair"})) == 1
        endpoint.delete()
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("no such profile", r"nobody.*databricks auth login --profile NAME"),
        ("no cli", r"No way into a Databricks workspace.*databricks auth login"),
        ("wrong secret", r"No way into a Databricks workspace.*DATABRICKS_CLIENT_SECRET"),
        ("a token that has ended", r"does not allow signing in: Invalid access token\. Sign in with"),
    ],
)
def test_a_sign_in_that_leads_nowhere_is_refused_before_anything_is_begun(
    workspace, signed_out, monkeypatch, request, way, says
):
    from mlflow.exceptions import ExecutionException

    from personalize.databricks import sign_in

    uri = {"no such profile": "databricks://nobody", "no cli": "databricks://studio"}.get(way, "databricks")
    if way == "no cli":
        request.getfixturevalue("cli").unlink()
    elif way == "wrong secret":
        for name, value in {"HOST": workspace.url, "CLIENT_ID": "client-1", "CLIENT_SECRET": "wrong"}.items():
            monkeypatch.setenv(f"DATABRICKS_{name}", value)
    elif way == "a token that has ended":
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", workspace.identity.issue(ME, lasts_s=-1)["access_token"])
    else:
        signed_out.write_text(f"[studio]\nhost = {workspace.url}\ntoken = {TOKEN}\n")
    monkeypatch.setattr(sys, "argv", ["mlflow", "run", str(ROOT), "-e", "promote"])
    before = len(workspace.requests)
    with pytest.raises(ExecutionException, match=says):
        sign_in.tracking_store(uri)
    assert not [path for _, path in workspace.requests[before:] if "mlflow" in path]


def test_a_host_where_nothing_answers_is_named_within_seconds(signed_out, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("DATABRICKS_TOKEN", "x")
    begun = time.monotonic()
    with pytest.raises(WorkspaceError, match=rf"Nothing answers at http://127\.0\.0\.1:{port}.*Check DATABRICKS_HOST"):
        connect()
    assert time.monotonic() - begun < 10


def test_a_child_process_signs_in_anew_with_every_renewal(workspace, signed_out, monkeypatch):
    monkeypatch.setattr(renewal, "LASTS_S", 0.2)
    tokens = []

    def headers():
        tokens.append(workspace.identity.issue(ME, lasts_s=1)["access_token"])
        return {"Authorization": f"Bearer {tokens[-1]}"}

    with renewal.renewing(workspace.url, headers) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        client = connect()
        assert client.config.auth_type == "metadata-service"
        assert client.current_user.me().user_name == ME
        time.sleep(1.2)
        assert client.current_user.me().user_name == ME, "the first token has ended meanwhile"
    assert len(tokens) >= 2


def test_the_loopback_service_answers_only_who_knows_its_address(workspace, signed_out):
    import requests

    with renewal.renewing(workspace.url, lambda: {"Authorization": "Bearer x"}) as variables:
        address = variables["DATABRICKS_METADATA_SERVICE_URL"]
        version = {"X-Databricks-Metadata-Version": "1"}
        assert requests.get(address, headers=version).json()["access_token"] == "x"
        assert requests.get(address.rpartition("/")[0] + "/", headers=version).status_code == 404
        assert requests.get(address).status_code == 404


@pytest.fixture
def project(tmp_path):
    """A project whose one entry point tells MLflow who it is."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "MLproject").write_text("name: tiny\nentry_points:\n  main:\n    command: python entry.py\n")
    (folder / "entry.py").write_text(
        "import mlflow\nfrom databricks.sdk import WorkspaceClient\n"
        "with mlflow.start_run():\n    mlflow.set_tag('who', WorkspaceClient().current_user.me().user_name)\n"
    )
    return folder


def test_a_run_that_names_no_experiment_has_its_profiles(tracking, monkeypatch):
    import mlflow

    from personalize.databricks import sign_in

    for words in (["-P", "profile=databricks"], ["-Pprofile=local"], []):
        monkeypatch.setattr(sys, "argv", ["mlflow", "run", str(ROOT), "-e", "setup", *words])
        assert sign_in.wants_experiment()
        found = sign_in.project_experiment()
        assert mlflow.get_experiment(found).name == "/Shared/personalize", "a workspace's experiments have paths"
    begun = '{"_mlflow_local_backend_run_id": "1"}'
    monkeypatch.setattr(sys, "argv", ["mlflow", "run", str(ROOT), "--backend-config", begun])
    assert not sign_in.wants_experiment(), "a run that is there has one"
    monkeypatch.setattr(sys, "argv", ["mlflow", "models", "serve"])
    assert not sign_in.wants_experiment()


def test_without_credentials_the_first_message_is_ours(project, installed, signed_out):
    said, code = mlflow_run(
        project, installed, "-b", "databricks-jobs", "--experiment-name", "/Users/a/x", "--backend-config", "{}",
        MLFLOW_TRACKING_URI="databricks",
    )  # fmt: skip
    assert code == 1
    assert "No way into a Databricks workspace" in said
    assert "databricks auth login" in said
    assert "Traceback" not in said


def test_without_a_tracking_uri_the_first_message_is_ours(project, installed, signed_out):
    config = '{"existing_cluster_id": "1"}'
    said, code = mlflow_run(project, installed, "-b", "databricks-jobs", "--backend-config", config)
    assert code == 1
    assert "A job cannot reach the tracking store" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_mlflow_run_takes_a_login_of_the_cli_and_hands_it_on(tracking, project, installed, cli, workspace, monkeypatch):
    import mlflow

    said, code = mlflow_run(
        project, installed, "--env-manager", "local", "--experiment-id", tracking,
        MLFLOW_TRACKING_URI="databricks://studio",
    )  # fmt: skip
    assert code == 0, said[-3000:]
    monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
    monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
    [run] = mlflow.MlflowClient().search_runs([tracking], max_results=1)
    assert run.data.tags["who"] == ME
