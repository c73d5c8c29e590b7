"""Each run says what it made from what, signed, and is reused only where that holds."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from personalize import files
from personalize.evidence import keys
from personalize.recipe import provenance
from tests.recipe.conftest import Run
from tests.recipe.test_reuse import edit, plan


@pytest.fixture
def done(run: Run) -> Run:
    """The recipe has run once."""
    status, said = run("run")
    assert status == 0, said
    return run


def run_of(step: str) -> mlflow.entities.Run:
    (found, *_) = mlflow.search_runs(
        filter_string=f"tags.`recipe.step` = '{step}'", output_format="list", order_by=["start_time DESC"]
    )
    return found


def folder(run: mlflow.entities.Run) -> Path:
    return Path(run.info.artifact_uri.removeprefix("file://").replace("%20", " "))


def statement(step: str) -> provenance.Statement:
    return provenance.parse((folder(run_of(step)) / provenance.NAME).read_text())


def test_a_run_says_what_it_made_from_which_code_data_and_results(done: Run) -> None:
    read, report = statement("read"), statement("report")
    assert read.key == keys.own_id()
    outputs = folder(run_of("read")) / "outputs"
    assert read.subjects == files.tree_files(outputs, leave_out="diagnostics")
    assert set(provenance.data(read)) == {"read/texts"}
    count = provenance.dependency(report, "count")
    assert count["uri"] == f"runs:/{run_of('count').info.run_id}"
    assert count["digest"]["sha256"] == provenance.result(statement("count"))
    assert provenance.data(report) == provenance.data(read), "what came in at the beginning is told to the end"
    assert len(provenance.commits(report)) == 1
    assert provenance.dirty(report) == []


def test_uncommitted_code_of_one_step_is_told_by_those_after_it(run: Run, project: Path) -> None:
    assert run("run", "--step", "read")[0] == 0
    edit(project / "steps" / "count.py", "NEEDS", "ANSWER = 42\nNEEDS")
    assert run("run")[0] == 0
    assert provenance.dirty(statement("read")) == []
    assert provenance.dirty(statement("report")) == ["count", "report"]


def hand_made(like: mlflow.entities.Run, content: str, change: Callable[[Path, dict[str, str]], None]) -> None:
    """A finished run with the fingerprint, the count and the digest of tags that its outputs ask for."""
    client, place = mlflow.MlflowClient(), folder(like).parent / "forged"
    shutil.copytree(folder(like), place)
    made = next(file for file in (place / "outputs").rglob("*") if file.is_file())
    made.write_text(content)
    tags = {key: value for key, value in like.data.tags.items() if not key.startswith("mlflow.")}
    tags["recipe.outputs.digest"] = files.tree_digest(place / "outputs", leave_out="diagnostics")
    change(place, tags)
    run = client.create_run(like.info.experiment_id, tags=tags)
    client.log_artifacts(run.info.run_id, str(place))
    client.set_terminated(run.info.run_id)
    client.delete_run(like.info.run_id)


def untouched(place: Path, tags: dict[str, str]) -> None:
    """With the statement of the run that it copies."""


def without_statement(place: Path, tags: dict[str, str]) -> None:
    (place / provenance.NAME).unlink()


def with_tags_of_the_statement(place: Path, tags: dict[str, str]) -> None:
    said = provenance.parse((place / provenance.NAME).read_text())
    tags["recipe.outputs.digest"] = said.predicate["buildDefinition"]["internalParameters"]["outputs"]


def with_an_edited_statement(place: Path, tags: dict[str, str]) -> None:
    import base64

    envelope = json.loads((place / provenance.NAME).read_text())
    body = json.loads(base64.b64decode(envelope["payload"]))
    body["subject"] = []
    envelope["payload"] = base64.b64encode(json.dumps(body).encode()).decode()
    (place / provenance.NAME).write_text(json.dumps(envelope))


def unsigned(place: Path, tags: dict[str, str]) -> None:
    said = provenance.parse((place / provenance.NAME).read_text())
    predicate = json.loads(json.dumps(said.predicate))
    predicate["buildDefinition"]["internalParameters"]["outputs"] = tags["recipe.outputs.digest"]
    subjects = files.tree_files(place / "outputs", leave_out="diagnostics")
    (place / provenance.NAME).write_text(provenance.write(subjects, provenance.KIND, predicate, None))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (untouched, "has a digest in its tags that its statement does not have"),
        (without_statement, "has no statement of what it made"),
        (with_tags_of_the_statement, "is not as it was made: "),
        (with_an_edited_statement, "has a signature that does not fit: somebody changed the statement"),
        (unsigned, "is unsigned"),
    ],
)
def test_a_hand_made_run_with_the_right_fingerprint_is_not_reused(
    done: Run, change: Callable[[Path, dict[str, str]], None], words: str
) -> None:
    hand_made(run_of("count"), "forged", change)
    assert words in plan(done)["count"]
    status, said = done("run")
    assert status == 0, said
    assert "forged" not in "".join(
        file.read_text() for file in (folder(run_of("report")) / "outputs").rglob("*") if file.is_file()
    )


def test_outputs_that_were_changed_and_dated_back_are_made_again(done: Run) -> None:
    file = next(file for file in (folder(run_of("count")) / "outputs").rglob("*") if file.is_file())
    before = file.stat()
    file.write_bytes(b"#" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert f"is not as it was made: {file.name} was changed" in plan(done)["count"]
    assert plan(done)["read"] == "reuse"


def test_whose_runs_are_reused_is_the_policys_to_say(
    done: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = keys.own_id()
    keys.make(tmp_path / "another.pem")
    monkeypatch.setenv(keys.SETTING, str(tmp_path / "another.pem"))
    assert set(plan(done).values()) == {"reuse"}, "anyone's, where the recipe does not say"
    with (project / "recipe.yaml").open("a") as recipe:
        recipe.write("\ntrust: {makers: [own]}\n")
    assert f"is signed with key {first}, whose results do not count here" in plan(done)["read"]
    edit(project / "recipe.yaml", "[own]", f"[own, {first}]")
    assert set(plan(done).values()) == {"reuse"}
    edit(project / "recipe.yaml", "makers", "maker")
    status, said = done("run", "--plan")
    assert status == 2
    assert "trust.maker: Extra inputs are not permitted" in said


def test_without_a_key_runs_are_unsigned_and_reused_where_nothing_is_signed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = os.environ[keys.SETTING]
    monkeypatch.setenv(keys.SETTING, keys.OFF)
    status, said = run("run")
    assert status == 0
    assert "unsigned: there is no signing key" in said
    assert set(plan(run).values()) == {"reuse"}
    monkeypatch.setenv(keys.SETTING, own)
    assert plan(run)["read"].endswith("is unsigned")
    monkeypatch.setenv(keys.SETTING, "/nowhere/key.pem")
    status, said = run("run")
    assert status == 2
    assert "the signing key /nowhere/key.pem cannot be read" in said
    assert "openssl genpkey -algorithm ed25519" in said
