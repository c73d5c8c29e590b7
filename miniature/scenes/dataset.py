"""Writing many scenes to disk so that a kill costs only the unfinished chunk.

A folder holds `images.npy` (uint8 [N, size, size, 3], a plain .npy file written through a memory map), `truth.jsonl`
(one row an image, in order) and `progress.json` ({"count", "done", ...}): rows below `done` are final and may be read
while the rest is still being drawn.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from miniature.scenes.captions import caption
from miniature.scenes.render import render
from miniature.scenes.scene import Split, sample_scene, truth

CAPTIONS = 4
CHUNK = 64
# Neighbouring images of one dataset must not share a seed with another dataset's.
STRIDE = 1_000_003

Chunk = tuple[np.ndarray, list[dict[str, Any]]]


def scene_chunk(first: int, last: int, size: int, seed: int, split: Split, samples: int, views: int = 1) -> Chunk:
    """Images and truth rows of the scenes first ... last - 1.

    With `views` > 1 that many neighbouring rows show one design, each in surroundings and light of its own.
    """
    images, rows = [], []
    for index in range(first, last):
        design = {}
        if index % views:
            shown = sample_scene(seed * STRIDE + index - index % views, split)
            design = {"class_name": shown.class_name, "design_seed": shown.design_seed}
        scene = sample_scene(seed * STRIDE + index, split, **design)
        images.append(render(scene, size, samples))
        rows.append({"index": index, **truth(scene), "captions": [caption(scene, k) for k in range(CAPTIONS)]})
    return np.stack(images), rows


def write(
    out: Path, count: int, size: int, settings: dict[str, Any], make: Callable[..., Chunk], workers: int = 1
) -> None:
    """Write `count` images by `make(first, last, size, **settings)` into `out`, going on where a former call stopped.

    Raises ValueError if `out` holds a dataset of another size or other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    told = {"count": count, "size": size, **settings}
    done = _resume(out, told)
    images = _open_images(out / "images.npy", count, size)
    chunks = [(k, min(k + CHUNK, count)) for k in range(done, count, CHUNK)]
    with (
        (out / "truth.jsonl").open("a", encoding="utf-8") as lines,
        tqdm(total=count, initial=done, unit="image", desc=out.name, smoothing=0.02) as bar,
    ):
        for (first, last), (pictures, rows) in zip(chunks, _made(chunks, size, settings, make, workers), strict=True):
            images[first:last] = pictures
            images.flush()
            lines.writelines(json.dumps(row) + "\n" for row in rows)
            lines.flush()
            _tell(out, {**told, "done": last})
            bar.update(last - first)
    if not chunks:
        _tell(out, {**told, "done": done})


def _made(
    chunks: list[tuple[int, int]], size: int, settings: dict[str, Any], make: Callable[..., Chunk], workers: int
) -> Iterator[Chunk]:
    if workers <= 1:
        for first, last in chunks:
            yield make(first, last, size, **settings)
        return
    with ProcessPoolExecutor(workers) as pool:
        waiting = []
        ahead = iter(chunks)
        for first, last in ahead:
            waiting.append(pool.submit(make, first, last, size, **settings))
            if len(waiting) >= workers * 3:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


def _resume(out: Path, told: dict[str, Any]) -> int:
    """How many images are final; cuts what a kill left half-written."""
    progress = out / "progress.json"
    if not progress.exists():
        (out / "truth.jsonl").unlink(missing_ok=True)
        return 0
    before = json.loads(progress.read_text())
    done = int(before.pop("done"))
    if before != told:
        raise ValueError(f"{out} holds another dataset ({before}); asked for {told}. Remove it or choose another --out")
    kept = 0
    with (out / "truth.jsonl").open("rb+") as lines:
        for _ in range(done):
            kept += len(lines.readline())
        lines.truncate(kept)
    return done


def _open_images(path: Path, count: int, size: int) -> np.memmap:
    shape = (count, size, size, 3)
    if path.exists():
        return np.lib.format.open_memmap(path, mode="r+")
    return np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)


def _tell(out: Path, progress: dict[str, Any]) -> None:
    draft = out / "progress.json.draft"
    draft.write_text(json.dumps(progress))
    os.replace(draft, out / "progress.json")
