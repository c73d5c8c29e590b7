"""What one process makes others wait for; a dead one keeps nobody waiting; and files that a step does not read."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from personalize.files import value_digest
from personalize.recipe.alone import alone
from personalize.recipe.config import Override
from personalize.recipe.errors import RecipeError
from personalize.recipe.plan import Variants, prepare
from tests.recipe.conftest import Run

ONE, OTHER = value_digest("one"), value_digest("other")
HOLD = """
import sys, time
from pathlib import Path
from personalize.recipe.alone import alone
with alone(Path(sys.argv[1]), sys.argv[2], lambda: None):
    print("held", flush=True)
    ends = time.monotonic() + float(sys.argv[3])
    while time.monotonic() < ends and not (sys.argv[4] and Path(sys.argv[4]).exists()):
        time.sleep(0.05)
"""


def holder(root: Path, seconds: float, what: str = ONE, until: Path | str = "") -> subprocess.Popen[bytes]:
    """A process that is at it for so long, or until a file is there."""
    words = [sys.executable, "-c", HOLD, str(root), what, str(seconds), str(until)]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_the_second_waits_and_is_told_that_it_did(tmp_path: Path) -> None:
    process, said = holder(tmp_path, 1.0), []
    with alone(tmp_path, OTHER, lambda: said.append("no")) as waited:
        assert not waited, "other work is nobody's business"
    began = time.monotonic()
    with alone(tmp_path, ONE, lambda: said.append("waiting")) as waited:
        assert waited
    assert said == ["waiting"]
    assert 0.2 < time.monotonic() - began < 30
    process.wait(10)
    with alone(tmp_path, ONE, lambda: said.append("no")) as waited:
        assert not waited


LETTERS = """\"\"\"Letters: how many there are.\"\"\"
import os
from pathlib import Path
from personalize.recipe import Inputs, StepConfig
NEEDS = ("read",)
class Config(StepConfig):
    pass
def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    (outputs / "count.txt").write_text(str(len((inputs["read"].path / "all.txt").read_text())))
    if "LETTERS_DONE" in os.environ:
        Path(os.environ["LETTERS_DONE"]).touch()
"""


def test_what_does_not_need_a_result_that_another_makes_is_done_meanwhile(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "steps/letters.py").write_text(LETTERS)
    report = project / "steps/report.py"
    report.write_text(report.read_text().replace('("read", "count")', '("read", "count", "letters")'))
    recipe = project / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("  report:\n    heading", "  letters:\n  report:\n    heading"))
    status, said = run()
    assert status == 0
    assert order(said) == ["read", "count", "letters", "report"]
    made = mlflow.search_runs(filter_string="tags.`recipe.step` != 'read'", output_format="list")
    count = next(each for each in made if each.data.tags["recipe.step"] == "count")
    for each in made:
        mlflow.delete_run(each.info.run_id)
    monkeypatch.setenv("LETTERS_DONE", str(tmp_path / "done"))
    with holder(project, 60, count.data.tags["recipe.fingerprint"], until=tmp_path / "done"):
        status, said = run()
    assert status == 0
    assert order(said) == ["letters", "count", "report"]


def order(said: str) -> list[str]:
    return re.findall(r"^  (\w+) done in", said, flags=re.MULTILINE)


def test_who_was_killed_keeps_nobody_waiting(tmp_path: Path) -> None:
    process = holder(tmp_path, 60)
    process.kill()
    process.wait(10)
    with alone(tmp_path, ONE, lambda: pytest.fail("nobody has it")) as waited:
        assert not waited


def test_a_folder_that_cannot_be_written_keeps_nobody_from_working(tmp_path: Path) -> None:
    (tmp_path / "build").touch()
    with alone(tmp_path, ONE, lambda: None) as waited:
        assert not waited


def test_of_an_input_only_the_files_that_are_read_count_and_are_given(run: Run, project: Path) -> None:
    report = project / "steps/report.py"
    text = report.read_text().replace(
        'NEEDS = ("read", "count")\n', 'NEEDS = ("read", "count")\nREADS = {"count": ("counts.json",)}\n'
    )
    there = 'assert [path.name for path in inputs["count"].path.iterdir()] == ["counts.json"]\n    counts = json'
    report.write_text(text.replace("counts = json", there, 1))
    assert run()[0] == 0
    count = project / "steps/count.py"
    count.write_text(count.read_text().replace('{"words": len(counts)}', '{"words": len(counts) + 1}'))
    status, said = run()
    assert status == 0
    assert "▸ report  reuse" in said
    assert len(mlflow.search_runs(filter_string="tags.`recipe.step` = 'report'", output_format="list")) == 1
    count.write_text(count.read_text().replace("counts.most_common(config.top)", "counts.most_common(1)"))
    status, said = run()
    assert "report done" in said


def test_files_of_a_step_that_is_not_needed_are_named(run: Run, project: Path) -> None:
    report = project / "steps/report.py"
    report.write_text(report.read_text() + '\nREADS = {"cuont": ("a",)}\n')
    status, said = run()
    assert status == 2
    assert "steps/report.py: READS names 'cuont', which NEEDS does not; did you mean 'count'?" in said


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [Override("count.top", "5")],
        [Override("top", "2"), Override("read.title", "no")],
        [Override("language", "fr")],
    ],
)
def test_variants_are_what_each_would_be_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[Override]
) -> None:
    monkeypatch.chdir(project)
    common = [Override("count.seed", "3")]
    variants = Variants(project, "local", common)
    variants.prepare([Override("count.top", "9")])
    one, alone_ = variants.prepare(overrides), prepare(project, "local", [*common, *overrides])
    assert one.components == alone_.components
    assert one.configs == alone_.configs
    assert one.work == alone_.work != variants.prepare([Override("count.top", "9")]).work
    assert one.resolved() == alone_.resolved()
    with pytest.raises(RecipeError, match=r"count\.top"):
        variants.prepare([Override("count.top", "many")])
