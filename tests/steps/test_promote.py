"""Promote: a card, gates that passed and a person's approval; everything that is missing is said at once."""

import json
from pathlib import Path

import mlflow
import pytest

from personalize.cards import Card
from personalize.cards.commands import under_profile
from personalize.recipe import Input, Inputs, RecipeError
from personalize.serving.registry import RegistryError
from steps import promote
from tests.steps.conftest import perform

APPROVED = {"approved_by": "Ada", "reason": "the legs are right"}


@pytest.fixture
def client(store: Path) -> mlflow.MlflowClient:
    client = mlflow.MlflowClient()
    client.create_registered_model("chairs")
    return client


def version(client: mlflow.MlflowClient, **tags: str) -> str:
    """A registered version with a card, and the challenger."""
    with mlflow.start_run() as run:
        mlflow.log_text("<html></html>", "card.html")
    tags = {"card": f"runs:/{run.info.run_id}/card.html", "verdict": "passed"} | tags
    made = client.create_model_version("chairs", source="s3://models/1", tags={k: v for k, v in tags.items() if v})
    client.set_registered_model_alias("chairs", "challenger", made.version)
    return str(made.version)


def run(tmp_path: Path, inputs: Inputs | None = None, **config) -> tuple[dict, Card]:
    outputs = tmp_path / "promoted"
    with mlflow.start_run():
        card = perform("promote", promote.Config(name="chairs", **config), inputs or Inputs({}), outputs)
    return json.loads((outputs / "promotion.json").read_text()), card


def test_the_challenger_becomes_the_champion_and_who_when_why_stay_with_it(client, tmp_path):
    number = version(client)
    told, card = run(tmp_path, **APPROVED)
    champion = client.get_model_version_by_alias("chairs", "champion")
    assert str(champion.version) == number == told["version"]
    assert champion.tags["approval_by"] == "Ada"
    assert champion.tags["approval_reason"] == "the legs are right"
    assert champion.tags["approval_at"].startswith("20")
    assert "Ada" in card.html()


def test_the_card_may_lie_in_a_folder_of_its_run(client, tmp_path):
    with mlflow.start_run() as evaluation:
        mlflow.log_text("<html></html>", "cards/evaluate.html")
    number = version(client, card=f"runs:/{evaluation.info.run_id}/cards/evaluate.html")
    assert run(tmp_path, **APPROVED)[0]["version"] == number
    version(client, card=f"runs:/{evaluation.info.run_id}/cards/another.html")
    with pytest.raises(RecipeError, match=r"card .*another\.html is gone"):
        run(tmp_path, **APPROVED)


def test_what_the_card_says_to_type_keeps_the_profile(client, tmp_path):
    version(client)
    with under_profile("gpu"):
        _, card = run(tmp_path, **APPROVED)
    assert "mlflow run . --env-manager local -e deploy -P profile=gpu" in card.html()


def test_promoting_twice_changes_nothing_and_is_no_error(client, tmp_path, capsys):
    version(client)
    run(tmp_path, **APPROVED)
    before = client.get_model_version_by_alias("chairs", "champion").tags
    told, _ = run(tmp_path)
    assert told["already"]
    assert client.get_model_version_by_alias("chairs", "champion").tags == before
    assert "already the champion; nothing to do" in capsys.readouterr().out


def test_everything_that_is_missing_is_said_at_once_and_nothing_is_changed(client, tmp_path):
    version(client, verdict="failed")
    with pytest.raises(RecipeError) as refused:
        run(tmp_path)
    message = str(refused.value)
    assert "its gates failed" in message
    assert "-P approved_by=..." in message
    assert "-P reason=..." in message
    assert "Nothing was changed" in message
    assert "champion" not in client.get_registered_model("chairs").aliases


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"verdict": "failed"}, "its gates failed"),
        ({"verdict": "undecided"}, "undecided: more prompts or seeds"),
        ({"verdict": ""}, "it has no verdict"),
        ({"card": ""}, "it has no evaluation card"),
        ({"card": "runs:/0123456789abcdef0123456789abcdef/card.html"}, "card .* is gone"),
    ],
)
def test_an_approval_does_not_stand_in_for_gates_and_card(client, tmp_path, tags, message):
    version(client, **tags)
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, **APPROVED)
    assert "champion" not in client.get_registered_model("chairs").aliases


@pytest.mark.parametrize("given", [{"approved_by": "Ada"}, {"reason": "good"}, {"approved_by": " ", "reason": "good"}])
def test_half_an_approval_is_none(client, tmp_path, given):
    version(client)
    with pytest.raises(RecipeError, match="nobody says"):
        run(tmp_path, **given)


def test_an_approval_that_is_on_the_version_already_counts(client, tmp_path):
    number = version(client, approval_by="Grace", approval_reason="seen in the registry", approval_at="2026-01-01")
    told, _ = run(tmp_path)
    assert (told["version"], told["approval_by"], told["approval_at"]) == (number, "Grace", "2026-01-01")


def test_an_earlier_version_can_be_named_to_go_back_to_it(client, tmp_path):
    first = version(client)
    run(tmp_path, **APPROVED)
    version(client)
    told, card = run(tmp_path, **APPROVED)
    assert told["previous"] == first
    assert f"-P version={first}" in card.html()
    run(tmp_path, version=first, approved_by="Ada", reason="take it back")
    assert str(client.get_model_version_by_alias("chairs", "champion").version) == first


def test_the_tag_that_a_databricks_deployment_job_waits_for_is_set(client, tmp_path):
    number = version(client)
    run(tmp_path, approval_tag="Approval_Check", **APPROVED)
    assert client.get_model_version("chairs", number).tags["Approval_Check"].lower() == "approved"


def test_a_model_or_version_that_is_not_there_is_named_with_what_there_is(client, tmp_path):
    with pytest.raises(RegistryError, match=r"'chairs' has no alias 'challenger'\. Versions: none; aliases: none"):
        run(tmp_path, **APPROVED)
    version(client)
    with pytest.raises(RegistryError, match=r"no version '7'\. Versions: 1; aliases: challenger = version 1"):
        run(tmp_path, version="7", **APPROVED)
    with mlflow.start_run(), pytest.raises(RegistryError, match=r"'tables' has no alias.*No model of that name"):
        promote.run(promote.Config(name="tables"), Inputs({}), tmp_path)


def test_by_itself_it_needs_no_step_and_in_main_it_follows_register(client, tmp_path):
    assert promote.needs(promote.Config()) == ()
    assert promote.needs(promote.Config(version="")) == ("register",)
    number = version(client)
    version(client)  # somebody else's newer challenger
    made = tmp_path / "register"
    made.mkdir()
    (made / "model_version.json").write_text(json.dumps({"name": "chairs", "version": number}))
    told, _ = run(tmp_path, Inputs({"register": Input("", "", lambda: made)}), version="", **APPROVED)
    assert told["version"] == number


def test_going_on_to_promote_without_an_approval_is_said_before_anything_runs():
    with pytest.raises(RecipeError, match=r"-P approved_by=\.\.\. -P reason=\.\.\."):
        promote.sources(promote.Config(version=""))
    assert promote.sources(promote.Config(version="", **APPROVED)) == {}
    assert promote.sources(promote.Config()) == {}
