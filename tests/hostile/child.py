"""Gives hostile inputs to their doors, one after the other, and notes what each came to.

    python -m tests.hostile.child <folder> <file> <name> ...

Each is made and met in a folder of its own with a temporary folder of its own, beside a file that nobody may touch.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.hostile.inputs import TABLE, Hostile

HANG_S = 120
"""Not a bound on how fast it is: what is still there after this is stopped, with the place where it hangs."""
MOST_BYTES = 8_000_000_000


def meet(hostile: Hostile, place: Path) -> dict[str, object]:
    from personalize.recipe.errors import in_words

    for name in ("work", "tmp"):
        (place / name).mkdir(parents=True)
    (place / "canary").write_text("untouched")
    os.chdir(place / "work")
    tempfile.tempdir = str(place / "tmp")
    given = hostile.make()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    begun = time.process_time()
    try:
        hostile.door(given)
        kind, words, status = "nothing was said", "", 0
    except Exception as error:
        kinds = [each.__name__ for each in type(error).__mro__]
        kind, words, status = " < ".join(kinds), in_words(error), getattr(error, "status", 2)
    seconds = time.process_time() - begun
    status_lines = Path("/proc/self/status").read_text().splitlines()
    peak = int(next(line for line in status_lines if line.startswith("VmHWM")).split()[1]) * 1000
    os.chdir("/")
    left = sorted(str(path) for path in (place / "tmp").glob("personalize-*/*"))
    left += sorted(path.name for path in (place / "tmp").iterdir() if not path.name.startswith("personalize-"))
    beside = sorted({path.name for path in place.iterdir()} - {"work", "tmp", "canary"})
    touched = [] if (place / "canary").read_text() == "untouched" else ["canary"]
    return {
        "name": hostile.name, "kind": kind, "words": words, "status": status, "seconds": seconds, "peak": peak,
        "left": left + beside + touched,
    }  # fmt: skip


def main(folder: str, notes: str, *names: str) -> None:
    import mlflow

    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    mlflow.set_experiment("hostile")
    chosen = {hostile.name: (number, hostile) for number, hostile in enumerate(TABLE)}
    with open(notes, "w") as stream:
        for name in names:
            number, hostile = chosen[name]
            faulthandler.dump_traceback_later(HANG_S, exit=True)
            stream.write(json.dumps(meet(hostile, Path(folder, str(number)))) + "\n")
            stream.flush()
            faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main(*sys.argv[1:])
