"""The local endpoint's server: MLflow's scoring app behind a door that does what a pyfunc cannot.

    PERSONALIZE_MODEL=<folder> python -m uvicorn --app-dir <folder>/code --factory personalize.serving.app:serve

The way in stays MLflow's: the same addresses, bodies and answers as `mlflow models serve`. The door

- asks for a token, where PERSONALIZE_TOKEN is set: `Authorization: Bearer ...`, for everything but /health and /ping;
- looks at a request before anything is parsed (content type, at most BODY_BYTES, within READ_S seconds) and at the
  names in it, which MLflow would drop when it does not know them;
- tells the engine when the caller has hung up, so that nobody's picture is not drawn on;
- lets THREADS requests reach the engine, where MLflow's server lets through as many as the machine has cores and four;
- answers /health by whether the engine draws, and /metrics in Prometheus' text format;
- names each request (`X-Request-Id`, the caller's or a new one) and says when to come back (`Retry-After`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from personalize.serving.adapters import AdapterCache
from personalize.serving.call import CURRENT, Call
from personalize.serving.engine import Engine
from personalize.serving.request import INPUTS, PARAMS, unknown_names

TOKEN = "PERSONALIZE_TOKEN"
"""Environment variable: what a caller must know, where it is set."""
BODY_BYTES = 1_000_000
DRAINED_BYTES = 64_000_000
READ_S = 30.0
THREADS = 256
LOG = logging.getLogger("uvicorn.error")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Refused(Exception):
    """A request that is answered at the door."""

    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.status, self.code = status, code


class Door:
    """An ASGI app around another, which shares its process with the engine."""

    def __init__(self, app: App, engine: Engine, adapters: AdapterCache | None = None, token: str = "") -> None:
        self.app, self.engine, self.adapters = app, engine, adapters
        self.token = _digest(token) if token else b""
        self.inside = 0
        self.answers: dict[int, int] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "request"))
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] in ("/health", "/ping"):
            await _answer(send, 200 if self.engine.alive else 503, b"\n", b"application/json")
        elif not self.knows(scope):
            words = b'{"error_code": "UNAUTHENTICATED", "message": "Send the access token: Authorization: Bearer ..."}'
            self.answers[401] = self.answers.get(401, 0) + 1
            challenge = [(b"www-authenticate", b"Bearer"), (b"connection", b"close")]  # a body is not read
            await _answer(send, 401, words, b"application/json", challenge)
        elif scope["path"] == "/metrics":
            await _answer(send, 200, self.metrics().encode(), b"text/plain; version=0.0.4")
        elif scope["path"] == "/invocations" and scope["method"] == "POST":
            await self.invoke(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def knows(self, scope: Message) -> bool:
        """Whether a request brings the token, where one is asked for; told in the same time whatever it brings."""
        if not self.token:
            return True
        brought = next((value for name, value in scope["headers"] if name.lower() == b"authorization"), b"")
        kind, _, token = brought.partition(b" ")
        return hmac.compare_digest(_digest(token.strip()), self.token) and kind.lower() == b"bearer"

    async def invoke(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request: read, looked at, passed on with its name, watched, and answered."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        asked = headers.get(b"x-request-id", "")
        name = asked if re.fullmatch(r"[\w.:-]{1,128}", asked) else uuid.uuid4().hex
        begun, gone = time.monotonic(), threading.Event()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                self.answers[status] = self.answers.get(status, 0) + 1
                extra = [(b"x-request-id", name.encode())]
                if status in (429, 503):
                    extra.append((b"retry-after", b"%d" % self.engine.retry_after()))
                message["headers"] = [*message.get("headers", []), *extra]
                LOG.info("request %s: status %d after %.1f s", name, status, time.monotonic() - begun)
            await send(message)

        watch: asyncio.Task[None] | None = None
        self.inside += 1
        token = CURRENT.set(Call(name, None, gone.is_set))
        try:
            body = await self.read(headers, receive)
            if self.inside > THREADS:
                raise Refused(429, "REQUEST_LIMIT_EXCEEDED", f"{THREADS} requests are being answered.")
            watch = asyncio.create_task(_watch(receive, gone))
            await self.app(scope, _replay(body, gone), answer)
        except Refused as refused:
            words = json.dumps({"error_code": refused.code, "message": str(refused)}).encode()
            await _answer(answer, refused.status, words, b"application/json")
        finally:
            gone.set()
            CURRENT.reset(token)
            self.inside -= 1
            if watch is not None:
                watch.cancel()

    async def read(self, headers: dict[bytes, str], receive: Receive) -> bytes:
        """The body, if it is one that MLflow may parse. Raises Refused.

        What is too large is still read, and dropped, up to DRAINED_BYTES: who is cut off while he sends gets a reset
        connection and no answer.
        """
        body, size = b"", 0
        try:
            async with asyncio.timeout(READ_S):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(499, "CANCELLED", "The caller has gone.")
                    size += len(message.get("body", b""))
                    body = body + message.get("body", b"") if size <= BODY_BYTES else b""
                    if not message.get("more_body") or size > DRAINED_BYTES:
                        break
        except TimeoutError:
            raise Refused(408, "BAD_REQUEST", f"The body did not arrive within {READ_S:g} s.") from None
        if size > BODY_BYTES:
            raise Refused(413, "BAD_REQUEST", f"The body is too large; at most {BODY_BYTES:,} bytes are read.")
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if not kind:
            raise Refused(415, "BAD_REQUEST", "The request has no Content-Type; send application/json.")
        if kind == "application/json" and (said := _unknown(body)):
            raise Refused(400, "INVALID_PARAMETER_VALUE", said)
        return body

    def metrics(self) -> str:
        """Prometheus' text exposition format."""
        meter, (waiting, drawing) = self.engine.meter, self.engine.waiting
        facts: dict[str, tuple[str, float]] = {
            "requests_inside": ("gauge", self.inside),
            "pictures_waiting": ("gauge", waiting),
            "pictures_drawing": ("gauge", drawing),
            "queue_pixel_steps": ("gauge", self.engine.backlog),
            "speed_pixel_steps_per_second": ("gauge", self.engine.speed or 0.0),
            "pictures_total": ("counter", meter.pictures),
            "steps_total": ("counter", meter.steps),
            "rows_total": ("counter", meter.rows),
            "refused_total": ("counter", meter.refused),
            "late_total": ("counter", meter.late),
            "gone_total": ("counter", meter.gone),
            "failed_total": ("counter", meter.failed),
            "queue_seconds_total": ("counter", meter.queue_seconds),
            "begin_seconds_total": ("counter", meter.begin_seconds),
            "step_seconds_total": ("counter", meter.step_seconds),
            "finish_seconds_total": ("counter", meter.finish_seconds),
        }
        if (adapters := self.adapters) is not None:
            facts |= {
                "adapters_held": ("gauge", adapters.held),
                "adapters_held_bytes": ("gauge", adapters.bytes),
                "adapters_limit_bytes": ("gauge", adapters.limit),
                "adapters_loaded_total": ("counter", adapters.meter.loaded),
                "adapters_hits_total": ("counter", adapters.meter.hits),
                "adapters_evicted_total": ("counter", adapters.meter.evicted),
                "adapters_failed_total": ("counter", adapters.meter.failed),
                "adapter_load_seconds_total": ("counter", adapters.meter.load_seconds),
                "adapter_wait_seconds_total": ("counter", adapters.meter.wait_seconds),
            }
        lines = []
        for name, (kind, value) in facts.items():
            lines += [f"# TYPE personalize_{name} {kind}", f"personalize_{name} {value:.15g}"]
        lines.append("# TYPE personalize_answers_total counter")
        lines += [f'personalize_answers_total{{status="{code}"}} {n}' for code, n in sorted(self.answers.items())]
        return "\n".join(lines) + "\n"


def _unknown(body: bytes) -> str:
    """What is wrong with the names in a JSON body; empty where nothing is, or where MLflow says it better."""
    try:
        asked = json.loads(body)
    except RecursionError:
        return "The body is nested too deep."
    except ValueError:
        return ""
    if not isinstance(asked, dict):
        return ""
    columns: Any = []
    for key in ("dataframe_records", "instances", "inputs"):
        rows = asked.get(key)
        if isinstance(rows, dict):
            columns = rows
        elif isinstance(rows, list):
            columns = [name for row in rows if isinstance(row, dict) for name in row]
    split = asked.get("dataframe_split")
    if isinstance(split, dict) and isinstance(split.get("columns"), list):
        columns = split["columns"]
    said = unknown_names(dict.fromkeys(map(str, columns)), INPUTS)
    params = asked.get("params")
    return said or (unknown_names(params, PARAMS) if isinstance(params, dict) else "")


async def _watch(receive: Receive, gone: threading.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


def _replay(body: bytes, gone: threading.Event) -> Receive:
    """The body once; after it the news that the caller has hung up, when he has."""
    parts = [body]

    async def receive() -> Message:
        if parts:
            return {"type": "http.request", "body": parts.pop(), "more_body": False}
        while not gone.is_set():
            await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    return receive


def _digest(token: str | bytes) -> bytes:
    """Of equal length for every token, so that comparing two tells nothing of theirs."""
    return hashlib.sha256(token if isinstance(token, bytes) else token.encode()).digest()


async def _answer(send: Send, status: int, body: bytes, kind: bytes, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def serve() -> Door:
    """The model of PERSONALIZE_MODEL, loaded, having drawn a picture, behind its door."""
    from mlflow.pyfunc import scoring_server

    token = os.environ.pop(TOKEN, "")  # nothing that the model runs can find it there
    model = scoring_server.load_model_with_mlflow_config(os.environ["PERSONALIZE_MODEL"])
    inner = model.unwrap_python_model()
    return Door(scoring_server.init(model), inner.engine, inner.adapters, token)
