"""The locked environment: this Python, and the packages of requirements.lock, each file checked by its hash.

    python3.11 personalize/environment.py .venv

`make setup` and the driver of a Databricks job build it alike. This file imports the standard library only, and runs
before anything else is installed.

torch as the index has it is built for CUDA and needs NVIDIA's libraries beside it; both stand in
requirements-torch.lock. Another build of it has other bytes: UV_TORCH_BACKEND=cpu (cu126, ...) asks PyTorch's own index
for one, a wheel in a folder of UV_FIND_LINKS or PIP_FIND_LINKS comes first. Such a build is held to the locked version,
not to the locked hash.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PYTHONS = ((3, 11), (3, 12))
LOCK, TORCH = "requirements.lock", "requirements-torch.lock"
OLDEST_DRIVER = {"13": 580, "12": 525}
"""NVIDIA driver that a build for this CUDA needs at least (CUDA toolkit release notes, minor version compatibility)."""


class EnvironmentRefused(RuntimeError):
    """The environment cannot be built here; the message says why and the way out."""


def build(project: Path, folder: Path, torch: bool = True) -> Path:
    """Build the environment in `folder`, anew where there is one; returns its Python.

    torch: whether it has torch; what promotes or deploys a model does not need it.

    Raises:
        EnvironmentRefused: this Python or this machine's NVIDIA driver does not fit what is locked, or an installer
        failed.
    """
    if sys.version_info[:2] not in PYTHONS:
        fits = " or ".join(f"{major}.{minor}" for major, minor in PYTHONS)
        raise EnvironmentRefused(f"requirements.lock is made for Python {fits}; this one is {sys.version.split()[0]}.")
    own = own_torch()
    if torch and not own:
        check_driver((project / TORCH).read_text(encoding="utf-8"))
    tools = folder.with_name(folder.name + "-tools")
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    variables["UV_FIND_LINKS"] = find_links()
    try:
        uv = _uv(project, folder, tools, variables)
        _call([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], variables)
        python = folder / "bin" / "python"
        install = [uv, "pip", "install", "--quiet", "--no-deps", "--compile-bytecode", "--python", str(python)]
        locked = ["--require-hashes", "-r"]
        own_build = [pinned((project / TORCH).read_text(encoding="utf-8"), "torch")]
        if torch:
            _call([*install, *(own_build if own else [*locked, str(project / TORCH)])], variables)
        _call([*install, *locked, str(project / LOCK)], variables)
    finally:
        shutil.rmtree(tools, ignore_errors=True)
    return python


def own_torch() -> bool:
    """Whether this machine brings a build of torch, or asks for one by name."""
    folders = find_links().replace(",", " ").split()
    return bool(os.environ.get("UV_TORCH_BACKEND")) or any(
        path for folder in folders if Path(folder).is_dir() for path in Path(folder).glob("torch-*.whl")
    )


def find_links() -> str:
    """Where wheels lie beside the index; uv looks where pip was told to look."""
    return os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS", "")


def pinned(lock: str, package: str) -> str:
    """`torch==2.13.0`, of the lock's text."""
    found = re.search(rf"^({re.escape(package)}==[^ ;\\]+)", lock, flags=re.MULTILINE)
    if found is None:
        raise EnvironmentRefused(f"no lock pins {package}; `make lock` writes them anew")
    return found[1]


def block(lock: str, package: str) -> str:
    """The lines of one package in the lock's text, with its hashes."""
    begin = lock.index(pinned(lock, package))
    return "\n".join([lock[begin:].split("\n")[0], *_hashes(lock[begin:].split("\n")[1:])]) + "\n"


def locked(lock: str) -> dict[str, str]:
    """Every package of a lock's text, with its versions (of more than one, as Pythons want them) and, after a space,
    16 hexadecimal digits of the sha256 of what is said of it; comments do not count."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in filter(None, (line.partition("#")[0].rstrip() for line in lock.splitlines())):
        if not line.startswith((" ", "-")):
            name = line.partition("==")[0]
        found.setdefault(name, []).append(line)
    versions = {
        name: re.findall(r"^[^\s]+==([^\s;\\]+)", "\n".join(lines), re.MULTILINE) for name, lines in found.items()
    }
    return {
        name: f"{'|'.join(versions[name])} {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:16]}"
        for name, lines in found.items()
    }


def installed() -> dict[str, str]:
    """The version of every package that this Python would import, by its name as a lock has it."""
    found: dict[str, str] = {}
    for place in sys.path:
        for folder in Path(place or ".").glob("*.dist-info"):
            name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
    return found


def drift(lock: str, torch_lock: str = "") -> dict[str, str]:
    """The packages of two locks' texts that are not installed as locked, by name: the version that is, or nothing.

    A build of torch that somebody brings counts by its version, and does without what is locked for another build. A
    package that only some machines need is missed on none.
    """
    here = installed()
    found: dict[str, str] = {}
    for text, is_torch in ((lock, False), (torch_lock, True)):
        wanted: dict[str, set[str]] = {}
        for name, version, marker in re.findall(r"^([^\s=]+)==([^\s;\\]+) *(;?)", text, flags=re.MULTILINE):
            wanted.setdefault(name, set()).add(version)
            if name not in here and not marker and not is_torch:
                found[name] = ""
        for name, versions in wanted.items():
            if name in here and not {here[name], here[name].partition("+")[0]} & versions:
                found[name] = here[name]
    return found


def _hashes(lines: list[str]) -> list[str]:
    end = next((at for at, line in enumerate(lines) if not line.strip().startswith("--hash")), len(lines))
    return lines[:end]


def check_driver(torch_lock: str, driver: str | None = None) -> None:
    """Raises EnvironmentRefused where the NVIDIA driver is too old for the locked build of torch.

    driver: its version; None asks nvidia-smi, and a machine without one has nothing to check.
    """
    wants = re.search(r"^nvidia-cudnn-cu(\d+)==", torch_lock, flags=re.MULTILINE)
    version = nvidia_driver() if driver is None else driver
    if wants is None or not version:
        return
    major, needed = int(version.split(".")[0]), OLDEST_DRIVER.get(wants[1], 0)
    if major >= needed:
        return
    way_out = "take a runtime with a newer driver"
    if major >= OLDEST_DRIVER["12"]:
        way_out += ", or pin a build for CUDA 12 in the environment (on a cluster: new_cluster.spark_env_vars): "
        way_out += "UV_TORCH_BACKEND=cu126"
    torch = pinned(torch_lock, "torch")
    raise EnvironmentRefused(
        f"The NVIDIA driver here is {version}; the locked {torch} is built for CUDA {wants[1]} and needs {needed} or "
        f"newer: {way_out}."
    )


def nvidia_driver() -> str:
    """Version of the NVIDIA driver, or nothing where there is none."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().split("\n")[0].strip()


def _uv(project: Path, folder: Path, tools: Path, variables: dict[str, str]) -> str:
    """The locked uv: what is on PATH when that is it and outlives the environment before, else downloaded beside it."""
    lock = (project / LOCK).read_text(encoding="utf-8")
    here = shutil.which("uv")
    lasts = here and not Path(here).absolute().is_relative_to(folder.absolute())
    if here and lasts and _says(here) == pinned(lock, "uv").partition("==")[2]:
        return here
    tools.mkdir(parents=True, exist_ok=True)
    (tools / "uv.lock").write_text(block(lock, "uv"), encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    _call([*pip, "--require-hashes", "--target", str(tools), "-r", str(tools / "uv.lock")], variables)
    return str(tools / "bin" / "uv")


def _says(uv: str) -> str:
    done = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.split()[1] if done.returncode == 0 and len(done.stdout.split()) > 1 else ""


def _call(command: list[str], variables: dict[str, str]) -> None:
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentRefused(f"{' '.join(command[:4])} … failed:\n{(done.stderr or done.stdout).strip()[-3000:]}")


if __name__ == "__main__":
    try:
        print(build(Path(__file__).resolve().parents[1], Path(sys.argv[1]).absolute()))
    except EnvironmentRefused as refused:
        raise SystemExit(str(refused)) from None
