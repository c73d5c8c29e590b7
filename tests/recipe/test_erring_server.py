"""A real tracking server that errs or goes away: a run goes on, or waits with a line; two runs of one checkout."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.recipe.conftest import Run
from tests.recipe.test_runs import runs_of


class Door:
    """Stands before the server and passes on what it is asked, or does not."""

    def __init__(self, behind: str) -> None:
        self.share, self.away_after, self.away_s = 0.0, 0, 0.0
        self.asked = self.erred = 0
        self.away_until = 0.0
        self.random, self.lock = random.Random(8), threading.Lock()
        door, there = self, urlsplit(behind)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if status := door.error():
                    content, headers = b"an error", []
                else:
                    connection = http.client.HTTPConnection(str(there.hostname), there.port, timeout=120)
                    kept = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
                    connection.request(self.command, self.path, body, kept)
                    response = connection.getresponse()
                    status, content, headers = response.status, response.read(), response.getheaders()
                    connection.close()
                self.send_response(status)
                for name, value in headers:
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer

            def log_message(self, *words: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def error(self) -> int:
        """The status of an answer that the server never gave; 0 where it is asked."""
        with self.lock:
            self.asked += 1
            if self.asked == self.away_after:
                self.away_until = time.monotonic() + self.away_s
            bad = 503 if time.monotonic() < self.away_until else 500 if self.random.random() < self.share else 0
            self.erred += bool(bad)
            return bad


@pytest.fixture
def door(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """The address that the recipe has of the server. MLflow's own waiting is shortened, by its own settings."""
    made = Door(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.mark.slow
def test_a_server_of_which_one_answer_in_twelve_is_an_error_gets_the_whole_run(run: Run, door: Door) -> None:
    door.share = 0.08
    status, said = run("run")
    assert status == 0, said
    assert door.erred >= 3, f"of {door.asked} answers"
    door.share = 0.0
    status, said = run("run")
    assert "count   reuse" in said
    assert len(runs_of("count")) == 1, "what was asked twice was done once, or reused"
    assert {item.info.status for item in (*runs_of("read"), *runs_of("count"), *runs_of("report"))} == {"FINISHED"}


def test_a_server_that_goes_away_in_the_middle_is_waited_for_with_a_line(run: Run, door: Door) -> None:
    door.away_after, door.away_s = 30, 6.0
    status, said = run("run")
    assert status == 0, said
    assert door.erred > 1
    assert said.count(f"the tracking server {door.uri} does not answer; waiting for it\n  it answers again") == 1
    assert "Retry" not in said
    assert "Traceback" not in said


def test_a_server_that_stays_away_ends_the_run_in_one_message(
    run: Run, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    door.away_after, door.away_s = 30, 1e6
    status, said = run("run")
    assert status == 1
    assert "does not answer; waiting for it" in said
    assert said.count("error: ") == 1, said
    assert "Traceback (most" not in said


def test_a_result_on_a_server_that_was_changed_is_named_and_then_made_anew(
    run: Run, server: str, project: Path, tmp_path: Path
) -> None:
    assert run("run")[0] == 0
    counted = runs_of("count")[0].info.run_id
    (kept,) = (tmp_path / "served").rglob(f"{counted}/artifacts/outputs/counts.json")
    before = kept.read_text()
    kept.write_text('{"the": 99}')
    shutil.rmtree(project / "build" / "recipe" / "inputs", ignore_errors=True)
    status, said = run("run", "--report.heading", "Other")
    assert status == 2
    assert "not as they were made: counts.json was changed. Nothing is made from them; the same command again" in said
    kept.write_text(before)
    status, said = run("run", "--report.heading", "Other")
    assert status == 0, said
    assert f"count   run    run {counted[:8]} is not as it was made: counts.json was changed" in said


def test_what_was_fetched_and_cut_short_since_is_fetched_again(run: Run, server: str, project: Path) -> None:
    assert run("run")[0] == 0
    assert run("run", "--report.heading", "Other")[0] == 0, "what count made is fetched for it"
    fetched = list((project / "build" / "recipe" / "inputs").rglob("outputs/counts.json"))
    assert fetched
    for path in fetched:
        path.write_text("")
    assert run("run", "--report.heading", "Another")[0] == 0
    assert len(runs_of("count")) == 1


@pytest.mark.slow
def test_two_runs_of_one_checkout_at_once_both_finish(project: Path, server: str, outside: dict[str, str]) -> None:
    """Each fetches and keeps what the other does, under the same names."""

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "personalize.recipe", "run", *words]
        environment = {
            **outside,
            "MLFLOW_TRACKING_URI": server,
            "MLFLOW_EXPERIMENT_ID": os.environ["MLFLOW_EXPERIMENT_ID"],
        }
        return subprocess.Popen(
            command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    for words in ((), ("--report.heading", "Most"), ("--fresh", "true")):
        both = [start(*words), start(*words)]
        ended = [(process.communicate()[0], process.returncode) for process in both]
        for said, status in ended:
            assert status == 0, said
            assert "not empty" not in said
