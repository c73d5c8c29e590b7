"""The process that serves a review, until somebody has decided or until it is stopped."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from personalize.review.session import Session

LOOPBACK = ("127.0.0.1", "localhost")
FAREWELL_S = 8.0
"""How long the pages answer after a decision and the last page asked for, so that who has one open learns of it."""


class ServerError(ValueError):
    """The review cannot be served; the message says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that is listened on; port 0 is any free one. Raises ServerError where it cannot be had."""
    try:
        return socket.create_server((host, port), backlog=128)
    except (OSError, OverflowError) as error:
        raise ServerError(
            f"port {port} of {host} cannot be listened on ({error}); leave the port out to have a free one found"
        ) from error


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, the process cannot be told to stop a second time: `mlflow run` ends its child again when it was ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {sig: signal.signal(sig, signal.SIG_IGN) for sig in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for sig, handler in before.items():
            signal.signal(sig, handler)


def serve(
    session: Session,
    door: socket.socket,
    *,
    until_decided: bool = True,
    signed_in_by: str = "",
    ready: Callable[[str], None] = print,
) -> None:
    """Answer at `door` until a decision (or without end), or until the process is told to stop, which is no error.

    On loopback only requests for loopback names are answered, so that no other site can reach the pages by a name of
    its own; behind a platform that signs people in, that platform decides who comes through. ready: gets the address.
    """
    import uvicorn

    from personalize.review.app import application

    host, port = door.getsockname()[:2]
    hosts = list(LOOPBACK) if host in LOOPBACK else ["*"]
    app = application(session, hosts, signed_in_by)
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_level="warning", access_log=False, lifespan="off", server_header=False, proxy_headers=False
        )
    )

    def leave() -> None:
        session.decided_here.wait()
        while (left := session.asked_at + FAREWELL_S - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
        server.should_exit = True

    if until_decided:
        threading.Thread(target=leave, daemon=True).start()
    ready(f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/")
    with door, contextlib.suppress(KeyboardInterrupt):  # Ctrl-C and SIGTERM end a review as they should
        server.run(sockets=[door])
