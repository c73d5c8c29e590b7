"""Several workers on one GPU: they load and draw one after another, and take what room is left."""

import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from personalize.dreambooth import backbone
from personalize.serving import sharing

ROOT = Path(__file__).parents[2]
WORKER = """
import sys, time
from types import SimpleNamespace
from personalize.serving import sharing
sharing.give_back = lambda: None
with sharing.alone_on(SimpleNamespace(type="cuda", index=0)):
    print("in", time.monotonic(), flush=True)
    time.sleep(float(sys.argv[1]))
    print("out", time.monotonic(), flush=True)
"""


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Temporary files of this test's own, so that a real GPU's lock is left alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def worker(seconds):
    return subprocess.Popen([sys.executable, "-c", WORKER, str(seconds)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_workers_take_a_gpu_one_after_another(elsewhere):
    told = [worker.communicate(timeout=120)[0].split() for worker in [worker(0.3) for _ in range(3)]]
    spans = sorted((float(words[1]), float(words[3])) for words in told)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_a_worker_that_was_killed_leaves_its_place(elsewhere):
    first = worker(600)
    assert first.stdout.readline().startswith("in")
    first.kill()
    first.wait()
    begun = time.monotonic()
    assert worker(0).communicate(timeout=120)[0].startswith("in")
    assert time.monotonic() - begun < 100


def test_what_a_worker_does_not_hold_is_given_back(elsewhere, monkeypatch):
    given = []
    monkeypatch.setattr(sharing, "give_back", lambda: given.append(1))
    with pytest.raises(MemoryError), sharing.alone_on(SimpleNamespace(type="cuda", index=1)):
        raise MemoryError
    assert given == [1]


def test_a_cpu_has_room_for_all():
    with sharing.alone_on(torch.device("cpu")), sharing.alone_on(torch.device("cpu")):
        pass


@pytest.mark.parametrize(
    ("free", "unused", "turns"),
    [(23e9, 0, False), (16e9, 0, False), (9e9, 0, True), (9e9, 6e9, False)],
    ids=["alone on 24 GB", "the second", "the third", "after this process drew something else"],
)
def test_a_worker_that_finds_little_room_brings_its_parts_in_turn(monkeypatch, free, unused, turns):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 24e9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: unused)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    assert backbone.takes_turns(torch.device("cuda", 0)) == turns
