"""The machine that a run was made on, as far as it decides the last bits of a result: sums in another order differ."""

import functools
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from personalize.environment import installed

FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")
"""Instructions by which PyTorch's libraries choose how they compute."""
CHOSEN = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
TAG = "lineage.machine."


def machine() -> dict[str, str]:
    """`system`, `python`, `torch` (its build), `processor` (kind and features), `threads`; `gpus` where there are any.

    With the features stand the variables by which a person has PyTorch's libraries use others.
    """
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": installed().get("torch", ""),
        "processor": " ".join([_maker(), *_features(), *_chosen()]).strip(),
        "threads": threads(),
        "gpus": ", ".join(_gpus()),
    }
    return {name: fact for name, fact in facts.items() if fact}


def tags() -> dict[str, str]:
    """The same as tags of a run."""
    return {TAG + name: fact for name, fact in machine().items()}


def apart(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """In what two runs' machines differ by their tags: "threads 1, then 2"; nothing where one does not say."""
    names = [tag for tag in then if tag.startswith(TAG) and tag in now]
    gone = [tag for tag in (TAG + "gpus",) if (tag in then) != (tag in now) and TAG + "system" in {*then, *now}]
    return [
        f"{tag.removeprefix(TAG)} {then.get(tag, 'none')}, then {now.get(tag, 'none')}"
        for tag in [*names, *gone]
        if then.get(tag) != now.get(tag)
    ]


def threads() -> str:
    """How many threads compute at most, foretold without torch."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return os.environ.get("OMP_NUM_THREADS") or str(processors)


@functools.cache
def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _maker() -> str:
    return _cpuinfo().get("vendor_id", "") or platform.processor()


def _features() -> list[str]:
    found = _cpuinfo()
    flags = set((found.get("flags") or found.get("Features") or "").split())
    return [feature for feature in FEATURES if feature in flags]


def _chosen() -> list[str]:
    return [f"{name}={os.environ[name]}" for name in CHOSEN if os.environ.get(name)]


def _gpus() -> list[str]:
    """The cards by name, where NVIDIA's driver tells, without importing torch."""
    found = []
    for folder in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        try:
            lines = folder.read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    return found
