"""A local endpoint, with a real `mlflow models serve` behind it: deployed, asked, killed, refused, stopped."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import psutil
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from personalize.serving.endpoint import EndpointError, curl_line
from personalize.serving.local import LocalEndpoint
from personalize.serving.registry import ModelVersion, resolve
from tests.waiting import wait_for

SIGNATURE = ModelSignature(
    inputs=Schema(
        [ColSpec("string", "prompt"), *(ColSpec("long", name, required=False) for name in ("width", "height", "seed"))]
    ),
    outputs=Schema([ColSpec("string", "image"), ColSpec("string", "format"), ColSpec("long", "seed")]),
)
SMOKE = {"prompt": "a chair", "width": 48, "height": 64}


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A registry with version 1, the champion, and version 2, which cannot load."""
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    (folder / "broken").write_text("x")
    experiment = mlflow.create_experiment("painting", artifact_location=(folder / "artifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment):
        for artifacts in (None, {"broken": str(folder / "broken")}):
            mlflow.pyfunc.log_model(
                name="painter",
                python_model=str(Path(__file__).with_name("painter.py")),
                artifacts=artifacts,
                signature=SIGNATURE,
                pip_requirements=["mlflow"],
                registered_model_name="painter",
            )
    mlflow.MlflowClient().set_registered_model_alias("painter", "champion", "1")
    yield folder
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def endpoint(registry):
    """An endpoint that serves the champion."""
    endpoint = LocalEndpoint("painter", root=registry / "endpoints", grace_s=5, timeout_s=20, startup_timeout_s=300)
    endpoint.deploy(resolve("models:/painter@champion"), SMOKE)
    yield endpoint
    endpoint.stop()


def processes_of(endpoint: LocalEndpoint) -> list[int]:
    """Every process that works for this endpoint: those that name its folder, or run in it."""
    found = []
    for process in psutil.process_iter():
        try:
            zombie = process.status() == psutil.STATUS_ZOMBIE
            if not zombie and (str(endpoint.folder) in process.cmdline() or process.cwd() == str(endpoint.folder)):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_the_champion_serves_and_says_which_version_it_is(endpoint):
    status = endpoint.status()
    assert (status.state, status.model, status.version) == ("serving", "painter", "1")
    assert status.url.startswith("http://127.0.0.1:")
    assert psutil.pid_exists(status.pid)
    assert status.uptime_s > 0


def test_only_this_machine_reaches_it(endpoint):
    port = int(endpoint.status().url.rsplit(":", 1)[1])
    listening = {c.laddr.ip for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
    assert listening == {"127.0.0.1"}


def test_the_curl_line_works_when_pasted(endpoint, tmp_path):
    body = endpoint.body({"prompt": """it's a "büro" chair""", "width": 40, "height": 24})
    line = curl_line(endpoint.status().url + "/invocations", body)
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "picture.png"
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_a_query_returns_a_picture_of_the_size_asked_for(endpoint):
    [picture] = endpoint.query({"prompt": "a chair", "width": 24, "height": 56, "seed": 5})
    assert picture.open().size == (24, 56)
    assert picture.facts["seed"] == 5


def test_the_models_own_words_reach_the_person_who_asked(endpoint):
    with pytest.raises(EndpointError, match=r"status 400\): the prompt names no known subject$"):
        endpoint.query({"prompt": "refuse me"})


def test_what_callers_ask_for_is_in_no_file_and_its_files_are_its_owners_alone(endpoint):
    asked = "a marchioness in a quiet library"
    endpoint.query({**SMOKE, "prompt": asked})
    for refused in ({"prompt": f"refuse me {asked}"}, {"prompt": asked, "width": -5, "height": 8}):
        with pytest.raises(EndpointError):
            endpoint.query(refused)
    url = f"{endpoint.status().url}/invocations"
    for body in (f'{{"dataframe_records": [{{"prompt": "{asked}", "width": "{asked}"}}]}}', f'{{"{asked}": 1}}', asked):
        request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=30)
    paths = [endpoint.folder, *endpoint.folder.rglob("*")]
    assert len(paths) > 4
    assert [path for path in paths if path.is_file() and b"marchioness" in path.read_bytes()] == []
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


def test_a_port_in_use_names_who_has_it_and_the_way_out(endpoint):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = LocalEndpoint("other", root=endpoint.root, port=port)
        with pytest.raises(EndpointError, match=rf"Port {port} .* in use by process {os.getpid()} .*-P port=0"):
            other.deploy(ModelVersion("painter", "1", "models:/painter/1"), SMOKE)
    ours = int(endpoint.status().url.rsplit(":", 1)[1])
    with pytest.raises(EndpointError, match="belongs to the endpoint 'painter'"):
        LocalEndpoint("other", root=endpoint.root, port=ours).deploy(resolve("models:/painter/1"), SMOKE)
    assert LocalEndpoint("other", root=endpoint.root).status().state == "stopped"
    assert endpoint.status().state == "serving"


@pytest.mark.slow
def test_a_version_that_does_not_load_shows_its_log_and_the_old_one_keeps_serving(endpoint):
    before = endpoint.status()
    with pytest.raises(
        EndpointError, match=r"(?s)ended with code.*the adapter file is damaged.*version 1 keeps serving"
    ):
        endpoint.deploy(resolve("models:/painter/2"), SMOKE)
    after = endpoint.status()
    assert (after.state, after.pid, after.url, after.version) == ("serving", before.pid, before.url, "1")
    assert len(endpoint.query({"prompt": "a chair"})) == 1


@pytest.mark.slow
def test_a_server_that_is_killed_is_noticed_and_started_again_at_the_same_address(endpoint):
    before = endpoint.status()
    [uvicorn] = [child for child in psutil.Process(before.pid).children(recursive=True) if "uvicorn" in child.name()]
    os.kill(uvicorn.pid, signal.SIGKILL)
    assert wait_for(lambda: endpoint.status().state in ("restarting", "starting"), 60)
    with pytest.raises(EndpointError, match=r"'painter' is (restarting|starting)"):
        endpoint.query({"prompt": "a chair"})
    assert wait_for(lambda: endpoint.status().state == "serving", 120), endpoint.status()
    after = endpoint.status()
    assert (after.url, after.restarts) == (before.url, 1)
    assert len(endpoint.query({"prompt": "a chair"})) == 1


def test_stop_leaves_no_process_and_may_be_said_twice(endpoint):
    assert len(processes_of(endpoint)) >= 3, "the keeper, `mlflow models serve` and uvicorn"
    endpoint.stop()
    assert processes_of(endpoint) == []
    assert endpoint.status().state == "stopped"
    assert endpoint.stop().note == "it was not running"
    with pytest.raises(EndpointError, match=r"is stopped.*mlflow run"):
        endpoint.query({"prompt": "a chair"})


def test_the_keeper_imports_nothing_heavy():
    code = (
        "import sys, personalize.serving.keeper; print([m for m in ('torch', 'mlflow', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
