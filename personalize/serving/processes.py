"""Who is that process, and what did it say?

A pid alone is not an answer: after a reboot or a long time it may belong to somebody else. A process
is therefore remembered as a pair (pid, start time) and recognised only when both agree.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil


def remembered(pid: int) -> dict[str, Any]:
    """The pair by which a process is recognised again: `{"pid": ..., "started": seconds since 1970}`."""
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def is_alive(who: dict[str, Any] | None) -> bool:
    """Whether exactly that process still runs. A zombie, and a stranger that got the same pid, do not count."""
    if not who or not who.get("pid"):
        return False
    try:
        process = psutil.Process(who["pid"])
        # The kernel derives the start time from the boot time, whose last digits may move by a clock correction.
        same = abs(process.create_time() - who["started"]) < 1.0
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def family(who: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The process and all its descendants, as identities; empty when it is gone."""
    if not is_alive(who):
        return []
    assert who is not None
    members = [who]
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(who["pid"]).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                members.append({"pid": child.pid, "started": child.create_time()})
    return members


def terminate(members: list[dict[str, Any]], grace_s: float) -> None:
    """Ask processes to end, wait at most `grace_s` seconds, then kill what is left. Those already gone are fine."""
    for sig, patience in ((signal.SIGTERM, grace_s), (signal.SIGKILL, 5.0)):
        for member in members:
            if is_alive(member):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(member["pid"], sig)
        deadline = time.monotonic() + patience
        while any(is_alive(member) for member in members):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)


def tail(path: Path, lines: int = 40) -> str:
    """The last lines of a log, or a word that there are none."""
    try:
        text = path.read_text(errors="replace").splitlines()
    except OSError:
        text = []
    return "\n".join(text[-lines:]) or "(the log is empty)"


def last_line(path: Path) -> str:
    """The last line of a log that is not blank, shortened."""
    return next((line.strip()[:100] for line in reversed(tail(path).splitlines()) if line.strip()), "")
