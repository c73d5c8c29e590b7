"""A small project of another kind, driven by the engine: it counts words."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from personalize.recipe.__main__ import main
from tests.tracking import Tracking

WORDS = Path(__file__).with_name("words")
REPOSITORY = Path(__file__).parents[2]

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables, made once."""
    import mlflow

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git checkout of the words project with one text."""
    root = tmp_path / "words project"
    shutil.copytree(WORDS, root, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "texts").mkdir()
    (root / "texts" / "a.txt").write_text("the cat and the dog")
    (root / ".gitignore").write_text("/build/\n__pycache__\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "words")
    return root


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Reader", "-c", "user.email=reader@example.org"]
    return subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracking store of this test's own, as MLFLOW_TRACKING_URI, with its artifacts in the test's folder."""
    import mlflow

    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    experiment = mlflow.MlflowClient().create_experiment("words", (tmp_path / "artifacts").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    return uri


@pytest.fixture
def run(project: Path, store: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the engine's command line in the project: (exit status, everything it printed)."""
    monkeypatch.chdir(project)

    def call(*words: str) -> tuple[int, str]:
        capfd.readouterr()
        status = main(list(words) or ["run"])
        said = capfd.readouterr()
        return status, said.out + said.err

    return call


@pytest.fixture
def outside(project: Path, store: str) -> dict[str, str]:
    """The environment for running the project in a process of its own."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def server(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An `mlflow server` that keeps artifacts to itself, so that outputs travel over HTTP."""
    import mlflow

    tracking = Tracking(store, tmp_path)
    try:
        tracking.wait()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)
        experiment = mlflow.MlflowClient().create_experiment("served")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
        yield tracking.uri
    finally:
        tracking.kill()


@pytest.fixture
def installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts packages before those that are installed, as far as their names and versions go."""
    place = tmp_path / "site-packages"
    place.mkdir()
    monkeypatch.syspath_prepend(place)

    def installs(**versions: str) -> None:
        for folder in place.iterdir():
            folder.rmdir()
        for name, version in versions.items():
            (place / f"{name}-{version}.dist-info").mkdir()

    return installs
