"""What a Databricks job runs: the entry point of this project, inside the MLflow run that the submitter opened.

The job starts this file, from a Git checkout or beside a snapshot of the project in a volume. It imports the standard
library only, because it runs before anything of the project can be imported.

A task with a Git source cannot write to its checkout, and a runtime's own packages are other versions than the project
asks for. So the project is copied to the driver's own disk, and runs there in an environment built from
requirements.lock, with credentials that are renewed for as long as the job runs. A project without a lock file runs in
the runtime's own Python.
"""

import argparse
import base64
import collections
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path

LOCAL_DISK = Path("/local_disk0/tmp")
RUNTIMES_OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "DATABRICKS_RUNTIME_VERSION")
SIGNED_IN = ("DATABRICKS_TOKEN", "DATABRICKS_CLIENT_SECRET")


def main() -> None:
    """Bring the project to this disk, build its environment, run `mlflow run` in it; a failure there fails the job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--entry-point", required=True)
    parser.add_argument("--run-id", default="", help="the MLflow run to fill; without it one is opened in --experiment")
    parser.add_argument("--experiment", default="")
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--parameters", default="", help="packed by `pack`")
    parser.add_argument(
        "--parameter", action="append", default=[], help="name=value; a job's {{...}} are expanded in it"
    )
    parser.add_argument("--without-torch", default="false", help="true: for an entry point that draws nothing")
    parser.add_argument("--commit", default="", help="what the checkout is of, where there is no .git to ask")
    parser.add_argument("--snapshot", help="a .tar.gz of the project; without it the project lies around this file")
    asked = parser.parse_args()

    home = Path(tempfile.mkdtemp(prefix="personalize-", dir=LOCAL_DISK if os.access(LOCAL_DISK, os.W_OK) else None))
    root = unpack(Path(asked.snapshot), home) if asked.snapshot else copy(project_root(), home)
    without_git(root)
    sys.path.insert(0, str(root))
    python = own_python(root, home, torch=asked.without_torch != "true")
    command = [str(python), "-m", "mlflow", "run", str(root), "--entry-point", asked.entry_point]
    command += ["--env-manager", "local"]
    if asked.run_id:
        command += ["--backend-config", json.dumps({"_mlflow_local_backend_run_id": asked.run_id})]
    else:
        command += ["--experiment-name", asked.experiment]
    given = unpacked(asked.parameters) if asked.parameters else {}
    for word in [*(f"{name}={value}" for name, value in given.items()), *asked.parameter]:
        command += ["-P", word]
    with signed_in(asked.tracking_uri) as variables:
        variables |= {"MLFLOW_TRACKING_URI": asked.tracking_uri, "TMPDIR": str(home)}
        if asked.commit:
            variables["PERSONALIZE_COMMIT"] = asked.commit
        variables["PATH"] = os.pathsep.join([str(python.parent), variables.get("PATH", os.defpath)])
        code, end = told(command, root, variables)
    shutil.rmtree(home, ignore_errors=True)
    if code:
        raise RuntimeError(f"the entry point {asked.entry_point} ended with code {code}:\n{end}")


def pack(parameters: dict[str, str]) -> str:
    """Parameters as one word that a job's own {{...}} references and quoting leave alone."""
    text = json.dumps(parameters, ensure_ascii=False)
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(word: str) -> dict[str, str]:
    """What `pack` was given."""
    found: dict[str, str] = json.loads(zlib.decompress(base64.urlsafe_b64decode(word)))
    return found


def project_root() -> Path:
    """The folder with the MLproject around this file. Older runtimes run a job's file without setting `__file__`."""
    begin = [Path(globals().get("__file__", sys.argv[0])).resolve().parent, Path.cwd()]
    for folder in (parent for start in begin for parent in (start, *start.parents)):
        if (folder / "MLproject").is_file():
            return folder
    raise RuntimeError(f"there is no MLproject around {begin[0]} or {begin[1]}")


def copy(checkout: Path, home: Path) -> Path:
    """The project on the driver's own disk, where it may write."""
    root = home / "project"
    shutil.copytree(checkout, root, symlinks=True)
    for folder, _, names in os.walk(root):  # a read-only file is copied as one
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o200)
    return root


def unpack(snapshot: Path, home: Path) -> Path:
    """The project, unpacked on the driver's own disk."""
    root = home / "project"
    root.mkdir()
    with tarfile.open(snapshot) as archive:
        if hasattr(tarfile, "data_filter"):  # not in Python 3.11.0 to 3.11.3
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(root)
    return root


def without_git(root: Path) -> None:
    """Tell DVC so, where there is no Git around the project."""
    if (root / ".dvc").is_dir() and not (root / ".git").exists():
        with open(root / ".dvc" / "config.local", "a") as config:
            config.write("[core]\n    no_scm = true\n")


def own_python(root: Path, home: Path, torch: bool = True) -> Path:
    """The Python of the locked environment, built now; without a lock file, this one."""
    if not (root / "requirements.lock").is_file():
        return Path(sys.executable)
    print("building the environment of requirements.lock", flush=True)
    from personalize.environment import EnvironmentRefused, build

    try:
        return build(root, home / "environment", torch)
    except EnvironmentRefused as refused:
        raise RuntimeError(str(refused)) from None


@contextlib.contextmanager
def signed_in(tracking_uri: str):  # type: ignore[no-untyped-def]  # generator of the entry point's environment
    """The entry point's environment: nothing of the runtime's Python, and the job's own credentials, renewed."""
    variables = {key: value for key, value in os.environ.items() if key not in RUNTIMES_OWN}
    for stale in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        variables.pop(stale, None)
    if not tracking_uri.startswith("databricks") or any(name in variables for name in SIGNED_IN):
        yield variables
        return
    from databricks.sdk.core import Config

    from personalize.databricks.renewal import renewing

    workspace = Config()
    with renewing(str(workspace.host), workspace.authenticate) as credentials:
        yield variables | credentials


def told(command: list[str], root: Path, variables: dict[str, str]) -> tuple[int, str]:
    """Run, and print what is said line by line, for the job's own log; the status and the last lines."""
    last: collections.deque[str] = collections.deque(maxlen=40)
    process = subprocess.Popen(
        command,
        cwd=root,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    before = signal.signal(signal.SIGTERM, lambda *_: os.killpg(process.pid, signal.SIGTERM))
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        last.append(line)
    code = process.wait()
    signal.signal(signal.SIGTERM, before)
    return code, "".join(last)


if __name__ == "__main__":
    main()
