"""Many adapters on one base: a hundred through a cache of bounded bytes, and what mixing two in a batch costs.

    python -m benchmarks.serve --only adapters --out benchmarks/results/adapters.json

One process, no server: the engine, the batch and the cache that the served model has, and clients as threads. Adapters
lie on this disk as files, random and no two alike, read and digested whenever the cache has them no more.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors.torch import save

from personalize.dreambooth import lora
from personalize.dreambooth.adapters import Adapter, Voice
from personalize.dreambooth.backbone import load_pipeline
from personalize.dreambooth.denoising import Denoising, Row
from personalize.dreambooth.sampling import Sampling
from personalize.serving.adapters import AdapterCache
from personalize.serving.engine import Engine, Work
from personalize.serving.versions import Version

PROMPT = "a photo of a chair"


def measure(
    base: Path, count: int, limit: int, rank: int, requests: int, sampling: Sampling, rounds: int
) -> dict[str, Any]:
    """What `python -m benchmarks.serve` reports of adapters. limit: bytes of the cache."""
    with tempfile.TemporaryDirectory() as folder:
        files = write_adapters(base, Path(folder), count, rank)
        denoising = Denoising(load_pipeline(base, device="cpu"))
        held = [denoising.adapters.load(file, name) for name, file in list(files.items())[:2]]
        mixing = mix(denoising, held, sampling, rounds)
        del held
        return {
            "adapters": {
                "count": count,
                "rank": rank,
                "mb_each": round(next(iter(files.values())).stat().st_size / 1e6, 1),
            },
            "mixing": mixing,
            "cache": through_the_cache(denoising, files, limit, requests, sampling),
        }


def write_adapters(base: Path, folder: Path, count: int, rank: int) -> dict[str, Path]:
    """Adapters on all layers, by the sha256 of their files."""
    parts = {"unet": load_pipeline(base, device="cpu").unet}
    lora.add(parts, lora.LoraSpec(rank=rank, alpha=float(rank), targets="all"), seed=0)
    source = lora.save(folder, parts)
    from safetensors import safe_open

    with safe_open(source, "pt") as opened:
        metadata = opened.metadata()
        shapes = {name: opened.get_tensor(name).shape for name in list(opened.keys())}
    files = {}
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        data = save({name: torch.randn(shape, generator=generator) * 0.02 for name, shape in shapes.items()}, metadata)
        name = hashlib.sha256(data).hexdigest()
        files[name] = folder / f"{number}.safetensors"
        files[name].write_bytes(data)
    return files


def mix(denoising: Denoising, adapters: Sequence[Adapter], sampling: Sampling, rounds: int) -> dict[str, Any]:
    """Batches of eight: seconds a step with one adapter, with two, and what two cost over one, the rounds' median."""
    one, two = adapters
    batches: dict[str, list[Voice]] = {"one": [(one, 1.0)] * 8, "two": [(one, 1.0), (two, 1.0)] * 4}
    seconds: dict[str, list[float]] = {name: [] for name in batches}
    for number in range(rounds + 1):
        for name, voices in batches.items():
            rows = [denoising.begin(PROMPT, seed, sampling, voice) for seed, voice in enumerate(voices)]
            begun = time.perf_counter()
            while rows[0].left:
                denoising.step(rows)
            if number:  # the first warms up
                seconds[name].append((time.perf_counter() - begun) / sampling.steps)
    ratios = [two_s / one_s for one_s, two_s in zip(seconds["one"], seconds["two"], strict=True)]
    medians = {f"{name}_s_a_step": round(statistics.median(values), 4) for name, values in seconds.items()}
    return {**medians, "two_over_one": round(statistics.median(ratios), 3)}


class Painter:
    """The engine's painter: an adapter and a seed in, latents out."""

    def __init__(self, denoising: Denoising, sampling: Sampling) -> None:
        self.denoising, self.sampling = denoising, sampling

    def begin(self, ask: tuple[Adapter, int]) -> Row:
        return self.denoising.begin(PROMPT, ask[1], self.sampling, (ask[0], 1.0))

    def step(self, states: Sequence[Row]) -> None:
        self.denoising.step(states)

    def left(self, state: Row) -> int:
        return state.left

    def finish(self, states: Sequence[Row]) -> list[torch.Tensor]:
        return [row.latents for row in states]


def through_the_cache(
    denoising: Denoising, files: dict[str, Path], limit: int, requests: int, sampling: Sampling
) -> dict[str, Any]:
    """Eight clients ask for adapters at random, half of the time for one of ten: speed, hits, loads, memory, faults."""
    names, size = list(files), max(file.stat().st_size for file in files.values())
    checked = {name: alone(denoising, files[name], name, sampling) for name in names[:: max(1, len(names) // 10)]}

    def read(version: Version) -> Adapter:
        data = files[version.sha256].read_bytes()
        assert hashlib.sha256(data).hexdigest() == version.sha256
        return denoising.adapters.read(data, version.sha256)

    cache = AdapterCache(read, limit)
    engine = Engine(lambda: Painter(denoising, sampling), batch=8)
    numbers, lock, wrong, most = iter(range(requests)), threading.Lock(), [], [0]
    before = psutil.Process().memory_info().rss

    def client() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            drawn = random.Random(number)
            name = drawn.choice(names[:10] if drawn.random() < 0.5 else names)
            with cache.lent([Version([], sha256=name, size=size)]) as lent:
                [job] = engine.submit([((lent[name], 7), Work((sampling.width, sampling.height), sampling.steps))])
                latents = job.future.result()
            del lent, job
            most[0] = max(most[0], psutil.Process().memory_info().rss)
            if name in checked and not torch.allclose(latents, checked[name], atol=1e-2):
                wrong.append(name)

    threads = [threading.Thread(target=client) for _ in range(8)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    engine.close()
    meter = cache.meter
    return {
        "requests": requests,
        "pictures_per_s": round(requests / took, 3),
        "drawing_share": round((engine.meter.step_seconds + engine.meter.begin_seconds) / took, 3),
        "hits": round(meter.hits / requests, 3),
        "loads": meter.loaded,
        "evicted": meter.evicted,
        "load_ms": round(1000 * meter.load_seconds / max(1, meter.loaded), 1),
        "held_mb": round(cache.bytes / 1e6, 1),
        "limit_mb": round(limit / 1e6, 1),
        "memory_grew_mb": round((most[0] - before) / 1e6, 1),
        "wrong_pictures": len(wrong),
        "checked_adapters": len(checked),
    }


def alone(denoising: Denoising, file: Path, name: str, sampling: Sampling) -> torch.Tensor:
    """The latents of a row that nobody shares a batch with."""
    row = denoising.begin(PROMPT, 7, sampling, (denoising.adapters.load(file, name), 1.0))
    while row.left:
        denoising.step([row])
    return row.latents
