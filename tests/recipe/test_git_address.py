"""`mlflow run <git address> -v <commit>`: run from a folder that MLflow fetches, and reproduced from anywhere."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from personalize.recipe import fetched
from tests.recipe.conftest import REPOSITORY, Run, git
from tests.recipe.test_mlflow_run import environment  # noqa: F401  a fixture
from tests.recipe.test_reuse import edit


def fetch_and_run(address: str, commit: str, where: Path, environment: dict[str, str], *words: str) -> str:  # noqa: F811
    command = [sys.executable, "-m", "mlflow", "run", address, "-v", commit, "--env-manager", "local", *words]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_commit_of_a_git_address_is_run_and_reproduced(
    project: Path,
    environment: dict[str, str],  # noqa: F811
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    address, commit = project.as_uri(), git(project, "rev-parse", "HEAD").strip()
    edit(project / "counting" / "tally.py", "text.lower()", "text.upper()")
    git(project, "commit", "-q", "-a", "-m", "louder")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment["TMPDIR"] = str(temporary)
    said = fetch_and_run(address, commit, elsewhere, environment, "-P", "top=1")
    (original,) = mlflow.search_runs(filter_string="tags.`recipe.target` != ''", output_format="list")
    assert original.data.tags["lineage.commit"] == commit
    assert original.data.tags["lineage.repository"] == address
    assert original.data.tags["lineage.dirty"] == "false"
    assert original.data.tags["mlflow.source.name"] == address
    assert f"Fetching project from {address}" in said
    assert git(project, "status", "--porcelain") == "", "the repository itself is left alone"
    assert not any(elsewhere.iterdir())

    run_id = original.info.run_id
    status, said = run("reproduce", "--run", run_id)
    assert status == 0, said
    assert f"agrees with run {run_id[:8]}" in said
    now = git(project, "rev-parse", "HEAD").strip()
    said = fetch_and_run(address, now, elsewhere, environment, "-e", "reproduce", "-P", f"run={run_id}")
    assert f"agrees with run {run_id[:8]}" in said, "the other commit was fetched from where the project came from"

    subprocess.run(["git", "clone", "-q", "--depth", "1", address, str(elsewhere / "clone")], check=True)
    git(elsewhere / "clone", "remote", "set-url", "origin", "https://x:y@127.0.0.1:9/nobody.git")
    monkeypatch.chdir(elsewhere / "clone")
    status, said = run("reproduce", "--run", run_id)
    assert status == 2
    assert f"commit {commit} is not in this clone, nor where it was cloned from; it was run from {address}" in said


def test_commands_name_the_address_and_the_commit_where_mlflow_has_fetched_the_project(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert fetched.typed(project) == (".",), "a checkout of somebody's own"
    monkeypatch.setenv("MLFLOW_RUN_ID", "a run")
    assert fetched.typed(project) == (".",)
    git(project, "remote", "add", "origin", "https://me:secret@example.org/words.git")
    commit = git(project, "rev-parse", "HEAD").strip()
    assert fetched.typed(project) == ("https://example.org/words.git", "-v", commit)
    assert fetched.typed(project / "steps") == ("https://example.org/words.git#steps", "-v", commit)
    git(project, "remote", "set-url", "origin", "git@example.org:words.git")
    assert fetched.repository(project) == "git@example.org:words.git"
    git(project, "remote", "set-url", "origin", str(project))
    assert fetched.repository(project) == "", "a path on somebody's disk helps nobody else"


def dvc(where: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words, "--quiet"], cwd=where, check=True, env=dict(os.environ))


def test_what_a_commit_pins_and_nobody_has_pulled_is_pulled(run: Run, project: Path, tmp_path: Path, monkeypatch):
    git(project, "rm", "-q", "-r", "--cached", "texts")
    dvc(project, "init")
    dvc(project, "remote", "add", "--default", "store", str(tmp_path / "remote"))
    dvc(project, "add", "texts")
    dvc(project, "push")
    git(project, "add", "-A")
    git(project, "commit", "-q", "-m", "pinned")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(project), str(clone)], check=True)
    monkeypatch.chdir(clone)
    status, said = run("run", "--plan")
    assert status == 0, said
    assert "pulling texts, which texts.dvc pins" in said
    assert (clone / "texts" / "a.txt").read_text() == "the cat and the dog"
    assert "pulling" not in run("run", "--plan")[1]
