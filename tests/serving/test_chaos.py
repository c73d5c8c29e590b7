"""Good and bad callers at once while servers and supervisor are killed and versions redeployed: `CHAOS=2000` for long.

What must hold: no good caller gets another picture than his own, none waits for ever, none is turned away but while
something that was killed is away, and the server's memory stays where it was when it had warmed up.
"""

import base64
import contextlib
import http.client
import io
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from benchmarks.bad_callers import HUNG_S, BadCaller, post
from personalize.serving.http import answers
from personalize.serving.local import LocalEndpoint
from personalize.serving.registry import ModelVersion

pytestmark = pytest.mark.slow

REQUESTS = int(os.environ.get("CHAOS", "120"))
GOOD, BAD = 4, 3
PROMPT = "a photo of a bcnchr chair"
ASKED = [{"prompt": f"{PROMPT} {place}", "seed": i, "width": 64 + 32 * (i % 2)} for i, place in enumerate("abcdef")]


@dataclass
class Story:
    """What happened. Times are of time.monotonic()."""

    address: str
    done: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: list[tuple[float, float, str]] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    answers: Counter = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Something is killed in the block, and answers again at its end."""
        begun = time.monotonic()
        yield
        assert _within(300, lambda: answers(f"http://{self.address}/health")), "it did not come back"
        self.away.append((begun, time.monotonic()))

    def unexplained(self) -> list[str]:
        """Requests that failed while nothing was away."""
        return [why for begun, ended, why in self.lost if not any(b <= ended and begun <= e for b, e in self.away)]

    def reset_in(self, outage: int) -> list[str]:
        """Good requests that got no answer at all, not even 503, while that was away."""
        began, ended = self.away[outage]
        met = [why for b, e, why in self.lost if b <= ended and began <= e and why.startswith("a good")]
        return [why for why in met if not why.endswith("503")]

    def wait_for(self, share: float) -> None:
        """Until so much of the requests is done besides those that were before."""
        enough = self.done + share * REQUESTS
        assert _within(300 + REQUESTS, lambda: self.done >= enough or bool(self.wrong)), "nothing goes on"
        assert not self.wrong, self.wrong[:3]

    def attempt(self, what: str, ask: Callable[[], str]) -> bool:
        """Whether it was answered as it should; `ask` says what was wrong with it."""
        begun = time.monotonic()
        try:
            said = ask()
        except TimeoutError:
            self.wrong.append(f"{what} hung for {time.monotonic() - begun:.0f} s")
            return False
        except (OSError, http.client.HTTPException) as error:
            self.lost.append((begun, time.monotonic(), f"{what}: {error!r}"))
            return False
        if said == "503":
            self.lost.append((begun, time.monotonic(), f"{what}: 503"))
        elif said:
            self.wrong.append(f"{what}: {said}")
        return not said


def _within(seconds: float, satisfied: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not (found := satisfied()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _good(story: Story, expected: list[np.ndarray], number: int) -> None:
    """Asks for one picture after another, and looks at each."""

    def ask(which: int) -> str:
        body = json.dumps({"dataframe_records": [{**ASKED[which], "format": "png"}]}).encode()
        status, answer = post(story.address, body)
        if status != 200:
            return str(status) if status == 503 else f"{status} {answer}"
        [row] = answer["predictions"]
        if (row["prompt"], row["seed"]) != (ASKED[which]["prompt"], ASKED[which]["seed"]):
            return f"somebody else's answer: {row['prompt']}, {row['seed']}"
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["image"])))).astype(int)
        if picture.shape != expected[which].shape or np.abs(picture - expected[which]).max() > 2:
            return f"another picture than {ASKED[which]}"
        return ""

    turn = number
    while not story.over.is_set():
        if story.attempt("a good request", partial(ask, turn % len(ASKED))):
            with story.lock:
                story.done += 1
            turn += 1
        else:
            time.sleep(0.5)


def _bad(story: Story, number: int) -> None:
    """Asks in one bad way after another."""
    caller = BadCaller(story.address, PROMPT, story.over)
    for which, once in caller.turns(number):
        story.attempt(f"bad request {which}", once)
    story.answers.update(caller.answers)


def _memory(endpoint: LocalEndpoint) -> int:
    """Bytes that the serving process holds."""
    pid = endpoint.status().pid
    assert pid is not None
    process = psutil.Process(pid)
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))


def test_good_callers_get_their_pictures_whatever_happens_around_them(saved, tmp_path: Path) -> None:
    model = ModelVersion("m", "", str(saved[1]))
    smoke = {"prompt": PROMPT, "width": 64, "height": 64}
    local = mlflow.pyfunc.load_model(str(saved[1]))
    drawn = [local.predict(pd.DataFrame([{**row, "format": "png"}])) for row in ASKED]
    local.unwrap_python_model().engine.close()
    expected = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one["image"][0])))).astype(int) for one in drawn]

    endpoint = LocalEndpoint("chaos", root=tmp_path, grace_s=30, timeout_s=90, startup_timeout_s=300)
    story = Story(endpoint.deploy(model, smoke).url.removeprefix("http://"))
    callers = [threading.Thread(target=_good, args=(story, expected, i)) for i in range(GOOD)]
    callers += [threading.Thread(target=_bad, args=(story, 2 * i)) for i in range(BAD)]
    try:
        for caller in callers:
            caller.start()
        story.wait_for(0.15)
        with story.outage():  # the server: its keeper answers for it
            server = psutil.Process(endpoint.status().pid)
            for process in (*server.children(recursive=True), server):
                process.kill()
            time.sleep(1)
        story.wait_for(0.15)
        endpoint.deploy(model, smoke)  # beside the one that serves
        story.wait_for(0.15)
        with story.outage():  # the supervisor
            os.kill(endpoint.agreement.keeper()["pid"], signal.SIGKILL)
            endpoint.deploy(model, smoke)
        story.wait_for(0.15)
        endpoint.deploy(model, smoke)
        story.wait_for(0.2)
        warm = _memory(endpoint)
        story.wait_for(0.2)
        grown = _memory(endpoint) / warm
    finally:
        story.over.set()
        for caller in callers:
            caller.join(HUNG_S + 10)
        endpoint.stop()
    print(f"{story.done} pictures, {len(story.lost)} requests lost in {len(story.away)} outages, memory x {grown:.3f}")
    assert not any(caller.is_alive() for caller in callers), "somebody hung"
    assert not story.wrong, story.wrong[:5]
    assert not story.unexplained(), story.unexplained()[:5]
    assert not story.reset_in(0), "a request of a killed server was not answered with 503"
    assert story.lost, "nothing was killed while somebody asked"
    assert {400, 413} <= set(story.answers)
    assert grown <= 1.15
