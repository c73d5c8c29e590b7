"""What a run leaves in MLflow: nested runs, lineage, outputs and cards, for success and for failure."""

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlflow
import pytest
import yaml
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import ExecutionException

from personalize import files
from personalize.recipe import Recipe, RecipeError
from personalize.recipe.overview import BOX, HIGH, draw
from personalize.recipe.reproduce import first_cause
from personalize.recipe.tracking import StepRun, refuse_unanswered
from personalize.serving.ports import free_port
from tests.recipe.conftest import REPOSITORY, Run, git


def runs_of(step: str) -> list[MlflowRun]:
    return mlflow.search_runs(filter_string=f"tags.`recipe.step` = '{step}'", output_format="list")


def parents() -> list[MlflowRun]:
    return mlflow.search_runs(filter_string="tags.`recipe.target` != ''", output_format="list")


def edit(path: Path, before: str, after: str) -> None:
    content = path.read_text()
    assert before in content
    path.write_text(content.replace(before, after))


def text(run: MlflowRun, name: str) -> str:
    return Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=name)).read_text(
        encoding="utf-8"
    )


def test_steps_are_nested_runs_with_params_metrics_outputs_and_cards(run: Run) -> None:
    assert run("run", "--read.title", "<script>alert(1)</script>")[0] == 0
    (parent,), (count,), (read,) = parents(), runs_of("count"), runs_of("read")
    assert count.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert count.data.params == {"count.top": "3", "count.share": "0.0", "count.seed": "7"}
    assert count.data.metrics["words"] == 5
    assert json.loads(text(count, "outputs/counts.json")) == {"the": 2, "cat": 1, "and": 1}
    assert parent.data.params["count.top"] == "3"
    assert parent.data.tags["recipe.step.count"] == f"ran {count.info.run_id}"
    assert yaml.safe_load(text(parent, "recipe.resolved.yaml"))["steps"]["count"]["top"] == 3
    card = json.loads(text(count, "card.json"))
    assert card["blocks"][0]["rows"][0] == ["the", 2]
    assert card["made"]["inputs"] == {"read": f"run {read.info.run_id}"}
    assert "<script" not in text(read, "card.html")
    assert "&lt;script&gt;alert(1)" in text(read, "card.html")
    assert {item.info.status for item in (parent, count, read)} == {"FINISHED"}


def test_a_value_that_is_too_long_for_a_param_is_cut_there_and_whole_in_the_resolved_recipe(run: Run) -> None:
    long = "word " * 1400
    status, said = run("run", "--step", "read", "--read.note", long)
    assert status == 0, said
    assert "truncated" not in said
    (parent,), (read,) = parents(), runs_of("read")
    for of in (parent, read):
        assert of.data.params["read.note"].startswith("word word")
        assert of.data.params["read.note"].endswith("… (7,000 characters)")
    assert yaml.safe_load(text(parent, "recipe.resolved.yaml"))["steps"]["read"]["note"] == long


@pytest.mark.parametrize("frozen", [False, True])
def test_what_a_step_leaves_in_memory_is_gone_before_the_next_begins(run: Run, project: Path, frozen: bool) -> None:
    """Also what refers to itself, as a model does, and would wait for the collector."""
    step = project / "steps" / "count.py"
    step.write_text(
        step.read_text()
        + """
import sys, weakref

class Model: ...

counted = run

def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    model = Model()
    model.itself = model
    sys.left_by_a_step = weakref.ref(model)
    counted(config, inputs, outputs)
"""
    )
    gc.disable()
    (gc.freeze if frozen else gc.unfreeze)()
    try:
        status, said = run()
        left_frozen = gc.get_freeze_count() > 0
    finally:
        gc.freeze()
        gc.enable()
    assert status == 0, said
    assert left_frozen == frozen, "who called froze for good"
    assert sys.left_by_a_step() is None  # type: ignore[attr-defined]


def test_a_reused_step_is_named_on_the_run_that_used_it(run: Run) -> None:
    run("run")
    run("run")
    (count,) = runs_of("count")
    assert sorted(item.data.tags["recipe.step.count"].split()[0] for item in parents()) == ["ran", "reused"]
    assert all(item.data.tags["recipe.step.count"].split()[1] == count.info.run_id for item in parents())


def test_lineage_is_on_every_run_and_a_dirty_tree_leaves_its_diff_once(run: Run, project: Path) -> None:
    run("run")
    (project / "notes ü.md").write_text("untracked")
    (project / "counting" / "empty.py").write_text("")
    (project / "profiles" / "local.yaml").write_text((project / "profiles" / "local.yaml").read_text() + "# changed\n")
    (project / "words.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: words\n")
    run("run", "--SEED", "9")
    commit = git(project, "rev-parse", "HEAD").strip()
    dirty, clean = runs_of("count")
    for item in (*parents(), dirty, clean):
        assert item.data.tags["lineage.commit"] == commit
        assert item.data.tags["lineage.environment"]
        assert item.data.tags["recipe.profile"] == "local"
    assert clean.data.tags["lineage.dirty"] == "false"
    assert dirty.data.tags["lineage.dirty"] == "true"
    assert dirty.data.tags["lineage.dvc.words"] == "0123456789abcdef0123456789abcdef.dir"
    assert dirty.data.tags["lineage.seed"] == "9"
    git(project, "checkout", "-q", "profiles")
    for name in ("notes ü.md", "words.dvc", "counting/empty.py"):
        (project / name).unlink()
    (project / "change.diff").write_text(text(parents()[0], "uncommitted.diff"))
    git(project, "apply", "change.diff")
    assert (project / "notes ü.md").read_text() == "untracked"
    assert (project / "counting" / "empty.py").read_text() == ""
    assert (project / "profiles" / "local.yaml").read_text().endswith("# changed\n")
    listed = mlflow.MlflowClient().list_artifacts
    holders = [each for each in (*parents(), *runs_of("count"), *runs_of("read"), *runs_of("report"))
               if any(item.path == "uncommitted.diff" for item in listed(each.info.run_id))]  # fmt: skip
    assert [each.info.run_id for each in holders] == [parents()[0].info.run_id]


def test_a_failed_steps_card_repeats_what_was_asked_for(run: Run) -> None:
    run("run", "--step", "boom", "--count.top", "9", "--set", "report.heading=Two words")
    (boom,) = runs_of("boom")
    html = unescape(text(boom, "card.html"))
    assert (
        "mlflow run . --env-manager local -e boom -P profile=local -P count.top=9 -P report.heading='Two words'" in html
    )


def test_a_failed_step_leaves_a_card_and_a_failed_status(run: Run, project: Path) -> None:
    status, said = run("run", "--step", "boom")
    assert status == 1
    assert "error: boom: RuntimeError: <b>boom</b>" in said
    assert "Traceback" not in said
    (boom,), (parent,) = runs_of("boom"), parents()
    assert boom.info.status == parent.info.status == "FAILED"
    html = text(boom, "card.html")
    assert "RuntimeError: &lt;b&gt;boom&lt;/b&gt;" in html
    assert "Traceback" in html
    assert "so far so good" in html
    assert "mlflow run . --env-manager local -e boom -P profile=local" in html
    assert (project / "build" / "cards" / "boom.html").read_text() == html
    assert not list((project / "build" / "recipe" / "work").iterdir())
    assert mlflow.active_run() is None


def test_a_full_disk_is_said_plainly(run: Run) -> None:
    status, said = run("run", "--step", "boom", "--boom.how", "full")
    assert status == 1
    assert "boom: the disk is full (" in said
    assert "big.bin" in said


def test_an_error_of_the_users_exits_with_2(run: Run) -> None:
    status, said = run("run", "--step", "announce", "--announce.by", "nobody")
    assert status == 2
    assert "error: announce: nobody cannot announce; give announce.by a name" in said


def test_next_words_and_the_main_card_are_said_at_the_end(run: Run, project: Path) -> None:
    _, said = run("run")
    assert f"★ card  report  {project}/build/cards/report.html" in said
    assert "next  python -m personalize.recipe run --until announce" in said


def test_next_words_are_true_of_what_the_step_found_also_when_it_is_reused(run: Run, project: Path) -> None:
    for _ in range(2):
        _, said = run("run", "--step", "count")
        assert "next  write more than 4 words" in said
    assert runs_of("count")[0].data.tags["recipe.outcome"] == "poor"
    (project / "texts" / "b.txt").write_text("and a bird")
    assert "next  say the less often" in run("run", "--step", "count")[1]


def test_a_verdict_is_the_outcome_of_a_step_that_says_no_other(run: Run) -> None:
    run("run")
    assert runs_of("report")[0].data.tags["recipe.outcome"] == "passed"


def test_the_project_run_is_named_for_what_was_asked_and_says_what_it_came_to(run: Run) -> None:
    for _ in range(2):
        run("run", "--count.top", "2", "--LANGUAGE", "British English")
        parent = parents()[0]
        assert parent.info.run_name == "local · report · top=2, LANGUAGE=British English"
        assert parent.data.tags["verdict"] == "passed"
        assert parent.data.metrics == {}  # the report has no metric called words
    run("run", "--step", "count")
    assert parents()[0].info.run_name == "local · count"
    assert "verdict" not in parents()[0].data.tags


def test_the_project_run_repeats_headline_metrics_data_and_model_of_its_steps(run: Run, project: Path) -> None:
    edit(project / "recipe.yaml", "card: report", "card: count")
    logs = """
    import numpy
    from mlflow.entities import LoggedModelOutput

    data = mlflow.data.from_numpy(numpy.zeros(3), name="three", digest="d1")
    mlflow.log_input(data, context="counting")
    model = mlflow.initialize_logged_model(name="counter")
    mlflow.MlflowClient().log_outputs(mlflow.active_run().info.run_id, [LoggedModelOutput(model.model_id, 0)])
"""
    with (project / "steps" / "count.py").open("a") as step:
        step.write(logs)
    for how in ("ran", "reused"):
        assert run("run")[0] == 0
        parent, (count,) = mlflow.get_run(parents()[0].info.run_id), runs_of("count")
        assert parent.data.tags["recipe.step.count"].split()[0] == how
        assert parent.data.metrics == {"words": 5}
        assert parent.data.tags["verdict"] == "poor"
        assert [each.dataset.name for each in parent.inputs.dataset_inputs] == ["three"]
        (model,) = mlflow.get_run(count.info.run_id).outputs.model_outputs
        assert [each.model_id for each in parent.outputs.model_outputs] == [model.model_id]


def test_the_project_runs_description_links_to_the_cards(run: Run) -> None:
    run("run")
    (parent,), (count,) = parents(), runs_of("count")
    link = f"#/experiments/{count.info.experiment_id}/runs/{count.info.run_id}/artifacts/card.html"
    assert f"| [count]({link}) | run | poor |" in parent.data.tags["mlflow.note.content"]


def test_a_better_card_is_drawn_of_an_old_result(run: Run, project: Path) -> None:
    run("run")
    (report,) = runs_of("report")
    edit(project / "steps" / "cards" / "report.py", " in all", " altogether")
    status, said = run("run")
    assert status == 0
    assert "0 steps run, 3 reused" in said
    assert "altogether" in (project / "build" / "cards" / "report.html").read_text()
    assert "altogether" not in text(report, "card.html")  # what was logged then stays
    assert "altogether" in text(parents()[0], "cards/report.html")
    run("inspect", "--run", report.info.run_id)
    assert "altogether" in (project / "build" / "cards" / f"report-{report.info.run_id[:8]}.html").read_text()


def test_inspect_shows_any_past_run_with_the_config_it_had(run: Run, project: Path) -> None:
    run("run", "--read.title", "first")
    run("run", "--read.title", "second")
    second, first = runs_of("read")
    for item, title in ((first, "first"), (second, "second")):
        status, said = run("inspect", "--run", item.info.run_id)
        assert status == 0
        assert f">{title}<" in Path(said.removeprefix("card").strip()).read_text()
    assert "is not in this tracking store" in run("inspect", "--run", "0" * 32)[1]


def test_new_words_reach_the_card_of_a_reused_step(run: Run, project: Path) -> None:
    run("run", "--step", "read")
    for _ in range(2):
        assert "0 steps run, 1 reused" in run("run", "--step", "read", "--read.note", "by permission")[1]
        assert "by permission" in text(parents()[0], "cards/read.html")
    assert "by permission" in (project / "build" / "cards" / "read.html").read_text()


def test_a_card_that_cannot_be_drawn_loses_no_result(run: Run, project: Path) -> None:
    edit(project / "steps" / "cards" / "count.py", "counts = json", "counts = jsn")
    status, said = run("run")
    assert status == 0
    assert "the card of count could not be drawn (NameError" in said
    (count,) = runs_of("count")
    assert count.info.status == "FINISHED"
    assert "its card could not be drawn" in text(count, "card.html")
    edit(project / "steps" / "cards" / "count.py", "counts = jsn", "counts = json")
    assert "next  write more than 4 words" in run("run", "--step", "count")[1]


def test_a_step_without_a_card_of_its_own_shows_what_it_made(run: Run, project: Path) -> None:
    (project / "steps" / "cards" / "report.py").unlink()
    assert run("run")[0] == 0
    assert "nested/report.txt" in text(runs_of("report")[0], "card.html")


def test_a_profile_that_requires_another_server_says_so(run: Run) -> None:
    status, said = run("run", "--profile", "server")
    assert status == 2
    assert "profiles/server.yaml:6: profile 'server' needs tracking URI databricks" in said


def test_a_server_that_is_down_is_said_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    status, said = run("run")
    assert status == 2
    assert "no tracking server answers at http://127.0.0.1" in said
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not let you in (it answers 401 Unauthorized); set MLFLOW_TRACKING_USERNAME"),
        (403, "does not let you in"),
        (503, "is away (it answers 503 Service Unavailable); try again in a minute"),
        (404, "no MLflow server is at"),
    ],
)
def test_a_server_that_refuses_or_is_away_is_said_in_seconds(
    run: Run, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(status)

        do_GET = do_POST

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"http://127.0.0.1:{server.server_address[1]}")
        started = time.monotonic()
        code, said = run("run")
        with pytest.raises(ExecutionException, match=re.escape(words)):
            refuse_unanswered(uri)  # what `mlflow run` meets
        assert time.monotonic() - started < 20
        server.shutdown()
    assert code == 2
    assert words in said
    assert "Traceback" not in said


def test_an_error_within_the_server_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter((503, 500))

    class Stumbling(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(next(answers))

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Stumbling) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        refuse_unanswered(f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert next(answers, None) is None, "away once, and asked again"


def test_a_notebook_runs_inspects_and_reads_artifacts(run: Run, project: Path) -> None:
    recipe = Recipe("local", root=project, overrides={"count.top": 1})
    card = recipe.run()
    assert card._repr_html_().startswith('<iframe sandbox="allow-scripts" srcdoc=')
    assert (recipe.get_artifact("report/nested/report.txt")).read_text() == "English words: the"
    assert json.loads((recipe.get_artifact("count") / "counts.json").read_text()) == {"the": 2}
    with pytest.raises(RecipeError, match=r"did you mean .counts\.json."):
        recipe.get_artifact("count/count.json")
    with pytest.raises(RecipeError, match=r"unknown step .cuont.*did you mean .count"):
        recipe.get_artifact("cuont/counts.json")
    assert "count" in recipe.inspect("count").path.read_text()
    overview = recipe.inspect().path.read_text()
    assert "read (done)" in overview
    assert "announce (waiting)" in overview
    assert "count   reuse" in recipe.plan()
    with pytest.raises(RecipeError, match="card: "):
        recipe.run("boom")


def test_a_run_inside_a_notebooks_own_run_is_nested_in_it(run: Run, project: Path) -> None:
    with mlflow.start_run() as own:
        Recipe("local", root=project).run("read")
        assert mlflow.active_run() is not None
    (parent,) = parents()
    assert parent.data.tags["mlflow.parentRunId"] == own.info.run_id


def test_a_run_is_reproduced_from_its_commit_and_changes(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    edit(project / "counting" / "tally.py", "text.lower()", "text.upper()")
    run("run", "--count.top", "1")
    (original,) = parents()
    git(project, "checkout", "-q", "counting")
    status, said = run("reproduce", "--run", runs_of("count")[0].info.run_id)
    assert status == 0, said
    assert "count: 1 metrics agree, outputs identical" in said
    again = parents()[0]
    assert again.data.tags["reproduces"] == original.info.run_id
    assert again.data.tags["reproduces.agrees"] == "true"
    assert git(project, "worktree", "list").count("\n") == 1
    assert run("reproduce", "--run", "0" * 32)[0] == 2
    assert "reproduces" not in runs_of("count")[-1].data.tags
    edit(project / "counting" / "tally.py", "text.lower()", "text.upper()")
    assert (
        f"reuse  run {runs_of('count')[-1].info.run_id[:8]}" in run("run", "--plan", "true", "--count.top", "1")[1]
    ), "what was made again is no result of its own"


def test_a_warning_on_a_card_is_a_line_on_the_terminal_too(run: Run, project: Path) -> None:
    (project / "texts" / "a.txt").write_text("word")
    assert "  mind: One word is not much of a text. (1 more on its card)\n" in run("run")[1]


def test_what_acts_outside_is_not_done_again_and_the_machine_is_named(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run("run", "--until", "announce", "--announce.by", "me")[0] == 0
    (original,) = parents()
    assert original.data.tags["lineage.machine.threads"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    status, said = run("reproduce", "--run", original.info.run_id)
    assert status == 0, said
    assert "note: threads 1, then 3" in said
    assert "announce: left out, for what it does is seen outside" in said
    assert len(runs_of("announce")) == 1


def test_the_first_step_that_differs_is_named_with_what_differs_in_how_it_was_made() -> None:
    def made(digest: str, threads: str, started: float) -> StepRun:
        tags = {"recipe.outputs.digest": digest, "lineage.machine.threads": threads, "lineage.machine.system": "Linux"}
        return StepRun("a", "FINISHED", started, "", "", tags, {})

    then = {"read": made("1", "1", 1), "count": made("2", "1", 2), "report": made("3", "1", 3)}
    now = {"read": made("1", "2", 4), "count": made("9", "2", 5), "report": made("8", "2", 6)}
    assert first_cause(then, now) == "the first to differ is count: threads 1, then 2"
    assert first_cause(then, then) == ""
    assert first_cause(then, {**then, "report": made("8", "1", 6)}).endswith("nothing that is recorded tells why")


def test_what_stayed_here_is_named_and_reproduce_says_when_it_needs_it(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (project / "texts" / "b.txt").write_text("not committed")
    (project / "names.csv").write_text("no matter")
    run("run", "--step", "count")
    (original,) = parents()
    assert json.loads(text(original, "left_out.json")) == {
        "names.csv": "no code, configuration or text",
        "texts/": "data, 1 file",
    }
    assert original.data.tags["lineage.left_out"] == "2"
    (project / "names.csv").unlink()
    (project / "texts" / "b.txt").write_text("changed since")
    status, said = run("reproduce", "--run", original.info.run_id)
    assert status == 2
    assert "texts changed (digest" in said
    assert "texts/ (data, 1 file)" in said
    assert "running commit" not in said
    (project / "texts" / "b.txt").write_text("not committed")
    status, said = run("reproduce", "--run", original.info.run_id)
    assert status == 0, said
    assert "outputs identical" in said
    assert "as it was or without effect: names.csv" in said


def test_code_with_a_key_in_it_stays_here_and_reproduce_takes_it_from_here(
    run: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    key = "ghp_" + "a1B2c3D4e5F6" * 3
    code = (project / "counting" / "tally.py").read_text()
    (project / "counting" / "tally.py").write_text(f"{code}\nKEY = '{key}'\n")
    run("run", "--step", "count")
    (original,) = parents()
    assert key not in text(original, "uncommitted.diff") + text(original, "left_out.json")
    assert run("reproduce", "--run", original.info.run_id)[0] == 0
    (project / "counting" / "tally.py").write_text(code)
    status, said = run("reproduce", "--run", original.info.run_id)
    assert status == 2
    assert "code of counting/tally.py changed" in said
    assert "counting/tally.py (looks like a secret: GitHub Token)" in said


def test_a_secret_among_the_values_is_nowhere_and_reproduce_asks_for_it(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    secret = "dapi" + "0123456789abcdef" * 2
    assert run("run", "--step", "read", "--read.note", f"by {secret}")[0] == 0
    assert run("run", "--step", "boom", "--boom.how", secret)[0] == 0
    (original,) = mlflow.search_runs(filter_string="tags.`recipe.target` = 'read'", output_format="list")
    for folder in (tmp_path / "artifacts", project / "build"):
        assert [path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()] == []
    assert secret.encode() not in (tmp_path / "mlflow.db").read_bytes()
    assert original.data.params["read.note"] == "by [secret]"
    status, said = run("reproduce", "--run", original.info.run_id)
    assert status == 2
    assert "the value of read.note held a secret" in said
    assert run("reproduce", "--run", original.info.run_id, "--read.note", f"by {secret}")[0] == 0
    assert "takes no read.title" in run("reproduce", "--run", original.info.run_id, "--read.title", "x")[1]


def test_a_store_in_the_projects_folder_is_its_owners_alone_from_the_first_run(
    run: Run, project: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, project / "mlflow.db")
    (project / "mlflow.db").chmod(0o644)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
    assert run("run", "--step", "read")[0] == 0
    modes = {name: (project / name).stat().st_mode & 0o777 for name in ("mlflow.db", "mlruns", "build")}
    assert modes == {"mlflow.db": 0o600, "mlruns": 0o700, "build": 0o700}


def test_what_a_killed_run_unpacked_is_removed_by_the_next(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hold = "import os; from personalize.files import scratch; held = scratch('photographs')\n"
    hold += "(held.__enter__() / 'front.jpg').touch(); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", hold], env=environment, check=False)
    assert list(tmp_path.glob("*/*/front.jpg"))
    with files.scratch("photographs") as living:
        run("run", "--step", "read")
        assert living.is_dir()
    assert not list(tmp_path.glob("*/*/front.jpg"))


@pytest.mark.parametrize("words", [("--count.top", "{}"), ("--read.nowhere", "{}"), ("--profile", "{}"), ("{}", "x")])
def test_no_message_repeats_a_secret(run: Run, words: tuple[str, ...]) -> None:
    secret = "dapi" + "0123456789abcdef" * 2
    status, said = run("run", *(word.format(secret) for word in words))
    assert status == 2
    assert "[secret]" in said
    assert secret not in said


def test_no_heavy_import_for_plan_help_and_config_errors(project: Path, outside: dict[str, str]) -> None:
    probe = (
        "import sys; from personalize.recipe.__main__ import main\n"
        "print([main(['--help']), main(['describe']), main(['run', '--count.tpo', '1'])], 'mlflow' in sys.modules)\n"
        "print(main(['run', '--plan']), sorted({'torch', 'diffusers', 'transformers', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=project, env=outside, capture_output=True, text=True, check=True
    )
    assert "[0, 0, 2] False" in done.stdout
    assert done.stdout.rstrip().endswith("0 []")


def test_work_is_shared_through_a_tracking_server(
    run: Run, server: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("run")[0] == 0
    clone = project.parent / "clone"
    git(project.parent, "clone", "-q", str(project), str(clone))
    monkeypatch.chdir(clone)
    status, said = run("run", "--report.heading", "Most")
    assert status == 0
    assert "count   reuse" in said
    assert "report  run    heading English words → Most" in said
    assert (
        Recipe(overrides={"report.heading": "Most"}).get_artifact("report/nested/report.txt")
    ).read_text() == "Most: the"
    assert f"{server}/#/experiments/" in said


def test_a_run_that_was_stopped_before_it_had_a_card_gets_one_when_it_is_reused(run: Run) -> None:
    run("run", "--step", "count")
    (count,) = runs_of("count")
    for tag in [name for name in count.data.tags if name == "recipe.card" or name.startswith("recipe.outcome")]:
        mlflow.MlflowClient().delete_tag(count.info.run_id, tag)
    for _ in range(2):
        assert "next  write more than 4 words" in run("run", "--step", "count")[1]
    assert runs_of("count")[0].data.tags["recipe.outcome"] == "poor"


def test_no_line_of_the_overview_runs_behind_another_steps_box() -> None:
    needs = {"a": (), "b": ("a",), "long": ("a",), "c": ("b",), "beside": ("b",), "d": ("c", "long")}
    svg = draw(needs, dict.fromkeys(needs, "done"))
    boxes = [tuple(map(float, box)) for box in re.findall(r'<rect x="(\d+)" y="(\d+)"', svg)]
    lines = [tuple(map(float, line)) for line in re.findall(r'd="M([\d.]+),([\d.]+) H([\d.]+)', svg)]
    assert len(boxes) == len(set(boxes)) == 6
    assert len(lines) == 6
    for start, height, bend in lines:
        assert not [x for x, y in boxes if y < height < y + HIGH and start < x + BOX and x < bend and x + BOX != start]


def test_what_a_later_step_wants_is_asked_before_the_first_one_runs(project: Path, run: Run) -> None:
    step = project / "steps" / "count.py"
    step.write_text(step.read_text() + '\n\ndef check(config):\n    raise ValueError("nobody may count here")\n')
    code, output = run("run")
    assert code == 2
    assert "count: nobody may count here" in output
    assert not runs_of("read"), "nothing was run, and nothing was paid for"
