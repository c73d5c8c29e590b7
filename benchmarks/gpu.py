"""What a card does with this project: training, drawing, memory and bytes, each within a part of the minutes given.

    python -m benchmarks.gpu                          8 minutes on the card; SDXL's sizes, random weights, 1024 px
    python -m benchmarks.gpu --minutes 20 --diffusers PATH_TO_CHECKOUT
    python -m benchmarks.gpu --device cpu --tiny      every part in about a minute anywhere; its figures mean nothing

Needs this checkout, torch, diffusers, transformers, peft, accelerate, safetensors and pydantic; no network. Each row is
printed, and written to the JSON, as it is found; what does not fit the card or the time says so.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import gc
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import plain_loop, sdxl
from benchmarks.train import make_pictures, measured, theirs
from personalize import hub
from personalize.dreambooth import adapter_files, hardware, lora, sampling
from personalize.dreambooth.examples import read_class_images, read_photographs
from personalize.dreambooth.settings import TrainSettings
from personalize.dreambooth.setup import Base
from personalize.dreambooth.train import Observer, train
from personalize.files import write_json

LIBRARIES = ("torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "pydantic", "torchao")
PROMPT = "a photo of a bcnchr chair on the beach"

TRAININGS: tuple[dict[str, Any], ...] = (
    {"memory": "fast", "batch_size": 4},
    {"memory": "fast", "batch_size": 1},
    {"memory": "balanced", "batch_size": 4},
    {"memory": "fast", "batch_size": 4, "compile": "blocks"},
    {"memory": "fast", "batch_size": 8},
    {"memory": "low", "batch_size": 1},
    {"memory": "fast", "batch_size": 4, "compile": True},
    {"memory": "fast", "batch_size": 8, "compile": "blocks"},
    {"memory": "balanced", "batch_size": 1},
    {"memory": "low", "batch_size": 4},
    {"memory": "balanced", "batch_size": 8},
)
"""The most telling first. A batch of b is b photographs and b class images."""

DRAWINGS: tuple[tuple[str, int], ...] = (
    ("adapter merged", 1), ("adapter merged", 8), ("adapter beside", 1), ("adapters mixed by row", 8),
    ("adapter merged", 4), ("adapter merged, compiled", 1), ("adapter merged, compiled", 8), ("adapter beside", 8),
    ("adapters mixed by row", 4), ("adapter beside", 4),
)  # fmt: skip

SHARES = {"training": 0.42, "beside": 0.14, "drawing": 0.26, "bytes": 0.18}
"""Of the minutes. What a part leaves, or takes too much, is the next one's."""


class TimeIsUp(Exception):
    """A measurement has what it needs, or its part's time has passed."""


class Report:
    """The JSON that grows, and the rows that are printed."""

    def __init__(self, file: Path, about: dict[str, Any]) -> None:
        self.file, self.content = file, {**about, "parts": {}}
        self.write()

    def add(self, part: str, row: dict[str, Any]) -> None:
        self.content["parts"].setdefault(part, []).append(row)
        self.write()
        print(f"  {part:<9} {line(row)}", flush=True)

    def write(self) -> None:
        write_json(self.file, self.content)


class Bench:
    """Where and on what is measured."""

    def __init__(self, options: argparse.Namespace, work: Path, report: Report) -> None:
        self.options, self.work, self.report = options, work, report
        self.device = hub.resolve_device(options.device)
        self.sizes = sdxl.TINY if options.tiny else sdxl.FULL
        self.dtype: hub.Dtype = "bfloat16" if self.device.type == "cuda" else "float32"
        self.base = work / "sdxl"
        self.adapter: Path | None = None
        self.until = time.perf_counter()

    def begin(self, part: str) -> None:
        self.until += SHARES[part] * 60 * self.options.minutes

    @property
    def left(self) -> float:
        return self.until - time.perf_counter()

    def row(self, part: str, what: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Measures, adds to the report and gives back; what cannot be measured says why."""
        if self.left <= 0:
            found: dict[str, Any] = {"not measured": "no time left"}
        else:
            try:
                found = measure()
            except torch.OutOfMemoryError:
                found = {"not measured": "does not fit the card"}
            except Exception as error:  # a compiler's, a kernel's: the other rows are still worth having
                found = {"not measured": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"}
            self.clear()
        self.report.add(part, {**what, **found})
        return found

    def clear(self) -> None:
        gc.collect()
        hardware.release_memory()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def settings(self, **changed: Any) -> TrainSettings:
        asked: dict[str, Any] = {
            "resolution": self.sizes.resolution, "variants": 1, "validation_every": 0, "resume_every": 0,
            "aspect_ratio_buckets": False, "log_every": self.options.read_every, **changed,
        }  # fmt: skip
        return TrainSettings(**asked)

    def train(self, outputs: Path, settings: TrainSettings, observer: Observer | None = None) -> Any:
        return train(
            settings,
            Base(str(self.base), device=self.options.device, dtype=self.dtype),
            read_photographs(self.work / "photographs", self.work / "photographs" / "metadata.jsonl"),
            read_class_images(self.work / "class"),
            outputs,
            work=self.work / "training",
            observer=observer,
        )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.split("\n\n")[0])
    parser.add_argument("--minutes", type=float, default=8, help="for all parts together, made base included")
    parser.add_argument("--device", default="auto", help="auto, cuda, cpu or mps")
    parser.add_argument("--tiny", action="store_true", help="a toy model, a row of each kind; nothing is compiled")
    parser.add_argument("--diffusers", type=Path, help="a checkout of huggingface/diffusers, whose script runs beside")
    parser.add_argument("--torchvision", type=Path, help="a folder in which torchvision lies, for the script alone")
    parser.add_argument("--profile", action="store_true", help="also write the costliest operations of a training")
    parser.add_argument("--work", type=Path, help="where the base is made (7 GB); a temporary folder if not given")
    parser.add_argument("--out", type=Path, help="the JSON; build/gpu-CARD-COMMIT.json if not given")
    options = parser.parse_args()
    options.steps, options.drawing_steps, options.read_every = (4, 2, 1) if options.tiny else (25, 30, 5)
    if options.tiny:
        torch._dynamo.config.disable = True  # the compiler takes minutes on a CPU; the way to it is walked all the same
    began = time.perf_counter()
    about = described(options)
    out = options.out or Path(
        f"build/gpu-{re.sub(r'[^a-z0-9]+', '-', about['card'].lower())}-{about['commit'][:8]}.json"
    )
    print(f"{about['card']}; {', '.join(f'{k} {v}' for k, v in about['versions'].items())}; results: {out}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        bench = Bench(options, Path(folder), Report(out, about))
        sdxl.write(bench.base, bench.sizes, getattr(torch, bench.dtype), bench.device.type)
        make_pictures(bench.work, bench.sizes.resolution, count=4 if options.tiny else 10)
        bench.clear()
        bench.until = began
        for part, measure in {"training": training, "beside": beside, "drawing": drawing, "bytes": same_bytes}.items():
            bench.begin(part)
            measure(bench)
    bench.report.content["seconds"] = round(time.perf_counter() - began, 1)
    bench.report.write()
    print("\n" + table(bench.report.content))


def training(bench: Bench) -> None:
    """Speed, arithmetic and memory of training; the memory beside what `memory: auto` takes it to be."""
    asked = (*TRAININGS[:4], TRAININGS[5]) if bench.options.tiny else TRAININGS
    for number, changed in enumerate(asked):
        outputs = bench.work / f"training-{number}"
        bench.row("training", dict(changed), lambda o=outputs, c=changed: one_training(bench, o, bench.left, **c))
        if (outputs / "lora" / adapter_files.DIFFUSERS).is_file():
            bench.adapter = bench.adapter or outputs / "lora"
    if bench.options.profile:
        bench.row("training", {"profile": "fast, batch 4"}, lambda: profiled(bench))


def one_training(
    bench: Bench, outputs: Path, seconds: float, phase: Callable[[str], None] = lambda text: None, **changed: Any
) -> dict[str, Any]:
    if changed.get("memory") == "low" and importlib.util.find_spec("torchao") is None:
        return {"not measured": "torchao is not installed"}
    settings, flushes = bench.settings(**{"max_train_steps": bench.options.steps, **changed}), []
    until = time.perf_counter() + seconds

    def logged(step: int, metrics: dict[str, float]) -> None:
        flushes.append(metrics)
        if time.perf_counter() > until and len(flushes) > 1:
            raise TimeIsUp

    speed: dict[str, float] = {}
    with contextlib.suppress(TimeIsUp):
        speed = bench.train(outputs, settings, Observer(phase=phase, logged=logged)).speed
    steady = flushes[1:] or flushes
    found: dict[str, Any] = {
        name: statistics.median(flush[name] for flush in steady if name in flush)
        for name in ("images_per_second", "tflop_per_second", "mfu")
        if any(name in flush for flush in steady)
    }
    peak = hardware.peak_memory_gb(bench.device)
    found |= {"peak_memory_gb": peak, "seconds_to_first_step": speed.get("seconds_to_first_step")}
    if settings.memory != "low":
        with torch.device("meta"):
            unet = sdxl.unet(bench.sizes, getattr(torch, bench.dtype))
        base, width = sum(p.nbytes for p in unet.parameters()), next(unet.parameters()).element_size()
        samples = settings.batch_size + settings.class_images_a_step
        assumed = hardware.needed_bytes(settings.memory, base, samples, settings.resolution**2, width) / 1e9
        found |= {"assumed_memory_gb": assumed}
        if bench.device.type == "cuda":
            found |= {"fits_what_is_assumed": peak <= assumed}
    return found


def profiled(bench: Bench) -> dict[str, Any]:
    """The operations of the steps that take most of the device's time, or of the CPU's where that is the device."""
    from torch.profiler import ProfilerActivity, profile

    cuda = bench.device.type == "cuda"
    profiler = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])])
    begun: list[str] = []

    def phase(text: str) -> None:
        if text == "training":
            profiler.start()
            begun.append(text)

    try:
        one_training(bench, bench.work / "profiled", bench.left, phase, memory="fast", batch_size=4, max_train_steps=8)
    finally:
        if begun:
            profiler.stop()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    costs = sorted(profiler.key_averages(), key=lambda event: -getattr(event, key))[:25]
    return {"milliseconds": {event.key[:120]: round(getattr(event, key) / 1e3, 2) for event in costs}}


def beside(bench: Bench) -> None:
    """The same work by this loop and by the script, or by a loop that does what the script does each step."""
    batch = 4
    work = {"targets": "attention", "batch_size": batch, "snr_gamma": None, "caption_dropout": 0.0}
    what = {"batch_size": batch, "targets": "attention"}
    ours = bench.row(
        "beside", {"who": "this project", **what},
        lambda: one_training(bench, bench.work / "beside", bench.left / 2, memory="fast", **work),
    )  # fmt: skip
    script = bench.options.diffusers
    other = bench.row(
        "beside", {"who": "diffusers' script" if script else "a loop that does what the script does", **what},
        lambda: by_script(bench, batch) if script else by_plain_loop(bench, batch),
    )  # fmt: skip
    if "images_per_second" in ours and "images_per_second" in other:
        bench.report.add("beside", {"factor": ours["images_per_second"] / other["images_per_second"]})


def by_plain_loop(bench: Bench, batch: int) -> dict[str, Any]:
    steps, until = bench.options.steps, time.perf_counter() + bench.left
    captions, size = [PROMPT, "a photo of a chair"], bench.sizes.resolution
    found = plain_loop.timed(str(bench.base), captions, batch, size, 16, bench.dtype, bench.device, steps, until)
    return comparable(bench, found, batch)


def by_script(bench: Bench, batch: int) -> dict[str, Any]:
    options = argparse.Namespace(
        diffusers=bench.options.diffusers, torchvision=bench.options.torchvision, batch_size=batch, rank=16,
        resolution=bench.sizes.resolution, steps=min(bench.options.steps, 12), dtype=bench.dtype,
    )  # fmt: skip
    return comparable(bench, theirs(bench.work / "script", bench.work, bench.base, options), batch)


def comparable(bench: Bench, found: dict[str, Any], batch: int) -> dict[str, Any]:
    speed = measured({"ended": found["ended"]}, argparse.Namespace(batch_size=batch))
    memory = found.get("peak_memory_gb") or hardware.peak_memory_gb(bench.device)
    return {"images_per_second": speed["images_per_second"], "peak_memory_gb": memory}


def drawing(bench: Bench) -> None:
    """Seconds from a prompt to a picture, its decoding included."""
    every = {how: (how, 2) for how, _ in DRAWINGS}.values() if bench.options.tiny else DRAWINGS
    for how, batch in every:
        steps = bench.options.drawing_steps
        bench.row("drawing", {"how": how, "batch": batch, "steps": steps}, lambda h=how, b=batch: drawn(bench, h, b))


def drawn(bench: Bench, how: str, batch: int) -> dict[str, Any]:
    if bench.adapter is None:
        return {"not measured": "no training left an adapter"}
    pipe: Any = sampling.load_pipeline(bench.base, device=bench.device, dtype=bench.dtype, lora=bench.adapter)
    size, mixed = bench.sizes.resolution, contextlib.nullcontext()
    if how.startswith("adapter merged"):
        pipe.fuse_lora(adapter_names=[sampling.ADAPTER])
        pipe.unload_lora_weights()
    if how.endswith("compiled"):
        pipe.unet.compile_repeated_blocks(dynamic=False)
    if how == "adapters mixed by row":
        sampling.load_adapter(pipe, bench.adapter, "another")
        names = [sampling.ADAPTER if row % 2 else "another" for row in range(batch)]
        mixed = mixed_by_row(pipe.unet, names * 2)  # guidance draws every row twice, unconditional rows first

    def draw(steps: int) -> float:
        began = time.perf_counter()
        how_drawn = sampling.Sampling(steps=steps, width=size, height=size)
        sampling.sample(pipe, [PROMPT] * batch, list(range(batch)), how_drawn, batch_size=batch)
        return time.perf_counter() - began

    with mixed:
        first = draw(2)
        seconds = [draw(bench.options.drawing_steps)]
        while len(seconds) < 3 and bench.left > seconds[0]:
            seconds.append(draw(bench.options.drawing_steps))
    best = min(seconds)
    return {
        "seconds": best, "seconds_a_picture": best / batch, "seconds_first": first,
        "peak_memory_gb": hardware.peak_memory_gb(bench.device),
    }  # fmt: skip


@contextlib.contextmanager
def mixed_by_row(unet: Any, names: Sequence[str]) -> Iterator[None]:
    """Each row of a batch with an adapter of its own, as peft's layers take it (`adapter_names`)."""

    def tell(layer: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        return args, {**kwargs, "adapter_names": list(names)}

    hooks = [layer.register_forward_pre_hook(tell, with_kwargs=True) for layer in lora.layers(unet).values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def same_bytes(bench: Bench) -> None:
    """Whether a training gives the same bytes twice, and after it was killed in the middle."""
    steps = 4 if bench.options.tiny else 20
    settings = bench.settings(max_train_steps=steps, batch_size=1, memory="fast", resume_every=steps // 2, log_every=1)
    adapters: dict[str, str] = {}

    def stop(step: int, metrics: dict[str, float]) -> None:
        if step > steps // 2:
            raise TimeIsUp

    def run(name: str, killed: bool = False) -> dict[str, Any]:
        if killed:
            with contextlib.suppress(TimeIsUp):
                bench.train(bench.work / name, settings, Observer(logged=stop))
        bench.train(bench.work / name, settings)
        weights = (bench.work / name / "lora" / adapter_files.DIFFUSERS).read_bytes()
        adapters[name] = hashlib.sha256(weights).hexdigest()
        return {"sha256": adapters[name]} | (
            {"same as once": adapters[name] == adapters["once"]} if name != "once" else {}
        )

    for name in ("once", "again", "killed and resumed"):
        bench.row("bytes", {"run": name, "steps": steps}, functools.partial(run, name, name.startswith("killed")))


def described(options: argparse.Namespace) -> dict[str, Any]:
    """The card, versions, commit and what was asked."""
    device = hub.resolve_device(options.device)
    card: dict[str, Any] = {"card": f"CPU, {torch.get_num_threads()} threads"}
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        card = {
            "card": found.name,
            "card_gb": round(found.total_memory / 1e9, 1),
            "capability": [found.major, found.minor],
        }
        card |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "driver": asked("nvidia-smi",
                 "--query-gpu=driver_version", "--format=csv,noheader")}  # fmt: skip
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    commit = asked("git", "rev-parse", "HEAD") or "unknown"
    changed = "-changed" if asked("git", "status", "--porcelain", "--untracked-files=no") else ""
    return {
        **card, "peak_tflops": hardware.peak_tflops(device), "versions": versions, "commit": commit + changed,
        "when": datetime.now(UTC).isoformat(timespec="seconds"), "size": "tiny" if options.tiny else "SDXL 1.0",
        "minutes": options.minutes,
    }  # fmt: skip


def asked(*command: str) -> str:
    """What a program answers; nothing where it cannot."""
    here = Path(__file__).resolve().parents[1]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()
    return ""


UNITS = {
    "images_per_second": ("images/s", 2), "tflop_per_second": ("TFLOP/s", 1), "mfu": ("MFU", 3),
    "peak_memory_gb": ("GB", 1), "assumed_memory_gb": ("GB assumed", 1),
    "seconds_to_first_step": ("s to the first step", 1),
    "seconds": ("s a batch", 2), "seconds_a_picture": ("s a picture", 2), "factor": ("times as fast", 2),
}  # fmt: skip


def line(row: dict[str, Any]) -> str:
    """`memory fast, batch_size 4: 12.1 images/s, 0.45 MFU`."""
    what = ", ".join(str(v) if k in ("who", "how", "run") else f"{k} {v}" for k, v in row.items() if k in ASKED)
    found = [f"{row[key]:.{digits}f} {unit}" for key, (unit, digits) in UNITS.items() if row.get(key) is not None]
    found += [f"{key}: {row[key]}" for key in ("not measured", "same as once") if key in row]
    return ": ".join(part for part in (what, ", ".join(found)) if part)


ASKED = ("who", "how", "run", "memory", "batch_size", "batch", "compile", "targets", "steps", "profile")


def table(content: dict[str, Any]) -> str:
    """All rows as Markdown."""
    rows = [
        f"| {part} | {line(row).replace(': ', ' | ', 1)} |" for part, rows in content["parts"].items() for row in rows
    ]
    return "\n".join([f"{content['card']}, {content['size']}", "", "| part | what | found |", "|---|---|---|", *rows])


if __name__ == "__main__":
    sys.exit(main())
