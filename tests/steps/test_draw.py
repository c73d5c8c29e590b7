"""The draw step on random weights: it asks what baseline asks, and only the adapter makes a difference."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest

from personalize import hub
from personalize.evaluation import drawings
from personalize.evidence import keys, package
from personalize.evidence.statement import write
from personalize.evidence.trust import Trust
from personalize.files import tree_files
from personalize.photographs.prompts import Subject, save_subjects
from personalize.recipe import Inputs, RecipeError
from personalize.recipe.config import Value
from personalize.recipe.validation import extended, typed
from steps import baseline, draw
from tests.random_adapter import random_adapter

from .conftest import active, perform

WEIGHTS = "pytorch_lora_weights.safetensors"


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
        folder = place / step / "images"
        images = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*.png")}
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
    """So every difference between plain class pictures comes from training, none from chance."""
    random_adapter(tiny_models / "sdxl", tmp_path / "trained")
    untrained(tmp_path / "trained", tmp_path / "train" / "lora")
    outputs, images, _ = drawn(tmp_path / "train")
    assert {name: image for name, image in images.items() if name in base[1]} == base[1]
    assert drawings.differences(drawings.load(base[0]), drawings.load(outputs)) == []


def test_an_adapter_that_learnt_something_draws_otherwise_and_the_card_shows_it(base, drawn, tiny_models, tmp_path):
    random_adapter(tiny_models / "sdxl", tmp_path / "lora")
    _, images, page = drawn(tmp_path)
    assert images.keys() > base[1].keys()
    assert all(images[name] != base[1][name] for name in base[1])
    assert page.count("<img") == len(images) == 2


def test_a_question_is_put_once_and_holds_for_both():
    kinds = {"baseline": baseline.Config, "draw": draw.Config}
    assert extended(draw.Config, kinds) == "baseline"
    assert draw.Config.model_fields.keys() - {"champion", "trust"} == baseline.Config.model_fields.keys()
    said = {name: Value(value, "recipe.yaml:1", {}) for name, value in {"base_model": "m", "questions_seed": 7}.items()}
    assert (
        typed(draw.Config, said).model_dump(exclude={"champion", "trust"}) == typed(baseline.Config, said).model_dump()
    )


# The champion.


@pytest.fixture(scope="module")
def registry(tiny_models, new_database, tmp_path_factory):
    """A registry in use, and a function that makes an adapter of `trained` the next version and the champion."""
    place = tmp_path_factory.mktemp("registry")

    def promoted(trained: Path, subjects=(("zwvchr", "chair"),), base: str = "", statement=write, **tags) -> str:
        packed = tmp_path_factory.mktemp("packed")
        adapter, evidence = packed / "adapter", packed / package.ARTIFACT
        adapter.mkdir()
        shutil.copyfile(trained / "lora" / WEIGHTS, adapter / WEIGHTS)
        save_subjects(adapter, [Subject(*subject, images=1) for subject in subjects])
        made_from = {"base": base or hub.identity(str(tiny_models / "sdxl"), None)}
        subjects = {f"artifacts/adapter/{file}": digest for file, digest in tree_files(adapter).items()}
        evidence.mkdir()
        if said := statement(subjects, package.KIND, made_from, keys.own()):
            (evidence / package.FILE).write_text(said)
        with mlflow.start_run():
            info = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).parents[1] / "serving" / "painter.py"),
                artifacts={"adapter": str(adapter), package.ARTIFACT: str(evidence)},
                pip_requirements=["mlflow"],
            )
        version = mlflow.register_model(info.model_uri, "chairs", tags={"base_model": "sdxl-turbo"} | tags)
        mlflow.MlflowClient().set_registered_model_alias("chairs", "champion", version.version)
        return str(version.version)

    with active(new_database, place):
        yield promoted


def answers(config, caption, train: Path, outputs: Path) -> tuple[Path, str]:
    asked = config.model_copy(update={"champion": "chairs"})
    with mlflow.start_run():
        card = perform("draw", asked, Inputs.from_paths({"caption": caption, "train": train}), outputs)
    return outputs, card.html()


@pytest.fixture
def two(tiny_models, tmp_path):
    """Folders of two trainings, the first of which learnt nothing."""
    random_adapter(tiny_models / "sdxl", tmp_path / "second" / "lora")
    untrained(tmp_path / "second" / "lora", tmp_path / "first" / "lora")
    return tmp_path / "first", tmp_path / "second"


def test_the_champion_answers_the_same_and_gives_way_to_whom_it_was_compared_with(
    registry, base, config, caption, two, tmp_path
):
    first, second = two
    before = draw.remote_sources(config.model_copy(update={"champion": "chairs"}))
    assert before["champion"] == "none"
    outputs, _ = answers(config, caption, second, tmp_path / "alone")
    assert not (outputs / "champion").exists()

    one = registry(first)
    outputs, page = answers(config, caption, second, tmp_path / "rival")
    theirs = drawings.load(outputs / "champion")
    assert drawings.differences(drawings.load(outputs), theirs) == []
    plain = {str(file.relative_to(theirs.folder / "images")): file.read_bytes() for file in theirs.files}
    assert {name: plain[name] for name in base[1]} == base[1], "it learnt nothing"
    assert json.loads((outputs / "champion" / "version.json").read_text()) == {"name": "chairs", "version": one}
    assert "champion" in page

    registry(second, compared_with=one)
    again, _ = answers(config, caption, second, tmp_path / "promoted")
    assert content(again / "champion") == content(outputs / "champion"), "its own promotion changes no comparison"
    assert draw.remote_sources(config.model_copy(update={"champion": "chairs"}))["champion"].count("version") == 2


def test_a_champion_that_could_not_answer_is_left_out_by_name(registry, config, caption, two, tmp_path, capsys):
    first, second = two
    version = registry(first, subjects=[("brkchr", "chair")])
    outputs, page = answers(config, caption, second, tmp_path / "stranger")
    assert not (outputs / "champion").exists()
    assert f"version {version}, is not compared: it does not know zwvchr chair" in capsys.readouterr().out
    assert "it does not know zwvchr chair" in page
    registry(first, base="another")
    _, page = answers(config, caption, second, tmp_path / "other-base")
    assert "it was trained on another base model (sdxl-turbo)" in page


def forge(version: str, file: str) -> None:
    """Other bytes in a file of a registered model, as somebody who may write to the store leaves them."""
    place = Path(mlflow.artifacts.download_artifacts(f"models:/chairs/{version}/artifacts/adapter")) / file
    place.write_bytes(place.read_bytes()[:-4] + b"\0\0\1\0")


@pytest.mark.parametrize("file", [WEIGHTS, "subjects.json"])
def test_a_champion_that_was_changed_in_the_store_ends_the_run_before_anything_is_trained(
    registry, config, caption, two, tmp_path, file
):
    """Left out without a word it would take the gates against the champion with it."""
    version = registry(two[0])
    asked = config.model_copy(update={"champion": "chairs"})
    draw.check(asked)
    forge(version, file)
    said = (
        rf"compared with chairs version {version}: it is not as it was registered: artifacts/adapter/{file} was changed"
    )
    with pytest.raises(RecipeError, match=said):
        draw.check(asked)
    with pytest.raises(RecipeError, match=said):
        answers(config, caption, two[1], tmp_path / "drawn")
    draw.check(asked.model_copy(update={"champion": ""}))


def test_nor_is_one_believed_that_takes_its_place_to_be_compared_with(registry, config, caption, two, tmp_path):
    one = registry(two[0])
    registry(two[1], compared_with=one)
    forge(one, WEIGHTS)
    with pytest.raises(RecipeError, match=rf"version {one}: it is not as it was registered"):
        draw.check(config.model_copy(update={"champion": "chairs"}))


def test_whose_champion_is_drawn_with_the_trust_policy_says(registry, config, caption, two, tmp_path, capsys):
    def checked(version: str, trust: Trust) -> None:
        draw.registered(mlflow.MlflowClient().get_model_version("chairs", version), trust)

    own, stranger = registry(two[0]), "is signed with key"
    checked(own, Trust(makers=("own",)))
    with pytest.raises(RecipeError, match=stranger):
        checked(own, Trust(makers=("0" * 64,)))
    unsigned = registry(two[0], statement=lambda subjects, kind, said, signer: write(subjects, kind, said, None))
    with pytest.raises(RecipeError, match=r"its statement is unsigned.*-P draw\.champion=''"):
        checked(unsigned, Trust())
    allowed = config.model_copy(update={"trust": Trust(unsigned=True)})
    answers(allowed, caption, two[1], tmp_path / "drawn")
    assert f"the champion, version {unsigned}, is unsigned" in capsys.readouterr().out
    mute = registry(two[0], statement=lambda *_: "")
    with pytest.raises(RecipeError, match="it has no "):
        checked(mute, Trust(unsigned=True))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
