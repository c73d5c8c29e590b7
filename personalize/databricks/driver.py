"""What a Databricks job runs: the entry point of this project, inside the MLflow run that the submitter opened.

The job starts this file, from a Git checkout or beside a snapshot of the project in a volume. It imports the standard
library only, because it runs before anything of the project can be imported.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path


def main() -> None:
    """Find or unpack the project and run `mlflow run` in it; a failure there fails the job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--entry-point", required=True)
    parser.add_argument("--run-id", required=True)
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--parameters", required=True, help="JSON object")
    parser.add_argument("--snapshot", help="a .tar.gz of the project; without it the project lies around this file")
    asked = parser.parse_args()

    root = unpack(Path(asked.snapshot)) if asked.snapshot else project_root()
    command = [sys.executable, "-m", "mlflow", "run", str(root), "--entry-point", asked.entry_point]
    command += ["--env-manager", "local"]
    command += ["--backend-config", json.dumps({"_mlflow_local_backend_run_id": asked.run_id})]
    for name, value in json.loads(asked.parameters).items():
        command += ["-P", f"{name}={value}"]
    code = subprocess.run(command, cwd=root, env=environment(asked.tracking_uri)).returncode
    if code:
        raise RuntimeError(f"the entry point {asked.entry_point} ended with code {code}; its output is above")


def project_root() -> Path:
    """The folder with the MLproject around this file. Older runtimes run a job's file without setting `__file__`."""
    begin = [Path(globals().get("__file__", sys.argv[0])).resolve().parent, Path.cwd()]
    for folder in (parent for start in begin for parent in (start, *start.parents)):
        if (folder / "MLproject").is_file():
            return folder
    raise RuntimeError(f"there is no MLproject around {begin[0]} or {begin[1]}")


def unpack(snapshot: Path) -> Path:
    """The project, unpacked on the driver's own disk. DVC is told that there is no Git around it."""
    root = Path(tempfile.mkdtemp(prefix="personalize-"))
    with tarfile.open(snapshot) as archive:
        archive.extractall(root, filter="data")
    if (root / ".dvc").is_dir():
        with open(root / ".dvc" / "config.local", "a") as config:
            config.write("[core]\n    no_scm = true\n")
    return root


def environment(tracking_uri: str) -> dict[str, str]:
    """The entry point's environment: this Python first on PATH, and the job's own credentials, which a child process
    of the driver does not have by itself."""
    variables = {**os.environ, "MLFLOW_TRACKING_URI": tracking_uri}
    variables["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", os.defpath)])
    for stale in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID"):
        variables.pop(stale, None)
    if tracking_uri.startswith("databricks") and "DATABRICKS_TOKEN" not in variables:
        from databricks.sdk.core import Config

        workspace = Config()
        variables["DATABRICKS_HOST"] = str(workspace.host)
        variables["DATABRICKS_TOKEN"] = workspace.authenticate()["Authorization"].removeprefix("Bearer ")
    return variables


if __name__ == "__main__":
    main()
