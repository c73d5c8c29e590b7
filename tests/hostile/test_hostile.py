"""Hostile inputs by the hundred: each is refused in one message that names it, soon, in little memory, and stays in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.inputs import TABLE, Hostile

REPOSITORY = Path(__file__).parents[2]
SECONDS = 5
"""Of the processor's time, whatever else the machine does."""
BYTES = 1_000_000_000
CHARACTERS = 3_000


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """What each of them came to. They share a process, since one may take the other's memory for its own."""
    place = tmp_path_factory.mktemp("hostile")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.hostile.child", str(place), str(place / "notes"), *(h.name for h in TABLE)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    found = {each["name"]: each for each in map(json.loads, (place / "notes").read_text().splitlines())}
    unmet = [hostile.name for hostile in TABLE if hostile.name not in found]
    assert not unmet, f"{unmet[0]} ended the process:\n{done.stderr[-3000:]}"
    return found


def test_there_are_more_than_a_hundred_and_no_two_are_called_the_same():
    assert len({hostile.name for hostile in TABLE}) == len(TABLE) > 100


@pytest.mark.parametrize("hostile", TABLE, ids=lambda hostile: hostile.name)
def test_it_is_refused_in_one_clear_message(met: dict[str, dict], hostile: Hostile) -> None:
    found = met[hostile.name]
    words = " ".join(found["words"].split())
    assert "ValueError" in found["kind"] or "Said" in found["kind"], f"{found['kind']}: {words}"
    assert found["status"] == 2, words
    assert re.search(hostile.says, words), words
    assert "Traceback" not in words
    assert len(words) < CHARACTERS, f"{len(words)} characters: {words[:300]}"
    assert found["left"] == [], "nothing lies outside of its folder, and nothing is left of what was tried"
    assert found["peak"] < BYTES
    assert found["seconds"] < SECONDS
