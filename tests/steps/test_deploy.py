"""The deploy step, called as the engine calls it.

The server behind it is `tests/serving/easel.py`, which starts at once; `tests/serving/test_local.py` has the real one.
"""

import json
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from PIL import Image

from personalize.cards.commands import under_profile
from personalize.recipe import Inputs, RecipeError
from personalize.recipe.config import load
from personalize.recipe.showing import next_words
from personalize.serving.endpoint import EndpointError
from personalize.serving.local import LocalEndpoint
from steps import deploy
from tests.serving.test_local import SIGNATURE
from tests.steps.conftest import perform

EASEL = Path(deploy.__file__).parents[1] / "tests" / "serving" / "easel.py"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A saved model with an example of what to ask it."""
    path = tmp_path_factory.mktemp("model") / "painter"
    example = pd.DataFrame([{"prompt": "a photo of a bcnchr chair", "width": 40, "height": 24}])
    mlflow.pyfunc.save_model(
        str(path),
        python_model=str(EASEL.with_name("painter.py")),
        signature=SIGNATURE,
        input_example=example,
        pip_requirements=["mlflow"],
    )
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(
        LocalEndpoint, "_command", lambda self, path: [sys.executable, str(EASEL), "{port}", "v1", "good"]
    )


@pytest.fixture
def act(tmp_path, model, capsys):
    """Run the step with some of its configuration; returns (endpoint.json, card, what was printed)."""

    def run(inputs=None, **config):
        settings = {
            "model": str(model),
            "trial": True,
            "folder": str(tmp_path / "endpoints"),
            "startup_timeout": 60,
            **config,
        }
        outputs = tmp_path / "outputs"
        settings = deploy.Config(output=str(tmp_path / "output"), **settings)
        card = perform("deploy", settings, inputs or Inputs({}), outputs)
        return json.loads((outputs / "endpoint.json").read_text()), card, capsys.readouterr().out

    yield run
    run(action="stop")


def test_deploy_query_status_and_stop(act, tmp_path):
    told, card, printed = act()
    assert (told["state"], told["model"]) == ("serving", "painter")
    assert Image.open(tmp_path / "outputs" / "trial.png").size == (40, 24), "painted as the model's own example asks"
    assert f"curl -sS {told['url']}/invocations" in printed
    assert "a photo of a bcnchr chair" in json.dumps(card.as_dict())
    assert card.came_to == "serving"

    _, card, printed = act(action="query", prompt="A photo, of ä <chair>!", seed=7, width=16, height=8)
    [picture] = (tmp_path / "output").iterdir()
    assert picture.name == "a-photo-of-ä-chair-7.png"
    assert str(picture) in printed
    assert Image.open(picture).size == (16, 8)
    assert str(picture) in json.dumps(card.as_dict(), ensure_ascii=False)
    assert (tmp_path / "outputs" / picture.name).read_bytes() == picture.read_bytes(), "the run keeps it as well"
    act(action="query", prompt="A photo, of ä <chair>!", seed=7, width=8, height=8)
    assert Image.open(picture).size == (16, 8), "a picture made earlier is never overwritten"
    assert (tmp_path / "output" / "a-photo-of-ä-chair-7-2.png").is_file()

    assert act(action="status")[0]["url"] == told["url"]
    told, card, _ = act(action="stop")
    assert told["state"] == card.came_to == "stopped"
    assert act(action="status")[0] == {"name": "personalize", "target": "local", "state": "stopped"}


def test_what_to_type_next_is_true_of_every_state_of_an_endpoint():
    said = load(Path(deploy.__file__).parents[1], "local").next["deploy"]
    assert set(said) == {"serving", "starting", "restarting", "failed", "stopped"}
    assert "action=query -P prompt='a chair'" in next_words(
        said, {"recipe.outcome": "serving", "recipe.outcome.prompt": "'a chair'"}
    )
    assert "action=" not in said["stopped"]


def test_after_promote_the_version_just_promoted_is_served(act, model, tmp_path):
    (tmp_path / "promote").mkdir()
    (tmp_path / "promote" / "promotion.json").write_text(json.dumps({"uri": str(model)}))
    told, _, _ = act(inputs=Inputs.from_paths({"promote": tmp_path / "promote"}), model="")
    assert told["uri"] == str(model)


def test_only_a_deployment_without_a_model_needs_the_steps_before():
    assert deploy.needs(deploy.Config()) == ()
    assert deploy.needs(deploy.Config(model="")) == ("promote",)
    assert deploy.needs(deploy.Config(model="", action="status")) == (), "looking trains nothing"


def test_a_size_that_is_asked_for_is_what_the_trial_paints(act, tmp_path):
    act(width=16, height=48)
    assert Image.open(tmp_path / "outputs" / "trial.png").size == (16, 48)


def test_a_query_without_a_prompt_or_an_endpoint_says_what_to_type(act):
    with pytest.raises(RecipeError, match="-P prompt="):
        act(action="query")
    with pytest.raises(EndpointError, match=r"is stopped.*mlflow run \. --env-manager local -e deploy"):
        act(action="query", prompt="a chair")


def test_the_server_is_told_what_it_may_draw_with_by_whose_word_and_where_the_base_is(tmp_path, store):
    from personalize.evidence import keys
    from personalize.evidence.trust import Resolved
    from personalize.serving import adapters, base, versions

    config = deploy.Config(adapters=["chairs", "sofas"], adapter_memory=100, base_model=str(tmp_path))
    said = deploy.told(config, deploy.endpoint_for(config), "k" * 64).environment
    assert said[versions.NAMES] == "chairs,sofas"
    assert said[adapters.SETTING] == "100000000"
    assert Resolved.model_validate_json(said[versions.POLICY]).approvers == (keys.own_id(),)
    assert said[base.SETTING] == str(tmp_path)
    assert said["MLFLOW_TRACKING_URI"].startswith("sqlite:////"), "the server runs in another folder"
    alone = deploy.told(deploy.Config(), deploy.endpoint_for(deploy.Config()), "").environment
    assert alone == {keys.SETTING: keys.named()}, "what it carries, and nobody is asked; its pictures are signed"


def test_a_token_comes_from_the_environment_and_goes_into_no_run(act, monkeypatch, tmp_path):
    monkeypatch.setenv("PERSONALIZE_TOKEN", "a-secret")
    monkeypatch.setattr(
        LocalEndpoint,
        "_command",
        lambda self, path: [sys.executable, str(EASEL), "{port}", "personalize.serving.app:serve", "good"],
    )
    told, card, printed = act()
    assert 'Authorization: Bearer $PERSONALIZE_TOKEN"' in printed
    assert "a-secret" not in json.dumps([told, card.as_dict()]) + printed
    kept = [file for file in (tmp_path / "endpoints").rglob("*") if file.is_file() and b"a-secret" in file.read_bytes()]
    assert [file.name for file in kept] == ["wanted.json"]
    assert kept[0].stat().st_mode & 0o077 == 0
    monkeypatch.delenv("PERSONALIZE_TOKEN")
    assert act(action="query", prompt="a chair")[0]["state"] == "serving"


def test_a_local_rollback_says_how_to_get_there(act):
    with pytest.raises(RecipeError, match=r"-e promote -P version=<version> -P rollback=true"):
        act(action="rollback")


def test_an_alias_that_points_to_nothing_says_how_to_promote(act, store):
    mlflow.MlflowClient().create_registered_model("chairs")
    with under_profile("gpu"), pytest.raises(EndpointError) as refused:
        act(model="models:/chairs@challenger")
    assert "nothing to deploy at models:/chairs@challenger" in str(refused.value)
    assert "-e promote -P profile=gpu -P approved_by=... -P reason=..." in str(refused.value)
    with pytest.raises(EndpointError, match="models:/chairs/9"):
        act(model="models:/chairs/9")


@pytest.mark.parametrize(("model", "address"), [("chairs", "models:/chairs@champion"), ("models:/chairs/3", None)])
def test_a_bare_name_means_its_champion(model, address):
    assert deploy.model_address(model) == (address or model)


@pytest.mark.parametrize("cards", ["", "cards."])
def test_the_steps_and_their_cards_cost_nothing_to_import(cards):
    import subprocess

    names = ", ".join(f"steps.{cards}{name}" for name in ("register", "promote", "deploy", "generate"))
    code = f"import sys, {names}; print([m for m in ('torch', 'mlflow', 'databricks') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=EASEL.parents[2], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
