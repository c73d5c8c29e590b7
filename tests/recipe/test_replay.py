"""`reproduce` of parts: the step's own code of that commit does them again, from what its run has signed and kept."""

import json
import re
from pathlib import Path

import mlflow
import pytest

from personalize.evidence import keys
from personalize.evidence.trust import Trust
from personalize.recipe.finding import reproduced
from tests.recipe.conftest import REPOSITORY, Run, git
from tests.recipe.test_provenance import folder, run_of
from tests.recipe.test_reuse import edit


@pytest.fixture
def done(run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, str]:
    """The recipe has run once: the command line, and the project run's id."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    assert run("run")[0] == 0
    return run, run_of("count").data.tags["mlflow.parentRunId"]


def parts_of(run_id: str) -> list[mlflow.entities.Run]:
    return mlflow.search_runs(
        filter_string=f"tags.reproduces = '{run_id}'", output_format="list", order_by=["start_time DESC"]
    )


def test_parts_are_done_again_in_the_runs_own_commit(done, project: Path) -> None:
    run, run_id = done
    edit(project / "counting" / "tally.py", "text.lower()", "text.upper()")
    git(project, "commit", "-q", "-a", "-m", "louder")
    before = len(mlflow.search_runs(search_all_experiments=True))
    status, said = run("reproduce", "--run", run_id, "--segments", "2", "--seed", "5")
    assert status == 0, said
    assert "seed 5 " in said
    assert re.search(r"holds  read +run \w{8}, signed with key", said), "what it was given is as it was made"
    assert len(re.findall(r"holds  \w+ +(\d) then, \1 now", said)) == 2
    assert f"run {run_id[:8]} holds where it was looked at, to the byte" in said
    (found,) = parts_of(run_id)
    assert found.data.tags["reproduces.agrees"] == "true"
    assert found.data.tags["reproduces.parts"] == "2, seed 5"
    links = json.loads((folder(found) / "replay.json").read_text())
    assert [link["name"] for link in links[:3]] == ["count", "read", "settings"]
    assert len(mlflow.search_runs(search_all_experiments=True)) == before + 1, "nothing else was made"
    assert git(project, "worktree", "list").count("\n") == 1
    drawn = re.search(r"-P seed=(\d+)", run("reproduce", "--run", run_id, "--segments", "1")[1])
    assert drawn, "a seed that was not given is drawn and said"


def test_what_was_changed_or_was_never_so_is_named_and_stands_against_promotion(done, tmp_path, monkeypatch) -> None:
    run, run_id = done
    counts = folder(run_of("count")) / "outputs" / "counts.json"
    counts.write_text(json.dumps(json.loads(counts.read_text()) | {"the": 7}))
    status, said = run("reproduce", "--run", run_id, "--segments", "9")
    assert status == 1, said
    assert "FAILS  count" in said
    assert "counts.json was changed" in said
    assert re.search(r"FAILS  the +7 then, 2 now", said)
    assert f"run {run_id[:8]} does NOT hold: count: " in said
    counted = run_of("count").info.run_id
    (link,) = reproduced([counted], Trust())
    assert not link.holds
    assert "parts made again" in link.words
    assert run("reproduce", "--run", run_id)[0] == 0, "the numbers that were logged are the same"
    found = reproduced([counted], Trust(makers=("own",)))
    assert [each.holds for each in found] == [True, False], "parts and whole each count by themselves"
    assert found[0].words.endswith("it came to the same")


def test_what_it_was_made_from_must_be_as_it_was(done) -> None:
    run, run_id = done
    (folder(run_of("read")) / "outputs" / "all.txt").write_text("another text")
    status, said = run("reproduce", "--run", run_id, "--segments", "1")
    assert status == 1, said
    assert re.search(r"FAILS  read +read: run \w{8} is not as it was made: all\.txt was changed", said)
    assert " then, " not in said, "nothing is counted of another text"


def test_the_settings_must_be_those_that_are_signed(done) -> None:
    run, run_id = done
    resolved = folder(mlflow.get_run(run_id)) / "recipe.resolved.yaml"
    resolved.write_text(resolved.read_text().replace("overrides: {}", "overrides: {count.top: '2'}"))
    status, said = run("reproduce", "--run", run_id, "--segments", "1")
    assert status == 1, said
    assert "FAILS  settings  its statement says top 3, and 2 here" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--segments", "0"), "segments is 1 or more"),
        (("--segments", "two"), "segments and seed are whole numbers"),
        (("--segments", "1", "--tolerance", "-1"), "tolerance is 0 or more, not -1"),
        (("--segments", "1", "--tolerance", "nan"), "tolerance is 0 or more, not nan"),
    ],
)
def test_wrong_numbers_are_said(done, words: tuple[str, ...], message: str) -> None:
    run, run_id = done
    status, said = run("reproduce", "--run", run_id, *words)
    assert status == 2
    assert message in said


def test_a_run_without_such_a_step_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    assert run("run", "--step", "read")[0] == 0
    status, said = run("reproduce", "--run", run_of("read").info.run_id, "--segments", "1")
    assert status == 2
    assert "has no step that can be done again in parts; leave `segments` out" in said
    assert "Traceback" not in said


def test_somebody_else_may_do_it_and_sees_who_signed(done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, run_id = done
    first = keys.own_id()
    keys.make(tmp_path / "another.pem")
    monkeypatch.setenv(keys.SETTING, str(tmp_path / "another.pem"))
    status, said = run("reproduce", "--run", run_id, "--segments", "1")
    assert status == 0, said
    assert f"signed with key {first[:12]}" in said
