"""The door of the local endpoint, in front of a real model behind real HTTP: who is let in, what is said to whom."""

import asyncio
import http.client
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from personalize.serving import app
from personalize.serving.app import Door
from personalize.serving.call import CURRENT
from personalize.serving.engine import Engine
from personalize.serving.local import LocalEndpoint
from personalize.serving.registry import ModelVersion
from tests.serving.test_engine import Painter

PROMPT = "a photo of a bcnchr chair"


@pytest.fixture(scope="module")
def endpoint(saved, tmp_path_factory: pytest.TempPathFactory):
    """The packaged model behind the endpoint of `-e deploy`."""
    root = tmp_path_factory.mktemp("endpoints")
    endpoint = LocalEndpoint("pictures", root=root, grace_s=10, timeout_s=60, startup_timeout_s=300)
    endpoint.deploy(ModelVersion("m", "", str(saved[1])), {"prompt": PROMPT, "width": 64, "height": 64})
    yield endpoint
    endpoint.stop()


@pytest.fixture(scope="module")
def url(endpoint) -> str:
    return endpoint.status().url


def post(url: str, body: bytes | dict, **headers: str) -> tuple[int, dict, dict]:
    """Status, headers in lower case, and the JSON answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/invocations", data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, json.loads(error.read())


def rows(*rows: dict, **params: object) -> dict:
    return {"dataframe_records": list(rows), **({"params": params} if params else {})}


def metrics(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def test_it_is_healthy_when_it_has_drawn(url):
    with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
        assert answer.status == 200
    assert metrics(url)["personalize_pictures_total"] >= 1


def test_a_request_keeps_its_name(url, endpoint):
    status, headers, answer = post(url, rows({"prompt": f"{PROMPT} of a marchioness"}), **{"X-Request-Id": "mine-7"})
    assert (status, headers["x-request-id"]) == (200, "mine-7")
    assert answer["predictions"][0]["request_id"] == "mine-7"
    _, headers, answer = post(url, rows({"prompt": PROMPT}), **{"X-Request-Id": "bad name\u00e9"})
    assert len(headers["x-request-id"]) == 32 == len(answer["predictions"][0]["request_id"])
    log = Path(endpoint.status().log).read_text()
    assert "request mine-7: status 200" in log
    assert "marchioness" not in log


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (rows({"prompt": "a", "sed": 1}), {}, 400, "'sed' is not known; did you mean 'seed'"),
        (rows({"prompt": "a"}, timeout=1), {}, 400, "'timeout' is not known; did you mean 'timeout_s'"),
        ({"dataframe_split": {"columns": ["prompt", "size"], "data": [["a", 1]]}}, {}, 400, "'size' is not known"),
        ({"inputs": [{"prompt": "a", "promt": "b"}]}, {}, 400, "'promt' is not known"),
        (rows({"prompt": "a"}, {"prompt": "a", "width": 65}), {}, 400, "row 1: 65 x 64 pixels (width x height) is"),
        (rows({"prompt": "a" * 5000}), {}, 400, "5,000 characters long"),
        (b"[" * 100_000, {}, 400, "nested too deep"),
        (b"{", {}, 400, ""),
        (b"[1]", {}, 400, ""),
        (b" " * 20_000_000, {}, 413, "at most 1,000,000 bytes"),
        (rows({"prompt": "a"}), {"Content-Type": ""}, 415, "no Content-Type"),
        (rows({"prompt": "a"}, timeout_s=0.000001), {}, 504, "given up"),
    ],
)
def test_what_is_the_callers_fault_is_said_to_him(url, body, headers, status: int, words: str):
    got, said, answer = post(url, body, **headers)
    assert got == status
    assert words in answer["message"]
    assert said["x-request-id"]


def test_requests_at_the_same_time_are_drawn_together(url):
    """More of them than MLflow's own server lets through at once on a small machine."""
    before = metrics(url)
    found: list[int] = []

    def ask(seed: int) -> None:
        found.append(post(url, rows({"prompt": PROMPT, "seed": seed, "num_inference_steps": 4}))[0])

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = metrics(url)
    assert found == [200] * 12
    steps = after["personalize_steps_total"] - before["personalize_steps_total"]
    assert (after["personalize_rows_total"] - before["personalize_rows_total"]) / steps > 2


def test_a_caller_who_hangs_up_is_not_drawn_for(url):
    before = metrics(url)["personalize_gone_total"]
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    asked = [{"prompt": PROMPT, "num_inference_steps": 4, "num_images": 1, "width": 96} for _ in range(4)]
    connection.request("POST", "/invocations", json.dumps(rows(*asked)), {"Content-Type": "application/json"})
    deadline = time.monotonic() + 20
    while not metrics(url)["personalize_requests_inside"] and time.monotonic() < deadline:
        pass
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    while metrics(url)["personalize_gone_total"] == before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert metrics(url)["personalize_gone_total"] > before
    assert post(url, rows({"prompt": PROMPT}))[0] == 200


class Alone:
    """A door without a server: what it sends is kept; the app behind it answers with `status`."""

    def __init__(self, status: int = 200, token: str = "") -> None:
        self.painter = Painter()
        self.engine = Engine(lambda: self.painter)
        self.status, self.sent, self.call = status, [], None
        self.door = Door(self.app, self.engine, token=token)

    async def app(self, scope, receive, send) -> None:
        self.call = CURRENT.get()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def ask(
        self, path: str, receive=None, method: str = "POST", authorization: bytes | None = None
    ) -> tuple[int, dict[bytes, bytes]]:
        async def body() -> dict:
            return {"type": "http.request", "body": b"{}"}

        async def send(message: dict) -> None:
            self.sent.append(message)

        headers = [(b"content-type", b"application/json")]
        headers += [(b"authorization", authorization)] if authorization is not None else []
        scope = {"type": "http", "path": path, "method": method, "headers": headers}
        asyncio.run(self.door(scope, receive or body, send))
        return self.sent[0]["status"], dict(self.sent[0]["headers"])


@pytest.fixture
def alone():
    made: list[Alone] = []
    yield lambda *status: made.append(Alone(*status)) or made[-1]
    for one in made:
        one.painter.going.set()
        one.engine.close()


@pytest.mark.parametrize("status", [429, 503])
def test_who_is_turned_away_hears_when_to_come_back(alone, status: int):
    got, headers = alone(status).ask("/invocations")
    assert (got, int(headers[b"retry-after"]) >= 1) == (status, True)


def test_it_is_not_healthy_when_the_engine_has_ended(alone):
    door = alone()
    door.engine.close()
    assert door.ask("/health", method="GET")[0] == 503


def test_a_body_that_does_not_come_is_not_waited_for(alone, monkeypatch):
    monkeypatch.setattr(app, "READ_S", 0.05)

    async def half_open() -> dict:
        await asyncio.sleep(30)
        raise AssertionError("it waited")

    door = alone()
    assert door.ask("/invocations", half_open)[0] == 408
    assert door.call is None


def test_a_request_that_was_answered_is_over_for_the_engine(alone):
    """Also when MLflow's server gave it up: then the thread that asked is still there."""
    door = alone(504)
    door.ask("/invocations")
    assert door.call.gone()


@pytest.mark.parametrize("path", ["/invocations", "/metrics", "/version", "/docs", "/openapi.json"])
@pytest.mark.parametrize("brought", [None, b"", b"Bearer", b"Bearer wrong", b"Basic right", b"right", b"Bearer \xff"])
def test_where_there_is_a_token_who_does_not_know_it_learns_nothing(alone, path, brought):
    door = alone(200, "right")
    status, headers = door.ask(path, authorization=brought)
    assert (status, headers[b"www-authenticate"]) == (401, b"Bearer")
    assert b"right" not in b"".join(message.get("body", b"") for message in door.sent)
    assert door.call is None


@pytest.mark.parametrize("brought", [b"Bearer right", b"bearer right"])
def test_who_knows_the_token_is_let_in_and_health_is_for_everybody(alone, brought):
    door = alone(200, "right")
    assert door.ask("/invocations", authorization=brought)[0] == 200
    for path in ("/health", "/ping"):
        door.sent.clear()
        assert door.ask(path, method="GET")[0] == 200
