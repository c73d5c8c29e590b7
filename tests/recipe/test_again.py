"""A step that asks for more gets it: what it depends on is made anew with more, as often as it asks."""

import json
from pathlib import Path

import mlflow
import pytest

from personalize.recipe import Recipe
from tests.recipe.conftest import Run, git
from tests.recipe.test_reuse import actions
from tests.recipe.test_runs import edit, parents, runs_of

ASK = """
    if len(counts) < 3:
        import mlflow

        mlflow.set_tag("recipe.again", f"{len(counts)} words are too few")
"""


@pytest.fixture
def asking(run: Run, project: Path) -> Run:
    """The report asks for more words until it has three, and is first given one."""
    with (project / "steps/report.py").open("a") as file:
        file.write(ASK)
    edit(project / "recipe.yaml", "top: 3", "top: 1")
    edit(project / "recipe.yaml", "next:", "again:\n  report: count.top\nnext:")
    git(project, "commit", "-aqm", "asks")
    return run


def test_a_step_is_given_more_until_it_asks_no_more(asking: Run) -> None:
    status, said = asking("run")
    assert status == 0, said
    assert "▸ report  1 words are too few" in said
    assert "▸ report  2 words are too few" in said
    tops = sorted(int(run.data.params["count.top"]) for run in runs_of("count"))
    assert tops == [1, 2, 3]
    assert len(runs_of("report")) == 3
    assert len(runs_of("read")) == 1, "what does not depend on it is made once"
    (project,) = parents()
    last = max(runs_of("count"), key=lambda run: int(run.data.params["count.top"]))
    assert project.data.tags["recipe.step.count"] == f"ran {last.info.run_id}"
    assert "recipe.again" not in mlflow.get_run(project.data.tags["recipe.step.report"].split()[1]).data.tags


def test_what_was_asked_for_is_reused_whole_and_shown_as_it_ended(asking: Run) -> None:
    assert asking("run")[0] == 0
    before = len(mlflow.search_runs())
    status, said = asking("run")
    assert status == 0, said
    assert actions(said) == {"read": "reuse", "count": "reuse", "report": "reuse"}
    assert len(mlflow.search_runs()) == before + 1, "the project run alone"
    last = max(runs_of("count"), key=lambda run: int(run.data.params["count.top"]))
    assert parents()[0].data.tags["recipe.step.count"] == f"reused {last.info.run_id}"
    assert len(json.loads(Recipe().get_artifact("count/counts.json").read_text())) == 3
    assert last.info.run_id[:8] in asking("inspect", "--step", "count")[1] + Recipe().inspect("count").path.read_text()


def test_a_run_that_was_stopped_between_two_looks_goes_on(asking: Run, project: Path) -> None:
    assert asking("run")[0] == 0
    for run in runs_of("report"):
        if "recipe.again" not in run.data.tags:
            mlflow.delete_run(run.info.run_id)
    status, said = asking("run")
    assert status == 0, said
    assert actions(said)["count"] == "reuse"
    assert sum("recipe.again" not in run.data.tags for run in runs_of("report")) == 1


def test_a_later_step_is_made_from_the_last_of_them(asking: Run) -> None:
    status, said = asking("run", "--until", "announce", "--announce.by", "a reader")
    assert status == 0, said
    assert len(runs_of("announce")) == 1


def test_a_run_that_asked_again_is_reproduced_as_it_ended(asking: Run) -> None:
    assert asking("run")[0] == 0
    status, said = asking("reproduce", "--run", parents()[0].info.run_id)
    assert status == 0, said
    again = max((run for run in parents() if "reproduces" in run.data.tags), key=lambda run: run.info.start_time)
    count = mlflow.get_run(again.data.tags["recipe.step.count"].split()[1])
    assert count.data.params["count.top"] == "3"


@pytest.mark.parametrize(
    ("again", "why"),
    [
        ("reprt: count.top", "unknown step 'reprt'; did you mean 'report'?"),
        ("report: top", "again.report is a step.key, not 'top'"),
        ("report: cuont.top", "again.report is a step.key, not 'cuont.top'; did you mean 'count'?"),
    ],
)
def test_what_is_asked_again_is_a_step_and_its_parameter(run: Run, project: Path, again: str, why: str) -> None:
    edit(project / "recipe.yaml", "next:", f"again:\n  {again}\nnext:")
    status, said = run("run")
    assert status == 2
    assert why in said
