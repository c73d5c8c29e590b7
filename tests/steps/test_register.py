"""Register: what has answered becomes the challenger, whatever the verdict, and says so on its tags."""

import json
import shutil
import sys
from pathlib import Path

import mlflow
import pytest
from PIL import Image

from personalize.cards import Card
from personalize.recipe import Input, Inputs, RecipeError
from personalize.recipe.config import load
from personalize.recipe.showing import next_words
from personalize.serving.registry import RegistryError
from steps import register
from steps.cards import register as register_card
from tests.steps.conftest import perform


@pytest.fixture
def client(registered) -> mlflow.MlflowClient:
    uri = f"sqlite:///{registered[0]}/mlflow.db"
    return mlflow.MlflowClient(uri, uri)


def config(tiny_models: Path, **changes) -> register.Config:
    fast = {"name": "chairs", "resolution": 64, "sampling_steps": 2, "device": "cpu"}
    return register.Config(base_model=str(tiny_models / "sdxl"), **{**fast, **changes})


def test_the_version_is_the_challenger_and_is_written_down(registered, client):
    told = json.loads((registered[1] / "model_version.json").read_text())
    assert (told["name"], told["version"], told["alias"]) == ("chairs", "1", "challenger")
    assert told["uri"] == "models:/chairs/1"
    assert told["model_id"].startswith("m-")
    assert str(client.get_model_version_by_alias("chairs", "challenger").version) == "1"


def test_the_version_says_what_it_is_and_where_it_comes_from(client):
    tags = client.get_model_version("chairs", "1").tags
    assert tags["verdict"] == "passed"
    assert tags["fingerprint"] == "f1" * 32
    assert tags["card"].startswith("runs:/")
    assert tags["card"].endswith("/card.html")
    assert tags["subjects"] == "bcnchr chair, zwvchr chair"
    assert tags["tokens"] == "bcnchr, zwvchr"
    assert tags["commit"] == "c0ffee"
    assert len(tags["base_revision"]) > 30
    assert len(tags["adapter_md5"]) == 32


def test_tags_are_of_the_kind_that_unity_catalog_takes(client):
    tags = client.get_model_version("chairs", "1").tags
    assert len(tags) < 50
    for key, value in tags.items():
        assert not set(key) & set(".,-=/:"), key
        assert value == value.strip()
        assert len(value) <= 1000


def test_rights_are_said_on_the_version_so_giving_them_later_registers_again(client):
    assert "rights" in register.Config.result_keys()
    assert "rights" not in client.get_model_version("chairs", "1").tags, "nothing is said where none are given"


def test_the_description_has_a_link_that_opens_the_card_in_the_pages_around_it(client):
    version = client.get_model_version("chairs", "1")
    run_id = version.tags["evaluate_run"]
    experiment = client.get_run(run_id).info.experiment_id
    link = f"#/experiments/{experiment}/runs/{run_id}/artifacts/card.html"
    assert f"[Evaluation card]({link})" in version.description
    assert f"runs:/{run_id}/card.html" in version.description
    assert "- dino: passed" in version.description
    assert "- dino 0.5 (base 0.25)" in version.description


def test_the_page_of_the_model_shows_what_evaluate_measured_over_all_subjects(registered, client):
    made = json.loads((registered[1] / "model_version.json").read_text())
    shown = {metric.key: metric.value for metric in client.get_logged_model(made["model_id"]).metrics}
    assert shown == {"dino": 0.5, "dino_base": 0.25}


def test_the_card_can_be_drawn_later_from_what_lies_in_the_outputs(registered, tiny_models, trained, store):
    card = Card("register")
    register_card.show(config(tiny_models), trained("passed"), registered[1], card)
    assert card.as_dict() == registered[2].as_dict()


def test_how_long_it_took_is_told_apart_from_what_was_made(registered):
    made = json.loads((registered[1] / "model_version.json").read_text())
    assert (made["answer"]["prompt"], made["answer"]["seed"]) == ("a photo of a bcnchr chair", 0)
    assert "latency_ms" not in made["answer"]
    assert json.loads((registered[1] / "diagnostics/speed.json").read_text())["latency_ms"] > 0


def test_the_sample_was_drawn_by_the_registered_model(registered):
    with Image.open(registered[1] / "sample.png") as picture:
        assert picture.size == (64, 64)


def test_the_card_says_how_to_promote_serve_and_ask(registered):
    page = registered[2].html()
    for words in (
        "mlflow run . --env-manager local -e promote",
        "mlflow models serve -m models:/chairs/1",
        "/invocations",
        "load_model",
    ):
        assert words in page, words


def test_the_registered_model_has_both_signatures_which_unity_catalog_demands(registered, client):
    info = mlflow.models.Model.load(f"{registered[0]}/{_model_folder(registered[0])}")
    assert info.signature.inputs
    assert info.signature.outputs


def _model_folder(place: Path) -> str:
    return next(path.parent.relative_to(place) for path in (place / "artifacts").rglob("MLmodel")).as_posix()


def test_a_model_that_failed_its_gates_is_registered_with_its_verdict(
    store, tiny_models, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    with mlflow.start_run():
        card = perform("register", config(tiny_models, rights="the museum"), trained("failed"), tmp_path / "outputs")
    tags = mlflow.MlflowClient().get_model_version_by_alias("chairs", "challenger").tags
    assert (tags["verdict"], tags["rights"]) == ("failed", "the museum")
    assert "promote will refuse" in card.html()
    assert "-e promote" not in card.html()
    assert card.came_to == "failed"
    assert card.words["prompt"] == "'a photo of a bcnchr chair on the beach'"
    assert (card.words["version"], card.words["model"]) == ("1", "models:/chairs/1")
    assert card.words["advice"]
    packed = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert "model.py" in packed
    assert not [name for name in packed if name.endswith(".pyc")], "nothing compiled lies in what was signed"
    assert not sys.dont_write_bytecode


def test_a_version_that_refers_to_its_base_is_its_adapter_and_says_where_the_base_is(
    store, tiny_models, trained, tmp_path
):
    from personalize.evidence.package import base_files, reference
    from personalize.serving.checking import check_model
    from personalize.serving.registry import resolve
    from steps.generate import Config, find_model

    carrier, base = "models:/carrier/1", Path(shutil.copytree(tiny_models / "sdxl", tmp_path / "sdxl"))
    with mlflow.start_run():
        perform("register", config(tiny_models, name="carrier"), trained(), tmp_path / "first")
    referring = register.Config(
        name="chairs", resolution=64, sampling_steps=2, device="cpu", base_model=str(base),
        base="referenced", base_version=carrier,
    )  # fmt: skip
    with mlflow.start_run():
        perform("register", referring, trained(), tmp_path / "second")
    assert mlflow.MlflowClient().get_model_version("chairs", "1").tags["base"] == "referenced"
    statement, wrong = check_model(resolve("models:/chairs/1"))
    assert wrong == []
    assert reference(statement)["version"] == carrier
    assert base_files(statement) == base_files(check_model(resolve(carrier))[0])
    assert find_model(Config(model="models:/chairs/1")).base == str(base)
    shutil.rmtree(base)
    found = find_model(Config(model="models:/chairs/1")).base
    assert found.endswith("artifacts/base"), "`-e generate` finds it in the version that carries it, as a server does"


def test_a_version_that_is_said_to_carry_the_base_must_carry_this_one(store, tiny_models, trained, tmp_path):
    with mlflow.start_run():
        perform("register", config(tiny_models, base="referenced"), trained(), tmp_path / "first")
    with pytest.raises(RecipeError, match=r"chairs version 1 does not carry .*Name a version that was registered"):
        register.check(config(tiny_models, base="referenced", base_version="models:/chairs/1"))
    with pytest.raises(RegistryError, match="has no version '9'"):
        register.check(config(tiny_models, base="referenced", base_version="models:/chairs/9"))


@pytest.mark.parametrize("profile", ["local", "gpu", "databricks"])
def test_what_to_type_next_is_true_of_the_verdict(profile):
    said = load(Path(register.__file__).parents[1], profile).next["register"]
    words = {"prompt": "'a photo of a bcnchr chair'", "version": "3", "model": "models:/chairs/3"}
    words |= {"advice": "Train again."}
    tags = {f"recipe.outcome.{name}": value for name, value in words.items()}
    passed, failed, undecided = (
        next_words(said, {**tags, "recipe.outcome": verdict}) for verdict in ("passed", "failed", "undecided")
    )
    for text in (passed, failed, undecided):
        assert "open the card" in text
        model = "-P model=models:/chairs/3 -P prompt='a photo of a bcnchr chair'"
        assert f"-e generate -P profile={profile} {model}" in text
    assert f"-e promote -P profile={profile} -P version=3" in passed
    assert f"-e review -P profile={profile}" in passed
    assert "-e promote" not in failed + undecided
    assert "Train again." in failed
    assert "Train again." in undecided
    assert ("gpu profile" in failed) == (profile == "local")


def test_a_unity_catalog_name_has_three_levels_and_this_is_said_before_anything_is_packed(
    store, tiny_models, trained, tmp_path
):
    with mlflow.start_run():
        inputs = trained("passed")
        mlflow.set_registry_uri("databricks-uc")
        with pytest.raises(RegistryError, match=r"three levels.*main\.default\.chairs"):
            register.run(config(tiny_models), inputs, tmp_path)


@pytest.mark.parametrize("name", ["my/chairs", "my:chairs", " "])
def test_a_name_that_no_registry_takes_is_refused(store, tiny_models, trained, tmp_path, name):
    with mlflow.start_run(), pytest.raises(RegistryError, match="is no model name"):
        register.run(config(tiny_models, name=name), trained("passed"), tmp_path)


def test_scores_without_a_verdict_and_a_missing_adapter_are_named(store, tiny_models, trained, tmp_path):
    with mlflow.start_run():
        inputs = trained("passed")
        empty = tmp_path / "empty"
        empty.mkdir()
        with pytest.raises(RecipeError, match=r"scores\.json has no verdict.*run evaluate again"):
            register.run(config(tiny_models), Inputs({**inputs, "evaluate": Input("", "", lambda: empty)}), tmp_path)
        (empty / "subjects.json").write_bytes((inputs["train"].path / "subjects.json").read_bytes())
        with pytest.raises(RecipeError, match=r"pytorch_lora_weights\.safetensors is missing; run train again"):
            register.run(config(tiny_models), Inputs({**inputs, "train": Input("", "", lambda: empty)}), tmp_path)


def test_what_a_killed_run_has_registered_is_taken_up(store, trained, tiny_models, tmp_path, monkeypatch, capsys):
    def made(name: str, fingerprint: str) -> dict:
        with mlflow.start_run(tags={"recipe.fingerprint": fingerprint}):
            perform("register", config(tiny_models), trained("passed"), tmp_path / name)
        return json.loads((tmp_path / name / "model_version.json").read_text())

    client = mlflow.MlflowClient()
    with monkeypatch.context() as killed:
        killed.setattr("personalize.serving.registry.challenge", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            made("killed", "f9" * 32)
    assert not client.get_registered_model("chairs").aliases
    first = made("again", "f9" * 32)
    assert "version 1 is this very model" in capsys.readouterr().out
    assert first["version"] == "1"
    assert client.get_model_version("chairs", "1").source == f"models:/{first['model_id']}"
    assert str(client.get_model_version_by_alias("chairs", "challenger").version) == "1"
    assert len(client.search_model_versions("name='chairs'")) == 1
    assert made("another", "e7" * 32)["version"] == "2"
    adapter = Path(mlflow.artifacts.download_artifacts("models:/chairs/2/artifacts/adapter"))
    (adapter / "pytorch_lora_weights.safetensors").write_bytes(b"others")  # where it lies, on this disk
    assert made("forged", "e7" * 32)["version"] == "3", "a tag is not believed"


def test_a_model_that_was_packed_and_not_registered_is_not_packed_again(
    store, trained, tiny_models, tmp_path, monkeypatch, capsys
):
    def made(name: str) -> dict:
        with mlflow.start_run(tags={"recipe.fingerprint": "d4" * 32}):
            perform("register", config(tiny_models), trained("passed"), tmp_path / name)
        return json.loads((tmp_path / name / "model_version.json").read_text())

    with monkeypatch.context() as killed:
        killed.setattr("personalize.serving.registry.register", lambda *_: exec("raise KeyboardInterrupt"))
        with pytest.raises(KeyboardInterrupt):
            made("killed")
    [logged] = mlflow.search_logged_models(output_format="list")
    capsys.readouterr()
    assert made("again")["model_id"] == logged.model_id
    said = capsys.readouterr().out
    assert f"models:/{logged.model_id} is this very model" in said
    assert "packing" not in said
    assert len(mlflow.search_logged_models(output_format="list")) == 1
