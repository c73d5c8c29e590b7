"""A Databricks workspace on loopback, for the unmodified SDK and MLflow clients.

It keeps the rules that Databricks documents, so that breaking one fails here as it would there:

- every call carries a token; a model name has three levels; a version needs a signature with inputs and outputs;
- an endpoint serves registered, READY versions; workload type and size are among the known ones; traffic adds up to 100
  and names served entities; at most 30 environment variables a version; one update at a time;
- a container is built (some looks at NOT_READY) before it answers, and a version that cannot load fails the update and
  leaves a build log, while the configuration before stays in force;
- a request or an answer of more than 16 MB is refused;
- a job runs the Python file it was given, in a process of its own.

Runs and experiments are kept by MLflow's own tracking server, asked in this process.

A served model is the registered one, loaded and asked through MLflow's own scoring code.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

UC = "/api/2.0/mlflow/unity-catalog"
TYPES = {"CPU", "CPU_MEDIUM", "CPU_LARGE", "GPU_SMALL", "GPU_MEDIUM", "GPU_LARGE", "GPU_XLARGE", "MULTIGPU_MEDIUM"}
SIZES = {"Small", "Medium", "Large"}
MAX_PAYLOAD = 16_000_000
TOKEN = "emulated-token"


class Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error_code": code, "message": message}


def invalid(message: str) -> Refused:
    return Refused(400, "INVALID_PARAMETER_VALUE", message)


def missing(message: str) -> Refused:
    return Refused(404, "RESOURCE_DOES_NOT_EXIST", message)


class Workspace:
    """The state of the workspace and its rules. `looks_until_ready` is how often an update is seen in progress."""

    def __init__(self, folder: Path, looks_until_ready: int = 2) -> None:
        self.folder = folder
        self.looks_until_ready = looks_until_ready
        self.models: dict[str, dict[str, Any]] = {}
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.loaded: dict[tuple[str, str], Any] = {}
        self.jobs: dict[int, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.lock = threading.RLock()

    # --- Unity Catalog registry -------------------------------------------------------------------------------------

    def registry(self, method: str, call: str, q: dict[str, Any]) -> dict[str, Any]:
        if call == "registered-models:is-databricks-sdk-models-artifact-repository-enabled":
            return {"is_databricks_sdk_models_artifact_repository_enabled": True}
        name = q.get("name") or q.get("full_name") or ""
        if call == "registered-models/create":
            if name.count(".") != 2 or not all(name.split(".")):
                raise invalid(f"'{name}' is not a valid name: it must have three levels, catalog.schema.model")
            if name in self.models:
                raise Refused(400, "RESOURCE_ALREADY_EXISTS", f"Model '{name}' already exists")
            self.models[name] = {"versions": {}, "aliases": {}, "tags": {}}
            return {"registered_model": self.describe_model(name)}
        model = self.models.get(name)
        if model is None:
            raise missing(f"Model '{name}' does not exist")
        if call == "registered-models/get":
            return {"registered_model": self.describe_model(name)}
        if call == "registered-models/set-tag":
            model["tags"][q["key"]] = q["value"]
            return {}
        if call == "registered-models/alias":
            return self.alias(method, name, model, q)
        if call == "model-versions/create":
            version = str(len(model["versions"]) + 1)
            made = {"name": name, "version": version, "status": "PENDING_REGISTRATION", "source": q.get("source", "")}
            model["versions"][version] = {**made, "run_id": q.get("run_id", ""), "tags": q.get("tags", [])}
            return {"model_version": model["versions"][version]}
        version = model["versions"].get(str(q.get("version")))
        if version is None:
            raise missing(f"Version '{q.get('version')}' of '{name}' does not exist")
        if call == "model-versions/finalize":
            self.check_signature(name, version["version"])
            version["status"] = "READY"
        elif call == "model-versions/set-tag":
            others = [tag for tag in version["tags"] if tag["key"] != q["key"]]
            version["tags"] = [*others, {"key": q["key"], "value": q["value"]}]
        elif call == "model-versions/get-download-uri":
            return {"artifact_uri": f"dbfs:/Models/{name}/{version['version']}"}
        return {"model_version": version}

    def alias(self, method: str, name: str, model: dict[str, Any], q: dict[str, Any]) -> dict[str, Any]:
        if method == "POST":
            if str(q["version"]) not in model["versions"]:
                raise missing(f"Version '{q['version']}' of '{name}' does not exist")
            model["aliases"][q["alias"]] = str(q["version"])
            return {}
        if q["alias"] not in model["aliases"]:
            raise missing(f"Alias '{q['alias']}' of '{name}' does not exist")
        if method == "DELETE":
            del model["aliases"][q["alias"]]
            return {}
        return {"model_version": model["versions"][model["aliases"][q["alias"]]]}

    def describe_model(self, name: str) -> dict[str, Any]:
        aliases = [{"alias": alias, "version": version} for alias, version in self.models[name]["aliases"].items()]
        tags = [{"key": key, "value": value} for key, value in self.models[name]["tags"].items()]
        return {"name": name, "aliases": aliases, "tags": tags}

    def model_folder(self, name: str, version: str) -> Path:
        return self.folder.joinpath("fs", "Models", *name.split("."), version)

    def check_signature(self, name: str, version: str) -> None:
        description = self.model_folder(name, version) / "MLmodel"
        if not description.is_file():
            raise invalid(f"Version {version} of '{name}' has no MLmodel file")
        signature = yaml.safe_load(description.read_text()).get("signature") or {}
        if not signature.get("inputs") or not signature.get("outputs"):
            raise invalid("A model in Unity Catalog must have a signature with inputs and outputs")

    # --- Files ------------------------------------------------------------------------------------------------------

    def path(self, remote: str) -> Path:
        return self.folder.joinpath("fs", *[part for part in urllib.parse.unquote(remote).split("/") if part])

    def listing(self, remote: str) -> dict[str, Any]:
        folder = self.path(remote)
        if not folder.is_dir():
            raise missing(f"Directory '{remote}' does not exist")
        entries = []
        for entry in sorted(folder.iterdir()):
            about = {"path": f"{remote.rstrip('/')}/{entry.name}", "name": entry.name, "is_directory": entry.is_dir()}
            entries.append(about if entry.is_dir() else {**about, "file_size": entry.stat().st_size})
        return {"contents": entries}

    # --- Model Serving ----------------------------------------------------------------------------------------------

    def check_config(self, config: dict[str, Any]) -> None:
        entities = config.get("served_entities") or []
        if not entities:
            raise invalid("served_entities must not be empty")
        names = [entity.get("name") for entity in entities]
        if len(set(names)) != len(names):
            raise invalid("served entity names must be unique")
        for entity in entities:
            name, version = entity.get("entity_name", ""), entity.get("entity_version")
            if name.count(".") != 2:
                raise invalid(f"'{name}' is not a Unity Catalog model name")
            known = self.models.get(name, {}).get("versions", {}).get(version)
            if known is None or known["status"] != "READY":
                raise missing(f"Version {version} of '{name}' does not exist or is not ready")
            if entity.get("workload_type", "CPU") not in TYPES:
                raise invalid(f"Workload type '{entity['workload_type']}' is not supported")
            if entity.get("workload_size") not in SIZES:
                raise invalid(f"Workload size '{entity.get('workload_size')}' is not one of Small, Medium, Large")
            if len(entity.get("environment_vars") or {}) > 30:
                raise invalid("at most 30 environment variables are allowed for a served entity")
        routes = (config.get("traffic_config") or {}).get("routes") or []
        if sum(route["traffic_percentage"] for route in routes) != 100:
            raise invalid("traffic percentages must sum up to 100")
        if {route.get("served_entity_name") for route in routes} - set(names):
            raise invalid("a traffic route names an entity that is not served")

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body["name"]
        if name in self.endpoints:
            raise Refused(400, "RESOURCE_ALREADY_EXISTS", f"Endpoint '{name}' already exists")
        self.check_config(body["config"])
        self.endpoints[name] = {
            "name": name,
            "active": None,
            "pending": body["config"],
            "looks": self.looks_until_ready,
            "update": "IN_PROGRESS",
            "tags": body.get("tags") or [],
            "ai_gateway": body.get("ai_gateway"),
            "build_logs": {},
            "history": [body["config"]["traffic_config"]["routes"]],
        }
        return self.describe_endpoint(name)

    def endpoint(self, name: str) -> dict[str, Any]:
        if name not in self.endpoints:
            raise missing(f"Endpoint with name '{name}' does not exist.")
        return self.endpoints[name]

    def update(self, name: str, config: dict[str, Any]) -> dict[str, Any]:
        endpoint = self.endpoint(name)
        if endpoint["update"] == "IN_PROGRESS":
            raise Refused(409, "RESOURCE_CONFLICT", f"Endpoint '{name}' is being updated")
        self.check_config(config)
        endpoint |= {"pending": config, "looks": self.looks_until_ready, "update": "IN_PROGRESS"}
        endpoint["history"].append(config["traffic_config"]["routes"])
        return self.describe_endpoint(name)

    def look(self, name: str) -> dict[str, Any]:
        """A GET: time passes, and at last the containers are there, or one is not."""
        endpoint = self.endpoint(name)
        if endpoint["update"] == "IN_PROGRESS":
            endpoint["looks"] -= 1
            if endpoint["looks"] < 0:
                self.finish(endpoint)
        return self.describe_endpoint(name)

    def finish(self, endpoint: dict[str, Any]) -> None:
        for entity in endpoint["pending"]["served_entities"]:
            try:
                self.load(entity["entity_name"], entity["entity_version"])
            except Exception as error:
                endpoint["build_logs"][entity["name"]] = f"Building the container\nStarting the model\n{error}"
                endpoint |= {"update": "UPDATE_FAILED", "pending": None}
                return
        endpoint |= {"active": endpoint["pending"], "pending": None, "update": "NOT_UPDATING"}

    def load(self, name: str, version: str) -> Any:
        import mlflow

        if (name, version) not in self.loaded:
            self.loaded[name, version] = mlflow.pyfunc.load_model(str(self.model_folder(name, version)))
        return self.loaded[name, version]

    def describe_endpoint(self, name: str) -> dict[str, Any]:
        endpoint = self.endpoints[name]
        ready = "READY" if endpoint["active"] else "NOT_READY"
        described = {"name": name, "state": {"ready": ready, "config_update": endpoint["update"]}}
        described |= {"last_updated_timestamp": int(time.time() * 1000), "tags": endpoint["tags"]}
        if endpoint["active"]:
            described["config"] = endpoint["active"]
        if endpoint["pending"]:
            described["pending_config"] = endpoint["pending"]
        return described

    def invoke(self, name: str, served: str | None, data: bytes) -> tuple[int, bytes]:
        from mlflow.exceptions import MlflowException
        from mlflow.pyfunc import scoring_server

        endpoint = self.endpoint(name)
        if not endpoint["active"]:
            raise Refused(400, "INVALID_STATE", f"Endpoint '{name}' is not ready")
        if len(data) > MAX_PAYLOAD:
            raise Refused(413, "REQUEST_LIMIT_EXCEEDED", "The request is larger than 16 MB")
        if served is None:
            routes = endpoint["active"]["traffic_config"]["routes"]
            served = max(routes, key=lambda route: route["traffic_percentage"])["served_entity_name"]
        entity = next((one for one in endpoint["active"]["served_entities"] if one["name"] == served), None)
        if entity is None:
            raise missing(f"'{served}' is not served by '{name}'")
        model = self.load(entity["entity_name"], entity["entity_version"])
        try:
            answer = scoring_server.invocations(data, "application/json", model, model.metadata.get_input_schema())
        except MlflowException as error:
            return error.get_http_status_code(), error.serialize_as_json().encode()
        body = answer.response.encode()
        if len(body) > MAX_PAYLOAD:
            raise Refused(500, "RESPONSE_LIMIT_EXCEEDED", "The response is larger than 16 MB")
        return answer.status, body

    # --- MLflow tracking --------------------------------------------------------------------------------------------

    def tracking(self, method: str, path: str, data: bytes) -> tuple[int, bytes]:
        import mlflow
        from mlflow.server import app

        os.environ.setdefault("_MLFLOW_SERVER_FILE_STORE", f"sqlite:///{self.folder}/tracking.db")
        os.environ.setdefault("_MLFLOW_SERVER_ARTIFACT_ROOT", str(self.folder / "artifacts"))
        ours = mlflow.get_tracking_uri()
        answer = app.test_client().open(path, method=method, data=data, content_type="application/json")
        if mlflow.get_tracking_uri() != ours:  # the server's first request makes its store this process's own
            mlflow.set_tracking_uri(ours)
        return answer.status_code, answer.data

    # --- Jobs -------------------------------------------------------------------------------------------------------

    def submit(self, body: dict[str, Any]) -> dict[str, Any]:
        for known in self.jobs.values():
            if body.get("idempotency_token") and known["body"].get("idempotency_token") == body["idempotency_token"]:
                return {"run_id": known["id"]}
        [task] = body["tasks"]
        if not (task.get("new_cluster") or task.get("existing_cluster_id") or task.get("environment_key")):
            raise invalid("a task needs new_cluster, existing_cluster_id or environment_key")
        python = task["spark_python_task"]
        if python.get("source") == "GIT":
            source = body.get("git_source") or {}
            if not source.get("git_url") or not source.get("git_provider"):
                raise invalid("git_source needs git_url and git_provider")
            if python["python_file"].startswith("/"):
                raise invalid("the path of a file in a repository must be relative")
        elif not python["python_file"].startswith("/"):
            raise invalid("the path of a file in a workspace must be absolute")
        number = len(self.jobs) + 1
        job = {
            "id": number,
            "body": body,
            "process": None,
            "canceled": False,
            "output": self.folder / f"job-{number}.log",
        }
        self.jobs[number] = job
        self.start(job, python, body.get("git_source"))
        return {"run_id": number}

    def start(self, job: dict[str, Any], python: dict[str, Any], git_source: dict[str, Any] | None) -> None:
        """Run the Python file as the driver would; volumes are seen below the emulator's own folder."""
        home = self.folder / f"driver-{job['id']}"
        home.mkdir()
        volumes = str(self.folder / "fs" / "Volumes")
        if python.get("source") == "GIT":
            assert git_source is not None
            commit = git_source["git_commit"]
            subprocess.run(["git", "clone", "--quiet", git_source["git_url"], str(home / "code")], check=True)
            subprocess.run(["git", "-C", str(home / "code"), "checkout", "--quiet", commit], check=True)
            script, cwd = home / "code" / python["python_file"], home / "code"
        else:
            script, cwd = Path(python["python_file"].replace("/Volumes", volumes, 1)), home
        arguments = [argument.replace("/Volumes", volumes) for argument in python.get("parameters", [])]
        environment = {**os.environ, "DATABRICKS_RUNTIME_VERSION": ""}
        environment.pop("MLFLOW_RUN_ID", None)
        with open(job["output"], "wb") as output:
            job["process"] = subprocess.Popen(
                [sys.executable, str(script), *arguments], cwd=cwd, env=environment, stdout=output, stderr=output
            )

    def describe_job(self, number: int) -> dict[str, Any]:
        if number not in self.jobs:
            raise missing(f"Run {number} does not exist")
        job = self.jobs[number]
        code = job["process"].poll()
        state: dict[str, Any] = {"life_cycle_state": "RUNNING" if code is None else "TERMINATED"}
        if code is not None:
            state["result_state"] = "CANCELED" if job["canceled"] else "SUCCESS" if code == 0 else "FAILED"
        task = {"run_id": number, "task_key": job["body"]["tasks"][0]["task_key"], "state": state}
        return {
            "run_id": number,
            "job_id": 1,
            "state": state,
            "run_page_url": f"http://emulator/run/{number}",
            "tasks": [task],
        }

    def close(self) -> None:
        for job in self.jobs.values():
            if job["process"] is not None and job["process"].poll() is None:
                job["process"].kill()
                job["process"].wait()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    workspace: Workspace

    def handle_any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(length) if length else b""
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.workspace.requests.append((self.command, url.path))
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}" and url.path != "/.well-known/databricks-config":
                raise Refused(403, "PERMISSION_DENIED", "Invalid access token.")
            self.route(url.path, query, data)
        except Refused as refused:
            self.answer(refused.status, json.dumps(refused.body).encode())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_any

    def route(self, path: str, query: dict[str, Any], data: bytes) -> None:
        workspace, method = self.workspace, self.command
        if path.startswith("/api/2.0/fs/"):
            return self.files(path.removeprefix("/api/2.0/fs/"), data)
        if path.endswith("/invocations"):
            parts = path.split("/")
            return self.answer(*workspace.invoke(parts[2], parts[4] if "served-models" in parts else None, data))
        body = json.loads(data) if data else {}
        with workspace.lock:
            if path.startswith(UC):
                return self.json(workspace.registry(method, path.removeprefix(UC + "/"), {**query, **body}))
            if path.startswith("/api/2.0/serving-endpoints"):
                return self.json(self.serving(method, path.removeprefix("/api/2.0/serving-endpoints").strip("/"), body))
            if path.startswith("/api/2") and "/jobs/" in path:
                call = path.split("/", 3)[3]
                if call == "jobs/runs/submit":
                    return self.json(workspace.submit(body))
                if call == "jobs/runs/get":
                    return self.json(workspace.describe_job(int(query["run_id"])))
                if call == "jobs/runs/get-output":
                    return self.json({"logs": workspace.jobs[int(query["run_id"])]["output"].read_text()})
                if call == "jobs/runs/cancel":
                    job = workspace.jobs[body["run_id"]]
                    job["canceled"] = True
                    job["process"].terminate()
                    return self.json({})
            if path.startswith("/api/2.0/mlflow/"):
                return self.answer(*workspace.tracking(method, self.path, data))
        raise missing(f"No API found for '{method} {path}'")

    def serving(self, method: str, rest: str, body: dict[str, Any]) -> Any:
        workspace = self.workspace
        if method == "POST" and not rest:
            return workspace.create(body)
        name, _, part = rest.partition("/")
        if method == "GET" and not part:
            return workspace.look(name)
        if method == "DELETE" and not part:
            workspace.endpoint(name)
            del workspace.endpoints[name]
            return {}
        if method == "PUT" and part == "config":
            return workspace.update(name, body)
        if method == "PATCH" and part == "tags":
            endpoint = workspace.endpoint(name)
            added = {tag["key"]: tag["value"] for tag in [*endpoint["tags"], *body.get("add_tags", [])]}
            endpoint["tags"] = [{"key": key, "value": value} for key, value in added.items()]
            return {"tags": endpoint["tags"]}
        if part.endswith("/build-logs"):
            return {"logs": workspace.endpoint(name)["build_logs"].get(part.split("/")[1], "")}
        if part.endswith("/logs"):
            return {"logs": ""}
        raise missing(f"No API found for '{method} {self.path}'")

    def files(self, rest: str, data: bytes) -> None:
        kind, _, remote = rest.partition("/")
        target = self.workspace.path(remote)
        if kind == "directories" and self.command == "PUT":
            target.mkdir(parents=True, exist_ok=True)
            return self.answer(204, b"")
        if kind == "directories" and self.command == "HEAD":
            return self.answer(200 if target.is_dir() else 404, b"")
        if kind == "directories":
            return self.json(self.workspace.listing("/" + urllib.parse.unquote(remote)))
        if kind == "files" and self.command == "PUT":
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            return self.answer(204, b"")
        if kind != "files" or not target.is_file():
            raise missing(f"'{remote}' does not exist")
        if self.command == "DELETE":
            target.unlink()
            return self.answer(204, b"")
        return self.answer(200, target.read_bytes(), "application/octet-stream")

    def json(self, content: Any) -> None:
        self.answer(200, json.dumps(content).encode())

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def emulated(folder: Path) -> Any:
    """A running workspace; `workspace.url` is its address. Everything it holds lies in `folder`."""
    workspace = Workspace(folder)
    handler = type("WorkspaceHandler", (Handler,), {"workspace": workspace})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    workspace.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield workspace
    finally:
        workspace.close()
        server.shutdown()
        server.server_close()
        shutil.rmtree(folder / "fs", ignore_errors=True)
