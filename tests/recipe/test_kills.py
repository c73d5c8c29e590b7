"""Killed at any moment, again and again, a recipe loses nothing and leaves nothing. At night: make test-kills KILLS=500

Who is killed: the recipe (SIGKILL, SIGTERM, SIGINT), the tracking server in the middle of a run, or all at once as by a
power cut, of which files that no one had told the disk to keep come out short. Endpoints: tests/serving/test_kills.py.
"""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import mlflow
import pytest

from personalize import files
from personalize.recipe import Recipe
from tests import forked
from tests.tracking import Tracking, kill

KILLS = max(4, int(os.environ.get("KILLS", "60")) * 3 // 4)
"""The other quarter are endpoints'."""
VICTIMS = ("recipe",) * 5 + ("server", "power") * 2
STEPS = ("read", "count", "report")


@pytest.fixture
def tracking(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracking]:
    """MLflow's own waiting is shortened, by its own settings."""
    made = Tracking(store, tmp_path)
    try:
        made.wait()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", made.uri)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_JITTER", "0")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", mlflow.MlflowClient().create_experiment("killed"))
        yield made
    finally:
        made.kill()


def results(root: Path) -> dict[str, str]:
    """What each step made, by digest."""
    recipe = Recipe("local", root=root)
    return {step: files.tree_digest(recipe.get_artifact(step)) for step in STEPS}


def cut_short(places: list[Path], since: float, chance: random.Random) -> int:
    """Half of the files that were written since then keep only their beginning, or nothing; how many.

    As file systems leave what was not synced. SQLite syncs its own; what was there before lies on the disk.
    """
    young = [
        path
        for place in places
        for path in sorted(place.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.stat().st_mtime >= since
    ]
    lost = [path for path in young if chance.random() < 0.5]
    for path in lost:
        os.truncate(path, chance.choice([0, chance.randrange(path.stat().st_size + 1)]))
    return len(lost)


@pytest.mark.slow
def test_whatever_is_killed_the_same_command_finishes_and_nothing_is_left(
    project: Path, outside: dict[str, str], tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(0)
    monkeypatch.chdir(project)
    environment = {**os.environ, **{name: outside[name] for name in ("PYTHONPATH", "OMP_NUM_THREADS")}}
    disk, heard = [tmp_path / "served", project / "build"], tmp_path / "said"

    def begin() -> BaseProcess:
        heard.unlink(missing_ok=True)
        return forked.begin(forked.recipe_command, ["run"], project, environment, heard)

    def end(process: BaseProcess) -> str:
        process.join(300)
        assert process.exitcode is not None, "it hangs"
        return heard.read_text() if heard.exists() else ""

    def finish() -> str:
        """Of what was cut short a run may have to say that it is, once for each step; then it is made anew."""
        for _ in range(1 + len(STEPS)):
            last = begin()
            said = end(last)
            assert "Traceback" not in said, said
            if last.exitcode == 0:
                return said
            assert "not as they were made" in said, said
        raise AssertionError(said)

    finish()
    expected, ended, lost = results(project), Counter[str](), 0
    text = project / "texts" / "a.txt"
    text.write_text("the cat and the dog and the cat")
    started = time.monotonic()
    finish()
    whole = time.monotonic() - started
    for number in range(KILLS):
        if number % 4 == 0:  # something new to do; in between, the same is gone on with
            text.write_text(f"the cat and the dog {number}")
        victim, since = chance.choice(VICTIMS), time.time()
        process = begin()
        time.sleep(chance.uniform(0, whole))
        if victim == "recipe":
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        elif victim == "server":
            tracking.kill()
            tracking.start()
        else:
            kill(process)
            tracking.kill()
            lost += cut_short(disk, since, chance)
            tracking.start()
        said = end(process)
        tracking.wait()
        ended[f"{victim} {'done' if process.exitcode == 0 else 'ended'}"] += 1
        stopped = victim == "recipe" and "KeyboardInterrupt" in said  # in the middle of an import
        for damage in ("disk I/O", "malformed", "not empty", *(() if stopped else ("Traceback",))):
            assert damage not in said, said
    text.write_text("the cat and the dog")
    last = finish()
    assert results(project) == expected, last
    print(f"{KILLS} kills: {dict(ended)}; {lost} files cut short")
    assert sum(count for how, count in ended.items() if how.endswith("ended")), "somebody was killed"
    client = mlflow.MlflowClient()
    runs = client.search_runs([os.environ["MLFLOW_EXPERIMENT_ID"]], max_results=5000)
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
    assert not list((project / "build" / "recipe" / "work").glob("*"))
    assert "run    " not in finish(), "everything is reused"
