"""The locked environment: what conda.yaml asks for is in it, and what does not fit this machine is said."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from personalize import environment
from personalize.environment import EnvironmentRefused, block, build, check_driver, own_torch, pinned

ROOT = Path(__file__).parent.parent
LOCK = (ROOT / "requirements.lock").read_text()
TORCH = (ROOT / "requirements-torch.lock").read_text()


def test_every_pin_of_conda_yaml_is_locked_with_hashes():
    [pins] = [
        one["pip"] for one in yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"] if isinstance(one, dict)
    ]
    for pin in pins:
        lock = TORCH if pin.startswith("torch==") else LOCK
        assert pinned(lock, pin.partition("==")[0]) == pin, "`make lock` was not run"
        assert "--hash=sha256:" in block(lock, pin.partition("==")[0])


def test_a_lock_names_no_index():
    for text in (LOCK, TORCH):
        assert "://" not in text
        assert not re.search(r"^--", text, flags=re.MULTILINE)


def test_what_only_torch_needs_stands_with_torch():
    names = re.findall(r"^([a-z][\w.-]*)==", LOCK, flags=re.MULTILINE)
    assert "torchvision" not in names, "beside another torch it breaks every import of diffusers"
    assert not [name for name in names if name.startswith(("nvidia", "cuda", "triton"))]
    assert {"pip", "uv", "mlflow"} <= set(names), "a job needs no installer but this"


@pytest.mark.parametrize("driver", ["580.65.06", "610.10", ""])
def test_a_driver_that_fits_says_nothing(driver):
    check_driver(TORCH, driver)


def test_an_older_driver_is_told_which_build_to_pin():
    with pytest.raises(
        EnvironmentRefused, match=r"driver here is 550\.54.*CUDA 13 and needs 580.*UV_TORCH_BACKEND=cu126"
    ):
        check_driver(TORCH, "550.54.15")
    with pytest.raises(EnvironmentRefused, match=r"needs 580 or newer: take a runtime with a newer driver\."):
        check_driver(TORCH, "470.57")


def test_another_python_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "PYTHONS", ((3, 9),))
    with pytest.raises(EnvironmentRefused, match=rf"made for Python 3\.9; this one is {sys.version_info[0]}"):
        build(ROOT, tmp_path / "environment")


def test_a_build_of_torch_that_the_machine_brings_comes_first(monkeypatch, tmp_path):
    for name in ("UV_FIND_LINKS", "PIP_FIND_LINKS", "UV_TORCH_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    assert not own_torch()
    monkeypatch.setenv("UV_TORCH_BACKEND", "cpu")
    assert own_torch()
    monkeypatch.delenv("UV_TORCH_BACKEND")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    assert not own_torch()
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    assert own_torch()


def test_an_environment_is_not_built_by_the_uv_that_goes_with_the_one_before(monkeypatch, tmp_path):
    version = pinned(LOCK, "uv").partition("==")[2]
    uv = tmp_path / ".venv" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(f"#!/bin/sh\necho uv {version}\n")
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{uv.parent}:/usr/bin:/bin")
    called = []
    monkeypatch.setattr(environment, "_call", lambda command, variables: called.append(command))
    python = build(ROOT, tmp_path / ".venv")
    assert python == tmp_path / ".venv" / "bin" / "python"
    assert called[0][1:4] == ["-m", "pip", "install"], "another uv is fetched first"
    assert not any(command[0] == str(uv) for command in called)
    monkeypatch.setenv("PATH", f"{uv.parent}:/usr/bin:/bin")
    build(ROOT, tmp_path / "elsewhere")
    assert called[-1][0] == str(uv), "one that stays is used as it is"
