"""A local endpoint: `mlflow models serve` kept alive in the background, behind an address that stays the same.

Everything about it lies in one folder, `build/endpoints/<name>/`: what should be (written here) and what is (written by
the keeper process), see `Agreement`; the servers' logs; downloaded models. Deployments of one name are serialised by a
lock that the operating system releases when its holder dies.

A new version is started beside the old one, must become healthy and must answer a smoke request; then the keeper turns
the public port to it and lets the old one finish its requests. When any of this fails the old version simply stays.
For that while both are in memory; where that is too much for a GPU, stop first and deploy then.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from personalize.cards import command
from personalize.evidence.package import VERSION
from personalize.files import keep_private
from personalize.serving.agreement import Agreement
from personalize.serving.app import TOKEN
from personalize.serving.endpoint import (
    EndpointError,
    Prediction,
    Status,
    check_smoke,
    fetch_files,
    inputs_of,
    payload,
    predictions,
)
from personalize.serving.http import Away, answers, post_json
from personalize.serving.ports import choose_port
from personalize.serving.processes import family, is_alive, last_line, remembered, tail, terminate
from personalize.serving.registry import ModelVersion

PROJECT = Path(__file__).resolve().parents[2]
KEPT_LOGS = 5
NO_TOKEN = "off"
"""In the place of an access token: none is asked for any more."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class LocalEndpoint:
    """Serve a model from this machine.

    Args:
        name: the endpoint's name; one folder and one public port each.
        root: where endpoints keep their folders.
        host: the address to listen on; only this machine reaches 127.0.0.1.
        port: the public port; 0 keeps the one the endpoint had, or takes any free one.
        workers: server processes; each loads the model once more.
        timeout_s: seconds after which a request is given up with status 504.
        startup_timeout_s: seconds a server may take to load its model.
        grace_s: seconds an outgoing server has to finish the requests it works on.
        environment: more environment variables of the servers.
        token: what callers must send (`Authorization: Bearer`); empty keeps the one there is, NO_TOKEN asks for none.
        env_manager: `local` serves from this very environment; `uv`, `virtualenv` and `conda` build the model's own.
        report: called with a line of progress, for instance `print`.
    """

    name: str
    root: Path = PROJECT / "build" / "endpoints"
    host: str = "127.0.0.1"
    port: int = 0
    workers: int = 1
    timeout_s: int = 300
    startup_timeout_s: float = 600
    grace_s: float = 60
    env_manager: str = "local"
    environment: Mapping[str, str] = field(default_factory=dict)
    token: str = field(default="", repr=False)
    report: Callable[[str], None] = print

    @property
    def folder(self) -> Path:
        """The endpoint's own folder."""
        return self.root.resolve() / self.name

    @property
    def agreement(self) -> Agreement:
        """What should be and what is."""
        return Agreement(self.folder)

    def deploy(self, model: ModelVersion, smoke: Mapping[str, Any]) -> Status:
        """Serve `model`; see `Endpoint.deploy`.

        Raises:
            EndpointError: the port is taken, the server did not start in time (its log's end is in the message), or the
                smoke request was not answered with a picture of the size asked for.
        """
        with self._alone():
            wanted = self.agreement.wanted()
            held = self.agreement.actual().get("port") if self.agreement.keeper() else None
            port = choose_port(self.folder, self.host, self.port, held, int(wanted.get("port", 0)))
            previous = str(wanted["serving"]) if wanted.get("serving") and self.agreement.keeper() else None
            number = str(
                1 + max((int(known) for known in wanted.get("servers", {})), default=int(wanted.get("last", 0)))
            )
            server: dict[str, Any] = {
                "model": {"name": model.name, "version": model.version, "uri": model.uri, "run_id": model.run_id},
                "path": str(fetch_files(model, self.folder / "models")),
                "log": f"server-{number}.log",
                "deployer": remembered(os.getpid()),
                "grace_s": self.grace_s,
                "timeout_s": self.timeout_s,
                # compiled code that lies beside a model's own is not what was signed, and is not read
                "environment": {
                    **self.environment,
                    "PYTHONPYCACHEPREFIX": str(self.folder / "pycache"),
                    VERSION: f"{model.name}/{model.version}" if model.version else "",
                },
            }
            token = self._token(wanted)
            server["argv"] = self._command(server["path"])
            if token:
                if "personalize.serving.app:serve" not in server["argv"]:
                    raise EndpointError(
                        f"{TOKEN} is set, and {model} is served by MLflow's own server, which asks for no token. Serve "
                        "a model of this recipe with env_manager: local, or take the token away."
                    )
                server["environment"][TOKEN] = token
            elif self.host not in LOOPBACK:
                self.report(f"WARNING: {open_to_all(self.host)}")
            (self.folder / server["log"]).unlink(missing_ok=True)
            kept = {previous: wanted["servers"][previous]} if previous else {}
            old_port = int(wanted["port"]) if previous else port
            entry = {"host": self.host, "last": int(number), "port": old_port}
            self.agreement.want({**entry, "serving": previous, "servers": {**kept, number: server}})
            try:
                self._wake_keeper()
                private = self._await_health(number, server["log"])
                self.report(f"{model} is up; asking it for a picture")
                trial = check_smoke(partial(self._ask, private, server), smoke)
                self.agreement.want({**entry, "port": port, "serving": number, "servers": {number: server}})
                self._await_switch(number, port, previous)
            except BaseException as error:
                back = {**entry, "serving": previous, "servers": kept}
                self.agreement.want(back)
                self.agreement.wait(lambda actual: number not in actual.get("servers", {}), self.grace_s + 10)
                if previous and isinstance(error, EndpointError):
                    was = kept[previous]["model"]
                    raise EndpointError(
                        f"{error}\nCallers notice nothing: version {was['version'] or was['uri']} keeps serving at "
                        f"http://{self.host}:{old_port}."
                    ) from error
                raise
            self._prune_logs()
            return replace(self.status(), trial=trial)

    def status(self) -> Status:
        """What the endpoint is doing; see `Status`."""
        wanted, actual = self.agreement.wanted(), self.agreement.actual()
        number = str(wanted.get("serving") or "")
        known = wanted.get("servers", {}).get(number)
        if not known:
            candidate = bool(wanted.get("servers")) and bool(self.agreement.keeper())
            return Status(self.name, "local", "starting" if candidate else "stopped")
        about: dict[str, Any] = {
            "url": f"http://{wanted['host']}:{wanted['port']}",
            "model": known["model"]["name"],
            "version": known["model"]["version"],
            "uri": known["model"]["uri"],
            "log": str(self.folder / known["log"]),
        }
        server = actual.get("servers", {}).get(number, {})
        if not self.agreement.keeper():
            left = is_alive(server.get("who"))
            note = "its keeper process is gone (killed, or the machine was restarted)"
            note += f", though the server still runs as process {server['who']['pid']}" if left else ""
            return Status(self.name, "local", "failed", note=note + "; deploy again, or stop it", **about)
        about["restarts"] = server.get("restarts", 0)
        if not is_alive(server.get("who")):
            code = (server.get("last_exit") or {}).get("code")
            return Status(self.name, "local", "restarting", note=f"its server ended with code {code}", **about)
        about |= {"pid": server["who"]["pid"], "uptime_s": round(time.time() - server["started_at"], 1)}
        if actual.get("complaint"):
            return Status(self.name, "local", "failed", note=actual["complaint"], **about)
        healthy = answers(f"http://127.0.0.1:{server['port']}/health") and answers(about["url"] + "/health")
        note = "" if wanted["host"] in LOOPBACK or _token_of(known) else open_to_all(wanted["host"])
        return Status(self.name, "local", "serving" if healthy else "starting", note=note, **about)

    def stop(self) -> Status:
        """End the servers, after the requests they work on, and the keeper. Stopping twice is no error."""
        if not self.folder.is_dir():
            return Status(self.name, "local", "stopped", note="it was never deployed here")
        with self._alone():
            wanted, actual, keeper = self.agreement.wanted(), self.agreement.actual(), self.agreement.keeper()
            was_up = bool(keeper) or any(is_alive(known.get("who")) for known in actual.get("servers", {}).values())
            self.agreement.want({**wanted, "serving": None, "servers": {}})
            if keeper:
                self.agreement.wait(lambda actual: not is_alive(keeper), self.grace_s + 15)
                terminate(family(keeper), 5)
            self._end_orphans(actual)
        return Status(self.name, "local", "stopped", note="" if was_up else "it was not running")

    def query(self, request: Mapping[str, Any]) -> list[Prediction]:
        """Ask the version that serves for pictures.

        Raises:
            EndpointError: nothing serves, or the server refused the request (its own words are in the message).
        """
        wanted = self.agreement.wanted()
        said = ""
        if wanted.get("serving") and self.agreement.keeper():
            url = f"http://{wanted['host']}:{wanted['port']}"
            try:
                return self._ask(url, wanted["servers"][wanted["serving"]], request)
            except Away as error:
                said = str(error)
        now = self.status()
        way_out = f"See its log: {now.log}" if now.log else f"Deploy it first: `{command('deploy')}`."
        raise EndpointError(
            f"Endpoint {self.name!r} is {now.state}{': ' + (now.note or said) if now.note or said else ''}. {way_out}"
        )

    def body(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON body that `query` sends for this request, for the curl line."""
        wanted = self.agreement.wanted()
        return payload(request, *inputs_of(wanted["servers"][wanted["serving"]]["path"]))

    @property
    def token_variable(self) -> str:
        """The environment variable with the access token, where the server that serves asks for one."""
        wanted = self.agreement.wanted()
        known = wanted.get("servers", {}).get(str(wanted.get("serving") or ""), {})
        return TOKEN if _token_of(known) else ""

    def _token(self, wanted: Mapping[str, Any]) -> str:
        """The token that callers must send from now on; one that was set stays until it is taken away."""
        before = next((token for known in wanted.get("servers", {}).values() if (token := _token_of(known))), "")
        return "" if self.token == NO_TOKEN else self.token or before

    def _ask(self, url: str, server: Mapping[str, Any], request: Mapping[str, Any]) -> list[Prediction]:
        body = payload(request, *inputs_of(server["path"]))
        return predictions(post_json(f"{url}/invocations", body, self.timeout_s + 5, _token_of(server)))

    def _command(self, path: str) -> list[str]:
        """This project's own server where the model carries it, else MLflow's."""
        if self.env_manager == "local" and (Path(path) / "code" / "personalize" / "serving" / "app.py").is_file():
            known = {"PERSONALIZE_MODEL": path, "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": str(self.timeout_s)}
            return [
                *("env", *(f"{name}={value}" for name, value in known.items())),
                *(sys.executable, "-m", "uvicorn", "--app-dir", str(Path(path) / "code")),
                *("--host", "127.0.0.1", "--port", "{port}", "--workers", str(self.workers)),
                *("--factory", "personalize.serving.app:serve"),
            ]
        serve = [sys.executable, "-m", "mlflow", "models", "serve", "-m", path, "-h", "127.0.0.1", "-p", "{port}"]
        return [
            *serve,
            *("--workers", str(self.workers)),
            *("--timeout", str(self.timeout_s)),
            *("--env-manager", self.env_manager),
        ]

    def _wake_keeper(self) -> None:
        if self.agreement.keeper():
            return
        self._end_orphans(self.agreement.actual())
        self.agreement.forget()
        with open(self.folder / "keeper.log", "ab", opener=partial(os.open, mode=0o600)) as log:
            subprocess.Popen(
                [sys.executable, "-m", "personalize.serving.keeper", str(self.folder)],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if not self.agreement.wait(lambda actual: is_alive(actual.get("keeper")), 30):
            raise EndpointError(f"The keeper process did not start.\n{tail(self.folder / 'keeper.log')}")

    def _await_health(self, number: str, log: str) -> str:
        """Wait until the candidate answers /health; its private address is returned."""
        begun = told = time.monotonic()
        while True:
            actual = self.agreement.actual()
            server = actual.get("servers", {}).get(number, {})
            waited = time.monotonic() - begun
            if server.get("last_exit"):
                code = server["last_exit"]["code"]
                raise EndpointError(
                    f"The model server ended with code {code} after {waited:.0f} s. The end of {self.folder / log}:\n"
                    f"{tail(self.folder / log)}"
                )
            if actual.get("complaint") or not is_alive(actual.get("keeper")):
                raise EndpointError(actual.get("complaint") or f"The keeper ended.\n{tail(self.folder / 'keeper.log')}")
            if server.get("port") and answers(f"http://127.0.0.1:{server['port']}/health"):
                return f"http://127.0.0.1:{server['port']}"
            if waited > self.startup_timeout_s:
                raise EndpointError(
                    f"The model server did not answer within {self.startup_timeout_s:.0f} s. Give it longer with "
                    f"`-P deploy.startup_timeout=...`. The end of {self.folder / log}:\n{tail(self.folder / log)}"
                )
            if time.monotonic() - told >= 5:
                told = time.monotonic()
                self.report(f"waiting for the model server: {waited:.0f} s ({last_line(self.folder / log)})")
            time.sleep(0.2)

    def _await_switch(self, number: str, port: int, previous: str | None) -> None:
        def switched(actual: dict[str, Any]) -> bool:
            return bool(actual.get("complaint")) or (
                actual.get("serving") == number and actual.get("port") == port and previous not in actual["servers"]
            )

        self.agreement.wait(switched, self.grace_s + 15)
        if complaint := self.agreement.actual().get("complaint"):
            raise EndpointError(complaint)

    def _end_orphans(self, actual: dict[str, Any]) -> None:
        """End servers whose keeper was killed: they run on, but nobody looks after them."""
        for known in actual.get("servers", {}).values():
            terminate(family(known.get("who")), 5)

    def _prune_logs(self) -> None:
        logs = sorted(self.folder.glob("server-*.log"), key=lambda path: path.stat().st_mtime)
        for log in logs[:-KEPT_LOGS]:
            log.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        keep_private(self.folder)
        lock = FileLock(self.folder / "deploy.lock", mode=0o600)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.report(f"another command works on endpoint {self.name!r}; waiting for it")
            lock.acquire(timeout=self.startup_timeout_s + self.grace_s + 60)
        try:
            yield
        finally:
            lock.release()


def _token_of(server: Mapping[str, Any]) -> str:
    return str(server.get("environment", {}).get(TOKEN, ""))


def open_to_all(host: str) -> str:
    """What to say of an endpoint that others reach and that asks for no token."""
    return f"whoever reaches {host} may ask for pictures; set {TOKEN} and deploy again to ask for an access token"
