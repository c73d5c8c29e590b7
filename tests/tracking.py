"""A tracking server of a test's own, in a process that has MLflow imported before it is forked."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

from personalize.serving.ports import free_port
from tests import forked


def served() -> dict[str, str]:
    """The environment of a tracking server. Its own jobs, which nobody here asks for, are seven processes more."""
    return {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def kill(process: BaseProcess) -> None:
    """A process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()  # where it has no session of its own yet
    process.join()


class Tracking:
    """A tracking server that can be killed, and started again at the same address.

    store: its database; place: an existing folder for its artifacts, which it keeps to itself, and for what it says.
    """

    def __init__(self, store: str, place: Path) -> None:
        self.port, self.place = free_port(), place
        self.uri = f"http://127.0.0.1:{self.port}"
        self.words = [store, str(place / "served"), str(self.port)]
        self.start()

    def start(self) -> None:
        said = self.place / "server.log"
        self.process = forked.begin(forked.tracking_server, self.words, self.place, served(), said)

    def kill(self) -> None:
        kill(self.process)

    def wait(self) -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            assert self.process.is_alive(), (self.place / "server.log").read_text()[-3000:]
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError("the server does not start")
