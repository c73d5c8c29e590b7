"""From pictures to scores: the judges read what the models drew and what was photographed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from personalize.evaluation import quality
from personalize.evaluation.drawings import Drawings, Photograph
from personalize.evaluation.images import open_rgb
from personalize.evaluation.judges import lookers, reader
from personalize.evaluation.scores import Array, Photographs, Pictures, Scores

if TYPE_CHECKING:
    from PIL.Image import Image

    from personalize.evaluation.judges import Judge

BATCH = 32
"""Pictures in memory at a time."""


def measure(
    photographs: Sequence[Sequence[Photograph]],
    drawn: Mapping[str, Drawings],
    judges: Sequence[Judge],
    unfit: Mapping[str, str],
    on_pictures: Callable[[int], object] = lambda count: None,
) -> Scores:
    """Reads each subject's photographs and every model's pictures once; `on_pictures` hears how many were read.

    Raises ValueError where no judge reads texts, or none decides.
    """
    reads = reader(judges)
    questions = drawn["base"].questions
    shape = len(questions.names), len(questions.prompts), questions.seeds_per_prompt

    def seen(files: Sequence[Path], measured: bool) -> tuple[dict[str, Array], list[Array]]:
        features: dict[str, list[Array]] = {judge.name: [] for judge in judges}
        found: list[tuple[Array, ...]] = []
        for start in range(0, len(files), BATCH):
            batch = [open_rgb(file) for file in files[start : start + BATCH]]
            for judge in judges:
                features[judge.name].append(judge.images(batch))
            if measured:
                found.append(quality.measured(batch))
            on_pictures(len(batch))
        together = {name: np.concatenate(parts) for name, parts in features.items()}
        return together, [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def photographed(token: str, class_noun: str, shown: Sequence[Photograph]) -> Photographs:
        features, _ = seen([one.path for one in shown], measured=False)
        captions = reads.texts([one.caption for one in shown])
        return Photographs(token, class_noun, features, np.array([one.held_out for one in shown]), captions)

    def answered(drawings: Drawings) -> tuple[Pictures, Array, Array]:
        features, found = seen(drawings.files, measured=True)
        place = {file: row for row, file in enumerate(drawings.files)}
        rows = [place[file] for file in drawings.paths.flat]
        of_judges = {name: values[rows].reshape(*shape, -1) for name, values in features.items()}
        qualities, residuals, layouts, edges = (values[rows] for values in found)
        pictures = Pictures(of_judges, quality.by_name(qualities, residuals, shape))
        return pictures, layouts.reshape(*shape, *layouts.shape[1:]), edges.reshape(*shape, *edges.shape[1:])

    def upright(name: int) -> list[Image]:
        if name < len(photographs):
            return [open_rgb(one.path) for one in photographs[name]]
        return [open_rgb(drawn["base"].paths.of(name, *at)) for at in np.ndindex(shape[1:])]

    def complete(side: str) -> Pictures:
        pictures, layouts, edges = read[side]
        _, layouts_of_base, edges_of_base = read["base"]
        laid = quality.laid_upside_down(layouts, layouts_of_base)
        paths = drawn[side].paths
        heads = upside_down(laid, lambda at: open_rgb(paths.of(*at)), upright, reads)
        faults = {"upside_down": heads, "displaced": quality.displaced(edges, edges_of_base).astype(float)}
        return replace(pictures, qualities={**pictures.qualities, **faults})

    read = {side: answered(drawings) for side, drawings in drawn.items()}
    return Scores(
        [photographed(*subject, shown) for subject, shown in zip(questions.subjects, photographs, strict=True)],
        {side: complete(side) for side in drawn},
        np.stack([reads.texts(texts) for texts in questions.texts]),
        reads.name,
        [judge.name for judge in lookers(judges)],
        unfit,
        tuple(questions.looks),
    )


def upside_down(
    laid: Array,
    picture: Callable[[tuple[int, int, int]], Image],
    upright: Callable[[int], Sequence[Image]],
    reads: Judge,
) -> Array:
    """Which pictures stand on their heads, 1 or 0: `[n, p, k]`.

    laid: whether the layout says so (`quality.laid_upside_down`). Of those the judge of texts is asked as well, which
    has seen the world: whether it finds the picture turned nearer to upright ones of that name (the photographs, or
    what the base draws of a class), and as it is nearer to these turned.
    """
    found = np.zeros(laid.shape)
    for name in np.flatnonzero(laid.any(axis=(1, 2))):
        suspects = [(int(name), int(p), int(k)) for p, k in np.argwhere(laid[name])]
        way_up = _turned_less(reads, upright(int(name))).mean(axis=0)
        for at, less in zip(suspects, _turned_less(reads, [picture(at) for at in suspects]), strict=True):
            found[at] = less @ way_up < 0
    return found


def _turned_less(reads: Judge, images: Sequence[Image]) -> Array:
    """Features of pictures less those of the same pictures turned by 180°: `[n, d]`."""
    return reads.images(images) - reads.images([image.rotate(180) for image in images])
