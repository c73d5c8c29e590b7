"""From pictures to scores: the judges read what the models drew and what was photographed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from personalize.evaluation import quality
from personalize.evaluation.drawings import Drawings, Photograph
from personalize.evaluation.images import open_rgb
from personalize.evaluation.judges import lookers, reader
from personalize.evaluation.scores import Array, Photographs, Pictures, Scores

if TYPE_CHECKING:
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

    def seen(files: Sequence[Path], measured: bool) -> tuple[dict[str, Array], Array, Array]:
        features: dict[str, list[Array]] = {judge.name: [] for judge in judges}
        qualities, residuals = [], []
        for start in range(0, len(files), BATCH):
            batch = [open_rgb(file) for file in files[start : start + BATCH]]
            for judge in judges:
                features[judge.name].append(judge.images(batch))
            if measured:
                of_batch, of_residual = quality.measured(batch)
                qualities.append(of_batch)
                residuals.append(of_residual)
            on_pictures(len(batch))
        together = {name: np.concatenate(parts) for name, parts in features.items()}
        return together, np.concatenate(qualities or [np.zeros(0)]), np.concatenate(residuals or [np.zeros(0)])

    def photographed(token: str, class_noun: str, shown: Sequence[Photograph]) -> Photographs:
        features, _, _ = seen([one.path for one in shown], measured=False)
        captions = reads.texts([one.caption for one in shown])
        return Photographs(token, class_noun, features, np.array([one.held_out for one in shown]), captions)

    def answered(drawings: Drawings) -> Pictures:
        features, qualities, residuals = seen(drawings.files, measured=True)
        place = {file: row for row, file in enumerate(drawings.files)}
        rows = [place[file] for file in drawings.paths.flat]
        shape = len(questions.names), len(questions.prompts), questions.seeds_per_prompt
        of_judges = {name: values[rows].reshape(*shape, -1) for name, values in features.items()}
        return Pictures(of_judges, quality.by_name(qualities[rows], residuals[rows], shape))

    return Scores(
        [photographed(*subject, shown) for subject, shown in zip(questions.subjects, photographs, strict=True)],
        {side: answered(drawings) for side, drawings in drawn.items()},
        np.stack([reads.texts(texts) for texts in questions.texts]),
        reads.name,
        [judge.name for judge in lookers(judges)],
        unfit,
        tuple(questions.looks),
    )
