"""From pictures to scores: the judges read what the models drew and what was photographed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from personalize.evaluation import colours, faults, quality, silhouettes
from personalize.evaluation.colours import Colours
from personalize.evaluation.drawings import Drawings, Photograph
from personalize.evaluation.faults import Flags, Traces
from personalize.evaluation.images import open_rgb
from personalize.evaluation.judges import lookers, reader
from personalize.evaluation.scores import Array, Photographs, Pictures, Scores
from personalize.evaluation.silhouettes import Subject

if TYPE_CHECKING:
    from PIL.Image import Image

    from personalize.evaluation.judges import Judge

BATCH = 32
"""Pictures in memory at a time."""


class Seen(NamedTuple):
    """What judges and measures found of pictures: `[m, ...]` in their order, or `[n, p, k, ...]` at their places."""

    features: Mapping[str, Array]
    """of each judge"""
    qualities: Array
    """see `quality.qualities`"""
    traces: Traces

    @classmethod
    def of(cls, images: Sequence[Image], judges: Sequence[Judge]) -> Seen:
        qualities = np.stack([quality.qualities(image) for image in images])
        return cls(_features(images, judges), qualities, faults.traces(images))


def combined(change: Callable[..., Array], *seen: Seen) -> Seen:
    """What `change` makes of the arrays that correspond, of one or of several."""
    features = {name: change(*(each.features[name] for each in seen)) for name in seen[0].features}
    traces = Traces(*(change(*arrays) for arrays in zip(*(each.traces for each in seen), strict=True)))
    return Seen(features, change(*(each.qualities for each in seen)), traces)


def pictures(own: Seen, base: Traces, subjects: Sequence[Subject], on_heads: Callable[[Flags], Flags]) -> Pictures:
    """All that is asked of a model's pictures, beside the base's from the same noise, both at their places.

    subjects: see `silhouettes.subjects`; on_heads: see `faults.counted`.
    """
    named = quality.by_name(own.qualities, own.traces.residual)
    named["register"] = faults.register(own.traces.edges, base.edges)
    of_subjects = silhouettes.measured(own.traces.colours, subjects)
    return Pictures(own.features, {**named, **of_subjects, **faults.counted(own.traces, base, on_heads)})


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

    def batches(files: Sequence[Path]) -> Iterator[list[Image]]:
        for start in range(0, len(files), BATCH):
            batch = [open_rgb(file) for file in files[start : start + BATCH]]
            yield batch
            on_pictures(len(batch))

    def photographed(token: str, class_noun: str, shown: Sequence[Photograph]) -> tuple[Photographs, list[Colours]]:
        files = [one.path for one in shown]
        parts = [(_features(batch, judges), list(map(colours.colours, batch))) for batch in batches(files)]
        features = {judge.name: np.concatenate([of[judge.name] for of, _ in parts]) for judge in judges}
        captions = reads.texts([one.caption for one in shown])
        held_out = np.array([one.held_out for one in shown])
        shown_in = [one for _, of in parts for one in of]
        return Photographs(token, class_noun, features, held_out, captions), shown_in

    def answered(drawings: Drawings) -> Seen:
        parts = [Seen.of(batch, judges) for batch in batches(drawings.files)]
        place = {file: row for row, file in enumerate(drawings.files)}
        rows = [place[file] for file in drawings.paths.flat]

        def by_place(*arrays: Array) -> Array:
            values = np.concatenate(arrays)[rows]
            return values.reshape(*shape, *values.shape[1:])

        return combined(by_place, *parts)

    def upright(name: int) -> list[Image]:
        if name < len(photographs):
            return [open_rgb(one.path) for one in photographs[name]]
        return [open_rgb(drawn["base"].paths.of(name, *at)) for at in np.ndindex(shape[1:])]

    def complete(side: str) -> Pictures:
        paths = drawn[side].paths

        def on_heads(laid: Flags) -> Flags:
            return faults.upside_down(laid, lambda at: open_rgb(paths.of(*at)), upright, reads)

        return pictures(read[side], read["base"].traces, subjects, on_heads)

    read = {side: answered(drawings) for side, drawings in drawn.items()}
    real = [photographed(*subject, shown) for subject, shown in zip(questions.subjects, photographs, strict=True)]
    subjects = silhouettes.subjects([shown for _, shown in real], read["base"].traces.colours[len(real) :])
    return Scores(
        [one for one, _ in real],
        {side: complete(side) for side in drawn},
        np.stack([reads.texts(texts) for texts in questions.texts]),
        reads.name,
        [judge.name for judge in lookers(judges)],
        unfit,
        tuple(questions.looks),
    )


def _features(images: Sequence[Image], judges: Sequence[Judge]) -> dict[str, Array]:
    return {judge.name: judge.images(images) for judge in judges}
