"""A checkpoint's scores, with encoders that see one thing: a picture's colour."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from personalize.evaluation.checkpoint_scores import CheckpointScorer, Photographed

RED, ORANGE, BLUE = (255, 0, 0), (255, 128, 0), (0, 0, 255)


def unit(colours) -> np.ndarray:
    rows = np.array(colours, dtype=float)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Encoder:
    def images(self, images):
        return unit([image.getpixel((0, 0)) for image in images])

    def texts(self, texts):
        return unit([{"red": RED, "blue": BLUE}[text.split()[-1]] for text in texts])


def asked(token: str, plain: str, noun: str = "chair") -> SimpleNamespace:
    return SimpleNamespace(token=token, class_noun=noun, plain=plain)


def picture(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (4, 4), colour)


@pytest.fixture
def scorer(tmp_path: Path):
    def file(name: str, colour: tuple[int, int, int]) -> Path:
        picture(colour).save(tmp_path / name)
        return tmp_path / name

    def make(held_out: bool = True) -> CheckpointScorer:
        red, orange, blue = (file(f"{i}.png", colour) for i, colour in enumerate((RED, ORANGE, BLUE)))
        subjects = [
            Photographed("bcnchr", "chair", [orange], [red] if held_out else []),
            Photographed("wnqsfa", "sofa", [blue], []),
        ]
        return CheckpointScorer(subjects, lambda: (Encoder(), Encoder()))

    return make


def test_likeness_is_to_what_was_held_out_and_drift_is_the_class_pictures_own(scorer):
    scores = scorer()(
        [picture(RED), picture(BLUE), picture(ORANGE)],
        [asked("bcnchr", "a chair in red"), asked("wnqsfa", "a sofa in red", "sofa"), asked("", "a chair")],
    )
    half_way = float(unit([RED])[0] @ unit([ORANGE])[0])
    assert scores["dino"] == scores["clip_i"] == scores["fidelity"] == pytest.approx(1.0)
    assert scores["prompt"] == pytest.approx(0.5)  # the sofa is blue
    assert scores["drift"] == pytest.approx(half_way)
    assert scores["ceiling"] == pytest.approx(half_way)


def test_without_held_out_photographs_there_is_no_ceiling(scorer):
    scores = scorer(held_out=False)([picture(RED), picture(BLUE)], [asked("bcnchr", "in red"), asked("", "a chair")])
    assert "ceiling" not in scores
    assert scores["fidelity"] == pytest.approx(float(unit([RED])[0] @ unit([ORANGE])[0]))
