"""The workspace's HTTP side: every call carries a token, goes to its service, and may be made to fail."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.workspace.catalog import Catalog
from tests.workspace.errors import Refused, invalid, missing
from tests.workspace.files import Files
from tests.workspace.identity import ME, Identity
from tests.workspace.jobs import NODE_TYPES, RUNTIMES, Jobs
from tests.workspace.registry import UC, Registry
from tests.workspace.serving import Serving

FAULTS = {429: "REQUEST_LIMIT_EXCEEDED", 500: "INTERNAL_ERROR", 503: "TEMPORARILY_UNAVAILABLE"}
LOGGED_MODEL = re.compile(rb"(dbfs:/databricks/mlflow-tracking/\d+)/models/(m-)")
"""Where MLflow's own server keeps a logged model below its artifact root; a workspace: `logged_models`."""


@dataclass
class Fault:
    """What the next `times` calls of a kind meet: `status` (429, 503, ...), or 0 for a connection that is cut.

    calls: `PUT /api/2.0/fs/files`, a method and the begin of a path; the method may be `*`. spared: so many go well
    before.
    """

    calls: str
    status: int
    times: int = 1
    spared: int = 0

    def meets(self, method: str, path: str) -> bool:
        wanted, _, begin = self.calls.partition(" ")
        meant = wanted in ("*", method) and path.startswith(begin)
        hit = meant and self.times > 0 and self.spared == 0
        self.times -= hit
        self.spared -= meant and self.spared > 0
        return hit


class Workspace:
    """All services. furnished: with catalog main, schema main.personalize and its volume files, owned by ME."""

    tracked: ClassVar[Workspace | None] = None
    """Whose runs the MLflow server of this process keeps."""

    def __init__(self, folder: Path, furnished: bool = True, looks_until_ready: int = 2) -> None:
        self.folder = folder
        self.identity = Identity()
        self.catalog = Catalog()
        self.files = Files(folder, self.catalog)
        self.jobs = Jobs(folder, self.identity, self.files)
        self.jobs.registry = self.registry = Registry(self.catalog, self.files, self.new_version, self.jobs.alias_set)
        self.serving = Serving(self.registry, self.catalog, looks_until_ready)
        self.serving.policies = self.jobs.policies
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.url = ""
        if furnished:
            self.catalog.add("main", ME)
            for schema in ("main.personalize", "main.default"):
                self.catalog.create("schemas", dict(zip(("catalog_name", "name"), schema.split("."), strict=True)), ME)
            volume = {"catalog_name": "main", "schema_name": "personalize", "name": "files", "volume_type": "MANAGED"}
            self.catalog.create("volumes", volume, ME)
            self.path("/Volumes/main/personalize/files").mkdir(parents=True)

    def path(self, remote: str) -> Path:
        """Where the emulator keeps a remote file."""
        return self.files.path(remote)

    def new_version(self, job_id: str, name: str, version: str) -> None:
        parameters = {"model_name": name, "model_version": version}
        job = self.jobs.known(job_id)
        self.jobs.start(job["settings"], job["job_id"], job["creator_user_name"], parameters)

    def tracking(self, method: str, path: str, data: bytes) -> tuple[int, bytes]:
        """Runs, experiments and logged models: MLflow's own server, asked in this process; the store is ours.

        An experiment's name is an absolute path (docs/mlflow/experiments). A logged model that is READY or FAILED stays
        so (MLflow's LoggedModelStatus.is_finalized: no further status updates). Artifacts lie where a workspace keeps
        them, and go there through the Files API (MLflow's databricks_tracking_artifact_repo.py and its two kinds).
        """
        import mlflow
        from mlflow.server import app, handlers

        if method == "POST" and path.endswith("/experiments/create"):
            name = json.loads(data).get("name", "")
            if not name.startswith("/"):
                raise invalid(f"Got an invalid experiment name '{name}'. An experiment name must be an absolute path.")
        if method == "PATCH" and re.fullmatch(r".*/logged-models/m-\w+", path):
            _, known = self.tracking("GET", path, b"")
            if json.loads(known)["model"]["info"]["status"] != "LOGGED_MODEL_PENDING":
                raise invalid("The status of a logged model that was finalized cannot be updated.")
        ours = mlflow.get_tracking_uri()
        with self.lock:
            if Workspace.tracked is not self:
                Workspace.tracked, handlers._tracking_store = self, None
                with pytest.MonkeyPatch.context() as told:  # and no process that is started later
                    told.setenv("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{self.folder}/tracking.db")
                    told.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "dbfs:/databricks/mlflow-tracking")
                    app.test_client().get("/api/2.0/mlflow/experiments/get?experiment_id=0")  # makes the store, once
        answer = app.test_client().open(path, method=method, data=data, content_type="application/json")
        if mlflow.get_tracking_uri() != ours:  # the server's first request makes its store this process's own
            mlflow.set_tracking_uri(ours)
        return answer.status_code, LOGGED_MODEL.sub(rb"\1/logged_models/\2", answer.data)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    workspace: Workspace

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.workspace.requests.append((self.command, url.path))
        with self.workspace.lock:
            fault = next((one for one in self.workspace.faults if one.meets(self.command, url.path)), None)
        cut = fault is not None and not fault.status
        data = self.rfile.read(length // 2 if cut else length) if length else b""
        if cut or len(data) < length:  # or whoever sent it is gone
            self.close_connection = True
            self.connection.close()
            return
        try:
            if fault is not None:
                raise Refused(fault.status, FAULTS[fault.status], "")
            self.route(url.path, query, data)
        except Refused as refused:
            self.answer(refused.status, json.dumps(refused.body).encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

    def route(self, path: str, query: dict[str, Any], data: bytes) -> None:
        workspace, method = self.workspace, self.command
        if path.startswith(("/oidc/", "/.well-known/")):
            if path.startswith("/.well-known/"):
                return self.json({"oidc_endpoint": f"{workspace.url}/oidc"})
            header = self.headers.get("Authorization") or ""
            return self.json(workspace.identity.oauth(path, workspace.url, header, data))
        if path == "/cli-token":  # what the CLI fetches for whoever is signed in with it
            return self.json(workspace.identity.issue(ME))
        if path.startswith("/runtime-token/"):
            return self.json(workspace.jobs.runtime_token(int(path.rpartition("/")[2])))
        if path.startswith("/presigned/"):
            return self.reply(
                workspace.files.presigned(
                    method,
                    urllib.parse.unquote(path.removeprefix("/presigned/")),
                    data,
                    self.headers.get("Content-Range") or "",
                )
            )
        principal = workspace.identity.who(self.headers.get("Authorization"))
        if path.startswith("/api/2.0/fs/"):
            rest = path.removeprefix("/api/2.0/fs/")
            with workspace.lock:
                return self.reply(workspace.files.rest(method, rest, query, data, principal, workspace.url))
        if path.endswith("/invocations"):
            parts = path.split("/")
            return self.answer(
                *workspace.serving.invoke(parts[2], parts[4] if "served-models" in parts else None, data)
            )
        if path.startswith("/api/2.0/mlflow/") and not path.startswith(UC):
            return self.answer(*workspace.tracking(method, self.path, data))
        body = json.loads(data) if data else {}
        with workspace.lock:
            return self.json(self.service(method, path, query, body, principal))

    def service(self, method: str, path: str, query: dict[str, Any], body: dict[str, Any], principal: str) -> Any:
        workspace = self.workspace
        if path.startswith(UC):
            return workspace.registry.rest(method, path.removeprefix(UC + "/"), {**query, **body}, principal)
        if path.startswith("/api/2.1/unity-catalog/"):
            rest = urllib.parse.unquote(path.removeprefix("/api/2.1/unity-catalog/"))
            return workspace.catalog.rest(method, rest, {**query, **body}, principal)
        if path.startswith("/api/2.0/serving-endpoints"):
            rest = path.removeprefix("/api/2.0/serving-endpoints").strip("/")
            return workspace.serving.rest(method, rest, body, principal)
        if path.startswith("/api/2.0/permissions/serving-endpoints/") and method == "PATCH":
            return workspace.serving.permit(path.rpartition("/")[2], body, principal)
        if path == "/api/2.0/preview/scim/v2/Me":
            return workspace.identity.me(principal)
        if path.endswith("/clusters/spark-versions"):
            return {"versions": [{"key": key, "name": name} for key, name in RUNTIMES.items()]}
        if path.endswith("/clusters/list-node-types"):
            return {"node_types": [{"node_type_id": name} for name in sorted(NODE_TYPES)]}
        if path == "/api/2.0/libraries/cluster-status":
            return workspace.jobs.library_statuses(query["cluster_id"])
        if path.startswith("/api/2") and "/jobs/" in path:
            return workspace.jobs.rest(method, path.split("/", 3)[3], {**query, **body}, principal)
        raise missing(f"No API found for '{method} {path}'")

    def reply(self, answer: Any) -> None:
        if isinstance(answer, tuple):
            status, body, *headers = answer
            return self.answer(status, body, "application/octet-stream", headers[0] if headers else None)
        return self.json(answer)

    def json(self, content: Any) -> None:
        self.answer(200, json.dumps(content).encode())

    def answer(self, status: int, body: bytes, kind: str = "application/json", headers: Any = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def emulated(folder: Path, furnished: bool = True) -> Iterator[Workspace]:
    """A running workspace; `workspace.url` is its address. Everything it holds lies in `folder`."""
    workspace = Workspace(folder, furnished)
    handler = type("WorkspaceHandler", (Handler,), {"workspace": workspace})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    workspace.url = workspace.jobs.host = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield workspace
    finally:
        workspace.jobs.close()
        workspace.serving.close()
        server.shutdown()
        server.server_close()
        shutil.rmtree(folder / "fs", ignore_errors=True)
