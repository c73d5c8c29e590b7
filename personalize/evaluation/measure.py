"""From pictures to scores: the judges read what the models drew and what was photographed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from personalize.evaluation import faults, quality
from personalize.evaluation.drawings import Drawings, Photograph
from personalize.evaluation.faults import Flags, Traces
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
                found.append((np.stack([quality.qualities(image) for image in batch]), *faults.traces(batch)))
            on_pictures(len(batch))
        together = {name: np.concatenate(parts) for name, parts in features.items()}
        return together, [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def photographed(token: str, class_noun: str, shown: Sequence[Photograph]) -> Photographs:
        features, _ = seen([one.path for one in shown], measured=False)
        captions = reads.texts([one.caption for one in shown])
        return Photographs(token, class_noun, features, np.array([one.held_out for one in shown]), captions)

    def answered(drawings: Drawings) -> tuple[Pictures, Traces]:
        features, (qualities, *found) = seen(drawings.files, measured=True)
        place = {file: row for row, file in enumerate(drawings.files)}
        rows = [place[file] for file in drawings.paths.flat]

        def by_place(values: Array) -> Array:
            return values[rows].reshape(*shape, *values.shape[1:])

        traces = Traces(*found).map(by_place)
        named = quality.by_name(by_place(qualities), traces.residual)
        return Pictures({name: by_place(values) for name, values in features.items()}, named), traces

    def upright(name: int) -> list[Image]:
        if name < len(photographs):
            return [open_rgb(one.path) for one in photographs[name]]
        return [open_rgb(drawn["base"].paths.of(name, *at)) for at in np.ndindex(shape[1:])]

    def complete(side: str) -> Pictures:
        pictures, own = read[side]
        paths = drawn[side].paths

        def on_heads(laid: Flags) -> Flags:
            return faults.upside_down(laid, lambda at: open_rgb(paths.of(*at)), upright, reads)

        counted = faults.counted(own, read["base"][1], on_heads)
        return replace(pictures, qualities={**pictures.qualities, **counted})

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
