"""Records: what became of a subject, as its project run in MLflow tells it. One plain row each, for card and files."""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personalize.cards.card import PICTURE_SUFFIXES
from personalize.cards.links import address
from personalize.files import read_json
from personalize.fleet.work import Work
from personalize.recipe.config import Merged
from personalize.recipe.past import card_of
from personalize.recipe.showing import outcome_words
from personalize.recipe.tracking import STEPS, StepRun, Store, used

SUBJECT = "fleet.subject"
"""Tag of the runs that a fleet has made: whose they are."""
SIDE, QUALITY = 64, 60
"""Of the small pictures: four thousand of them make a page of a few megabytes."""

Row = dict[str, Any]


def blank(work: Work) -> Row:
    """A subject of which nothing is known yet. state: done, failed, stopped or waiting."""
    return {
        "subject": work.name,
        "tokens": work.tokens,
        "class_noun": work.class_noun,
        "row": work.row,
        "state": "waiting",
        "verdict": "",
        "reasons": [],
        "metrics": {},
        "seconds": None,
        "reused": False,
        "run": "",
        "judged": "",
        "card": "",
        "said": {},
        "why": "",
        "picture": "",
    }


def came_to(row: Mapping[str, Any]) -> str:
    """What became of a subject, in a word or two: its verdict, where it has one; what failed has none."""
    verdict = str(row["verdict"])
    return {"": str(row["state"]), "failed": "not passed"}.get(verdict, verdict)


def of_run(work: Work, store: Store, merged: Merged, target: str, project: StepRun) -> Row:
    """A finished project run. target: the step it went up to."""
    found = {name: run for name in (target, merged.card) if name and (run := step_of(store, project, name))}
    judged = found.get(merged.card)
    said = outcome_words(found[target].tags) if target in found else {}
    row = blank(work) | {
        "state": "done",
        "verdict": project.tags.get("verdict", ""),
        "metrics": {name: project.metrics[name] for name in merged.headline if name in project.metrics},
        "run": project.run_id,
        "said": said,
        "picture": _picture(store, [found[name] for name in found], project),
    }
    if judged is not None:
        card = card_of(store, project, judged, merged.card)
        facts = f"{card.removeprefix('runs:/').partition('/')[2].removesuffix('.html')}.json"
        at = project if card.startswith(f"runs:/{project.run_id}/") else judged
        row |= {"judged": judged.run_id, "card": card, "reasons": _reasons(store, at, facts)}
    else:
        row["card"] = address(found[target].run_id) if target in found else ""
    return row


def step_of(store: Store, project: StepRun, step: str) -> StepRun | None:
    """The finished run of a step that a project run ran or reused, where it is there still."""
    run_id = used(project.tags).get(step, "")
    past = store.by_id(run_id) if run_id else None
    return past if past is not None and past.status == "FINISHED" and past.active else None


def ran_alone(tags: Mapping[str, str]) -> bool:
    """Whether a run has done (nearly) all of its steps itself, so that its time tells how long a subject takes."""
    hows = [text.partition(" ")[0] for name, text in tags.items() if name.startswith(STEPS)]
    return bool(hows) and hows.count("ran") >= max(1, len(hows) - 1)


def rate(seconds: list[float]) -> float | None:
    """Seconds that a subject takes, by what was measured; None where nothing was."""
    return statistics.median(seconds) if seconds else None


def _reasons(store: Store, run: StepRun, name: str) -> list[str]:
    """The verdict's reasons, as the card that people judge gives them."""
    try:
        blocks = read_json(store.artifact(run, name))["blocks"]
        verdict = next(block for block in blocks if block["kind"] == "verdict")
        return [str(reason)[:300] for reason in verdict["reasons"]][:8]
    except Exception:  # a card that is not there, or of an older format, costs only the words
        return []


def _picture(store: Store, runs: list[StepRun], project: StepRun) -> str:
    """A small picture out of what the steps left, the latest first, as base64 WebP; nothing where there is none."""
    others = [name.removeprefix(STEPS) for name in project.tags if name.startswith(STEPS)]
    for run in [*runs, *(step_of(store, project, name) for name in reversed(others))]:
        if run is not None and (file := _first_picture(store, run)) is not None:
            return _small(file)
    return ""


def _first_picture(store: Store, run: StepRun) -> Path | None:
    if run.folder is not None:
        found = (run.folder / "outputs").rglob("*")
        return min((path for path in found if path.suffix.lower() in PICTURE_SUFFIXES), default=None)
    names = [name for name in run.tags.get("recipe.outputs", "").split("/") if Path(name).suffix in PICTURE_SUFFIXES]
    try:
        return store.artifact(run, f"outputs/{names[0]}") if names else None
    except Exception:  # a server that is away for a moment costs only the picture
        return None


def _small(file: Path) -> str:
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = ImageOps.fit(opened.convert("RGB"), (SIDE, SIDE))
    except (OSError, ValueError):
        return ""
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()
