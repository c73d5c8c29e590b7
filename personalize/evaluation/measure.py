"""From pictures to scores: the encoders read what both models drew and what was photographed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from personalize.evaluation.drawings import Drawings, Photograph
from personalize.evaluation.judges import open_rgb
from personalize.evaluation.scores import Photographs, Pictures, Scores

if TYPE_CHECKING:
    from personalize.evaluation.judges import Judge

BATCH = 32
"""Pictures in memory at a time."""


def measure(
    photographs: Sequence[Sequence[Photograph]],
    base: Drawings,
    tuned: Drawings,
    clip: Judge,
    dino: Judge,
    on_pictures: Callable[[int], object] = lambda count: None,
) -> Scores:
    """Encodes each subject's photographs and both models' answers; `on_pictures` hears how many were read."""
    questions = base.questions

    def encoded(files: Sequence[Path], *encoders: Judge) -> list[NDArray[Any]]:
        parts = []
        for start in range(0, len(files), BATCH):
            batch = [open_rgb(file) for file in files[start : start + BATCH]]
            parts.append([encoder.images(batch) for encoder in encoders])
            on_pictures(len(batch))
        return [np.concatenate(part) for part in zip(*parts, strict=True)]

    def real(token: str, class_noun: str, shown: Sequence[Photograph]) -> Photographs:
        of_dino, of_clip = encoded([one.path for one in shown], dino, clip)
        held_out, captions = np.array([one.held_out for one in shown]), clip.texts([one.caption for one in shown])
        return Photographs(token, class_noun, of_dino, of_clip, held_out, captions)

    def drawn(files: Sequence[Path]) -> Pictures:
        """CLIP, by far the slower of the two, need not see plain class pictures: no score asks it about them."""
        subjects, prompts, seeds = len(questions.subjects), *questions.seeds.shape[1:]
        first_plain = subjects * prompts * seeds
        of_dino, of_clip = encoded(files[:first_plain], dino, clip)
        (plain,) = encoded(files[first_plain:], dino)
        shape = subjects, prompts, seeds, -1
        return Pictures(
            of_dino.reshape(shape), of_clip.reshape(shape), plain.reshape(-1, prompts, seeds, plain.shape[-1])
        )

    return Scores(
        [real(*subject, shown) for subject, shown in zip(questions.subjects, photographs, strict=True)],
        np.stack([clip.texts(texts) for texts in questions.texts]),
        drawn(base.paths.flat),
        drawn(tuned.paths.flat),
    )
