"""The keeper: hand-over without a lost request, abandoned deployments, killed keepers, strangers with an old pid.

The server behind it is a small real one that starts at once; `test_local.py` does the same with `mlflow models serve`.
"""

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema

from personalize.files import read_json, write_json
from personalize.serving import keeper, local
from personalize.serving.agreement import Agreement
from personalize.serving.endpoint import EndpointError
from personalize.serving.local import LocalEndpoint
from personalize.serving.ports import free_port, port_is_free
from personalize.serving.processes import is_alive, remembered
from personalize.serving.registry import ModelVersion
from tests.waiting import wait_for

SMOKE = {"prompt": "a chair", "width": 6, "height": 4}


@dataclass(frozen=True)
class QuickEndpoint(LocalEndpoint):
    """A local endpoint whose server is `easel.py`."""

    behaviour: str = "good"

    def _command(self, path: str) -> list[str]:
        easel = str(Path(__file__).with_name("easel.py"))
        return [sys.executable, easel, "{port}", Path(path).name, self.behaviour]


@pytest.fixture
def version(tmp_path):
    """Make a model folder called `v1`, `v2` ... and return its version."""

    def make(number: int) -> ModelVersion:
        folder = tmp_path / f"v{number}"
        columns = [ColSpec("string", "prompt"), ColSpec("long", "width", False), ColSpec("long", "height", False)]
        signature = ModelSignature(inputs=Schema(columns), outputs=Schema([ColSpec("string", "image")]))
        folder.mkdir(exist_ok=True)
        Model(signature=signature).save(str(folder / "MLmodel"))
        return ModelVersion("easel", str(number), str(folder))

    return make


@pytest.fixture
def endpoint(tmp_path):
    endpoint = QuickEndpoint("easel", root=tmp_path / "endpoints", grace_s=5, timeout_s=10, startup_timeout_s=60)
    yield endpoint
    endpoint.stop()


@pytest.fixture(autouse=True)
def _no_registry(monkeypatch):
    """Versions here are folders; nothing is looked up."""
    monkeypatch.setattr(local, "fetch_files", lambda model, store: Path(model.uri))


def painted_by(endpoint: LocalEndpoint, prompt: str = "a chair") -> str:
    return endpoint.query({"prompt": prompt})[0].facts["version"]


def test_a_second_version_takes_over_the_address_without_losing_a_request(endpoint, version):
    first = endpoint.deploy(version(1), SMOKE)
    stop, seen, lost = threading.Event(), [], []

    def keep_asking():
        while not stop.is_set():
            try:
                seen.append(painted_by(endpoint))
            except EndpointError as error:
                lost.append(str(error))

    with concurrent.futures.ThreadPoolExecutor() as pool:
        asking = [pool.submit(keep_asking) for _ in range(3)]
        slow = pool.submit(painted_by, endpoint, "slowly")
        time.sleep(0.3)
        second = endpoint.deploy(version(2), SMOKE)
        stop.set()
        concurrent.futures.wait(asking)
    assert lost == []
    assert {"v1", "v2"} == set(seen)
    assert painted_by(endpoint) == "v2"
    assert slow.result() == "v1", "a request that the old version worked on was finished by it"
    assert second.url == first.url
    assert not psutil.pid_exists(first.pid)
    assert second.pid != first.pid


def test_what_a_killed_server_had_in_hand_is_answered_with_503(endpoint, version):
    first = endpoint.deploy(version(1), SMOKE)
    body = json.dumps({"dataframe_records": [{"prompt": "slowly"}]}).encode()
    connection = http.client.HTTPConnection(first.url.removeprefix("http://"), timeout=30)
    connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
    time.sleep(0.5)
    os.kill(first.pid, signal.SIGKILL)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Retry-After")) == (503, "5")
    assert "try again" in json.loads(answer.read())["message"]
    assert wait_for(lambda: endpoint.status().state == "serving" and endpoint.status().pid != first.pid, 60)
    assert painted_by(endpoint) == "v1"


def test_a_fixed_port_is_kept_and_can_be_changed(endpoint, version):
    first = endpoint.deploy(version(1), SMOKE)
    port = int(first.url.rsplit(":", 1)[1])
    same = dataclasses.replace(endpoint, port=port).deploy(version(2), SMOKE)
    assert same.url == first.url
    endpoint.stop()
    assert endpoint.deploy(version(1), SMOKE).url == first.url, "after a stop the endpoint comes back where it was"
    moved = dataclasses.replace(endpoint, port=free_port()).deploy(version(2), SMOKE)
    assert moved.url != first.url
    assert painted_by(endpoint) == "v2"
    assert port_is_free("127.0.0.1", port), "the old address is given back"


def test_a_version_that_fails_the_smoke_request_never_serves(endpoint, version):
    first = endpoint.deploy(version(1), SMOKE)
    with pytest.raises(EndpointError, match=r"(?s)a width of 6 pixels and got 1.*version 1 keeps serving"):
        dataclasses.replace(endpoint, behaviour="tiny").deploy(version(2), SMOKE)
    assert painted_by(endpoint) == "v1"
    assert endpoint.status().pid == first.pid


def test_a_version_that_never_gets_healthy_is_given_up_and_cleared_away(endpoint, version):
    mute = dataclasses.replace(endpoint, behaviour="mute", startup_timeout_s=1.5)
    with pytest.raises(EndpointError, match=r"(?s)did not answer within 2 s.*startup_timeout.*easel v1 on"):
        mute.deploy(version(1), SMOKE)
    assert endpoint.status().state == "stopped"
    assert wait_for(lambda: not Agreement(endpoint.folder).actual(), 60), "the keeper ends when nothing is wanted"


def test_two_deployments_at_once_take_turns(endpoint, version):
    told = []
    both = [dataclasses.replace(endpoint, report=told.append).deploy for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        done = list(pool.map(lambda pair: pair[0](version(pair[1]), SMOKE), zip(both, (1, 2), strict=True)))
    assert {status.version for status in done} == {"1", "2"}
    assert any("another command works on endpoint 'easel'" in line for line in told)
    assert len(read_json(endpoint.folder / "actual.json")["servers"]) == 1


def test_a_deployment_that_is_killed_half_way_leaves_nothing_behind(endpoint, version):
    first = endpoint.deploy(version(1), SMOKE)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from tests.serving import test_keeper as t; "
        "from personalize.serving import local; local.fetch_files = lambda model, store: t.Path(model.uri); "
        "t.QuickEndpoint('easel', root=t.Path(sys.argv[2]), behaviour='mute').deploy("
        "t.ModelVersion('easel', '2', sys.argv[3]), t.SMOKE)"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", script, str(root), str(endpoint.root), version(2).uri]
    deploying = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL)

    def servers():
        return read_json(endpoint.folder / "actual.json")["servers"]

    try:
        assert wait_for(lambda: len(servers()) == 2, 180)
        [candidate] = [known["who"] for known in servers().values() if known["who"]["pid"] != first.pid]
    finally:
        deploying.send_signal(signal.SIGKILL)
        deploying.wait()
    assert wait_for(lambda: len(servers()) == 1, 60)
    assert not is_alive(candidate)
    assert painted_by(endpoint) == "v1"


def test_a_keeper_whose_only_deployment_was_abandoned_ends(endpoint, version):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    deployer = remembered(gone.pid)
    gone.wait()
    endpoint.folder.mkdir(parents=True)
    spec = {"argv": endpoint._command(version(1).uri), "log": "server-1.log", "deployer": deployer}
    wanted = {"host": "127.0.0.1", "port": free_port(), "serving": None, "servers": {"1": spec}}
    write_json(endpoint.folder / "wanted.json", wanted)
    keeping = [sys.executable, "-m", "personalize.serving.keeper", str(endpoint.folder)]
    done = subprocess.run(keeping, cwd=local.PROJECT, timeout=60)
    assert done.returncode == 0
    assert port_is_free("127.0.0.1", wanted["port"])


def test_a_killed_keeper_is_reported_and_the_next_deployment_cleans_up_after_it(endpoint, version):
    first = endpoint.deploy(version(1), SMOKE)
    keeper, orphan = read_json(endpoint.folder / "actual.json")["keeper"], remembered(first.pid)
    os.kill(keeper["pid"], signal.SIGKILL)
    assert wait_for(lambda: endpoint.status().state == "failed", 60)
    assert "keeper process is gone" in endpoint.status().note
    assert f"still runs as process {first.pid}" in endpoint.status().note
    with pytest.raises(EndpointError, match="is failed: its keeper process is gone"):
        endpoint.query({"prompt": "a chair"})
    again = endpoint.deploy(version(2), SMOKE)
    assert (again.state, again.url) == ("serving", first.url)
    assert not is_alive(orphan)


def test_a_deployment_right_after_the_keeper_was_killed_keeps_the_address(endpoint, version):
    first = endpoint.deploy(version(1), SMOKE)
    callers = [http.client.HTTPConnection(first.url.removeprefix("http://"), timeout=30) for _ in range(4)]
    for caller in callers:
        caller.request("GET", "/health")
        caller.getresponse().read()
    os.kill(endpoint.agreement.keeper()["pid"], signal.SIGKILL)
    again = endpoint.deploy(version(2), SMOKE)
    assert again.url == first.url
    assert painted_by(endpoint) == "v2"


def test_a_stranger_with_a_remembered_pid_is_neither_believed_nor_killed(endpoint, version):
    endpoint.deploy(version(1), SMOKE)
    endpoint.stop()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        long_ago = {**remembered(stranger.pid), "started": 1.0e9}
        server = {"who": long_ago, "port": 1, "restarts": 0, "started_at": 1.0e9, "last_exit": None}
        write_json(endpoint.folder / "actual.json", {"keeper": long_ago, "servers": {"1": server}, "port": 1})
        known = {"model": {"name": "easel", "version": "1", "uri": "x"}, "path": "x", "log": "server-1.log"}
        wanted = {"host": "127.0.0.1", "port": 1, "serving": "1", "servers": {"1": known}}
        write_json(endpoint.folder / "wanted.json", wanted)
        assert endpoint.status().state == "failed"
        endpoint.stop()
        assert stranger.poll() is None
        assert endpoint.status().state == "stopped"
    finally:
        stranger.kill()
        stranger.wait()


def test_a_half_written_state_file_is_never_seen(tmp_path):
    target, stop = tmp_path / "state.json", threading.Event()
    write_json(target, {"rows": list(range(2000))})

    def keep_writing():
        while not stop.is_set():
            write_json(target, {"rows": list(range(2000))})

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for _ in range(200):
            assert len(json.loads(target.read_text())["rows"]) == 2000
    finally:
        stop.set()
        writer.join()


# Sockets that are only half open.


async def spoken(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """What a server answers to bytes that come in parts; empty when it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        return await asyncio.wait_for(reader.read(65536), 20)
    finally:
        writer.close()


def through_a_keeper(folder: Path, talk):
    """The result of `talk(port)` while a keeper passes connections on to a server that answers after a second."""

    async def slow(reader, writer) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(1)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def run():
        behind = await asyncio.start_server(slow, "127.0.0.1", 0)
        server = keeper.Server({}, process=object(), port=behind.sockets[0].getsockname()[1])
        kept = keeper.Keeper(folder, {"1": server}, serving="1")
        port = free_port()
        await kept.open_door(("127.0.0.1", port))
        try:
            return await talk(port), server
        finally:
            kept.door.close()
            behind.close()

    return asyncio.run(run())


HEAD = (b"POST /invocations HTTP/1.1\r\n", b"Host: here\r\n", b"Content-Length: 0\r\n\r\n")


@pytest.mark.parametrize("parts", [(), HEAD[:1], HEAD[:2]])
def test_a_client_that_never_sends_a_whole_head_is_let_go(tmp_path, monkeypatch, parts):
    monkeypatch.setattr(keeper, "HEAD_S", 0.3)
    answer, server = through_a_keeper(tmp_path, lambda port: spoken(port, *parts))
    assert answer == b""
    assert server.connections == 0


def test_one_that_trickles_a_head_is_let_go_too(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "HEAD_S", 0.3)
    trickle = [b"X-%d: a\r\n" % n for n in range(20)]
    with contextlib.suppress(ConnectionError):
        assert through_a_keeper(tmp_path, lambda port: spoken(port, HEAD[0], *trickle, pause=0.05))[0] == b""


def test_an_answer_may_take_its_time_and_a_slow_head_too(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "HEAD_S", 0.6)
    answer, _ = through_a_keeper(tmp_path, lambda port: spoken(port, *HEAD, pause=0.1))
    assert answer.endswith(b"ok")


def test_a_client_that_comes_back_on_its_connection_has_its_time_again(tmp_path, monkeypatch):
    monkeypatch.setattr(keeper, "HEAD_S", 0.6)

    async def twice(port: int) -> list[bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answers = []
        for _ in range(2):
            await asyncio.sleep(0.2)
            writer.write(b"".join(HEAD))
            answers.append(await asyncio.wait_for(reader.read(65536), 20))
        writer.write(HEAD[0])
        answers.append(await asyncio.wait_for(reader.read(65536), 20))
        writer.close()
        return answers

    first, second, third = through_a_keeper(tmp_path, twice)[0]
    assert (first[-2:], second[-2:], third) == (b"ok", b"ok", b"")


# An access token.


def test_a_token_stays_until_it_is_taken_away_and_who_is_open_to_others_hears_of_it(endpoint, version, capsys):
    told: list[str] = []
    reached = dataclasses.replace(endpoint, host="0.0.0.0", report=told.append)
    reached.deploy(version(1), SMOKE)
    assert [line for line in told if "WARNING: whoever reaches 0.0.0.0 may ask" in line]
    assert "may ask for pictures; set PERSONALIZE_TOKEN" in reached.status().note
    assert reached.token_variable == ""
    with pytest.raises(EndpointError, match=r"asks for no token.*version 1 keeps serving|asks for no token"):
        dataclasses.replace(reached, token="a secret").deploy(version(2), SMOKE)
    assert painted_by(reached) == "v1"
    server = {"servers": {"1": {"environment": {"PERSONALIZE_TOKEN": "a secret"}}}}
    assert endpoint._token(server) == "a secret"
    assert dataclasses.replace(endpoint, token="another")._token(server) == "another"
    assert dataclasses.replace(endpoint, token="off")._token(server) == ""
    assert "a secret" not in repr(dataclasses.replace(endpoint, token="a secret"))
