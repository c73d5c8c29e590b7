"""Jobs: runs of Python files on compute that is described, from a Git commit or a path in a volume.

Rules (docs/api/workspace/jobs, docs/jobs): a task says where it runs; a Git source needs `git_url` and `git_provider`,
its paths are relative; **a task from Git cannot write to its checkout** (docs/jobs/git) and there is no .git in it; a
path of the workspace is absolute; a task's parameters have at most 10,000 bytes of JSON, and `{{...}}` in them is
expanded; an idempotency token that is known gives the run that has it; a run goes through QUEUED, PENDING, RUNNING,
TERMINATING to TERMINATED with a result, TIMEDOUT past `timeout_seconds`, or to INTERNAL_ERROR when no machine comes;
the output of a task is the last 5 MB of its log (`keeps_bytes`), which then says so, with `error` where it raised. A
single node needs its Spark configuration (docs/compute/configure), Unity Catalog's volumes need dedicated access on an
ML runtime. A serverless workspace refuses `new_cluster`.

`libraries` are a cluster's: a task on serverless compute takes none (docs/jobs/run-serverless-jobs), each is one of
pypi, whl, requirements, jar, maven, cran, and is PENDING, then INSTALLED before the task begins; where one is FAILED
the task does not run, and the run ends as INTERNAL_ERROR with LIBRARY_INSTALLATION_ERROR (SDK TerminationCodeCode,
LibraryInstallStatus). A wheel in a volume is there for the task; packages of an index are named in `uninstallable` or
taken for installed.

A budget policy tags serverless usage only, and is chosen by who may use it (docs/admin/usage/budget-policies;
`policies`: principals by id). A job's model trigger (docs/jobs/model-update-triggers) looks about once a minute, here
when `poll` is called: what has happened since is one run; at most ten aliases, which go with MODEL_ALIAS_SET alone; its
owner needs EXECUTE on the model; times between runs are 60 seconds and more (SDK ModelTriggerConfiguration).

A for-each task (docs/jobs/for-each) has no compute of its own but a task that is carried out for each of its `inputs`,
a JSON array of at most 10,000 characters, `concurrency` (1 to 100) at once; `{{input}}` and `{{input.name}}` in its
parameters are the iteration's; it is not another for-each task. A failed iteration is tried `max_retries` times more,
and stops no other. Tasks may share a cluster of the job (`job_cluster_key`).

A task runs in a process in a mount namespace of its own: its checkout is read-only, the volumes are at /Volumes,
nothing of this environment is handed on, and the SDK signs in as on a runtime. `python` is the runtime's Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from tests.workspace.errors import denied, invalid, missing

NODE_TYPES = {"g5.4xlarge", "g5.12xlarge", "Standard_NC24ads_A100_v4", "g2-standard-16", "m5.xlarge"}
RUNTIMES = {
    "18.0.x-gpu-ml-scala2.13": "18 LTS ML (includes GPU)",
    "17.3.x-gpu-ml-scala2.13": "17.3 LTS ML (includes GPU)",
    "19.0.x-gpu-ml-scala2.13": "19.0 ML (includes GPU)",
    "17.3.x-scala2.13": "17.3 LTS",
}
LIBRARIES = {"pypi", "whl", "requirements", "jar", "maven", "cran"}
ACCELERATORS = {"GPU_1xA10", "GPU_1xH100", "GPU_8xH100"}
DEDICATED = {"SINGLE_USER", "DATA_SECURITY_MODE_DEDICATED"}
RUNTIME = Path(__file__).parent / "runtime"
ENDED = ("TERMINATED", "INTERNAL_ERROR", "SKIPPED")


def can_isolate() -> bool:
    """Whether this machine lets a test have mounts of its own."""
    return subprocess.run([*isolation(), "true"], capture_output=True, check=False).returncode == 0


def check_policy(policies: dict[str, set[str]], chosen: str | None, principal: str) -> None:
    """A budget policy is there, and for whoever chooses it."""
    if chosen and principal not in policies.get(chosen, set()):
        raise denied(f"User {principal} does not have permission to use budget policy {chosen}.")


def isolation() -> list[str]:
    return ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-r", "-m"]


class Jobs:
    def __init__(self, folder: Path, identity: Any, files: Any) -> None:
        self.folder, self.identity, self.files = folder, identity, files
        self.host = ""
        self.python = sys.executable
        self.jobs: dict[int, dict[str, Any]] = {}
        self.runs: dict[int, dict[str, Any]] = {}
        self.no_capacity = False
        self.serverless_only = False
        self.variables: dict[str, str] = {}
        self.numbers = iter(range(1, 10**6))
        self.registry: Any = None
        self.policies: dict[str, set[str]] = {}
        self.uninstallable: set[str] = set()
        self.clusters: set[str] = set()
        self.keeps_bytes = 5_000_000
        self.noted: set[int] = set()

    # --- what is asked for ------------------------------------------------------------------------------------------

    def rest(self, method: str, call: str, q: dict[str, Any], principal: str) -> dict[str, Any]:
        if call == "jobs/runs/submit":
            return self.submit(q, principal)
        if call == "jobs/runs/get":
            return self.describe(int(q["run_id"]))
        if call == "jobs/runs/get-output":
            return self.output(int(q["run_id"]))
        if call == "jobs/runs/cancel":
            self.cancel(int(q["run_id"]))
            return {}
        if call == "jobs/runs/repair":
            return self.repair(q)
        if call == "jobs/runs/list":
            runs = [self.describe(number) for number in sorted(self.runs, reverse=True)]
            wanted = [run for run in runs if not q.get("job_id") or str(run["job_id"]) == str(q["job_id"])]
            return {"runs": wanted}
        if call == "jobs/create":
            return self.create(q, principal)
        if call == "jobs/reset":
            self.check(q["new_settings"], principal)
            self.known(q["job_id"])["settings"] = q["new_settings"]
            return {}
        if call == "jobs/get":
            return self.known(q["job_id"])
        if call == "jobs/delete":
            del self.jobs[int(q["job_id"])]
            return {}
        if call == "jobs/list":
            wanted = str(q.get("name") or "").lower()  # exact, whatever its case (SDK)
            found = [job for job in self.jobs.values() if wanted in ("", job["settings"]["name"].lower())]
            return {"jobs": found}
        if call == "jobs/run-now":
            job = self.known(q["job_id"])
            number = self.start(job["settings"], job["job_id"], principal, q.get("job_parameters") or {})
            return {"run_id": number}
        raise missing(f"No API found for '{method} {call}'")

    def known(self, job_id: Any) -> dict[str, Any]:
        if int(job_id) not in self.jobs:
            raise missing(f"Job {job_id} does not exist.")
        return self.jobs[int(job_id)]

    def create(self, settings: dict[str, Any], principal: str) -> dict[str, Any]:
        self.check(settings, principal)
        number = next(self.numbers)
        self.jobs[number] = {"job_id": number, "settings": settings, "creator_user_name": principal}
        return {"job_id": number}

    def submit(self, body: dict[str, Any], principal: str) -> dict[str, Any]:
        token = body.get("idempotency_token")
        for number, known in self.runs.items():
            if token and known["body"].get("idempotency_token") == token:
                return {"run_id": number}
        self.check(body, principal)
        return {"run_id": self.start(body, 0, principal, {})}

    def check(self, body: dict[str, Any], principal: str) -> None:
        check_policy(self.policies, body.get("budget_policy_id"), principal)
        if (body.get("trigger") or {}).get("model"):
            self.check_trigger(body["trigger"]["model"], principal)
        keys = [task["task_key"] for task in body["tasks"]]
        if len(set(keys)) != len(keys):
            raise invalid("task keys must be unique")
        for task in body["tasks"]:
            self.check_task(task, body, keys)

    def check_task(self, task: dict[str, Any], body: dict[str, Any], keys: list[str]) -> None:
        for before in task.get("depends_on") or []:
            if before["task_key"] not in keys:
                raise invalid(f"task '{task['task_key']}' depends on an unknown task")
        if "for_each_task" in task:
            self.check_for_each(task, body)
            return
        places = ("new_cluster", "existing_cluster_id", "environment_key", "job_cluster_key")
        if sum(place in task for place in places) != 1:
            raise invalid(f"a task needs one of {', '.join(places)}")
        for library in task.get("libraries") or []:
            if "environment_key" in task:
                raise invalid("libraries are of a cluster; serverless compute has dependencies of its environment")
            if len(library) != 1 or not set(library) <= LIBRARIES:
                raise invalid(f"a library is one of {', '.join(sorted(LIBRARIES))}, not {library}")
        if task.get("existing_cluster_id", "") not in {"", *self.clusters}:
            raise invalid(f"Cluster {task['existing_cluster_id']} does not exist")
        if (cluster := self.cluster(task, body)) is not None:
            self.check_cluster(cluster)
        if "environment_key" in task:
            environments = [one["environment_key"] for one in body.get("environments") or []]
            if task["environment_key"] not in environments:
                raise invalid(f"environment_key '{task['environment_key']}' is not among the environments")
            if (task.get("compute") or {}).get("hardware_accelerator", "GPU_1xA10") not in ACCELERATORS:
                raise invalid("hardware_accelerator is not supported in this region")
        python = task["spark_python_task"]
        if len(json.dumps(python.get("parameters", [])).encode()) > 10_000:
            raise invalid("The size of the parameters exceeds 10000 bytes")
        if python.get("source") == "GIT":
            source = body.get("git_source") or {}
            if not source.get("git_url") or not source.get("git_provider"):
                raise invalid("git_source needs git_url and git_provider")
            if python["python_file"].startswith("/"):
                raise invalid("the path of a file in a repository must be relative")
        elif not python["python_file"].startswith("/"):
            raise invalid("the path of a file in a workspace must be absolute")

    def check_for_each(self, task: dict[str, Any], body: dict[str, Any]) -> None:
        each = task["for_each_task"]
        if wrong := {"spark_python_task", "new_cluster", "environment_key", "job_cluster_key"} & set(task):
            raise invalid(f"a for each task has no {sorted(wrong)[0]}; the task that it repeats has")
        if len(each["inputs"]) > 10_000:
            raise invalid("The inputs of a for each task exceed 10000 characters.")
        try:
            listed = json.loads(each["inputs"])
        except ValueError:
            listed = None
        if not isinstance(listed, list):
            raise invalid("The inputs of a for each task are a JSON array.")
        if not 1 <= (each.get("concurrency") or 1) <= 100:
            raise invalid("concurrency is between 1 and 100")
        if "for_each_task" in each["task"]:
            raise invalid("A for each task cannot be nested in another.")
        self.check_task(each["task"], body, [each["task"]["task_key"]])

    def cluster(self, task: dict[str, Any], body: dict[str, Any]) -> dict[str, Any] | None:
        """The new cluster that a task runs on, its own or one of the job's."""
        if "job_cluster_key" not in task:
            return task.get("new_cluster")
        for one in body.get("job_clusters") or []:
            if one["job_cluster_key"] == task["job_cluster_key"]:
                return dict(one["new_cluster"])
        raise invalid(f"job_cluster_key '{task['job_cluster_key']}' is not among the job's clusters")

    def check_cluster(self, cluster: dict[str, Any]) -> None:
        if self.serverless_only:
            raise invalid("Only serverless compute is supported in the workspace.")
        if cluster.get("node_type_id") not in NODE_TYPES:
            raise invalid(f"Node type {cluster.get('node_type_id')} is not supported.")
        if cluster.get("spark_version") not in RUNTIMES:
            raise invalid(f"Spark version {cluster.get('spark_version')} is not supported.")
        single = (cluster.get("spark_conf") or {}).get("spark.databricks.cluster.profile") == "singleNode"
        if not cluster.get("num_workers") and not single:
            raise invalid("A cluster without workers needs the single node profile in spark_conf.")

    def check_trigger(self, trigger: dict[str, Any], principal: str) -> None:
        condition, aliases = trigger.get("condition"), trigger.get("aliases") or []
        if condition not in ("MODEL_CREATED", "MODEL_VERSION_READY", "MODEL_ALIAS_SET"):
            raise invalid(f"'{condition}' is not a condition of a model trigger")
        if bool(aliases) != (condition == "MODEL_ALIAS_SET") or len(aliases) > 10:
            raise invalid("a trigger on MODEL_ALIAS_SET, and no other, names one to ten aliases")
        for seconds in ("min_time_between_triggers_seconds", "wait_after_last_change_seconds"):
            if trigger.get(seconds) is not None and trigger[seconds] < 60:
                raise invalid(f"{seconds} is at least 60")
        watched = trigger.get("securable_name") or ""
        if not watched:
            raise denied("Only a metastore admin can configure a trigger on all models.")
        if watched.lower() not in self.registry.catalog.owners:
            raise missing(f"'{watched}' does not exist.")
        self.registry.catalog.need(watched, principal, "EXECUTE")

    def alias_set(self, model: str, alias: str) -> None:
        """What the triggers that there are take note of."""
        for number, job in self.jobs.items():
            trigger = (job["settings"].get("trigger") or {}).get("model") or {}
            watched = str(trigger.get("securable_name") or "").lower()
            if alias in trigger.get("aliases", []) and watched in (model.lower(), model.lower().rpartition(".")[0]):
                self.noted.add(number)

    def poll(self) -> list[int]:
        """A minute later: the runs that triggers have begun, one a job, however often its alias was set."""
        noted, self.noted = self.noted, set()
        jobs = [job for number, job in self.jobs.items() if number in noted]
        jobs = [job for job in jobs if job["settings"]["trigger"].get("pause_status") != "PAUSED"]
        return [self.start(job["settings"], job["job_id"], job["creator_user_name"], {}) for job in jobs]

    # --- how it goes ------------------------------------------------------------------------------------------------

    def start(self, body: dict[str, Any], job_id: int, principal: str, parameters: dict[str, str]) -> int:
        number = next(self.numbers)
        defaults = {one["name"]: one.get("default", "") for one in body.get("parameters") or []}
        tasks = [self.new_task(task) for task in body["tasks"]]
        run = {
            "id": number, "job_id": job_id, "body": body, "principal": principal, "alive": True, "tasks": tasks,
            "parameters": {**defaults, **parameters},
            "seen": ["QUEUED", "PENDING"], "left": ["TERMINATING"], "canceled": False, "timed_out": False,
            "broken": "",
        }  # fmt: skip
        self.runs[number] = run
        if self.no_capacity:
            run |= {"alive": False, "broken": "Cluster could not be launched: CLOUD_PROVIDER_LAUNCH_FAILURE."}
            return number
        threading.Thread(target=self.carry_out, args=(run,), daemon=True).start()
        return number

    def new_task(self, task: dict[str, Any]) -> dict[str, Any]:
        number = next(self.numbers)
        return {
            "id": number,
            "task": task,
            "result": None,
            "process": None,
            "libraries": [],
            "termination": None,
            "output": self.folder / f"task-{number}.log",
        }

    def carry_out(self, run: dict[str, Any]) -> None:
        try:
            done = {task["task"]["task_key"]: task["result"] for task in run["tasks"]}
            for task in run["tasks"]:
                if task["result"] is not None:
                    continue
                before = [one["task_key"] for one in task["task"].get("depends_on") or []]
                if run["canceled"]:
                    task["result"] = "CANCELED"
                elif any(done[key] != "SUCCESS" for key in before):
                    task["result"] = "UPSTREAM_FAILED"
                else:
                    task["result"] = self.execute(run, task)
                done[task["task"]["task_key"]] = task["result"]
        except Exception as error:
            run["broken"] = str(error)
        run["alive"] = False

    def execute(self, run: dict[str, Any], task: dict[str, Any]) -> str:
        if "for_each_task" in task["task"]:
            return self.execute_each(run, task)
        python = task["task"]["spark_python_task"]
        home = self.folder / f"driver-{task['id']}"
        home.mkdir()
        mounts = []
        cluster = self.cluster(task["task"], run["body"])
        wheels = self.install(run, task)
        if wheels is None:
            return "INTERNAL_ERROR"
        if cluster is None or cluster.get("data_security_mode") in DEDICATED:
            (self.files.folder / "fs" / "Volumes").mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # it stays: to remove it would unmount it in other tests' jobs too
                Path("/Volumes").mkdir()
            mounts.append(f"mount --bind {self.files.folder}/fs/Volumes /Volumes")
        if python.get("source") == "GIT":
            cwd = self.checkout(home / "code", run["body"]["git_source"])
            script = cwd / python["python_file"]
            mounts.append(f"mount --bind {cwd} {cwd} && mount -o remount,ro,bind {cwd}")
        else:
            cwd, script = home, Path(python["python_file"])
        arguments = [self.expand(word, run, task) for word in python.get("parameters", [])]
        (home / "tmp").mkdir()
        variables = {
            key: value for key, value in os.environ.items() if key.startswith(("UV_", "PIP_", "SSL_", "REQUESTS_"))
        }
        variables |= {
            "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "DATABRICKS_RUNTIME_VERSION": "17.3",
            "PYTHONPATH": os.pathsep.join([str(RUNTIME), *wheels]),
            "EMULATED_HOST": self.host, "EMULATED_RUN": str(run["id"]), "NO_PROXY": "*", "TMPDIR": str(home / "tmp"),
            **((cluster or {}).get("spark_env_vars") or {}), **self.variables,
        }  # fmt: skip
        words = " && ".join([*mounts, f'cd {cwd} && exec "$@"'])
        with open(task["output"], "wb") as output:
            task["process"] = subprocess.Popen(
                [*isolation(), "bash", "-c", words, "bash", self.python, str(script), *arguments],
                env=variables, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
            if run["canceled"]:  # while it was starting
                self.kill(task)
            limit = run["body"].get("timeout_seconds") or None
            try:
                code = task["process"].wait(timeout=limit)
            except subprocess.TimeoutExpired:
                self.kill(task)
                run["timed_out"] = True
                return "TIMEDOUT"
        return "CANCELED" if run["canceled"] else "SUCCESS" if code == 0 else "FAILED"

    def execute_each(self, run: dict[str, Any], task: dict[str, Any]) -> str:
        each = task["task"]["for_each_task"]
        task["iterations"] = [self.new_task(each["task"]) | {"input": one} for one in json.loads(each["inputs"])]

        def execute(iteration: dict[str, Any]) -> None:
            for _ in range(1 + (each["task"].get("max_retries") or 0)):
                iteration |= self.new_task(each["task"])
                iteration["result"] = self.execute(run, iteration)
                if iteration["result"] != "FAILED":
                    return

        with ThreadPoolExecutor(each.get("concurrency") or 1) as pool:
            list(pool.map(execute, task["iterations"]))
        results = {one["result"] for one in task["iterations"]}
        return "CANCELED" if run["canceled"] else "SUCCESS" if results == {"SUCCESS"} else "FAILED"

    def install(self, run: dict[str, Any], task: dict[str, Any]) -> list[str] | None:
        """The cluster's libraries; the wheels among them as paths, or None where one cannot be installed."""
        wheels: list[str] = []
        for library in task["task"].get("libraries") or []:
            [(kind, what)] = library.items()
            name = what["package"] if kind in ("pypi", "cran") else what["coordinates"] if kind == "maven" else what
            lost = name in self.uninstallable
            if kind in ("whl", "jar", "requirements") and name.startswith("/Volumes/"):
                lost = lost or not self.files.path(name).is_file()
                wheels += [name] if kind == "whl" else []
            task["libraries"].append({"library": library, "status": "FAILED" if lost else "INSTALLED"})
            if lost:
                why = f"Library installation failed for library due to user error for {kind} {name}"
                task["libraries"][-1]["messages"] = [why]
                task["termination"] = {"code": "LIBRARY_INSTALLATION_ERROR", "type": "CLIENT_ERROR", "message": why}
                return None
        return wheels

    def library_statuses(self, cluster_id: str) -> dict[str, Any]:
        """docs/api/workspace/libraries/clusterstatus"""
        for run in self.runs.values():
            for task in run["tasks"]:
                if cluster_id == f"cluster-{task['id']}":
                    waiting = task["task"].get("libraries") or []
                    states = task["libraries"] or [{"library": one, "status": "PENDING"} for one in waiting]
                    return {"cluster_id": cluster_id, "library_statuses": states}
        raise missing(f"Cluster {cluster_id} does not exist")

    def checkout(self, folder: Path, source: dict[str, Any]) -> Path:
        clone = ["git", "clone", "--quiet", source["git_url"], str(folder)]
        done = subprocess.run(clone, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"Failed to checkout Git repository: {done.stderr.strip()}")
        subprocess.run(["git", "-C", str(folder), "checkout", "--quiet", source["git_commit"]], check=True)
        shutil.rmtree(folder / ".git")
        return folder

    def expand(self, word: str, run: dict[str, Any], task: dict[str, Any] | None = None) -> str:
        known = {f"job.parameters.{name}": value for name, value in run["parameters"].items()}
        known |= {"job.id": str(run["job_id"]), "job.run_id": str(run["id"])}
        if task and "input" in task:
            given = task["input"]
            known |= {f"input.{key}": str(value) for key, value in given.items()} if isinstance(given, dict) else {}
            known["input"] = given if isinstance(given, str) else json.dumps(given)
        return re.sub(r"\{\{\s*(.*?)\s*\}\}", lambda found: known.get(found[1], ""), word)

    def kill(self, task: dict[str, Any], grace_s: float = 20) -> None:
        """Ask the task to end, then end it and all that it has started; without grace, as where a machine is lost."""
        process = task["process"]
        if process is None or process.poll() is not None:
            return
        everything: list[Any] = [process]
        with contextlib.suppress(psutil.NoSuchProcess):
            everything += psutil.Process(process.pid).children(recursive=True)
        if grace_s:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=grace_s)
        for one in everything:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                one.kill()
        process.wait()

    def cancel(self, number: int) -> None:
        run = self.run(number)
        run["canceled"] = True
        for task in run["tasks"]:
            for one in task.get("iterations", [task]):
                self.kill(one)

    def repair(self, q: dict[str, Any]) -> dict[str, Any]:
        run = self.run(int(q["run_id"]))
        if run["alive"]:
            raise invalid("The run is active; only a run that has ended can be repaired.")
        wanted = set(q.get("rerun_tasks") or [])
        for task in run["tasks"]:
            key = task["task"]["task_key"]
            if key in wanted or (
                (q.get("rerun_all_failed_tasks") or q.get("rerun_dependent_tasks")) and task["result"] != "SUCCESS"
            ):
                task |= self.new_task(task["task"])
        run |= {"alive": True, "canceled": False, "seen": [], "left": ["TERMINATING"]}
        threading.Thread(target=self.carry_out, args=(run,), daemon=True).start()
        return {"repair_id": next(self.numbers)}

    # --- what is told -----------------------------------------------------------------------------------------------

    def run(self, number: int) -> dict[str, Any]:
        if number not in self.runs:
            raise missing(f"Run {number} does not exist.")
        return self.runs[number]

    def describe(self, number: int) -> dict[str, Any]:
        run = self.run(number)
        if run["seen"]:
            state: dict[str, Any] = {"life_cycle_state": run["seen"].pop(0), "state_message": "Waiting for cluster"}
        elif run["alive"]:
            state = {"life_cycle_state": "RUNNING", "state_message": "In run"}
        elif run["broken"]:
            state = {
                "life_cycle_state": "INTERNAL_ERROR",
                "result_state": "FAILED",
                "state_message": "Task personalize failed.",
            }
        elif run["left"]:
            state = {"life_cycle_state": run["left"].pop(0)}
        else:
            results = [task["result"] for task in run["tasks"]]
            worst = next((one for one in ("TIMEDOUT", "CANCELED", "FAILED") if one in results), "SUCCESS")
            worst = "FAILED" if "INTERNAL_ERROR" in results else worst
            state = {"life_cycle_state": "TERMINATED", "result_state": worst}
            state["state_message"] = (
                "" if worst == "SUCCESS" else "One or more tasks failed. Please check the task runs."
            )
        tasks = []
        for task in run["tasks"]:
            own = {**state, "state_message": run["broken"] or state.get("state_message", "")}
            if task["result"]:
                own = {"life_cycle_state": "TERMINATED", "result_state": task["result"], "state_message": ""}
                if task["result"] == "FAILED":
                    own["state_message"] = "Workload failed, see run output for details"
                if task["termination"]:
                    own |= {"life_cycle_state": "INTERNAL_ERROR", "result_state": "FAILED"}
                    own["state_message"] = task["termination"]["message"]
            about = {"run_id": task["id"], "task_key": task["task"]["task_key"], "state": own}
            if "environment_key" not in task["task"]:
                about["cluster_instance"] = {"cluster_id": f"cluster-{task['id']}"}
            if task["termination"]:
                about["status"] = {"state": "TERMINATED", "termination_details": task["termination"]}
            tasks.append(about)
        page = f"{self.host}/#job/{run['job_id']}/run/{number}"
        return {"run_id": number, "job_id": run["job_id"], "state": state, "run_page_url": page, "tasks": tasks}

    def output(self, number: int) -> dict[str, Any]:
        for run in self.runs.values():
            for task in run["tasks"]:
                if task["id"] == number:
                    return self.output_of(task)
        if number in self.runs:
            raise invalid("Retrieving the output of runs with multiple tasks is not supported.")
        raise missing(f"Run {number} does not exist.")

    def output_of(self, task: dict[str, Any]) -> dict[str, Any]:
        whole = task["output"].read_bytes() if task["output"].is_file() else b""
        log = whole[-self.keeps_bytes :].decode(errors="replace")
        found: dict[str, Any] = {"logs": log, "logs_truncated": len(whole) > self.keeps_bytes}
        if task["result"] == "FAILED":
            raised = re.findall(r"^\w*(?:Error|Exception|Exit)\b.*", log, flags=re.MULTILINE)
            found["error"] = raised[-1] if raised else "the process ended"
        return found

    def runtime_token(self, number: int) -> dict[str, Any]:
        """A job's own credentials, of the principal that it runs as."""
        run = self.run(number)
        if not run["alive"]:
            raise denied("The run has ended.")
        return self.identity.issue(run["principal"])

    def close(self) -> None:
        for run in self.runs.values():
            run["canceled"] = True
            for task in run["tasks"]:
                self.kill(task)
