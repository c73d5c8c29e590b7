"""What each lever of training adds in speed and costs in memory, one on top of the other.

    python -m benchmarks.levers                 the miniature, where you are
    python -m benchmarks.levers --full-size     SDXL's sizes, random weights, at 1024 px on a GPU

Prints a Markdown table: images a second (photographs and class images, by the median step from the third on), the
factor against the first row, and the most memory held (of the device; of the process on a CPU). The levers that have no
switch (cached latents and embeddings, fused AdamW, channels_last, prefetch) are in every row; benchmarks.train
measures all of them at once against diffusers' script, which has none. torch.compile is measured on GPUs only: one core
needs more than five minutes to compile the miniature.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path

from benchmarks.train import make_base, make_pictures, ours

ON_CPU = {
    "float32": {"dtype": "float32"},
    "+ bfloat16 base": {"dtype": "bfloat16"},
    "+ batch 8": {"batch_size": 8},
    "batch 8, memory: balanced": {"memory": "balanced"},
    "batch 8, memory: low": {"memory": "low"},
}
ON_GPU = {
    "memory: low, batch 1": {"memory": "low", "batch_size": 1},
    "memory: balanced, batch 1": {"memory": "balanced"},
    "memory: fast, batch 1": {"memory": "fast"},
    "+ batch 4": {"batch_size": 4},
    "+ torch.compile": {"compile": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.levers", description=__doc__.split("\n\n")[0])
    parser.add_argument("--full-size", action="store_true", help="a base of SDXL 1.0's sizes with random weights")
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps of each row")
    parser.add_argument("--rank", type=int, default=16)
    given = parser.parse_args()
    options = argparse.Namespace(**vars(given), batch_size=4, compile=False, memory="fast")
    options.resolution, options.dtype = (1024, "bfloat16") if given.full_size else (128, "float32")
    print("| levers | images/s | factor | memory, GB |\n|---|---|---|---|", flush=True)
    first = None
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_base(work / "base", given.full_size)
        make_pictures(work, options.resolution)
        for number, (name, changes) in enumerate((ON_GPU if given.full_size else ON_CPU).items()):
            vars(options).update(changes)
            if options.memory == "low" and importlib.util.find_spec("torchao") is None:
                print(f"| {name} | not measured: torchao is not installed | | |", flush=True)
                continue
            found = ours(work / f"run-{number}", work, work / "base" / "sdxl", options)
            first = first or found["images_per_second"]
            speed = found["images_per_second"]
            print(f"| {name} | {speed:.2f} | {speed / first:.2f} | {found['peak_memory_gb']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
