"""A fleet's review: who looks at what is not chosen, and the approval says what the sample shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from personalize.cards import Card
from personalize.evidence import keys
from personalize.files import tree_digest, write_rows
from personalize.recipe import Inputs, RecipeError, provenance
from personalize.recipe.fingerprint import Components, Lineage
from personalize.review import approval
from personalize.review.acceptance import most_bad
from steps import fleet_review, promote
from tests.review import world
from tests.steps.conftest import perform

Fleet = Callable[..., tuple[str, dict[str, dict[str, Any]]]]
GIVEN = {"approved_by": "Ada", "reason": "the legs are right"}


@pytest.fixture
def fleet(store: Path, tmp_path: Path) -> Fleet:
    """A fleet's run over evaluated, registered subjects: its id, and its rows by subject."""

    def fleet(*verdicts: str) -> tuple[str, dict[str, dict[str, Any]]]:
        rows = {}
        for number, verdict in enumerate(verdicts):
            place, token = tmp_path / f"made {number}", "zwvchr"
            weights = str(place).encode()
            made = world.evaluation(place, tokens=[token], weights=weights, gates=[verdict], verdict=verdict)
            version = world.version(made, place, weights=weights, verdict=verdict)
            rows[f"chair/tok{number}"] = {
                "subject": f"chair/tok{number}", "tokens": [f"tok{number}"], "class_noun": "chair", "verdict": verdict,
                "judged": made.evaluate, "card": made.card, "said": {"version": version}, "metrics": {"clip_t": 0.6},
                "picture": "",
            }  # fmt: skip
        outputs = tmp_path / "fleet" / "outputs"
        outputs.mkdir(parents=True)
        write_rows(outputs / "subjects.jsonl", rows.values())
        client, experiment = mlflow.MlflowClient(), mlflow.set_experiment("steps").experiment_id
        components = Components("fleet", {}, {}, {}, {}, {})
        tags = {"recipe.step": "fleet", "recipe.fingerprint": components.digest, "recipe.outputs.files": "1"}
        tags["recipe.outputs.digest"] = tree_digest(outputs)
        run = client.create_run(experiment, tags=tags).info.run_id
        client.log_text(run, json.dumps({"inputs": {}, "config": {}}), "made.json")
        said = provenance.state(outputs, components, {}, {}, Lineage(), run, keys.own())
        client.log_text(run, said, provenance.NAME)
        client.log_artifacts(run, str(outputs), "outputs")
        client.set_terminated(run)
        return run, rows

    return fleet


def review(tmp_path: Path, run: str, **config: Any) -> tuple[dict[str, Any], Card]:
    outputs = tmp_path / f"reviewed {len(list(tmp_path.glob('reviewed *')))}"
    with mlflow.start_run():
        card = perform("fleet_review", fleet_review.Config(name="chairs", fleet=run, **config), Inputs({}), outputs)
    return json.loads((outputs / "review.json").read_text()), card


def test_a_sample_is_drawn_and_nothing_is_approved_yet(fleet: Fleet, tmp_path: Path) -> None:
    run, rows = fleet("passed", "failed", "passed", "passed")
    told, card = review(tmp_path, run, sample=2)
    assert told["passed"] == 3
    assert len(told["looked_at"]) == 2
    assert "chair/tok1" not in told["looked_at"]
    assert card.came_to == "open"
    again, _ = review(tmp_path, run, sample=3)
    assert again["looked_at"][:2] == told["looked_at"]
    assert not any(approval.in_force(row["judged"]) for row in rows.values())


def test_those_that_passed_are_approved_together_and_each_can_be_promoted(fleet: Fleet, tmp_path: Path) -> None:
    run, rows = fleet("passed", "failed", "passed", "passed")
    told, card = review(tmp_path, run, **GIVEN)
    assert told["approved"] == ["chair/tok0", "chair/tok2", "chair/tok3"]
    assert card.came_to == "approved"
    record = approval.in_force(rows["chair/tok2"]["judged"])
    assert record is not None
    assert record["by"] == "Ada"
    assert "3 of 3 looked at, none bad: at most 0 % of all are (0), with 95 % confidence" in record["reason"]
    assert record["sample"]["looked_at"] == told["looked_at"]
    assert approval.in_force(rows["chair/tok1"]["judged"]) is None
    version = rows["chair/tok2"]["said"]["version"]
    assert mlflow.MlflowClient().get_model_version("chairs", version).tags["approval_by"] == "Ada"
    with mlflow.start_run():
        perform("promote", promote.Config(name="chairs", version=version), Inputs({}), tmp_path / "promoted")
    assert str(mlflow.MlflowClient().get_model_version_by_alias("chairs", "champion").version) == version

    def decisions(judged: str) -> int:
        return len(mlflow.MlflowClient().list_artifacts(judged, approval.DECISIONS))

    before = decisions(rows["chair/tok2"]["judged"])
    review(tmp_path, run, **GIVEN)
    assert decisions(rows["chair/tok2"]["judged"]) == before, "the same again decides nothing again"


def test_bad_ones_are_rejected_and_what_the_sample_shows_must_be_enough(fleet: Fleet, tmp_path: Path) -> None:
    run, rows = fleet("passed", "passed", "passed", "passed")
    first = review(tmp_path, run, sample=1)[0]["looked_at"][0].removeprefix("chair/")
    with pytest.raises(RecipeError, match=r"nothing is approved: 1 of 4 looked at, none bad: at most 75\.0 % of all"):
        review(tmp_path, run, sample=1, **GIVEN)
    assert not any(approval.in_force(row["judged"]) for row in rows.values())
    told, _ = review(tmp_path, run, sample=4, bad=first, at_most=0.3, **GIVEN)
    assert told["rejected"] == [f"chair/{first}"]
    assert len(told["approved"]) == 3
    assert told["most_bad"] == most_bad(4, 4, 1) == 1
    record = approval.in_force(rows[f"chair/{first}"]["judged"])
    assert record is not None
    assert record["decision"] == "rejected"


def test_who_is_not_in_the_sample_or_not_named_is_said(fleet: Fleet, tmp_path: Path) -> None:
    run, _ = fleet("passed", "passed")
    with pytest.raises(RecipeError, match="bad=tok7 is not in the sample"):
        review(tmp_path, run, bad="tok7")
    with pytest.raises(RecipeError, match="who approves, and why"):
        review(tmp_path, run, approved_by="Ada")
    with pytest.raises(RecipeError, match="nothing has passed"):
        review(tmp_path, fleet_of_none(fleet))


def fleet_of_none(fleet: Fleet) -> str:
    import shutil

    for place in Path.cwd().glob("made *"):
        shutil.rmtree(place)
    shutil.rmtree(Path.cwd() / "fleet")
    return fleet("failed")[0]


def test_scores_that_were_changed_are_not_approved(fleet: Fleet, tmp_path: Path) -> None:
    run, rows = fleet("passed", "passed")
    info = mlflow.get_run(rows["chair/tok1"]["judged"]).info
    scores = Path(info.artifact_uri.removeprefix("file://")) / "outputs" / "scores.json"
    scores.write_text(scores.read_text().replace("as it is", "as it was"))
    told, card = review(tmp_path, run, **GIVEN)
    assert told["approved"] == ["chair/tok0"]
    assert told["left_out"][0]["subject"] == "chair/tok1"
    assert "not as they were made" in told["left_out"][0]["why"]
    assert "could not be approved" in str(card.blocks[0]["reasons"])
