"""Runs diffusers' own training script, unchanged, and writes down when each of its steps ended.

    python -m benchmarks.diffusers_script TIMES.json SCRIPT.py [the script's arguments]

It takes what the script imports and a benchmark need not install: torchvision's compiled operators (there is no CPU
build; its Python transforms are what the script uses) and `datasets` (a folder with metadata.jsonl is read here).
"""

from __future__ import annotations

import json
import runpy
import sys
import time
import types
from pathlib import Path
from typing import Any


def declare_torchvision_operators() -> None:
    """Lets torchvision be imported without its compiled part, which the script never calls: names what it misses."""
    import importlib
    import re

    import torch

    operators = torch.library.Library("torchvision", "FRAGMENT")
    globals()["_kept"] = operators
    for _ in range(50):
        try:
            importlib.import_module("torchvision")
            return
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if not missing:
                raise
            operators.define(f"{missing[1]}(Tensor x) -> Tensor")
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]


class _Column(dict[str, list[Any]]):
    @property
    def column_names(self) -> list[str]:
        return list(self)


def stand_in_for_datasets() -> None:
    """`datasets.load_dataset(folder)` for a folder of pictures with metadata.jsonl."""
    from PIL import Image

    def load_dataset(name: str, *_: Any, **__: Any) -> dict[str, _Column]:
        rows = [json.loads(line) for line in (Path(name) / "metadata.jsonl").read_text().splitlines()]
        images = [Image.open(Path(name) / row["file_name"]).convert("RGB") for row in rows]
        return {"train": _Column(image=images, text=[row["text"] for row in rows])}

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    sys.modules["datasets"] = module


def main(times: Path, script: str, arguments: list[str]) -> None:
    declare_torchvision_operators()
    stand_in_for_datasets()
    import torch
    from accelerate import Accelerator

    ended: list[float] = []

    def log(self: Any, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        if "loss" in values:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            ended.append(time.perf_counter())

    Accelerator.log = log
    Accelerator.init_trackers = lambda self, *_, **__: None
    sys.argv = [script, *arguments]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        memory = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
        times.write_text(json.dumps({"ended": ended, "peak_memory_gb": memory}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
