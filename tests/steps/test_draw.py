"""The draw step on random weights: it asks what baseline asks, and only the adapter makes a difference."""

import json
from pathlib import Path

import mlflow
import pytest

from personalize.recipe import Inputs
from personalize.recipe.config import Value
from personalize.recipe.validation import extended, typed
from steps import baseline, draw
from tests.random_adapter import random_adapter

from .conftest import active, perform


@pytest.fixture(scope="module")
def config(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> draw.Config:
    return draw.Config(
        base_model=str(tiny_models / "sdxl"),
        prompts={"place": {"snow": "a {token_noun} in snow"}},
        seeds_per_prompt=1,
        sampling_steps=1,
        resolution=32,
        device="cpu",
        work=str(tmp_path_factory.mktemp("work")),
    )


@pytest.fixture(scope="module")
def caption(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caption")
    (folder / "subjects.json").write_text(json.dumps([{"token": "zwvchr", "class_noun": "chair"}]))
    return folder


@pytest.fixture(scope="module")
def drawn(config, caption, tiny_models, new_database, tmp_path_factory):
    """A function: what the model with the adapter in the folder `train` (none: the base) draws, and the card."""

    def drawn(train: Path | None) -> tuple[Path, dict[str, bytes], str]:
        place = tmp_path_factory.mktemp("drawn")
        step, paths = ("draw", {"caption": caption, "train": train}) if train else ("baseline", {"caption": caption})
        with active(new_database, place), mlflow.start_run():
            card = perform(step, config, Inputs.from_paths(paths), place / step)
        images = {file.name: file.read_bytes() for file in (place / step / "images").rglob("*.png")}
        return place / step, images, card.html()

    return drawn


@pytest.fixture(scope="module")
def base(drawn):
    return drawn(None)


def untrained(trained: Path, folder: Path) -> None:
    """The adapter of the folder `trained` as it was before its first step: B is zero, so it changes nothing."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(trained / "pytorch_lora_weights.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) * ("lora_B" not in name) for name in file.keys()}  # noqa: SIM118
        folder.mkdir(parents=True)
        save_file(weights, folder / "pytorch_lora_weights.safetensors", metadata=file.metadata())


def test_an_adapter_that_learnt_nothing_draws_exactly_what_the_base_draws(base, drawn, tiny_models, tmp_path):
    """So every difference between the two columns of the card comes from training, none from chance."""
    random_adapter(tiny_models / "sdxl", tmp_path / "trained")
    untrained(tmp_path / "trained", tmp_path / "train" / "lora")
    outputs, images, _ = drawn(tmp_path / "train")
    assert images == base[1]
    assert (outputs / "questions.json").read_bytes() == (base[0] / "questions.json").read_bytes()


def test_an_adapter_that_learnt_something_draws_otherwise_and_the_card_shows_it(base, drawn, tiny_models, tmp_path):
    random_adapter(tiny_models / "sdxl", tmp_path / "lora")
    _, images, page = drawn(tmp_path)
    assert images.keys() == base[1].keys()
    assert all(images[name] != base[1][name] for name in images)
    assert page.count("<img") == len(images) == 2


def test_a_question_is_put_once_and_holds_for_both():
    kinds = {"baseline": baseline.Config, "draw": draw.Config}
    assert extended(draw.Config, kinds) == "baseline"
    assert draw.Config.model_fields.keys() == baseline.Config.model_fields.keys()
    said = {name: Value(value, "recipe.yaml:1", {}) for name, value in {"base_model": "m", "questions_seed": 7}.items()}
    assert typed(draw.Config, said).model_dump() == typed(baseline.Config, said).model_dump()
