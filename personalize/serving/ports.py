"""Which port an endpoint gets, and who has it already."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import psutil

from personalize.cards import command
from personalize.serving.agreement import ACTUAL, Agreement
from personalize.serving.endpoint import EndpointError

LET_GO_S = 5.0
"""Seconds that a keeper which was killed may take to let go of its port: it ends thread by thread."""


def choose_port(folder: Path, host: str, asked: int, held: int | None, last: int) -> int:
    """The port asked for; without one, the port the endpoint holds, the one it had last, or any free one.

    Raises:
        EndpointError: the port asked for belongs to another endpoint beside `folder`, or to another program.
    """
    port = asked or held or last or free_port(host)
    if port == held or _becomes_free(host, port, LET_GO_S if port == last else 0):
        return port
    if not asked:
        return free_port(host)
    for other in sorted(path.parent for path in folder.parent.glob(f"*/{ACTUAL}")):
        there = Agreement(other)
        if other != folder and there.keeper() and there.actual().get("port") == port:
            stop = command("deploy", action="stop", **{"deploy.name": other.name})
            raise EndpointError(
                f"Port {port} belongs to the endpoint {other.name!r}. Stop it (`{stop}`), "
                "or take another port: `-P port=0` finds a free one."
            )
    raise EndpointError(
        f"Port {port} on {host} is in use by {port_owner(port)}. End that program, or take another port: `-P port=0` "
        "finds a free one."
    )


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _becomes_free(host: str, port: int, patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while not (free := port_is_free(host, port)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return free


def port_owner(port: int) -> str:
    """Who listens on a port, in words, as far as this user may know."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr and connection.laddr.port == port
            if here and connection.status == psutil.CONN_LISTEN and connection.pid:
                with contextlib.suppress(psutil.Error):
                    program = " ".join(psutil.Process(connection.pid).cmdline())
                    return f"process {connection.pid} ({program[:120]})"
    return "another program (its owner cannot be seen from this account)"
