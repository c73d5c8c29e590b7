"""The benchmark of the judges: drawn pairs differ in what they say and in nothing else."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import judges as benchmark
from miniature.scenes.render import draw
from miniature.scenes.scene import is_held_out
from personalize.evaluation.judges import JudgeConfig


class Colour:
    """A judge that sees the colour of the middle."""

    name, config = "colour", JudgeConfig(name="colour", model="colour")

    def images(self, images):
        rows = np.array([np.asarray(image.convert("RGB"), float)[40:80, 48:80].mean((0, 1)) for image in images])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def chair():
    return benchmark.versions(benchmark.designs(1)[0])


@pytest.mark.slow
def test_each_false_chair_is_drawn_under_every_condition_as_the_true_one_is(chair):
    assert set(chair) == {"first", *benchmark.CONDITIONS}
    for name in benchmark.CONDITIONS:
        assert set(chair[name]) == {"true", "colour", "leg", "back", "design"}
        shown = {kind: np.asarray(image, float) for kind, image in chair[name].items()}
        changed = {
            kind: np.abs(pixels - shown["true"]).max(-1) > 30 for kind, pixels in shown.items() if kind != "true"
        }
        assert all(0.002 < pixels.mean() < 0.7 for pixels in changed.values())
        assert changed["leg"].mean() < changed["design"].mean()
    assert not np.array_equal(np.asarray(chair["first"]["true"]), np.asarray(chair["view"]["true"]))


def test_the_designs_were_never_trained_on_and_one_leg_of_four_moves():
    for design in benchmark.designs(5):
        assert is_held_out(design)
        assert len(benchmark.legs(draw("chair", design))) == 4


@pytest.mark.slow
def test_a_judge_of_colour_is_right_about_colour(chair, monkeypatch):
    monkeypatch.setattr(benchmark, "designs", lambda count: [0] * count)
    monkeypatch.setattr(benchmark, "versions", lambda design: chair)
    found = benchmark.drawn_world([Colour()], 2)["colour"]
    assert found["colour"]["auc"] == 1
    assert found["colour"]["subjects"] == 2
    assert set(found) >= {"leg", "back", "design", "design, view changed"}


def test_photographs_are_examined_and_no_subject_is_named(tmp_path):
    for token, colour in (("rdpnta", "red"), ("bltria", "blue")):
        (tmp_path / "chairs" / "chair" / token).mkdir(parents=True)
        for k in range(2):
            Image.new("RGB", (128, 128 + k), colour).save(tmp_path / "chairs" / "chair" / token / f"{k}.png")
    subjects = benchmark.subjects_in(tmp_path / "chairs")
    assert {name: len(of) for name, of in subjects.items()} == {"chair/bltria": 2, "chair/rdpnta": 2}
    found = benchmark.photographed([Colour()], subjects)
    assert found["colour"]["recognised"]["share"] == 1
    assert "rdpnta" not in str(found)
    told = {"chairs": benchmark.told(subjects)}
    said = benchmark.table({"judges": {"colour": ""}, "drawn": {"colour": {}}, "silhouettes": told, "chairs": found})
    assert "| chairs: recognised | 1.00 (0.51 to 1.00) |" in said
    assert "tell proportions: 0 of 2 in chairs." in said
    assert said.endswith("tell colour difference: 0 of 2 in chairs.")
    with pytest.raises(SystemExit, match="no pictures"):
        benchmark.subjects_in(tmp_path / "nowhere")
