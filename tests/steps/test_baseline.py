"""The baseline step on random weights: what it asks of whom, what it leaves, and when it must draw again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
from PIL import Image
from pydantic import ValidationError

from personalize.files import tree_digest
from personalize.recipe import Inputs
from steps import baseline

from .conftest import active, perform

PROMPTS = {"place": {"a <b>": "a photo of a {token_noun} in a <b>", "snow": "a {token_noun} in snow"}}


@pytest.fixture(scope="module")
def config(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> baseline.Config:
    return baseline.Config(
        base_model=str(tiny_models / "sdxl"),
        prompts=PROMPTS,
        seeds_per_prompt=2,
        sampling_steps=1,
        resolution=32,
        work=str(tmp_path_factory.mktemp("work")),
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """Of the caption step only what subjects there are."""
    caption = tmp_path_factory.mktemp("caption")
    (caption / "subjects.json").write_text(json.dumps([{"token": "zwvchr", "class_noun": "chair"}]))
    return Inputs.from_paths({"caption": caption})


@pytest.fixture(scope="module")
def done(config, inputs, new_database, tmp_path_factory) -> SimpleNamespace:
    place = tmp_path_factory.mktemp("store")
    with active(new_database, place), mlflow.start_run():
        card = perform("baseline", config, inputs, place / "outputs")
    return SimpleNamespace(outputs=place / "outputs", card=card)


def test_the_plain_class_alone_is_drawn_in_each_prompt_from_seeds_of_its_own(done):
    files = sorted(file.relative_to(done.outputs / "images").as_posix() for file in done.outputs.rglob("*.png"))
    kinds = [(file.split("/")[0], file.split("/")[1].split("-")[0]) for file in files]
    assert kinds == [("chair", prompt) for prompt in ("a_b", "snow") for _ in "12"]
    assert len({file.split("-")[1] for file in files}) == 4
    assert {Image.open(done.outputs / "images" / file).size for file in files} == {(32, 32)}


def test_it_says_what_was_asked_and_under_which_conditions(done, config):
    asked = json.loads((done.outputs / "questions.json").read_text())
    assert asked["subjects"] == [{"token": "zwvchr", "class_noun": "chair"}]
    assert asked["prompts"] == PROMPTS
    assert (asked["seeds_per_prompt"], asked["seed"]) == (2, 0)
    how = asked["conditions"]
    assert how["base_identity"] == tree_digest(config.base_model)
    assert (how["sampling_steps"], how["resolution"], how["dtype"]) == (1, 32, "float32")


def test_the_same_again_leaves_the_same_bytes(done, config, inputs, new_database, tmp_path):
    with active(new_database, tmp_path), mlflow.start_run():
        baseline.run(config.model_copy(update={"work": str(tmp_path / "work")}), inputs, tmp_path / "outputs")
    assert tree_digest(tmp_path / "outputs", leave_out="diagnostics") == tree_digest(done.outputs, "diagnostics")


def test_the_card_shows_every_picture_and_escapes_what_prompts_say(done):
    page = done.card.html()
    assert page.count("<img") == 4
    assert "a &lt;b&gt;" in page
    assert "a <b>" not in page


def test_what_changes_the_last_bit_of_a_picture_has_it_drawn_again(config, monkeypatch):
    assert "batch_size" in config.result_keys()
    assert "device" not in config.result_keys(), "where it came to be drawn counts, not how that was asked for"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    cpu = config.model_copy(update={"device": "cpu"})
    assert baseline.sources(cpu)["computed on"] == "cpu, at most 3 threads"
    assert baseline.sources(config.model_copy(update={"device": "cuda"}))["computed on"] == "cuda"
    assert baseline.sources(cpu)["base model"] == tree_digest(config.base_model)


def test_the_device_that_the_plan_foretells_without_torch_is_the_one_that_draws(done, config):
    how = json.loads((done.outputs / "questions.json").read_text())["conditions"]
    assert baseline.sources(config)["computed on"].split(",")[0] == how["computed_on"].split(",")[0]


@pytest.mark.parametrize("step", ["baseline", "draw", "evaluate"])
def test_neither_plan_nor_card_waits_for_torch(step):
    slow = ("torch", "numpy", "scipy")
    code = f"import sys, steps.{step}, steps.cards.{step}; sys.exit(any(name in sys.modules for name in {slow}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_prompts_without_a_place_for_the_subject_are_refused(config):
    with pytest.raises(ValidationError, match="token_noun"):
        baseline.Config(**{**config.model_dump(), "prompts": {"place": {"beach": "a chair on the beach"}}})
    with pytest.raises(ValidationError, match="must be prompts by category or the name of a set"):
        baseline.Config(**{**config.model_dump(), "prompts": "object"})


@pytest.mark.parametrize("looks", [(), (2,), (2, 3, 99)])
def test_a_look_that_there_is_not_is_refused(config, looks):
    asked = {**config.model_dump(), "prompts": "miniature", "looks": looks}
    last = len([count for count in looks if count < 72]) + 1
    assert baseline.Config(**{**asked, "look": last}).look == last
    with pytest.raises(ValidationError, match=rf"72 prompts and looks \[.*\] make {last} in all"):
        baseline.Config(**{**asked, "look": last + 1})


def counted(config, inputs, new_database, place, monkeypatch) -> tuple[int, Path]:
    """How many pictures a run draws, and where it leaves them."""
    from personalize.dreambooth import sampling

    drawn, sample = [], sampling.sample

    def counting(pipe, prompts, *rest):
        drawn.extend(prompts)
        return sample(pipe, prompts, *rest)

    monkeypatch.setattr(sampling, "sample", counting)
    place.mkdir()
    with active(new_database, place), mlflow.start_run():
        baseline.run(config, inputs, place / "outputs")
    return len(drawn), place / "outputs"


def test_more_prompts_draw_what_is_missing_and_leave_the_rest_as_it_is(
    done, config, inputs, new_database, tmp_path, monkeypatch
):
    more = {"place": {**PROMPTS["place"], "grass": "a {token_noun} on grass"}}
    few = config.model_copy(update={"work": str(tmp_path / "work"), "batch_size": 2})
    many = few.model_copy(update={"prompts": more})
    first, before = counted(few, inputs, new_database, tmp_path / "first", monkeypatch)
    second, after = counted(many, inputs, new_database, tmp_path / "second", monkeypatch)
    assert (first, second) == (4, 2)
    for file in before.rglob("*.png"):
        assert (after / file.relative_to(before)).read_bytes() == file.read_bytes()


def test_a_drawing_that_was_killed_goes_on_to_the_same_bytes(config, inputs, new_database, tmp_path, monkeypatch):
    from personalize.dreambooth import sampling

    config = config.model_copy(update={"work": str(tmp_path / "work"), "batch_size": 2})
    sample, calls = sampling.sample, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample(*arguments)

    monkeypatch.setattr(sampling, "sample", dying)
    (tmp_path / "killed").mkdir()
    with pytest.raises(KeyboardInterrupt), active(new_database, tmp_path / "killed"), mlflow.start_run():
        baseline.run(config, inputs, tmp_path / "killed" / "outputs")
    monkeypatch.setattr(sampling, "sample", sample)
    went_on, outputs = counted(config, inputs, new_database, tmp_path / "again", monkeypatch)
    assert went_on == 2
    whole = config.model_copy(update={"work": str(tmp_path / "other")})
    _, unbroken = counted(whole, inputs, new_database, tmp_path / "whole", monkeypatch)
    assert tree_digest(outputs, leave_out="diagnostics") == tree_digest(unbroken, leave_out="diagnostics")


def test_drawings_are_kept_up_to_a_bound(tmp_path, monkeypatch):
    from personalize.evaluation.drawings import Sketchbook

    book = Sketchbook(tmp_path, {})
    pages = [book.drawn([("a chair", seed)], lambda rows: [Image.new("RGB", (64, 64))])[0].parent for seed in range(4)]
    for age, page in enumerate(pages):
        os.utime(page, (1000 + age, 1000 + age))
    monkeypatch.setattr(Sketchbook, "MOST", 2 * sum(file.stat().st_size for file in pages[0].iterdir()))
    book.tidy()
    assert [page.is_dir() for page in pages] == [False, False, True, True]
