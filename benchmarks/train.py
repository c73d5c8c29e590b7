"""Training speed, ours beside diffusers' script: same base, photographs, captions, batch, precision, rank and steps.

    python -m benchmarks.train --diffusers PATH_TO_CHECKOUT                      the miniature, where you are
    python -m benchmarks.train --diffusers PATH_TO_CHECKOUT --full-size          SDXL's sizes, random weights, a GPU

Weights do not change speed, so random ones do. The script needs torchvision to import; on a CPU, where there is
no build of it, `pip install --no-deps --target DIR torchvision` and `--torchvision DIR` give it what it uses. Both
sides preserve the prior (as many class images as photographs in a batch) and train on a caption for each photograph.
Steps are timed from the third.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import sdxl

TARGETS = ("attention", "attention+feed-forward", "all")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--diffusers", type=Path, help="a checkout of huggingface/diffusers; without it only ours is timed"
    )
    parser.add_argument("--torchvision", type=Path, help="a folder in which torchvision lies, for the script alone")
    parser.add_argument("--base", type=Path, help="an SDXL folder; random miniature weights if not given")
    parser.add_argument("--full-size", action="store_true", help="a base of SDXL 1.0's sizes with random weights")
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps of each run")
    parser.add_argument("--batch-size", type=int, default=4, help="photographs a step; class images come on top")
    parser.add_argument("--resolution", type=int, help="128, or 1024 with --full-size")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="float32, or bfloat16 with --full-size")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each, in turn; the best of each counts")
    parser.add_argument("--compile", action="store_true", help="compile our UNet; its first steps are not timed")
    parser.add_argument("--memory", choices=("fast", "balanced", "low"), default="fast", help="ours only")
    parser.add_argument("--out", type=Path, help="write the numbers here as JSON")
    options = parser.parse_args()
    options.resolution = options.resolution or (1024 if options.full_size else 128)
    options.dtype = options.dtype or ("bfloat16" if options.full_size else "float32")

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        base = options.base or (work / "base" / "sdxl")
        if options.base is None:
            make_base(work / "base", options.full_size)
        make_pictures(work, options.resolution)
        runs: list[dict[str, Any]] = []
        for repeat in range(options.repeats):
            runs.append({"who": "ours", **ours(work / f"ours-{repeat}", work, base, options)})
            if options.diffusers:
                runs.append({"who": "diffusers", **theirs(work / f"theirs-{repeat}", work, base, options)})
    report(runs, options)


def make_base(folder: Path, full_size: bool) -> None:
    """`folder`/sdxl: a base of SDXL 1.0's sizes, or the miniature's, with random weights."""
    if full_size:
        sdxl.write(folder / "sdxl", sdxl.FULL)
    else:
        from miniature.pretrain import random_models

        random_models(folder)


def make_pictures(work: Path, resolution: int, count: int = 10) -> None:
    """Ten photographs with captions and forty class images, at the training resolution, JPEG as cameras give them."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind, number in (("photographs", count), ("class", 4 * count)):
        (work / kind).mkdir()
        rows = []
        for i in range(number):
            patches = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            patches.resize((resolution, resolution), Image.Resampling.BICUBIC).save(
                work / kind / f"{i}.jpg", quality=95
            )
            text = (
                f"a photo of a bcnchr chair on the beach, view {i}" if kind == "photographs" else "a photo of a chair"
            )
            rows.append({"file_name": f"{i}.jpg", "token": "bcnchr", "class_noun": "chair", "text": text})
        (work / kind / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (work / "class-images").mkdir()  # diffusers' script opens every file of its folder as a picture
    for file in (work / "class").glob("*.jpg"):
        (work / "class-images" / file.name).symlink_to(file)


def ours(outputs: Path, work: Path, base: Path, options: argparse.Namespace) -> dict[str, Any]:
    from personalize.dreambooth.settings import TrainSettings

    settings = TrainSettings(
        rank=options.rank, targets="attention", max_train_steps=options.steps, batch_size=options.batch_size,
        resolution=options.resolution, learning_rate=1e-4, aspect_ratio_buckets=False, variants=1, snr_gamma=None,
        caption_dropout=0.0, validation_every=0, resume_every=0, log_every=1, memory=options.memory,
        compile=options.compile,
    )  # fmt: skip
    job = {"settings": settings.model_dump(mode="json"), "base": str(base), "dtype": options.dtype, "work": str(work)}
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "benchmarks.train_ours", json.dumps(job), str(outputs)], check=True)
    found = json.loads((outputs / "times.json").read_text())
    return measured(found, options) | {"seconds": time.perf_counter() - began}


def theirs(outputs: Path, work: Path, base: Path, options: argparse.Namespace) -> dict[str, Any]:
    script = options.diffusers / "examples" / "dreambooth" / "train_dreambooth_lora_sdxl.py"
    if not script.is_file():
        sys.exit(f"{script} does not exist: --diffusers needs a checkout of huggingface/diffusers.")
    times = work / f"{outputs.name}.json"
    arguments = {
        "pretrained_model_name_or_path": base, "dataset_name": work / "photographs", "caption_column": "text",
        "instance_prompt": "a photo of a bcnchr chair", "class_data_dir": work / "class-images",
        "class_prompt": "a photo of a chair", "num_class_images": 40, "prior_loss_weight": 1.0,
        "resolution": options.resolution, "train_batch_size": options.batch_size, "rank": options.rank,
        "max_train_steps": options.steps, "learning_rate": 1e-4, "output_dir": outputs, "checkpointing_steps": 10**6,
        "mixed_precision": {"float32": "no", "bfloat16": "bf16"}[options.dtype], "seed": 0,
    }  # fmt: skip
    flags = [f"--{name}={value}" for name, value in arguments.items()] + ["--with_prior_preservation"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if options.torchvision:
        environment["PYTHONPATH"] = str(options.torchvision.absolute())
    began = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.diffusers_script", str(times), str(script), *flags],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(times.read_text()) if times.exists() else {"ended": []}
    if len(found["ended"]) < options.steps:
        sys.exit(f"the diffusers script stopped after {len(found['ended'])} steps:\n{finished.stderr[-4000:]}")
    return measured(found, options) | {"seconds": time.perf_counter() - began}


def measured(found: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Photographs and class images a second, from the end of the second step on, by the median step."""
    ended = found["ended"]
    step = float(np.median(np.diff(ended[1:])))
    return {"seconds_a_step": step, "images_per_second": 2 * options.batch_size / step, **found}


def report(runs: list[dict[str, Any]], options: argparse.Namespace) -> None:
    import torch

    best: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run["who"] not in best or run["images_per_second"] > best[run["who"]]["images_per_second"]:
            best[run["who"]] = run
    device = f"{platform.processor() or 'CPU'}, {torch.get_num_threads()} threads"
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else device
    batch = f"batch {options.batch_size} + {options.batch_size}"
    print(f"{device}; {options.resolution} px, {batch}, rank {options.rank}, {options.dtype}")
    units = {"mfu": "MFU", "tflop_per_second": "TFLOP/s", "peak_memory_gb": "GB"}
    for who, run in sorted(best.items()):
        more = "".join(f", {run[key]:.3g} {unit}" for key, unit in units.items() if run.get(key))
        print(f"{who:>10}: {run['images_per_second']:.2f} images/s, {run['seconds_a_step']:.3f} s a step{more}")
    if len(best) == 2:
        ratio = best["ours"]["images_per_second"] / best["diffusers"]["images_per_second"]
        whole = best["diffusers"]["seconds"] / best["ours"]["seconds"]
        print(f"     ratio: {ratio:.2f} times the images a second; with the start included {whole:.2f} times")
    if options.out:
        kept = [{k: v for k, v in run.items() if k != "ended"} for run in runs]
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
        options.out.write_text(json.dumps({"device": device, "options": settings, "runs": kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
