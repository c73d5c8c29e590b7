"""A lease on a project run: who works on it, so that the run of a process that died does not stand as RUNNING for ever.

The run says which machine and process work on it, and until when that holds unless it is renewed. Whoever runs the
recipe next ends the runs whose holder is gone: a process of the same machine is looked for, another machine's lease
must have run out. The runs nested in a project run live no longer than it does.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from personalize.recipe import process
from personalize.recipe.tracking import Store

TAG = "recipe.lease"
LASTS_S = 900.0
"""Seconds for which a lease holds: clocks of machines differ, and a server may be away for a while."""
RENEWED_S = 60.0


def held() -> dict[str, str]:
    """The tag of a run that this process works on from its first moment."""
    return {TAG: _written()}


def take(store: Store, run_id: str) -> None:
    """This process works on the run from now on, for as long as a lease lasts."""
    store.client.set_tag(run_id, TAG, _written())


@contextlib.contextmanager
def lease(store: Store, run_id: str) -> Iterator[None]:
    """This process works on the run for as long as the block lasts."""

    def renew() -> bool:
        with contextlib.suppress(Exception):  # a server that is away for a minute; the next renewal tells it
            take(store, run_id)
        return False

    take(store, run_id)
    with process.meanwhile(renew, RENEWED_S, "lease"):
        yield


def end_dead(store: Store) -> list[str]:
    """Marks as killed the runs that nobody works on any more; their names.

    Only runs at or under one with a lease are looked at: what others log beside ours is theirs to end.
    """
    from mlflow.entities import ViewType

    running = {
        run.info.run_id: run
        for run in store.client.search_runs(
            store.searched, "attributes.status = 'RUNNING'", ViewType.ACTIVE_ONLY, max_results=1000
        )
    }
    ended = []
    for run_id, run in running.items():
        if _is_dead(run, running, store):
            store.client.set_terminated(run_id, "KILLED")
            ended.append(run.info.run_name or run_id)
    return ended


def _is_dead(run: Any, running: Mapping[str, Any], store: Store) -> bool:
    """Whether the holder of the lease at or above the run is gone, or the run above it has ended without it."""
    seen: set[str] = set()
    while TAG not in run.data.tags:
        above = run.data.tags.get("mlflow.parentRunId", "")
        if not above or above in seen:
            return False
        seen.add(above)
        if above not in running:
            past = store.by_id(above)
            return past is not None and past.status != "RUNNING" and TAG in past.tags
        run = running[above]
    return _is_gone(run.data.tags[TAG])


def _is_gone(text: str) -> bool:
    try:
        held = json.loads(text)
        place, pid, began, until = held["place"], int(held["pid"]), held["began"], float(held["until"])
    except (ValueError, KeyError, TypeError):
        return False  # of another version: not ours to judge
    return began != process.began(pid) if place == _place() else time.time() > until


def _written() -> str:
    pid = os.getpid()
    return json.dumps(
        {"place": _place(), "pid": pid, "began": process.began(pid), "until": round(time.time() + LASTS_S)}
    )


def _place() -> str:
    """Where a process's number means the same: this machine since it was started, and this container of it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)
