"""The keeper of a local endpoint: one small process that holds the public port and keeps a model server alive.

    python -m personalize.serving.keeper build/endpoints/<name>

It makes the world agree with `wanted.json`, which `LocalEndpoint` writes, and says what is in `actual.json`:

- a server that is wanted and not running is started on a private port; when the one that serves ends by itself it is
  started again, waiting longer after each failure (1 s, 2 s, 4 s ... 60 s); a candidate that ends is only reported;
- a server that is no longer wanted is asked to finish its request and to end;
- connections to the public port are passed to the server named as `serving`. The address therefore stays the same when
  one model version takes over from another, and a request made meanwhile is answered by the old one. (Servers that
  share a listening socket need nobody between. But then nobody outlives a killed one to answer what it had in hand);
- who asks while no server is there, or asked one that ended before it answered, hears 503: try again in a moment;
- a client that does not send a whole head within HEAD_S, or does not read its answer, is let go; one whose machine has
  vanished is noticed by the system's probes;
- when nothing is wanted any more the keeper ends.

Features: survives the command that started it; no state but two files; standard library and psutil only (about 20 MB).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personalize.serving.agreement import Agreement
from personalize.serving.ports import free_port
from personalize.serving.processes import family, is_alive, remembered, terminate

TICK_S = 0.2
LONGEST_WAIT_S = 60.0
GOOD_UPTIME_S = 60.0
HEAD_S = 30.0
"""Seconds for a request's head, and without a request; the server itself waits as long for a body."""
PROBES = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 60_000}
"""Socket options by which a client that has vanished is noticed within a minute, as far as the system has them."""
SCRUBBED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_CONTEXT", "PYTHONPATH")
AWAY = b'{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "The model server is away; try again in a moment."}'
TRY_AGAIN = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(AWAY), AWAY)
)


@dataclass
class Server:
    """A `mlflow models serve` process and what happened to it."""

    spec: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    who: dict[str, Any] | None = None
    port: int = 0
    restarts: int = -1
    failures: int = 0
    started_at: float = 0.0
    not_before: float = 0.0
    last_exit: dict[str, Any] | None = None
    ending: asyncio.Task[None] | None = None
    connections: int = 0

    def start(self, folder: Path) -> None:
        """Start the server on a fresh private port, in a process group of its own, its output appended to its log."""
        self.port = free_port()
        argv = [part.replace("{port}", str(self.port)) for part in self.spec["argv"]]
        environment = {name: value for name, value in os.environ.items() if name not in SCRUBBED}
        environment |= self.spec.get("environment", {})
        # `mlflow models serve` looks for `uvicorn` on PATH, where it is not unless the environment was activated.
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", os.defpath)])
        with open(folder / self.spec["log"], "ab") as log:
            self.process = subprocess.Popen(
                argv,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self.who = remembered(self.process.pid)
        self.restarts += 1
        self.started_at = time.time()

    def has_ended(self) -> bool:
        """Whether the server ended by itself since the last look; what is left of its group is then killed."""
        if self.process is None or self.process.poll() is None:
            return False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.last_exit = {"code": self.process.returncode, "at": time.time()}
        self.failures = 1 if time.time() - self.started_at > GOOD_UPTIME_S else self.failures + 1
        self.not_before = time.monotonic() + min(LONGEST_WAIT_S, 2.0 ** (self.failures - 1))
        self.process, self.who = None, None
        return True

    def end(self, grace_s: float) -> None:
        """Let uvicorn finish its requests, then end the whole group. Blocks."""
        if self.process is None or self.who is None:
            return
        members = family(self.who)
        # uvicorn first: `mlflow models serve` ends by itself when uvicorn has, and not the other way round.
        children = [member for member in members if member["pid"] != self.who["pid"]]
        terminate(children, grace_s)
        terminate(members, 2.0 if children else grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process, self.who = None, None


@dataclass
class Keeper:
    """Makes the processes and the public port agree with `wanted.json` in `folder`."""

    folder: Path
    servers: dict[str, Server] = field(default_factory=dict)
    door: asyncio.Server | None = None
    address: tuple[str, int] | None = None
    serving: str | None = None
    complaint: str = ""
    told: dict[str, Any] = field(default_factory=dict)

    async def run(self) -> None:
        """Reconcile until nothing is wanted; on SIGTERM end the servers first."""
        leaving = asyncio.Event()
        for sig in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sig, leaving.set)
        while True:
            wanted = {} if leaving.is_set() else Agreement(self.folder).wanted()
            await self.reconcile(wanted)
            self.tell()
            if not self.servers:
                break
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(leaving.wait()), TICK_S)
            if leaving.is_set():
                await asyncio.sleep(TICK_S)
        if self.door is not None:
            self.door.close()
        Agreement(self.folder).forget()

    async def reconcile(self, wanted: dict[str, Any]) -> None:
        """One look at what is wanted and one step towards it."""
        self.serving = wanted.get("serving")
        specs = {
            number: spec
            for number, spec in wanted.get("servers", {}).items()
            if number == self.serving or is_alive(spec.get("deployer"))
        }
        if specs:
            await self.open_door((wanted["host"], int(wanted["port"])))
        for number, spec in specs.items():
            server = self.servers.setdefault(number, Server(spec))
            server.has_ended()
            wants_start = number == self.serving or server.restarts < 0
            if server.process is None and wants_start and time.monotonic() >= server.not_before:
                server.start(self.folder)
        for number in [number for number in self.servers if number not in specs]:
            server = self.servers[number]
            if server.ending is None:
                grace_s = float(server.spec.get("grace_s", 30.0))
                server.ending = asyncio.create_task(retire(server, grace_s))
            elif server.ending.done():
                del self.servers[number]

    async def open_door(self, address: tuple[str, int]) -> None:
        """Listen on the public address; a changed address replaces the old one."""
        if self.address == address:
            return
        try:
            door = await asyncio.start_server(self.welcome, *address)
        except OSError as error:
            self.complaint = f"cannot listen on {address[0]}:{address[1]}: {error.strerror or error}"
            return
        if self.door is not None:
            self.door.close()
        self.door, self.address, self.complaint = door, address, ""

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one client connection to the server that serves now; say 503 while there is none."""
        server = self.servers.get(self.serving or "")
        if server is None:
            return await turn_away(reader, writer)
        server.connections += 1
        try:
            if server.process is None:
                raise ConnectionRefusedError
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", server.port)
        except OSError:
            server.connections -= 1
            return await turn_away(reader, writer)
        probe(writer.get_extra_info("socket"))
        turn = Turn()
        request = asyncio.create_task(pour(reader, there_writer, turn.asks))
        answer = asyncio.create_task(pour(there_reader, writer, turn.is_answered, turn.last_word))
        overdue = asyncio.create_task(turn.overdue())
        try:
            await asyncio.wait([answer, overdue], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (request, answer, overdue):
                task.cancel()
            server.connections -= 1
            for stream in (writer, there_writer):
                stream.close()

    def tell(self) -> None:
        """Write what is, when it changed."""
        actual = {
            "keeper": remembered(os.getpid()),
            "host": self.address[0] if self.address else None,
            "port": self.address[1] if self.address else None,
            "serving": self.serving,
            "complaint": self.complaint,
            "servers": {
                number: {
                    "who": server.who,
                    "port": server.port,
                    "restarts": max(0, server.restarts),
                    "started_at": server.started_at,
                    "last_exit": server.last_exit,
                    "ending": server.ending is not None,
                }
                for number, server in self.servers.items()
            },
        }
        if actual != self.told:
            Agreement(self.folder).tell(actual)
            self.told = actual


async def retire(server: Server, grace_s: float) -> None:
    """End a server when every connection passed to it has closed: one it had not yet accepted would be lost."""
    deadline = time.monotonic() + grace_s
    while server.connections and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    await asyncio.to_thread(server.end, max(1.0, deadline - time.monotonic()))


async def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the request and answer 503: try again in a moment."""
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        await asyncio.wait_for(reader.read(65536), 5)
        writer.write(TRY_AGAIN)
        await writer.drain()
    writer.close()


@dataclass
class Turn:
    """Whose turn it is on a connection: the client's, until it has sent a request's head, or the server's."""

    since: float = field(default_factory=time.monotonic)
    asked: bool = False
    tail: bytes = b""

    def asks(self, data: bytes) -> None:
        """The client has sent something."""
        if not self.asked:
            self.tail += data
            self.asked = b"\r\n\r\n" in self.tail
            self.tail = self.tail[-3:]

    def is_answered(self, data: bytes) -> None:
        """The server has sent something."""
        if not data.startswith(b"HTTP/1.1 100"):
            self.since, self.asked, self.tail = time.monotonic(), False, b""

    def last_word(self) -> bytes:
        """What the client hears where the server has ended: 503, if it was asked and has not begun to answer."""
        return TRY_AGAIN if self.asked else b""

    async def overdue(self) -> None:
        """Returns when the client has left its turn too long."""
        while self.asked or time.monotonic() - self.since < HEAD_S:
            await asyncio.sleep(min(1.0, HEAD_S / 4))


def probe(client: socket.socket) -> None:
    """Let the system find out whether the client's machine is still there."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in PROBES.items():
            if hasattr(socket, name):
                client.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def pour(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    heard: Callable[[bytes], None] = lambda _: None,
    last: Callable[[], bytes] = lambda: b"",
) -> None:
    """Copy bytes until the source ends, then pass the end on. heard: is told of all that comes; last: adds to it."""
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            heard(data)
            sink.write(data)
            await sink.drain()
    with contextlib.suppress(OSError, RuntimeError):
        sink.write(last())
        await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()


if __name__ == "__main__":
    os.umask(0o077)  # what it and its servers write is nobody else's to read
    asyncio.run(Keeper(Path(sys.argv[1]).resolve()).run())
