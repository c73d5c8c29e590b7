"""A checkpoint's scores, with judges that see one thing: a picture's colour."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from personalize.evaluation.checkpoint_scores import CheckpointScorer, Photographed
from personalize.evaluation.judges import JudgeConfig

RED, ORANGE, BLUE = (255, 0, 0), (255, 128, 0), (0, 0, 255)


def unit(colours) -> np.ndarray:
    rows = np.array(colours, dtype=float)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Eye:
    """A judge of any name; `reads` texts that end in a colour."""

    def __init__(self, name: str, reads: bool = False) -> None:
        self.name, self.reads_text, self.architecture = name, reads, "eye"
        self.config = JudgeConfig(name=name, model=name)

    def images(self, images):
        return unit([image.getpixel((0, 0)) for image in images])

    def texts(self, texts):
        assert self.reads_text
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

    def make(held_out: bool = True, judges=()) -> CheckpointScorer:
        judges = judges or (Eye("first"), Eye("second", reads=True))
        red, orange, blue = (file(f"{i}.png", colour) for i, colour in enumerate((RED, ORANGE, BLUE)))
        subjects = [
            Photographed("bcnchr", "chair", [orange], [red] if held_out else []),
            Photographed("wnqsfa", "sofa", [blue], []),
        ]
        return CheckpointScorer(subjects, lambda: judges)

    return make


def test_likeness_is_to_what_was_held_out_and_drift_is_the_class_pictures_own(scorer):
    scores = scorer()(
        [picture(RED), picture(BLUE), picture(ORANGE)],
        [asked("bcnchr", "a chair in red"), asked("wnqsfa", "a sofa in red", "sofa"), asked("", "a chair")],
    )
    half_way = float(unit([RED])[0] @ unit([ORANGE])[0])
    assert scores["first"] == scores["second"] == scores["fidelity"] == pytest.approx(1.0)
    assert scores["prompt"] == pytest.approx(0.5)  # the sofa is blue
    assert scores["drift"] == pytest.approx(half_way)
    assert scores["ceiling"] == pytest.approx(half_way)


def test_without_held_out_photographs_there_is_no_ceiling(scorer):
    scores = scorer(held_out=False)([picture(RED), picture(BLUE)], [asked("bcnchr", "in red"), asked("", "a chair")])
    assert "ceiling" not in scores
    assert scores["fidelity"] == pytest.approx(float(unit([RED])[0] @ unit([ORANGE])[0]))


def test_any_number_of_judges_score_and_one_must_read_the_prompt(scorer):
    pictures, questions = [picture(RED), picture(BLUE)], [asked("bcnchr", "in red"), asked("", "a chair")]
    alone = scorer(judges=(Eye("only", reads=True),))(pictures, questions)
    assert {"only", "fidelity", "prompt", "drift", "ceiling"} == set(alone)
    with pytest.raises(ValueError, match=r"no judge reads prompts \(only \(eye\)\)"):
        scorer(judges=(Eye("only"),))(pictures, questions)
