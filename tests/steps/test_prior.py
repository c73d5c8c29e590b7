"""Prior: class images of the base model, drawn once for each thing that decides them."""

import json
from collections.abc import Sequence
from pathlib import Path

import mlflow
import pytest
from PIL import Image

from personalize.cards import Card
from personalize.files import tree_digest, write_json
from personalize.photographs.prompts import Subject, class_captions, save_class_nouns
from personalize.recipe import Inputs
from steps import prior
from tests.steps.conftest import perform


@pytest.fixture
def run(store: Path, tiny_models: Path):
    """Runs the step for some class nouns; gives its outputs and the numbers it logged."""
    count = 0

    def run(
        *nouns: str, captions: Sequence[str] = ("a photo of a {} on a rug",), **changes
    ) -> tuple[Path, dict[str, float], Card]:
        nonlocal count
        count += 1
        caption, outputs = store / f"caption{count}", store / f"outputs{count}"
        caption.mkdir()
        save_class_nouns(caption, [Subject(f"tok{i}", noun, 5) for i, noun in enumerate(nouns)])
        told = [
            {"token": f"tok{i}", "class_noun": noun, "text": text.format(f"tok{i} {noun}")}
            for i, noun in enumerate(nouns)
            for text in captions
        ]
        write_json(caption / "class_captions.json", class_captions(told))
        fast = {"images_per_class": 4, "batch_size": 2, "resolution": 64, "sampling_steps": 1, "device": "cpu"}
        config = prior.Config(base_model=str(tiny_models / "sdxl"), **{**fast, **changes})
        with mlflow.start_run() as active:
            card = perform("prior", config, Inputs.from_paths({"caption": caption}), outputs)
        return outputs, mlflow.get_run(active.info.run_id).data.metrics, card

    return run


def rows(outputs: Path) -> list[dict]:
    return [json.loads(line) for line in (outputs / "metadata.jsonl").read_text().splitlines()]


def pictures(outputs: Path) -> dict[str, bytes]:
    return {row["file_name"]: (outputs / row["file_name"]).read_bytes() for row in rows(outputs)}


def test_each_class_noun_once_whatever_the_number_of_subjects(run):
    outputs, metrics, _ = run("chair", "chair", "coffee table")
    assert metrics["class_images"] == 8
    assert {row["class_noun"] for row in rows(outputs)} == {"chair", "coffee table"}
    first = rows(outputs)[0]
    assert (first["file_name"], first["text"]) == ("chair/0000.png", "a photo of a chair")
    with Image.open(outputs / "coffee table/0003.png") as picture:
        assert picture.size == (64, 64)


def test_prompts_are_taken_in_turn(run):
    outputs, _, card = run("chair", prompts=["a photo of a {class_noun}", "a {class_noun} in a studio"])
    assert [row["text"] for row in rows(outputs)] == ["a photo of a chair", "a chair in a studio"] * 2
    assert "a chair in a studio" in card.html()
    with pytest.raises(ValueError, match="class_noun"):
        run("chair", prompts=["a photo of a chair"])


def test_captions_bring_every_place_of_the_photographs_without_any_token(run):
    places = ("a photo of a {} in the forest", "a photo of a {} on a rug", "a photo of a {} in the forest")
    outputs, _, _ = run("chair", "chair", captions=places, prompts=["a photo of a {class_noun}", "{caption}"])
    plain = "a photo of a chair"
    assert [row["text"] for row in rows(outputs)] == [plain, f"{plain} in the forest", plain, f"{plain} on a rug"]


def test_a_caption_more_draws_the_batches_that_it_is_in(run):
    asked = {"prompts": ["{caption}"], "batch_size": 1}
    first, _, _ = run("chair", captions=("a {} at A", "a {} at B"), **asked)
    again, metrics, _ = run("chair", captions=("a {} at A", "a {} at B", "a {} at C"), **asked)
    assert metrics["class_images_drawn"] == 2, "the third and fourth show C and A"
    assert list(pictures(again).values())[:2] == list(pictures(first).values())[:2]


def test_seeds_differ_between_pictures_and_classes(run):
    outputs, _, _ = run("chair", "table")
    assert len({row["seed"] for row in rows(outputs)}) == 8
    assert len(set(pictures(outputs).values())) == 8


def test_new_captions_draw_nothing_anew(run):
    first, metrics, _ = run("chair")
    assert metrics["class_images_drawn"] == 4
    again, metrics, card = run("chair", "chair")
    assert metrics["class_images_drawn"] == 0
    assert pictures(again) == pictures(first)
    assert "taken from earlier runs" in card.html()


def test_the_result_is_the_same_whether_its_pictures_were_drawn_or_taken(run):
    drawn, _, _ = run("chair")
    taken, metrics, _ = run("chair")
    assert metrics["class_images_drawn"] == 0
    assert tree_digest(taken, leave_out="diagnostics") == tree_digest(drawn, leave_out="diagnostics")


def test_more_pictures_or_another_class_draw_only_what_is_lacking(run):
    first, _, _ = run("chair")
    more, metrics, _ = run("chair", images_per_class=6)
    assert metrics["class_images_drawn"] == 2
    assert pictures(first).items() <= pictures(more).items()
    assert run("chair", "table")[1]["class_images_drawn"] == 4


@pytest.mark.parametrize("change", [{"seed": 1}, {"sampling_steps": 2}, {"prompts": ["a drawing of a {class_noun}"]}])
def test_what_decides_the_pictures_draws_them_anew(run, change):
    first, _, _ = run("chair")
    other, metrics, _ = run("chair", **change)
    assert metrics["class_images_drawn"] == 4
    assert not set(pictures(first).values()) & set(pictures(other).values())


def test_a_lost_or_damaged_picture_is_drawn_again_and_is_the_same(run, store: Path):
    first, _, _ = run("chair")
    one, other = (store / "build/prior").iterdir()
    (one / "0001.png").write_bytes((one / "0001.png").read_bytes()[:200])
    (other / "0000.png").unlink()
    again, metrics, _ = run("chair")
    assert metrics["class_images_drawn"] == 2
    assert pictures(again) == pictures(first)


def test_none_are_drawn_where_none_are_asked_for_and_the_card_warns(run):
    outputs, metrics, card = run("chair", images_per_class=0)
    assert rows(outputs) == []
    assert metrics["class_images"] == 0
    assert "may forget" in card.html()


def test_the_fingerprint_follows_the_weights_not_the_folder(tiny_models: Path, tmp_path: Path):
    import shutil

    moved = shutil.copytree(tiny_models / "sdxl", tmp_path / "elsewhere")
    here, there = (prior.Config(base_model=str(place)) for place in (tiny_models / "sdxl", moved))
    assert prior.sources(here) == prior.sources(there)
    (moved / "model_index.json").write_text("{}")
    assert prior.sources(here) != prior.sources(there)
