"""A fleet through the engine's command line: what is done, reused, set aside and gone on with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest

from personalize.files import read_rows
from tests.fleet.conftest import Catalogue
from tests.recipe.conftest import Run

pytestmark = pytest.mark.usefixtures("ray_here")


def runs(condition: str) -> list[Any]:
    return mlflow.search_runs(
        [os.environ["MLFLOW_EXPERIMENT_ID"]], condition, output_format="list", order_by=["attributes.start_time DESC"]
    )


def step_runs(step: str) -> list[Any]:
    return runs(f"tags.`recipe.step` = '{step}'")


def rows(run: Any = None) -> dict[str, dict[str, Any]]:
    """What the latest fleet left, by subject."""
    run = run or step_runs("fleet")[0]
    place = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="outputs/subjects.jsonl")
    return {row["subject"]: row for row in read_rows(place)}


def fleet(run: Run, path: str, *more: str, status: int = 0) -> str:
    found, said = run("run", "--step", "fleet", "--set", f"fleet.catalogue={path}", "--set", "fleet.workers=2", *more)
    assert found == status, said
    return said


def test_a_catalogue_is_planned_carried_out_and_then_reused(run: Run, catalogue: Catalogue) -> None:
    path = catalogue(["chair/chra", "chair/chrz", "sofa/sofm"])
    said = fleet(run, path, "--set", "fleet.plan=true")
    assert "3 to run, 0 done already, 0 cannot be done" in said
    assert "how long it takes is not known" in said
    assert not step_runs("learn")

    said = fleet(run, path)
    found = rows()
    assert [found[name]["verdict"] for name in ("chair/chra", "chair/chrz", "sofa/sofm")] == [
        "failed",
        "passed",
        "passed",
    ]
    assert all(row["state"] == "done" and row["picture"] and row["seconds"] > 0 for row in found.values())
    assert found["chair/chra"]["reasons"] == ["Pictures of chra stop too far at 0.00."]
    assert "3 of 3" in said
    assert "2 passed" in said

    (first,) = step_runs("fleet")[:1]
    projects = {
        each.data.tags["fleet.subject"]: each
        for each in runs("tags.`fleet.subject` != '' AND tags.`recipe.target` != ''")
    }
    assert {each.data.tags["mlflow.parentRunId"] for each in projects.values()} == {first.info.run_id}
    assert projects["sofa/sofm"].info.run_name == "sofa/sofm"
    assert projects["sofa/sofm"].data.tags["recipe.profile"] == "local"
    assert first.data.metrics["passed"] == 2
    assert first.data.metrics["not_passed"] == 1
    assert first.data.metrics["running"] == 0

    said = fleet(run, path)
    assert "0 to run, 3 done already" in said
    assert len(step_runs("learn")) == 3
    again = rows()
    assert all(row["reused"] for row in again.values())
    same = ("verdict", "metrics", "run", "judged", "card", "reasons", "picture")
    assert {n: [r[k] for k in same] for n, r in again.items()} == {n: [r[k] for k in same] for n, r in found.items()}

    said = fleet(run, path, "--set", "fleet.plan=true", "--learn.naps", "0.01", "--set", "fleet.hour_price=3600")
    took = [(each.info.end_time - each.info.start_time) / 1000 for each in projects.values()]
    price = float(re.search(r"about .* on 2 workers, ([\d,.]+) at 3600 an hour of each", said)[1].replace(",", ""))
    assert 3 * min(took) - 1 < price < 3 * max(took) + 1, "three subjects, and a second costs one"
    assert "a subject, by the latest" in said


def test_what_all_subjects_of_a_class_share_is_made_once(run: Run, catalogue: Catalogue) -> None:
    fleet(run, catalogue(["chair/chra", "chair/chrb", "chair/chrc", "sofa/sofm"]))
    assert len(step_runs("prior")) == 2
    assert len(step_runs("learn")) == 4


def test_done_alone_is_done_for_the_fleet_and_the_other_way_round(run: Run, catalogue: Catalogue) -> None:
    path = catalogue(["chair/chrm", "chair/chrn"])
    place = Path(path).parent / "photographs/chair"
    alone = ["run", "--token", "chrm", "--class_noun", "chair", "--data", str(place / "chrm"), "--rights", "the shop"]
    assert run(*alone)[0] == 0
    said = fleet(run, path)
    assert "1 to run, 1 done already" in said
    assert rows()["chair/chrm"]["reused"]
    other = [word.replace("chrm", "chrn") for word in alone]
    status, said = run(*other)
    assert status == 0, said
    assert "0 steps run" in said
    assert len(step_runs("learn")) == 2


def test_the_adapters_are_those_of_subjects_done_alone(run: Run, catalogue: Catalogue) -> None:
    path = catalogue(["chair/chrm"])
    fleet(run, path)
    (learnt,) = step_runs("learn")
    place = Path(path).parent / "photographs/chair/chrm"
    status, said = run(
        "run", "--fresh", "--token", "chrm", "--class_noun", "chair", "--data", str(place), "--rights", "the shop"
    )
    assert status == 0, said
    anew = step_runs("learn")[0]
    assert anew.info.run_id != learnt.info.run_id
    assert anew.data.tags["recipe.outputs.digest"] == learnt.data.tags["recipe.outputs.digest"]


@pytest.mark.slow
def test_a_subject_that_fails_or_kills_its_process_is_set_aside_and_the_rest_goes_on(
    run: Run, catalogue: Catalogue, project: Path
) -> None:
    path = catalogue(["chair/killm", "chair/failm", "chair/oncem", "chair/chrm"])
    said = fleet(run, path, "--set", "fleet.tries=2")
    found = rows()
    assert {name: row["state"] for name, row in found.items()} == {
        "chair/killm": "failed", "chair/failm": "failed", "chair/oncem": "done", "chair/chrm": "done",
    }  # fmt: skip
    assert "loss is nan" in found["chair/failm"]["why"]
    assert found["chair/failm"]["card"].startswith("runs:/")
    assert "died, 2 times: it is set aside" in found["chair/killm"]["why"]
    tries = {path.name: len(path.read_text().split()) for path in (project / "tries").iterdir()}
    assert tries == {"killm": 2, "failm": 1, "oncem": 2, "chrm": 1}
    assert "chair/killm failed" in said
    assert {each.info.status for each in runs("")} == {"FINISHED", "FAILED", "KILLED"}

    said = fleet(run, path, "--set", "fleet.only=failed", "--set", "fleet.limit=1")
    assert "1 to run, 0 done already, 0 cannot be done, 3 left for another time" in said


def test_subjects_may_share_an_adapter(run: Run, catalogue: Catalogue, project: Path) -> None:
    path = catalogue(["chair/chra", "sofa/sofm", "chair/chrb", "chair/chrc"])
    fleet(run, path, "--set", "fleet.group_size=2")
    assert list(rows()) == ["chair/chra, chair/chrb", "sofa/sofm", "chair/chrc"], "in the catalogue's order"
    assert all(row["state"] == "done" for row in rows().values())
    assert len(step_runs("learn")) == 3
    assert "0 to run, 3 done" in fleet(run, path, "--set", "fleet.group_size=2")


def test_what_was_cleaned_or_changed_is_not_done(run: Run, catalogue: Catalogue) -> None:
    path = catalogue(["chair/chrm", "chair/chrn"])
    fleet(run, path)
    (Path(path).parent / "photographs/chair/chrn/0.png").write_bytes(
        (Path(path).parent / "photographs/chair/chrm/0.png").read_bytes()
    )
    assert "1 to run, 1 done" in fleet(run, path, "--set", "fleet.plan=true")
    assert run("clean", "--step", "judge")[0] == 0
    assert "2 to run, 0 done" in fleet(run, path, "--set", "fleet.plan=true")


def test_the_invalid_are_listed_and_stop_no_other(run: Run, catalogue: Catalogue) -> None:
    path = catalogue(["chair/chrm"])
    with Path(path).open("a") as file:
        file.write("<b>x</b>,chair,photographs/chair/chrm,\nghost,chair,nowhere,\n")
    said = fleet(run, path)
    assert "1 to run, 0 done already, 2 cannot be done" in said
    assert "invalid  row 3: token: '<b>x</b>'" in said
    assert list(rows()) == ["chair/chrm"]


def test_a_gpu_that_is_not_there_is_said_before_anything_runs(run: Run, catalogue: Catalogue) -> None:
    said = fleet(run, catalogue(["chair/chrm"]), "--set", "fleet.gpus=1", status=2)
    assert "fleet.gpus=1 asks for a GPU a worker, and Ray sees 0" in said
    said = fleet(run, catalogue(["chair/chrm", "chair/chrn", "chair/chro"]), "--fleet.workers", "3", status=2)
    assert "workers=3 with 0 GPU and 1 core each need more than" in said
    assert not step_runs("learn")


@pytest.mark.parametrize(
    "name",  # a call that no interrupt reaches is killed after half a minute
    ["chair/waitm", "chair/stuckm"],
)
@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(
    run: Run, catalogue: Catalogue, project: Path, outside: dict[str, str], name: str
) -> None:
    path = catalogue(["chair/chrm", name])
    words = [sys.executable, "-m", "personalize.recipe", "run", "--step", "fleet", "--set", f"fleet.catalogue={path}"]
    process = subprocess.Popen(words, cwd=project, env=outside, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    until = time.monotonic() + 90
    while not (project / "waiting").exists() and time.monotonic() < until:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 130, said
    assert {each.info.status for each in runs("")} == {"FINISHED", "KILLED"}
    card = mlflow.artifacts.load_text(f"runs:/{step_runs('fleet')[0].info.run_id}/card.json")
    assert "chair/chrm" in card, "the card of what was stopped shows what was done"
    learn = project / "steps/learn.py"
    learn.write_text(learn.read_text().replace("whole = 120", "whole = 0"))
    again = subprocess.run(words, cwd=project, env=outside, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert {name: row["state"] for name, row in rows().items()} == {"chair/chrm": "done", name: "done"}
    assert not [
        line
        for line in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout.split("\n")
        if str(project) in line
    ]


def test_many_writers_to_a_database_file_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from personalize.fleet.workers import Crew
    from personalize.recipe import RecipeError
    from steps import fleet as step

    said: list[str] = []
    monkeypatch.setattr("builtins.print", lambda text, **_: said.append(text))
    step._suits("sqlite:///mlflow.db", Crew(step.SQLITE_WORKERS, 0, False, True))
    assert not said
    step._suits("sqlite:///mlflow.db", Crew(step.SQLITE_WORKERS + 1, 0, False, True))
    assert "start a tracking server on PostgreSQL" in said[0]
    with pytest.raises(RecipeError, match="a file that other machines of the cluster do not have"):
        step._suits("sqlite:///mlflow.db", Crew(2, 0, True, False))


def test_the_card_has_its_twin(run: Run, catalogue: Catalogue) -> None:
    fleet(run, catalogue(["chair/chra", "chair/chrm", "chair/failb"]))
    facts = json.loads(mlflow.artifacts.load_text(f"runs:/{step_runs('fleet')[0].info.run_id}/card.json"))
    blocks = {block["title"]: block for block in facts["blocks"] if "title" in block}
    assert [row["cells"][:2] for row in blocks["Every subject"]["rows"]] == [
        ["chair/failb", "failed"], ["chair/chra", "not passed"], ["chair/chrm", "passed"],
    ]  # fmt: skip
    causes = [row[0] for row in blocks["What the failures have in common"]["rows"]]
    assert sorted(causes) == ["Pictures of … stop too far at #.", "learn: …: loss is nan after # steps"]
