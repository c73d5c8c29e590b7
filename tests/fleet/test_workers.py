"""Ray's edges: not installed, not there, of another version."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from personalize.fleet import worker, workers
from personalize.recipe import RecipeError


def test_without_ray_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else real(name, *rest))
    with pytest.raises(RecipeError, match=rf"Ray is not installed: uv pip install ray=={workers.VERSION}"):
        workers.check_installed()


def test_the_version_to_install_is_the_one_that_is_tested() -> None:
    pins = (Path(__file__).parents[2] / "requirements-dev.txt").read_text()
    assert f"ray=={workers.VERSION}" in pins


def test_a_cluster_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="FLEET NOT TESTED: Ray is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(RecipeError, match="no Ray cluster answers at RAY_ADDRESS"), workers.crew(1, 0, "."):
        pass


OTHER = """
import ray
from personalize.fleet import workers
from personalize.recipe import RecipeError
ray.__version__ = "1.0.0"
try:
    with workers.crew(1, 0, "."):
        print("let in")
except RecipeError as error:
    print(error)
"""


@pytest.mark.usefixtures("ray_here")
def test_another_version_of_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    import ray

    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    done = subprocess.run(
        [sys.executable, "-c", OTHER], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "is of another version than this environment (ray 1.0.0)" in done.stdout, done.stdout + done.stderr
    assert "Install the same on both" in done.stdout


@pytest.mark.usefixtures("ray_here")
def test_a_machine_without_the_project_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"the project.s folder .* is not there"):
        workers._look_at(str(tmp_path / "nowhere"))
    (tmp_path / "recipe.yaml").touch()
    workers._look_at(str(tmp_path))


@pytest.mark.parametrize(
    ("words", "code", "away"),
    [
        ("QueuePool limit of size 5 overflow 10 reached, connection timed out", "BAD_REQUEST", True),
        ("the database is being started", "TEMPORARILY_UNAVAILABLE", True),
        ("Param value is longer than 6000 characters", "INVALID_PARAMETER_VALUE", False),
    ],
)
def test_a_server_that_is_crowded_is_asked_again_and_one_that_refuses_is_not(words: str, code: str, away: bool) -> None:
    from mlflow.exceptions import RestException

    error = RestException({"error_code": code, "message": words})
    with pytest.raises(worker.ServerAway) if away else contextlib.nullcontext():
        worker._refuse_away(error)
