"""From pictures to scores: the encoders read what both models drew and what was photographed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from personalize.evaluation.questions import Answers, Questions
from personalize.evaluation.scores import Photographs, Pictures, Scores

if TYPE_CHECKING:
    from PIL.Image import Image

    from personalize.evaluation.encoders import ClipEncoder, DinoEncoder


def measure(
    questions: Questions,
    photographs: Sequence[Sequence[Image]],
    base: Answers[Image],
    tuned: Answers[Image],
    clip: ClipEncoder,
    dino: DinoEncoder,
    held_out: Sequence[Sequence[bool]] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    on_pictures: Callable[[int], None] = lambda count: None,
) -> Scores:
    """Encodes the photographs (one sequence a subject) and both models' answers. `on_pictures` hears of progress.

    `held_out` marks the photographs that training never saw; `captions` say what they show, without the token.
    """

    def encoded(images: Sequence[Image]) -> tuple[NDArray[Any], NDArray[Any]]:
        parts = []
        for start in range(0, len(images), dino.batch_size):
            batch = images[start : start + dino.batch_size]
            parts.append((dino.images(batch), clip.images(batch)))
            on_pictures(len(batch))
        return np.concatenate([seen for seen, _ in parts]), np.concatenate([read for _, read in parts])

    unseen = held_out or [[False] * len(images) for images in photographs]
    said: Sequence[Sequence[str] | None] = captions or [None] * len(photographs)
    real = [
        Photographs(token, noun, *encoded(images), np.array(marks), None if words is None else clip.texts(words))
        for (token, noun), images, marks, words in zip(questions.subjects, photographs, unseen, said, strict=True)
    ]
    return Scores(
        real,
        np.stack([clip.texts(texts) for texts in questions.texts]),
        _pictures(questions, *encoded(base.flat)),
        _pictures(questions, *encoded(tuned.flat)),
    )


def _pictures(questions: Questions, dino: NDArray[Any], clip: NDArray[Any]) -> Pictures:
    subjects = len(questions.subjects)
    shaped = dino.reshape(*questions.seeds.shape, -1), clip.reshape(*questions.seeds.shape, -1)
    return Pictures(shaped[0][:subjects], shaped[1][:subjects], plain=shaped[0][subjects:])
