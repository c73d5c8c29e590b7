"""Computing beside others on the same processors."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from personalize.recipe import process


@pytest.fixture(autouse=True)
def free_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "none yet")
    monkeypatch.delenv("OMP_WAIT_POLICY")


@contextlib.contextmanager
def all_processors_taken() -> Iterator[None]:
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for each in spinning:
            each.kill()
            each.wait()


def test_threads_sleep_while_they_wait_where_others_compute() -> None:
    with all_processors_taken(), process.giving_way():
        assert os.environ["OMP_WAIT_POLICY"] == "passive"
    assert "OMP_WAIT_POLICY" not in os.environ  # what is started afterwards may be alone


def test_what_a_person_chose_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with all_processors_taken(), process.giving_way():
        assert os.environ["OMP_WAIT_POLICY"] == "active"
    assert os.environ["OMP_WAIT_POLICY"] == "active"


def test_threads_of_one_who_is_alone_do_as_they_always_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: 10.0)
    with process.giving_way():
        assert "OMP_WAIT_POLICY" not in os.environ


def test_torch_is_not_loaded_before_way_is_made() -> None:
    told = "import sys, steps.generate; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", told], check=True)
