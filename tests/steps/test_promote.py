"""Promote: a card, gates that passed and a person's approval; everything that is missing is said at once."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from personalize.cards import Card
from personalize.cards.commands import under_profile
from personalize.evidence import keys
from personalize.evidence.chain import broken
from personalize.evidence.trust import Trust
from personalize.recipe import Input, Inputs, RecipeError
from personalize.review import approval
from personalize.serving.registry import RegistryError
from steps import promote
from steps.evidence import chain_of
from tests.review import world
from tests.review.world import evaluation
from tests.steps.conftest import perform

APPROVED = {"approved_by": "Ada", "reason": "the legs are right"}


@pytest.fixture
def client(store: Path) -> mlflow.MlflowClient:
    client = mlflow.MlflowClient()
    client.create_registered_model("chairs")
    return client


@pytest.fixture
def version(tmp_path) -> Callable[..., str]:
    """Registers an evaluated model, the challenger. verdict: of its gates and of its tag; tags: other ones."""

    def version(verdict: str = "passed", **tags: str) -> str:
        place = tmp_path / f"model {len(list(tmp_path.glob('model *')))}"
        weights = str(place).encode()
        made = evaluation(place / "made", weights=weights, gates=[verdict], verdict=verdict)
        return world.version(made, place, weights=weights, **({"verdict": verdict} | tags))

    return version


def run(tmp_path: Path, inputs: Inputs | None = None, **config) -> tuple[dict, Card]:
    outputs = tmp_path / "promoted"
    with mlflow.start_run():
        card = perform("promote", promote.Config(name="chairs", **config), inputs or Inputs({}), outputs)
    return json.loads((outputs / "promotion.json").read_text()), card


def test_the_challenger_becomes_the_champion_and_who_when_why_stay_with_it(client, version, tmp_path):
    number = version()
    told, card = run(tmp_path, **APPROVED)
    champion = client.get_model_version_by_alias("chairs", "champion")
    assert str(champion.version) == number == told["version"]
    assert champion.tags["approval_by"] == "Ada"
    assert champion.tags["approval_reason"] == "the legs are right"
    assert champion.tags["approval_at"].startswith("20")
    assert "Ada" in card.html()


def test_what_the_card_says_to_type_keeps_the_profile(client, version, tmp_path):
    version()
    with under_profile("gpu"):
        _, card = run(tmp_path, **APPROVED)
    assert "mlflow run . --env-manager local -e deploy -P profile=gpu" in card.html()


def test_promoting_twice_changes_nothing_and_is_no_error(client, version, tmp_path, capsys):
    version()
    run(tmp_path, **APPROVED)
    before = client.get_model_version_by_alias("chairs", "champion").tags
    told, _ = run(tmp_path)
    assert told["already"]
    assert client.get_model_version_by_alias("chairs", "champion").tags == before
    assert "already the champion; nothing to do" in capsys.readouterr().out


def test_everything_that_is_missing_is_said_at_once_and_nothing_is_changed(client, version, tmp_path):
    version(verdict="failed")
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
    ],
)
def test_an_approval_does_not_stand_in_for_gates_and_card(client, version, tmp_path, tags, message):
    version(**tags)
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, **APPROVED)
    assert "champion" not in client.get_registered_model("chairs").aliases


@pytest.mark.parametrize("given", [{"approved_by": "Ada"}, {"reason": "good"}, {"approved_by": " ", "reason": "good"}])
def test_half_an_approval_is_none(client, version, tmp_path, given):
    version()
    with pytest.raises(RecipeError, match="nobody says"):
        run(tmp_path, **given)


def test_tags_that_name_an_approval_are_shown_and_not_believed(client, version, tmp_path):
    version(approval_by="Grace", approval_reason="seen in the registry", approval_at="2026-01-01")
    with pytest.raises(RecipeError, match="tags name Grace, and tags are shown, never believed"):
        run(tmp_path)
    assert "champion" not in client.get_registered_model("chairs").aliases


def test_an_earlier_version_can_be_named_to_go_back_to_it(client, version, tmp_path):
    first = version()
    run(tmp_path, **APPROVED)
    version()
    told, card = run(tmp_path, **APPROVED)
    assert told["previous"] == first
    assert f"-P version={first} -P rollback=true" in card.html()
    _, card = run(tmp_path, version=first, rollback=True, approved_by="Ada", reason="take it back")
    assert "It went back" in card.html()
    assert str(client.get_model_version_by_alias("chairs", "champion").version) == first


def test_the_tag_that_a_databricks_deployment_job_waits_for_is_set(client, version, tmp_path):
    number = version()
    run(tmp_path, approval_tag="Approval_Check", **APPROVED)
    assert client.get_model_version("chairs", number).tags["Approval_Check"].lower() == "approved"


def test_a_model_or_version_that_is_not_there_is_named_with_what_there_is(client, version, tmp_path):
    with pytest.raises(RegistryError, match=r"'chairs' has no alias 'challenger'\. Versions: none; aliases: none"):
        run(tmp_path, **APPROVED)
    version()
    with pytest.raises(RegistryError, match=r"no version '7'\. Versions: 1; aliases: challenger = version 1"):
        run(tmp_path, version="7", **APPROVED)
    with mlflow.start_run(), pytest.raises(RegistryError, match=r"'tables' has no alias.*No model of that name"):
        promote.run(promote.Config(name="tables"), Inputs({}), tmp_path)


def test_by_itself_it_needs_no_step_and_in_main_it_follows_register(client, version, tmp_path):
    assert promote.needs(promote.Config()) == ()
    assert promote.needs(promote.Config(version="")) == ("register",)
    number = version()
    version()  # somebody else's newer challenger
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


def evaluated(client: mlflow.MlflowClient, number: str) -> str:
    return str(client.get_model_version("chairs", number).tags["evaluate_run"])


def evidence_of(client: mlflow.MlflowClient, number: str) -> approval.Evidence:
    chain = chain_of("chairs", number, Trust())
    assert chain.evidence is not None
    assert broken(chain.links) == []
    return chain.evidence


def lies(run_id: str, path: str) -> Path:
    """Where an artifact lies on this disk, for somebody who changes it there."""
    return Path(mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://")) / path


def test_what_was_approved_in_the_review_needs_no_word_here(client, version, tmp_path):
    number = version()
    approval.decide(evidence_of(client, number), "approved", "Ada", "the legs are right", "review page", keys.own())
    told, card = run(tmp_path)
    assert (told["version"], told["approval_by"], told["approval_reason"]) == (number, "Ada", "the legs are right")
    assert told["looked_at"]["model"]["sha256"] in card.html()
    assert client.get_model_version("chairs", number).tags["approval"].endswith("/approval.json")


def test_what_was_looked_at_may_be_another_drawing_of_the_card_than_the_version_names(client, version, tmp_path):
    number = version()
    with mlflow.start_run() as project:
        mlflow.log_text("<h1>The card, drawn anew</h1>", "cards/evaluate.html")
    again = replace(
        evidence_of(client, number),
        card=approval.artifact(f"runs:/{project.info.run_id}/cards/evaluate.html", "card"),
    )
    approval.decide(again, "approved", "Ada", "the legs are right", "review page", keys.own())
    assert run(tmp_path)[0]["version"] == number


def test_an_approval_given_here_is_kept_as_one_of_the_review_is(client, version, tmp_path):
    number = version()
    run(tmp_path, **APPROVED)
    kept = approval.in_force(evaluated(client, number))
    assert (kept["by"], kept["how"], kept["decision"]) == ("Ada", "command line", "approved")
    assert approval.differences(kept, evidence_of(client, number)) == []


def test_a_rejection_stands_until_somebody_overrules_it_by_name(client, version, tmp_path):
    number = version()
    approval.decide(evidence_of(client, number), "rejected", "Grace", "the back is wrong", "review page", keys.own())
    with pytest.raises(RecipeError, match="Grace rejected it: the back is wrong"):
        run(tmp_path)
    run(tmp_path, **APPROVED)
    decisions = [file.path for file in client.list_artifacts(evaluated(client, number), approval.DECISIONS)]
    assert len([path for path in decisions if path.endswith(".json")]) == 2
    assert len([path for path in decisions if path.endswith(".intoto.jsonl")]) == 2


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("card.html", b"<h1>Another card</h1>", "the card is not the one that was looked at"),
        ("outputs/scores.json", None, "the scores are not those that were looked at"),
        ("provenance.intoto.jsonl", b"{}", "evaluate: run .* has a statement that cannot be read"),
        ("review/votes/one.json", b"{}", r"the votes are not those that were counted \(0 then, 1 now\)"),
        ("approval.json", b"{", "approval.json cannot be read"),
        ("approval.json", b'{"decision": "approved"}', "approval.json is not what was signed"),
        ("approval.intoto.jsonl", b"{}", "approval has a statement that cannot be read"),
    ],
)
def test_whatever_is_not_as_it_was_looked_at_is_refused(client, version, tmp_path, path, content, words):
    number = version()
    evidence = evidence_of(client, number)
    approval.decide(evidence, "approved", "Ada", "the legs are right", "review page", keys.own())
    file = lies(evidence.run_id, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(file.read_bytes() + b" " if content is None else content)
    with pytest.raises(RecipeError, match=words) as refused:
        run(tmp_path)
    assert "Nothing was changed" in str(refused.value)
    assert "champion" not in client.get_registered_model("chairs").aliases


def test_other_weights_than_those_evaluated_are_refused_whoever_approves(client, version, tmp_path):
    version()
    (tmp_path / "model 0/artifacts/adapter/pytorch_lora_weights.safetensors").write_bytes(b"other weights")
    with pytest.raises(RecipeError, match=r"not as it was registered: .*pytorch_lora_weights.safetensors was changed"):
        run(tmp_path, **APPROVED)


def test_a_tag_is_not_believed_whichever_way_it_lies(client, version, tmp_path):
    number = version("failed")
    client.set_model_version_tag("chairs", number, "verdict", "passed")
    with pytest.raises(RecipeError, match=r"its gates failed.*its tag says verdict=passed.*come to failed"):
        run(tmp_path, **APPROVED)
    number = version("passed")
    client.set_model_version_tag("chairs", number, "verdict", "failed")
    with pytest.raises(RecipeError, match="its tag says verdict=failed, and its scores come to passed"):
        run(tmp_path, **APPROVED)


def test_scores_whose_verdict_is_not_that_of_their_gates_are_refused(client, version, tmp_path):
    number = version("failed")
    file = lies(evaluated(client, number), approval.SCORES)
    file.write_text(file.read_text().replace('"verdict": "failed", "headline"', '"verdict": "passed", "headline"'))
    with pytest.raises(RecipeError, match="scores say 'passed', and the gates in them come to 'failed'"):
        run(tmp_path, **APPROVED)


def test_scores_without_a_verdict_are_named(client, version, tmp_path):
    number = version()
    lies(evaluated(client, number), approval.SCORES).write_text('{"gates": [], "pictures": []}')
    with pytest.raises(RecipeError, match="what should be scores has no verdict"):
        run(tmp_path, **APPROVED)
