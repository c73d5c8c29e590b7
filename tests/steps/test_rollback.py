"""Going back to what was approved once is a decision, whoever may write to registry and store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from personalize.evidence import keys
from personalize.evidence.statement import write
from personalize.evidence.trust import Trust
from personalize.recipe import Inputs, RecipeError
from personalize.review import approval
from personalize.serving import promotions
from steps import deploy, draw, promote, verify
from steps.evidence import chain_of
from tests.review import world
from tests.review.world import evaluation
from tests.steps.conftest import perform

ADA = {"approved_by": "Ada", "reason": "the legs are right"}
BACK = {"rollback": True, "approved_by": "Ada", "reason": "the new one paints it blue"}
TAKEN = r"version 2 \(by Ada on 20.*\) was promoted instead of it, and going back is a decision: .*-P rollback=true"


@pytest.fixture
def promoted(store: Path) -> Callable[..., dict]:
    def promoted(version: str, **config: object) -> dict:
        outputs = store / "promoted"
        with mlflow.start_run():
            perform("promote", promote.Config(name="chairs", version=version, **config), Inputs({}), outputs)
        return json.loads((outputs / "promotion.json").read_text())

    return promoted


@pytest.fixture
def two(store: Path, promoted: Callable[..., dict]) -> list[world.Made]:
    """Versions 1 and 2, promoted one after the other."""
    found = []
    for number in ("1", "2"):
        place = store / f"model {number}"
        found.append(evaluation(store / f"made {number}", weights=number.encode(), gates=["passed"]))
        world.version(found[-1], place, weights=number.encode())
        promoted(number, **ADA)
    return found


def deployed(model: str = "chairs", **config: object) -> str:
    """What the deploy step does before it starts a server."""
    asked = deploy.Config(model=model, **config)
    return deploy.approved(asked, deploy.find_version(asked, Inputs({})))


def alias(version: str) -> None:
    mlflow.MlflowClient().set_registered_model_alias("chairs", "champion", version)


def champion() -> str:
    return str(mlflow.MlflowClient().get_registered_model("chairs").aliases["champion"])


def lies(run_id: str, path: str) -> Path:
    return Path(mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://")) / path


def forget(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From now on this is a machine that has seen nothing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))


def test_an_older_version_is_deployed_neither_by_a_moved_alias_nor_by_its_number(two, promoted):
    deployed()
    for model in ("chairs", "models:/chairs/1"):
        alias("1")
        with pytest.raises(RecipeError, match=TAKEN):
            deployed(model)
    deployed("models:/chairs/2")


def test_an_older_version_becomes_the_champion_only_by_a_word_with_a_name_and_a_reason(two, promoted):
    for moved in ("2", "1"):
        alias(moved)
        for config in ({}, ADA):
            with pytest.raises(RecipeError, match=TAKEN):
                promoted("1", **config)
        with pytest.raises(RecipeError, match="who goes back says so and why"):
            promoted("1", rollback=True)
    assert promoted("1", **BACK)["rollback"]
    assert champion() == "1"
    deployed()
    with pytest.raises(RecipeError, match=r"version 1 \(by Ada on 20.*paints it blue\) was promoted instead of it"):
        promoted("2", **ADA)  # nor does the newer one come back by itself
    promoted("2", **BACK)
    deployed("models:/chairs/2")


def test_a_newer_version_needs_no_such_word(two, promoted, store):
    made = evaluation(store / "made 3", weights=b"3", gates=["passed"])
    world.version(made, store / "model 3", weights=b"3")
    assert promoted("3", **ADA)["rollback"] is False
    assert promoted("3")["already"], "and once it is there nothing is done"


def test_a_champion_that_was_moved_back_is_not_what_a_new_model_is_compared_with(two, store, monkeypatch):
    monkeypatch.setattr(draw, "registered", lambda *_: None)  # these models have no adapter that draws
    asked = draw.Config(base_model=str(store), champion="chairs")
    draw.check(asked)
    alias("1")
    with pytest.raises(RecipeError, match=r"version 1, which the alias champion names: version 2 .* was promoted last"):
        draw.check(asked)


def test_verify_says_of_an_older_version_what_took_its_place_and_fails_where_it_is_the_champion(two, store):
    def verified(**config: str) -> dict[str, dict]:
        with mlflow.start_run():
            perform("verify", verify.Config(name="chairs", **config), Inputs({}), store / "verified")
        return {each["name"]: each for each in json.loads((store / "verified/verification.json").read_text())["links"]}

    assert verified()["place"]["words"] == "promoted last"
    older = verified(model="models:/chairs/1")["place"]
    assert older["holds"]
    assert "version 2 (by Ada" in older["words"]
    alias("1")
    with pytest.raises(RecipeError, match=TAKEN):
        verified()


def replay(two: list[world.Made]) -> None:
    """The store as it was after the first promotion, as far as somebody who may write to it can make it."""
    client = mlflow.MlflowClient()
    alias("1")
    client.set_registered_model_tag("chairs", promotions.POINTER, f"runs:/{two[0].evaluate}/{promotions.FILE}")


def test_an_older_state_of_the_whole_registry_is_found_by_a_machine_that_has_seen_the_newer_one(
    two, promoted, monkeypatch, tmp_path
):
    replay(two)
    said = r"last promotion that this machine has seen is number 2, and this is number 1: somebody put an older state"
    with pytest.raises(RecipeError, match=said):
        deployed()
    with pytest.raises(RecipeError, match=said):
        promoted("1", **ADA)
    with monkeypatch.context() as elsewhere:
        forget(elsewhere, tmp_path)
        deployed()  # it cannot know; docs/evidence.md says so
    promoted("1", **BACK)  # as after a backup was put back
    deployed()
    promoted("2", **ADA)
    deployed()


@pytest.mark.parametrize("gone", [0, -1])
def test_promotions_from_which_a_line_was_taken_are_not_believed(two, monkeypatch, tmp_path, gone):
    file = lies(two[1].evaluate, promotions.FILE)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if line != lines[gone]))
    if gone == 0:
        forget(monkeypatch, tmp_path)  # what lies there is enough to find it
    said = {0: "do not follow upon each other", -1: "number 2, and this is number 1"}[gone]
    with pytest.raises(RecipeError, match=said):
        deployed()


def test_a_way_back_that_nobody_who_may_approve_has_signed_does_not_count(two, tmp_path, monkeypatch):
    keys.make(tmp_path / "another.pem")
    own = keys.own_id()
    forget(monkeypatch, tmp_path)
    with monkeypatch.context() as forger:
        forger.setenv(keys.SETTING, str(tmp_path / "another.pem"))
        evidence = chain_of("chairs", "1", Trust()).evidence
        past = promotions.history("chairs", two[1].evaluate, Trust(approvers=(own,)))
        promotions.add(past, "1", evidence, "Ada", "the new one paints it blue", keys.own())
    forget(monkeypatch, tmp_path / "fresh")
    alias("1")
    with pytest.raises(RecipeError, match=TAKEN):
        deployed()


def test_promotions_of_another_model_are_not_those_of_this_one(two):
    file = lies(two[1].evaluate, promotions.FILE)
    other = {"name": "tables", "version": "9", "number": 9, "by": "Ada", "reason": "fine", "at": "2026-01-01"}
    file.write_text(write({"model": "0" * 64}, promotions.KIND, other, keys.own()))
    with pytest.raises(RecipeError, match="do not follow upon each other"):
        deployed()


def rejected(made: world.Made) -> Callable[[], None]:
    """Rejects version 2, and gives back what puts the approval before it in its place again."""
    shown, signed = lies(made.evaluate, approval.APPROVAL), lies(made.evaluate, approval.SIGNED)
    before = shown.read_bytes(), signed.read_bytes()
    evidence = chain_of("chairs", "2", Trust()).evidence
    approval.decide(evidence, "rejected", "Grace", "the back is wrong", "review page", keys.own())

    def put_back() -> None:
        shown.write_bytes(before[0])
        signed.write_bytes(before[1])

    return put_back


def test_an_approval_that_was_put_back_over_a_later_rejection_is_found(two, monkeypatch, tmp_path):
    put_back = rejected(two[1])
    with pytest.raises(RecipeError, match="Grace rejected it"):
        deployed()
    put_back()
    with monkeypatch.context() as elsewhere:
        forget(elsewhere, tmp_path)
        with pytest.raises(
            RecipeError, match=r"last decision that is kept beside it is number 2, and this is number 1"
        ):
            deployed()
    for file in lies(two[1].evaluate, approval.DECISIONS).glob("*"):  # all trace of the rejection is gone
        if b"rejected" in file.read_bytes() or file.suffix == ".jsonl":
            file.unlink()
    with pytest.raises(
        RecipeError, match=r"last decision that this machine has seen is number 2, and this is number 1"
    ):
        deployed()
    evidence = chain_of("chairs", "2", Trust()).evidence
    approval.decide(evidence, "approved", "Ada", "looked again", "review page", keys.own())
    deployed()
