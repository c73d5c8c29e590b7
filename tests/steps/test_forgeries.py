"""What somebody who may write to the store, and has no trusted key, cannot get promoted or served."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from safetensors.numpy import load, save

from personalize.evidence import keys
from personalize.evidence.statement import write
from personalize.evidence.trust import Trust
from personalize.recipe import Inputs, RecipeError, finding, provenance
from personalize.recipe.fingerprint import Lineage
from personalize.recipe.past import find
from personalize.recipe.tracking import Store
from personalize.review import approval
from personalize.serving.registry import resolve
from steps import deploy, promote, register, verify
from steps.evidence import chain_of
from tests.review import world
from tests.review.world import evaluation
from tests.steps.conftest import perform

APPROVED = {"approved_by": "Ada", "reason": "the legs are right"}
ADAPTER = "artifacts/adapter/pytorch_lora_weights.safetensors"
WEIGHTS = save({"lora": np.ones((4, 4), np.float32)})
DIRTY = Lineage(commit="c0ffee" + "0" * 34, dirty=True)


@pytest.fixture
def place(store: Path) -> Path:
    """The folder of the one registered version, in a store of its own."""
    return store / "model"


@pytest.fixture
def registered(place: Path) -> Callable[..., world.Made]:
    """Evaluates and registers it as version 1; the arguments are those of `world.evaluation`."""

    def registered(verdict: str = "passed", **more: object) -> world.Made:
        made = evaluation(place.with_name("made"), weights=WEIGHTS, gates=[verdict], verdict=verdict, **more)
        world.version(made, place, weights=WEIGHTS, verdict=verdict)
        return made

    return registered


def promoted(tmp_path: Path, **config: object) -> dict:
    with mlflow.start_run():
        perform("promote", promote.Config(name="chairs", **{**APPROVED, **config}), Inputs({}), tmp_path / "promoted")
    return json.loads((tmp_path / "promoted" / "promotion.json").read_text())


def deployed(**config: object) -> str:
    """What the deploy step does before it starts a server."""
    config = deploy.Config(**{"model": "chairs", **config})
    return deploy.approved(config, deploy.find_version(config, Inputs({})))


def champion() -> str:
    return str(mlflow.MlflowClient().get_registered_model("chairs").aliases.get("champion", ""))


def lies(run_id: str, path: str) -> Path:
    return Path(mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://")) / path


def times_minus_three(file: Path) -> None:
    """Other weights in a file of the same size, dated as before."""
    before = file.stat()
    file.write_bytes(save({name: -3 * weights for name, weights in load(file.read_bytes()).items()}))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


@pytest.fixture
def another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """From now on somebody else works here, with another key; gives its id."""

    def another() -> str:
        keys.make(tmp_path / "another.pem")
        monkeypatch.setenv(keys.SETTING, str(tmp_path / "another.pem"))
        return keys.own_id()

    return another


def test_what_was_promoted_is_deployed(registered, tmp_path, capsys):
    registered()
    assert promoted(tmp_path)["version"] == champion() == "1"
    assert deployed() == keys.own_id(), "the server is told whose model it may load"
    assert "approved by Ada" in capsys.readouterr().out


def test_a_champion_whose_weights_were_changed_in_the_store_is_not_deployed(registered, place, tmp_path):
    registered()
    promoted(tmp_path)
    times_minus_three(place / ADAPTER)
    with pytest.raises(RecipeError, match=r"pytorch_lora_weights\.safetensors was changed.*Nothing was deployed"):
        deploy.run(deploy.Config(model="chairs", folder=str(tmp_path / "endpoints")), Inputs({}), tmp_path)
    with pytest.raises(RecipeError, match="was changed"):
        deployed(trial=True)
    assert not (tmp_path / "endpoints").exists()


def test_weights_that_were_changed_in_a_finished_train_run_are_not_registered(store, tmp_path):
    made = evaluation(store / "made", weights=WEIGHTS)
    times_minus_three(lies(made.runs["train"], "outputs/lora/pytorch_lora_weights.safetensors"))
    past = find(made.evaluate, "evaluate")
    inputs = Inputs({"train": past.inputs["train"], "evaluate": past.own})
    with mlflow.start_run(), pytest.raises(RecipeError, match=r"not as they were made: lora/pytorch_lora_weights"):
        register.run(register.Config(name="chairs"), inputs, tmp_path)
    assert mlflow.MlflowClient().search_registered_models() == []


def test_a_version_of_other_weights_is_not_promoted_with_the_old_card(registered, place, tmp_path):
    made = registered()
    times_minus_three(lies(made.runs["train"], "outputs/lora/pytorch_lora_weights.safetensors"))
    with pytest.raises(RecipeError, match=r"train: run .* is not as it was made.*weights are not those that were eval"):
        promoted(tmp_path)
    assert champion() == ""


def test_a_verdict_set_by_hand_promotes_and_deploys_nothing(registered, tmp_path):
    made = registered("failed")
    client = mlflow.MlflowClient()
    client.set_model_version_tag("chairs", "1", "verdict", "passed")
    client.set_tag(made.evaluate, "verdict", "passed")
    with pytest.raises(RecipeError, match="its gates failed"):
        promoted(tmp_path)
    client.set_registered_model_alias("chairs", "champion", "1")
    with pytest.raises(RecipeError, match=r"its gates failed.*nobody has approved it"):
        deployed()


def test_approval_tags_set_by_hand_promote_and_deploy_nothing(registered, tmp_path):
    registered()
    client = mlflow.MlflowClient()
    for key, value in {"approval_by": "Ada", "approval_reason": "fine", "Approval_Check": "Approved"}.items():
        client.set_model_version_tag("chairs", "1", key, value)
    client.set_registered_model_alias("chairs", "challenger", "1")
    with pytest.raises(RecipeError, match=r"nobody says who approves.*tags are shown, never believed"):
        promoted(tmp_path, approved_by="", reason="")
    client.set_registered_model_alias("chairs", "champion", "1")
    with pytest.raises(RecipeError, match="nobody has approved it"):
        deployed()


@pytest.mark.parametrize("how", ["by hand", "unsigned", "another key"])
def test_an_approval_that_no_trusted_key_has_signed_is_none(registered, tmp_path, another, monkeypatch, how):
    made = registered()
    evidence = chain_of("chairs", "1", Trust()).evidence
    mine = keys.own()
    signer = None
    if how == "another key":
        another()
        signer = keys.own()
        monkeypatch.undo()
        assert keys.own().public_key == mine.public_key
    approval.decide(evidence, "approved", "Ada", "fine", "by hand", signer)
    if how == "by hand":
        lies(made.evaluate, approval.SIGNED).unlink()
    words = {"by hand": "statement of the approval .* is gone", "unsigned": "approval is unsigned"}
    with pytest.raises(RecipeError, match=words.get(how, "which may not approve here")):
        promoted(tmp_path, approved_by="", reason="")
    mlflow.MlflowClient().set_registered_model_alias("chairs", "champion", "1")
    with pytest.raises(RecipeError, match=words.get(how, "which may not approve here")):
        deployed()


def test_what_uncommitted_code_made_is_promoted_only_where_the_profile_allows_it_and_loudly(
    registered, tmp_path, capsys
):
    registered(lineage=DIRTY)
    with pytest.raises(RecipeError, match=r"train ran on code that no commit holds .*trust\.dirty"):
        promoted(tmp_path)
    assert champion() == ""
    allowed = Trust(dirty=True)
    assert "train ran on code" in promoted(tmp_path, trust=allowed)["dirty"]
    assert "DIRTY: " in capsys.readouterr().out
    deployed(trust=allowed)
    assert "DIRTY: " in capsys.readouterr().out
    with pytest.raises(RecipeError, match=r"trust\.dirty"):
        deployed()


def test_what_was_made_again_and_came_out_otherwise_is_not_promoted(registered, tmp_path):
    made = registered()
    again = made_again(made, agrees=False)
    refused = rf"made again as run {again[:8]}, it came to something else.*differing"
    with pytest.raises(RecipeError, match=refused):
        promoted(tmp_path)
    assert promoted(tmp_path, trust=Trust(differing=True))["version"] == "1"
    mlflow.MlflowClient().set_tag(again, finding.AGREES, "true")
    with pytest.raises(RecipeError, match=refused):
        deployed()


@pytest.mark.parametrize("how", ["signed", "a tag", "unsigned", "a stranger", "of another result"])
def test_that_it_came_to_the_same_after_all_is_believed_where_it_is_signed(registered, tmp_path, how):
    made = registered()
    made_again(made, agrees=False)
    if how == "a tag":
        again = made_again(made, agrees=True)
        lies(again, finding.FILE).unlink()
    elif how == "of another result":
        again = made_again(made, agrees=True)
        signed = lies(again, finding.FILE)
        signed.write_text(write(dict.fromkeys(made.runs, "0" * 64), finding.KIND, {"agrees": True}, keys.own()))
    else:
        signer = {"signed": keys.own(), "unsigned": None}.get(how)
        if how == "a stranger":
            keys.make(tmp_path / "stranger.pem")
            signer = keys._load(tmp_path / "stranger.pem")
        again = made_again(made, agrees=True, signer=signer)
    trust = Trust(makers=("own",))
    if how == "signed":
        assert promoted(tmp_path, trust=trust)["version"] == "1"
        assert f"made again as run {again[:8]}, it came to the same" in str(chain_of("chairs", "1", trust).links)
    else:
        with pytest.raises(RecipeError, match="it came to something else"):
            promoted(tmp_path, trust=trust)


def made_again(made: world.Made, agrees: bool, **signed: object) -> str:
    """What `reproduce` leaves of these runs."""
    client = mlflow.MlflowClient()
    experiment = mlflow.get_run(made.project).info.experiment_id
    again = client.create_run(experiment, tags={"reproduces": made.project}).info.run_id
    store = Store(client, experiment, [experiment], Path.cwd())
    runs = {step: store.by_id(run) for step, run in made.runs.items()}
    finding.keep(store, again, runs, agrees, "to the byte", signed.get("signer", keys.own()))
    return again


def test_a_dirty_tree_is_not_made_clean_by_a_tag(registered, tmp_path):
    made = registered(lineage=DIRTY)
    for run in made.runs.values():
        mlflow.MlflowClient().set_tag(run, "lineage.dirty", "false")
    with pytest.raises(RecipeError, match=r"trust\.dirty"):
        promoted(tmp_path)


def test_a_version_that_nobody_approved_is_not_deployed_by_its_number(registered, capsys):
    registered()
    with pytest.raises(RecipeError, match="nobody has approved it") as refused:
        deployed(model="models:/chairs/1")
    assert "-P deploy.trial=true" in str(refused.value)
    assert deployed(model="models:/chairs/1", trial=True) == keys.own_id()
    assert "TRIAL: nobody needs to have approved chairs version 1" in capsys.readouterr().out
    with pytest.raises(ValueError, match="host 127"):
        deploy.Config(trial=True, host="0.0.0.0")


def test_an_approval_that_was_taken_back_ends_deploying(registered, tmp_path):
    registered()
    promoted(tmp_path)
    evidence = chain_of("chairs", "1", Trust()).evidence
    approval.decide(evidence, "rejected", "Grace", "the back is wrong", "review page", keys.own())
    with pytest.raises(RecipeError, match="Grace rejected it"):
        deployed()


def miswire(place: Path) -> None:
    content = yaml.safe_load((place / "MLmodel").read_text())
    content["flavors"]["python_function"]["config"]["device"] = "cuda"
    (place / "MLmodel").write_text(yaml.safe_dump(content))


def append(name: str) -> Callable[[Path], object]:
    return lambda place: (place / name).write_bytes(
        ((place / name).read_bytes() if (place / name).exists() else b"") + b"#"
    )


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (append("code/personalize/__init__.py"), "code/personalize/__init__.py was changed"),
        (append("code/torch.py"), "code/torch.py was added"),
        (append("model.py"), "model.py was changed"),
        (append("artifacts/base/model_index.json"), "artifacts/base/model_index.json was changed"),
        (lambda place: (place / "artifacts/base/model_index.json").unlink(), "model_index.json is gone"),
        (miswire, "MLmodel names another settings"),
        (append("requirements.txt"), "requirements.txt asks for other packages"),
        (append("artifacts/evidence/statement.intoto.jsonl"), "it has a statement that cannot be read"),
        (lambda place: (place / "artifacts/evidence/statement.intoto.jsonl").unlink(), "it has no statement"),
    ],
)
def test_a_model_in_which_anything_was_edited_is_neither_promoted_nor_deployed(
    registered, place, tmp_path, forge, words
):
    registered()
    promoted(tmp_path)
    forge(place)
    with pytest.raises(RecipeError, match=words):
        promoted(tmp_path)
    with pytest.raises(RecipeError, match=words):
        deployed()


def test_a_model_that_was_made_whole_with_another_key_is_not_promoted_where_only_own_ones_count(
    registered, tmp_path, another, monkeypatch
):
    with monkeypatch.context():
        forger = another()
        registered()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=rf"its statement is signed with key {forger}, whose results do not count"):
        promoted(tmp_path, trust=Trust(makers=("own",)))
    assert promoted(tmp_path, trust=Trust(makers=("own", forger)))["version"] == "1"


def test_who_trained_may_not_approve_where_four_eyes_are_asked_for(registered, tmp_path, another):
    registered()
    trainer = keys.own_id()
    four_eyes = Trust(four_eyes=True, makers=(trainer,))
    with pytest.raises(RecipeError, match="both trained and approved"):
        promoted(tmp_path, trust=four_eyes)
    approver = another()
    promoted(tmp_path, trust=four_eyes)
    assert deployed(trust=four_eyes.model_copy(update={"approvers": (approver,)}))


def test_who_trained_is_read_from_the_training_and_not_from_what_was_said_of_it(registered, tmp_path, monkeypatch):
    """Whoever trained, evaluated and approves may sign an evaluation that names somebody else as the trainer."""
    other, state = "d" * 64, provenance.state

    def forged(outputs, components, config, inputs, *rest):
        told = {step: (run, replace(of, key=other) if step == "train" else of) for step, (run, of) in inputs.items()}
        return state(outputs, components, config, told, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(provenance, "state", forged)
        registered()
    with pytest.raises(RecipeError, match=f"train: run .* is signed with .*, and not with key {other[:12]}"):
        promoted(tmp_path, trust=Trust(four_eyes=True, makers=("own",)))


def test_four_eyes_mean_something_only_where_makers_are_named():
    with pytest.raises(ValueError, match="four_eyes needs makers that are named"):
        Trust(four_eyes=True)


def test_without_a_key_all_works_and_is_called_unsigned(registered, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(keys.SETTING, keys.OFF)
    registered()
    promoted(tmp_path)
    assert deployed() == ""
    said = capsys.readouterr().out
    assert "unsigned: there is no signing key" in said
    assert "(unsigned)" in said
    monkeypatch.delenv(keys.SETTING)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with pytest.raises(RecipeError, match=r"its statement is unsigned.*the approval is unsigned"):
        deployed()
    assert keys.own_place().stat().st_mode & 0o777 == 0o600, "made at first use, for its owner alone"
    assert deployed(trust=Trust(unsigned=True)) == ""


# Verify.


def verified(tmp_path: Path, **config: str) -> dict[str, dict]:
    """The links by name; raises as the step does."""
    with mlflow.start_run():
        perform("verify", verify.Config(name="chairs", **config), Inputs({}), tmp_path / "verified")
    return {link["name"]: link for link in json.loads((tmp_path / "verified/verification.json").read_text())["links"]}


def test_verify_says_link_by_link_what_holds(registered, tmp_path, capsys):
    made = registered()
    promoted(tmp_path)
    links = verified(tmp_path, model="models:/chairs/1")
    steps = ("ingest", "caption", "train", "baseline", "draw", "evaluate")
    others = (
        "statement",
        "files",
        "code",
        "data",
        "environment",
        "weights",
        "card",
        "scores",
        "verdict",
        "approval",
        "place",
    )
    assert set(links) == {*steps, *others}
    assert all(link["holds"] for link in links.values())
    assert links["data"]["words"] == "ingest/photographs abababababab"
    assert links["code"]["words"] == "c0ffee000000"
    assert links["approval"]["words"].startswith("Ada on 20")
    assert f"the key of this machine is {keys.own_id()}" in capsys.readouterr().out
    assert set(verified(tmp_path, model=made.evaluate)) == set(steps)
    assert set(verified(tmp_path, model=made.project)) == set(steps)


def test_verify_ends_with_an_error_and_names_what_does_not_hold(registered, tmp_path):
    made = registered()
    with pytest.raises(RecipeError, match="chairs version 1 does not hold: nobody has approved it"):
        verified(tmp_path)
    promoted(tmp_path)
    lies(made.runs["ingest"], "outputs/images/metadata.jsonl").write_text("{}")
    with pytest.raises(RecipeError, match=r"ingest: run .* is not as it was made: images/metadata\.jsonl was changed"):
        verified(tmp_path)
    links = json.loads((tmp_path / "verified/verification.json").read_text())["links"]
    assert [link["name"] for link in links if not link["holds"]] == ["ingest"]
    with pytest.raises(RecipeError, match="ingest: run"):
        verified(tmp_path, model=made.evaluate)
    with pytest.raises(RecipeError, match="there is no run"):
        verified(tmp_path, model="0" * 32)


def test_the_version_that_is_meant_is_the_one_that_is_checked(registered, tmp_path):
    registered()
    promoted(tmp_path)
    assert resolve("models:/chairs@champion").version == "1"
    with pytest.raises(RecipeError, match="is in no registry"):
        deployed(model="runs:/abc/model")
