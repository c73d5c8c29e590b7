"""What a served version runs in: this process, for tests of the endpoint, or a server process of its own.

A container has what the version brought and nothing of this checkout, the entity's environment variables with secrets
in their place, and MLflow's own server (docs/machine-learning/model-serving/custom-models), of as many workers as
MLFLOW_MODELS_WORKERS says, or one for each CPU (mlflow/models/container/__init__.py), each with a copy of the model.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil

START_S = 300
CPUS = 4


class InProcess:
    """Loaded and asked through MLflow's own scoring code."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        import mlflow

        self.model = mlflow.pyfunc.load_model(str(folder))

    def ask(self, data: bytes) -> tuple[int, bytes]:
        from mlflow.exceptions import MlflowException
        from mlflow.pyfunc import scoring_server

        try:
            answer = scoring_server.invocations(
                data, "application/json", self.model, self.model.metadata.get_input_schema()
            )
        except MlflowException as error:
            return error.get_http_status_code(), error.serialize_as_json().encode()
        return answer.status, answer.response.encode()

    def close(self) -> None:
        pass


class Container:
    """`mlflow models serve` in a process of its own. Raises RuntimeError with its log where it does not come up."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.home = tempfile.TemporaryDirectory(prefix="container-")
        log = Path(self.home.name, "log")
        environment = {
            key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS") if key in os.environ
        }
        environment |= {"HOME": self.home.name, "NO_PROXY": "*", "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "297"}
        environment |= {name: re.sub(r"\{\{secrets/.*\}\}", "secret", value) for name, value in variables.items()}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        workers = environment.setdefault("MLFLOW_MODELS_WORKERS", str(CPUS))
        serve = ["-m", "mlflow", "models", "serve", "--env-manager", "local", "-m", str(folder), "-p", str(self.port)]
        serve += ["--workers", workers]
        with open(log, "wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *serve], cwd=self.home.name, env=environment, stdout=output, stderr=output
            )
        begun = time.monotonic()
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ping", timeout=5):
                return
            if self.process.poll() is not None or time.monotonic() - begun > START_S:
                said = log.read_text(errors="replace")[-3000:]
                self.close()
                raise RuntimeError(said)
            time.sleep(0.2)

    def workers(self) -> int:
        """Processes that have loaded the model: the server's own where it is one, else those that it has started."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        spawned = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
        return len(spawned) or 1

    def ask(self, data: bytes) -> tuple[int, bytes]:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/invocations", data, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(asked) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def close(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=20)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.home.cleanup()
