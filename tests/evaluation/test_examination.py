"""Judges are examined on the user's own photographs, here judges of which it is known what they see."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from personalize.evaluation import examination
from personalize.evaluation.examination import DIFFERENT, SAME, AtMost, examine
from personalize.evaluation.judges import JudgeConfig


class Eye:
    """A judge that sees what `look` makes of a picture."""

    def __init__(self, name, look):
        self.config, self.look = JudgeConfig(name=name, model=name), look

    def images(self, images):
        rows = np.array(
            [self.look(image.convert("RGB").resize((32, 32), Image.Resampling.BOX)) for image in images], float
        )
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def hue(image: Image.Image) -> np.ndarray:
    """The mean colour of the middle, and no form: of any arrangement of the same pixels it is the same."""
    _, cb, cr = np.moveaxis(np.asarray(image.convert("YCbCr"), float)[8:24, 8:24] - 128, -1, 0)
    return np.array([cb.mean(), cr.mean(), 20.0])


def shape(image: Image.Image) -> np.ndarray:
    """Where it is bright and dark, whatever its colour, on either side."""
    grey = np.asarray(image.convert("L"), float)
    grey = (grey - grey.mean()) / (grey.std() + 1e-6)
    return np.abs(np.fft.rfft2((grey + grey[:, ::-1]) / 2)[:12, :12]).ravel() ** 0.5


def nothing(image: Image.Image) -> np.ndarray:
    return np.ones(3)


def photograph(colour, corners: int, shift: int) -> Image.Image:
    """A coloured polygon in front of a grey wall."""
    image = Image.new("RGB", (160, 200), (128, 128, 128))
    ImageDraw.Draw(image).regular_polygon((80 + shift, 100 - shift, 52), corners, rotation=shift, fill=colour)
    return image


COLOURS = {"rdpnta": (200, 40, 40), "bltria": (40, 60, 200), "grnsqu": (40, 160, 60)}


@pytest.fixture
def photographs():
    return {
        token: [photograph(colour, 3 + corners, shift) for shift in (-4, 0, 5)]
        for corners, (token, colour) in enumerate(COLOURS.items())
    }


CLASS_IMAGES = [photograph(colour, 6, 0) for colour in ((200, 200, 40), (150, 40, 150))]


def test_a_judge_of_colour_is_found_to_see_colour_and_no_form(photographs):
    found = examine([Eye("hue", hue)], photographs, CLASS_IMAGES)["hue"]
    kinds = found["kinds"]
    assert set(kinds) == {*SAME, *DIFFERENT}
    assert kinds["subject"]["auc"] == kinds["class_image"]["auc"] == 1
    assert kinds["colour"]["auc"] > 0.9 > 0.7 > kinds["form"]["auc"]
    assert "sees other subjects" in found["words"]
    assert "hardly sees form" in found["words"]
    assert found["recognised"]["share"] == 1
    assert found["fit"]


def test_a_judge_of_form_is_found_to_see_form_and_no_colour(photographs):
    kinds = examine([Eye("shape", shape)], photographs, CLASS_IMAGES)["shape"]["kinds"]
    assert kinds["form"]["auc"] > 0.9 > kinds["colour"]["auc"]


def test_a_judge_that_sees_nothing_guesses_and_may_not_decide(photographs):
    found = examine([Eye("nothing", nothing)], photographs, CLASS_IMAGES)["nothing"]
    assert {kind["auc"] for kind in found["kinds"].values()} == {0.5}
    assert found["recognised"]["share"] == 0
    assert not found["fit"]
    assert "recognises 0 of 9 photographs: not fit to decide, which takes 75 %" in found["words"]
    assert found["worst"] == []


def test_several_judges_are_examined_on_the_same_pairs_and_always_alike(photographs):
    eyes = [Eye("hue", hue), Eye("shape", shape)]
    both = examine(eyes, photographs, CLASS_IMAGES)
    assert list(both) == ["hue", "shape"]
    assert both == examine(eyes, photographs, CLASS_IMAGES)
    assert both["shape"] == examine(eyes[1:], photographs, CLASS_IMAGES)["shape"]
    assert json.loads(json.dumps(both)) == both
    assert examine(eyes, photographs, CLASS_IMAGES, seed=1) != both


@pytest.mark.parametrize(
    ("subjects", "each", "class_images", "unknown"),
    [
        (1, 2, CLASS_IMAGES, {"subject"}),
        (1, 2, [], {"subject", "class_image", *SAME}),
        (3, 1, [], {"class_image", "photograph"}),
        (1, 1, CLASS_IMAGES, {"subject", "photograph"}),
        (2, 3, [], {"class_image"}),
    ],
)
def test_it_works_with_few_photographs_and_says_what_was_not_examined(
    photographs, subjects, each, class_images, unknown
):
    few = {token: of[:each] for token, of in list(photographs.items())[:subjects]}
    found = examine([Eye("hue", hue)], few, class_images)["hue"]
    kinds = found["kinds"]
    assert {kind for kind, of in kinds.items() if of["auc"] is None} == unknown
    assert all(of["pairs"] == 0 and "not examined" in of["words"] for of in kinds.values() if of["auc"] is None)
    compared = each > 1 and (subjects > 1 or bool(class_images))
    assert (found["recognised"]["share"] is None) != compared
    assert found["fit"] == compared
    if not compared:
        assert found["words"].startswith("not examined on recognising subjects")


def test_no_photograph_at_all_is_an_error():
    with pytest.raises(ValueError, match="no photographs to examine"):
        examine([Eye("hue", hue)], {"rdpnta": []}, CLASS_IMAGES)


def test_the_interval_knows_how_few_photographs_there_were(photographs):
    few = examine([Eye("hue", hue)], {token: of[:2] for token, of in list(photographs.items())[:1]}, CLASS_IMAGES)
    one, many = few["hue"]["kinds"]["class_image"], examine([Eye("hue", hue)], photographs, CLASS_IMAGES)["hue"]
    assert one["auc"] == 1
    assert one["low"] < 0.5
    assert one["words"].endswith("on too few photographs to be sure")
    assert many["kinds"]["class_image"]["low"] > 0.65
    assert "too few" not in many["kinds"]["class_image"]["words"]


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Shares of one photograph's comparisons are within 0 and 1, mostly near the ends: where intervals fail first."""
    rng = np.random.default_rng(0)
    for count in (4, 12, 25):
        for true in (0.6, 0.9):
            means = rng.beta(true, 1 - true, size=(2000, count)).mean(axis=1)
            low, high = np.array([examination.wilson(mean, count) for mean in means]).T
            assert np.mean((low <= true) & (true <= high)) > 0.94


def test_many_photographs_are_looked_at_in_turn_and_not_all(photographs):
    class Counting(Eye):
        seen = 0

        def images(self, images):
            Counting.seen += len(images)
            return super().images(images)

    many = {token: of * 10 for token, of in photographs.items()}
    at_most = AtMost(photographs=7, changed=2, class_images=1)
    kinds = examine([Counting("hue", hue)], many, CLASS_IMAGES, at_most=at_most)["hue"]["kinds"]
    assert Counting.seen == 7 + 2 * 7 + 1
    assert kinds["subject"]["photographs"] == 7
    assert kinds["form"]["photographs"] == 2


def test_the_most_wrong_pairs_can_be_drawn_again(photographs):
    reds = (200, 40, 40), (200, 110, 40), (200, 40, 130)
    photographs["rdpnta"] = [photograph(red, 5, 0) for red in reds]
    photographs["rdtria"] = [photograph(red, 8, 3) for red in reds]
    worst = examine([Eye("hue", hue)], photographs, CLASS_IMAGES)["hue"]["worst"]
    assert worst[0]["kind"] in ("subject", "form", "part")
    assert any({row["first"][0], row["second"][0]} == {"rdpnta", "rdtria"} for row in worst)
    for row in worst:
        assert row["similarity"] > row["beside"]
        first, second = (examination.picture(row[side], photographs, CLASS_IMAGES) for side in ("first", "second"))
        vectors = Eye("hue", hue).images([first, second])
        assert float(vectors[0] @ vectors[1]) == pytest.approx(row["similarity"], abs=1e-4)


@pytest.mark.parametrize("kind", sorted(examination.EDITS))
def test_a_change_is_always_the_same_and_changes_what_it_says(kind):
    image = photograph(COLOURS["rdpnta"], 5, 0)
    one, other = np.asarray(examination.edit(image, kind)), np.asarray(examination.edit(image, kind))
    assert np.array_equal(one, other)
    if kind == "crop":
        assert one.shape == (170, 136, 3)
        return
    before = np.asarray(image).astype(float)
    changed = np.abs(one - before).max(axis=-1) > 24
    if kind in examination.HARMFUL:
        assert 0.03 < changed.mean() < 0.6, "a part of the picture"
        assert not changed[:6].any(), "and not its edge"
        assert not changed[-6:].any()
    if kind == "colour":
        grey = [np.asarray(Image.fromarray(pixels).convert("L"), float) for pixels in (one, np.asarray(image))]
        assert np.abs(grey[0] - grey[1])[changed].mean() < 16, "as bright as before"
