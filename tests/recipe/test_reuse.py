"""Finished work is found in the tracking store by what it was made from; what is not found is explained in words."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from tests.recipe.conftest import Run, git


def actions(text: str) -> dict[str, str]:
    """What the plan says of each step: `run: why`, `maybe: why` or `reuse`."""
    table = {}
    for line in text.splitlines():
        words = line.split(maxsplit=2)
        if line.startswith("  ") and len(words) == 3 and words[1] in ("run", "maybe", "reuse"):
            table[words[0]] = words[1] if words[1] == "reuse" else f"{words[1]}: {words[2]}"
    return table


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.fixture
def done(run: Run) -> Run:
    """The recipe has run once."""
    status, said = run("run")
    assert status == 0, said
    assert set(actions(said).values()) == {"run: first run"}
    return run


def plan(run: Run, *words: str) -> dict[str, str]:
    status, said = run("run", "--plan", *words)
    assert status == 0, said
    return actions(said)


def test_nothing_changed_runs_nothing(done: Run) -> None:
    before = len(mlflow.search_runs(search_all_experiments=True))
    status, said = done("run")
    assert status == 0
    assert actions(said) == {"read": "reuse", "count": "reuse", "report": "reuse"}
    assert len(mlflow.search_runs(search_all_experiments=True)) == before + 1  # the project run alone


def test_a_plan_runs_nothing_and_creates_no_run(done: Run) -> None:
    before = len(mlflow.search_runs(search_all_experiments=True))
    assert plan(done, "--count.top", "9")["count"] == "run: top 3 → 9"
    assert len(mlflow.search_runs(search_all_experiments=True)) == before


def test_a_changed_key_reruns_its_step_and_what_follows(done: Run) -> None:
    assert plan(done, "--count.top", "9") == {
        "read": "reuse",
        "count": "run: top 3 → 9",
        "report": "maybe: only if count's result changes",
    }


def test_going_back_to_an_earlier_value_finds_the_earlier_result(done: Run) -> None:
    assert done("run", "--count.top", "9")[0] == 0
    assert set(plan(done).values()) == {"reuse"}


def test_comments_docstrings_and_formatting_rerun_nothing(done: Run, project: Path) -> None:
    edit(project / "steps" / "count.py", "import json\n", "import json  # of the standard library\n\n")
    edit(project / "steps" / "count.py", '"""Count: how often', '"""Count: how very often')
    edit(project / "counting" / "tally.py", '"""Counting."""', '"""Counting words."""')
    (project / "README.md").write_text("# Words")
    edit(project / "conda.yaml", "dependencies:", "# the environment\ndependencies:")
    assert set(plan(done).values()) == {"reuse"}


def test_changed_code_reruns_the_step_and_what_follows(done: Run, project: Path) -> None:
    edit(project / "steps" / "count.py", "counts.values()", "counts.values(), 0")
    assert plan(done) == {
        "read": "reuse",
        "count": "run: code of steps/count.py changed",
        "report": "maybe: only if count's result changes",
    }


def test_code_that_a_step_imports_inside_a_function_counts(done: Run, project: Path) -> None:
    edit(project / "counting" / "tally.py", "text.lower()", "text.upper()")
    assert plan(done)["count"] == "run: code of counting/tally.py changed"
    status, _ = done("run")
    assert status == 0
    from personalize.recipe import Recipe

    assert "THE" in (Recipe(root=project).get_artifact("count") / "counts.json").read_text()  # the new code has run


def test_changed_data_reruns_what_reads_it(done: Run, project: Path) -> None:
    (project / "texts" / "b.txt").write_text("a bird")
    assert plan(done)["read"].startswith("run: texts changed (digest ")


def test_data_moved_elsewhere_is_the_same_data(done: Run, project: Path) -> None:
    (project / "texts").rename(project / "elsewhere")
    assert set(plan(done, "--read.folder", "elsewhere").values()) == {"reuse"}


def test_a_changed_environment_reruns_everything(done: Run, project: Path) -> None:
    edit(project / "conda.yaml", "python=3.11", "python=3.12")
    assert plan(done)["read"] == "run: environment changed"


LOCK = """\
numpy==2.4.6 \\
    --hash=sha256:{numpy}
    # via words
torch==2.13.0 ; python_full_version >= '3.12' \\
    --hash=sha256:bb
"""


def test_a_changed_lock_says_which_packages(run: Run, project: Path, installs: Callable[..., None]) -> None:
    lock = project / "requirements.lock"
    lock.write_text(LOCK.format(numpy="aa"))
    installs(numpy="2.4.6")
    assert run("run")[0] == 0
    edit(project / "conda.yaml", "python=3.11", "python=3.12")
    edit(lock, "# via words", "# via somebody else")
    assert set(plan(run).values()) == {"reuse"}, "what is installed is the lock"
    edit(lock, "sha256:aa", "sha256:cc")
    assert plan(run)["read"] == "run: environment changed: other files of numpy 2.4.6"
    edit(lock, "numpy==2.4.6", "numpy==2.5.0")
    installs(numpy="2.5.0")
    (project / "requirements-torch.lock").write_text("triton==3.4.0 \\\n    --hash=sha256:dd\n")
    assert plan(run)["read"] == "run: environment changed: numpy 2.4.6 → 2.5.0, triton (not there) → 3.4.0"


def test_a_colleague_on_the_same_store_reuses_the_work(
    done: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = project.parent / "a colleague's clone"
    git(project.parent, "clone", "-q", str(project), str(clone))
    monkeypatch.chdir(clone)
    assert set(plan(done).values()) == {"reuse"}


def test_outputs_that_are_gone_are_made_again(done: Run) -> None:
    folder = next(iter(mlflow.search_runs(filter_string="tags.`recipe.step` = 'count'")["artifact_uri"]))
    shutil.rmtree(Path(folder.removeprefix("file://").replace("%20", " ")) / "outputs")
    assert plan(done)["count"].startswith("run: the outputs of run")


def test_fresh_runs_everything(done: Run) -> None:
    assert set(plan(done, "--fresh").values()) == {"run: asked to run anew"}


def test_a_step_that_always_runs_is_never_reused_and_its_inputs_are(done: Run) -> None:
    for _ in range(2):
        status, said = done("run", "--step", "announce", "--announce.by", "me")
        assert status == 0
        assert actions(said) == {"read": "reuse", "count": "reuse", "report": "reuse", "announce": "run: always runs"}


def test_a_failed_step_is_tried_again(done: Run) -> None:
    assert done("run", "--step", "boom")[0] == 1
    assert plan(done, "--step", "boom")["boom"].startswith("run: the last try failed (run ")


def test_a_killed_step_is_run_again_and_no_other(done: Run, project: Path, outside: dict[str, str]) -> None:
    words = [sys.executable, "-m", "personalize.recipe", "run", "--step", "boom", "--boom.how", "kill"]
    killed = subprocess.run(words, cwd=project, env=outside, capture_output=True, text=True, check=False)
    assert killed.returncode == -9
    table = plan(done, "--step", "boom", "--boom.how", "kill")
    assert table["read"] == "reuse"
    assert table["boom"].startswith("run: the last try did not finish")
    leftovers = list((project / "build" / "recipe" / "work").iterdir())
    assert len(leftovers) == 1
    done("run")
    assert not list((project / "build" / "recipe" / "work").iterdir())


def test_a_terminated_run_is_marked_as_killed(done: Run, project: Path, outside: dict[str, str]) -> None:
    words = [sys.executable, "-m", "personalize.recipe", "run", "--step", "boom", "--boom.how", "wait"]
    process = subprocess.Popen(
        words, cwd=project, env=outside, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 600
    while not (project / "waiting").exists():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "finished steps are kept" in said
    runs = mlflow.search_runs(filter_string="tags.`recipe.step` = 'boom'", output_format="list")
    assert [item.info.status for item in runs] == ["KILLED"]
    parent = mlflow.get_run(runs[0].data.tags["mlflow.parentRunId"])
    assert parent.info.status == "KILLED"
    assert os.path.exists(project / "build" / "cards" / "boom.html")


def test_clean_forgets_a_steps_runs(done: Run) -> None:
    status, said = done("clean", "--step", "count")
    assert status == 0
    assert "count: 1 run forgotten" in said
    assert plan(done) == {
        "read": "reuse",
        "count": "run: first run",
        "report": "maybe: only if count's result changes",
    }
    assert "▸ report  reuse" in done("run")[1]  # the count came to the same


def test_clean_forgets_what_is_nested_in_a_steps_runs(done: Run) -> None:
    client = mlflow.MlflowClient()
    above = mlflow.search_runs(filter_string="tags.`recipe.step` = 'count'", output_format="list")[0].info
    trials = [client.create_run(above.experiment_id, tags={"mlflow.parentRunId": above.run_id}) for _ in range(2)]
    assert "count: 1 run forgotten with 2 nested in it" in done("clean", "--step", "count")[1]
    assert {client.get_run(trial.info.run_id).info.lifecycle_stage for trial in trials} == {"deleted"}


def test_clean_keeps_other_peoples_runs(done: Run) -> None:
    run_id = mlflow.search_runs(filter_string="tags.`recipe.step` = 'count'")["run_id"][0]
    mlflow.MlflowClient().set_tag(run_id, "mlflow.user", "somebody-else")
    assert "count: 0 runs forgotten, 1 of other people kept" in done("clean", "--step", "count")[1]
    assert plan(done)["count"] == "reuse"


def test_a_step_that_comes_to_the_same_reruns_nothing_after_it(done: Run, project: Path) -> None:
    edit(project / "counting" / "tally.py", "text.lower().split()", "text.lower().split(None)")
    assert plan(done)["report"] == "maybe: only if count's result changes"
    status, said = done("run")
    assert status == 0
    assert "1 step run, 2 reused" in said
    assert len(mlflow.search_runs(filter_string="tags.`recipe.step` = 'report'")) == 1
    assert set(plan(done).values()) == {"reuse"}


def test_a_step_whose_input_did_change_says_so_when_it_runs(done: Run) -> None:
    assert "2 steps run, 1 reused" in done("run", "--count.top", "1")[1]
    report = mlflow.search_runs(filter_string="tags.`recipe.step` = 'report'", output_format="list")[0]
    assert report.data.tags["recipe.why"] == "input count changed"


def test_what_a_step_tells_of_itself_is_no_part_of_its_result(done: Run, project: Path) -> None:
    clock = (
        "    (outputs / 'diagnostics').mkdir()\n    (outputs / 'diagnostics' / 'ns').write_text(str(time.time_ns()))\n"
    )
    edit(project / "steps" / "count.py", '    (outputs / "counts.json")', clock + '    (outputs / "counts.json")')
    edit(project / "steps" / "count.py", "import json", "import json\nimport time")
    for fresh in ("false", "true"):
        assert done("run", "--step", "count", "--fresh", fresh)[0] == 0
    runs = mlflow.search_runs(filter_string="tags.`recipe.step` = 'count'", output_format="list")
    assert len(runs) == 3
    assert len({run.data.tags["recipe.outputs.digest"] for run in runs}) == 1
    assert {run.data.tags["recipe.outputs.files"] for run in runs} == {"2", "3"}


def test_how_a_step_is_shown_reruns_nothing(done: Run, project: Path) -> None:
    edit(project / "steps" / "cards" / "report.py", " in all", " altogether")
    assert set(plan(done).values()) == {"reuse"}


def test_words_that_only_cards_need_rerun_nothing(done: Run) -> None:
    assert set(plan(done, "--read.note", "by permission").values()) == {"reuse"}


REMOTE = """

def remote_sources(config: Config) -> dict[str, str]:
    with open("asked", "a") as log:
        log.write("asked\\n")
    return {"champion": open("champion").read()}
"""


def test_what_a_server_says_counts_and_is_asked_only_where_all_else_is_right(run: Run, project: Path) -> None:
    step = project / "steps" / "count.py"
    step.write_text(step.read_text() + REMOTE)
    (project / "champion").write_text("version 1")
    assert run("run")[0] == 0
    assert plan(run)["count"] == "reuse"
    (project / "champion").write_text("version 2")
    assert plan(run)["count"].startswith("run: champion")

    (project / "asked").unlink()
    status, said = run("run", "--count.top", "three", "--read.data", "nowhere")
    assert status == 2
    assert "count.top" in said
    assert "nowhere" in said
    assert not (project / "asked").exists()
