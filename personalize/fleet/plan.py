"""What a fleet would do: which subjects run, which are done already, which cannot be and why, and how long it takes.

A subject is done where a finished run of the recipe has the digest of all that decides its result (`recipe.work`), and
what it is judged and registered by is there still, as it was made. What is done in part is decided step by step when
its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from personalize.fleet import record
from personalize.fleet.catalogue import Catalogue, Fault
from personalize.fleet.record import Row
from personalize.fleet.work import Work, check_names, works
from personalize.recipe import RecipeError
from personalize.recipe.config import Merged, Override
from personalize.recipe.plan import Variants
from personalize.recipe.project import WORK
from personalize.recipe.tracking import Store

MEASURED = 50
"""Subjects, the latest, by whose time the rest is estimated."""
MOST_FAULTS = 20
"""That the terminal shows; the card and `invalid.jsonl` have all."""


@dataclass(frozen=True)
class Plan:
    """waiting: what would run; done: rows of what is done already; seconds: that a subject takes, where measured.

    left_out: subjects that `only` and `limit` leave for another time.
    """

    merged: Merged
    target: str
    waiting: tuple[Work, ...]
    done: tuple[Row, ...]
    faults: tuple[Fault, ...]
    left_out: int = 0
    seconds: float | None = None
    unused: tuple[str, ...] = ()
    measured: list[float] = field(default_factory=list)

    def hours(self, workers: int) -> float | None:
        """That the waiting would take."""
        return None if self.seconds is None else len(self.waiting) * self.seconds / 3600 / max(1, workers)


def make(
    catalogue: Catalogue,
    variants: Variants,
    store: Store,
    root: Path,
    group_size: int = 1,
    only_failed: bool = False,
    limit: int = 0,
    tell: Callable[[int, int], None] = lambda looked, of: None,
) -> Plan:
    """limit: works to run at most, 0 for all. tell: is told how many were looked at.

    Raises RecipeError where the recipe itself is at fault.
    """
    merged, target, _ = variants.common()
    check_names(merged.short)
    asked, faults = works(catalogue.entries, group_size, root)
    finished, latest, measured = _history(store, merged.name, target)
    waiting: list[Work] = []
    done: list[Row] = []
    left_out = 0
    for number, work in enumerate(asked):
        if number % 100 == 0:
            tell(number, len(asked))
        if only_failed and latest.get(work.name, "FINISHED") == "FINISHED":
            left_out += 1
            continue
        try:
            digest = variants.prepare(work.overrides).work
        except RecipeError as error:
            faults.append(Fault(work.row, work.name, str(error)))
            continue
        row = _done(work, store, merged, target, finished.get(digest, "")) if digest else None
        if row is not None:
            done.append(row)
        elif limit and len(waiting) >= limit:
            left_out += 1
        else:
            waiting.append(work)
    every = sorted([*catalogue.faults, *faults], key=lambda fault: fault.row)
    seconds = record.rate(measured)
    return Plan(
        merged, target, tuple(waiting), tuple(done), tuple(every), left_out, seconds, catalogue.unused, measured
    )


def _history(store: Store, recipe: str, target: str) -> tuple[dict[str, str], dict[str, str], list[float]]:
    """Finished runs by what decided them, how each subject's latest run ended, and how long whole ones took."""
    finished: dict[str, str] = {}
    latest: dict[str, str] = {}
    measured: list[float] = []
    for run in store.projects(recipe, target):
        tags, info = run.data.tags, run.info
        if "reproduces" in tags:
            continue
        if subject := tags.get(record.SUBJECT, ""):
            latest.setdefault(subject, info.status)
        if info.status != "FINISHED":
            continue
        if work := tags.get(WORK, ""):
            finished.setdefault(work, info.run_id)
        if len(measured) < MEASURED and record.ran_alone(tags) and info.end_time and subject:
            measured.append((info.end_time - info.start_time) / 1000)
    return finished, latest, measured


def _done(work: Work, store: Store, merged: Merged, target: str, run_id: str) -> Row | None:
    """What became of it, where it is done and what it came to is there as it was made."""
    project = store.by_id(run_id) if run_id else None
    if project is None:
        return None
    for name in dict.fromkeys([target, merged.card]):
        if not name:
            continue
        past = record.step_of(store, project, name)
        if past is None or store.doubt(past):
            return None
    return record.of_run(work, store, merged, target, project) | {"reused": True}


def text(plan: Plan, workers: int, hour_price: float = 0) -> str:
    """The plan for the terminal. hour_price: of one worker, in whatever currency; 0 where it is not known."""
    lines = [f"{len(plan.waiting)} to run, {len(plan.done)} done already, {len(plan.faults)} cannot be done"]
    if plan.left_out:
        lines[0] += f", {plan.left_out} left for another time"
    for fault in plan.faults[:MOST_FAULTS]:
        lines.append(f"  invalid  {' '.join(str(fault).split())[:400]}")
    if len(plan.faults) > MOST_FAULTS:
        lines.append(f"  invalid  and {len(plan.faults) - MOST_FAULTS} more")
    if plan.unused:
        lines.append(f"  columns not used: {', '.join(plan.unused)}")
    if plan.waiting:
        lines.append(f"  {_duration(plan, workers, hour_price)}")
    return "\n".join(lines)


def _duration(plan: Plan, workers: int, hour_price: float) -> str:
    hours = plan.hours(workers)
    if hours is None:
        return "how long it takes is not known: no subject was run yet"
    words = f"about {spell(hours * 3600)} on {_count(workers, 'worker')}"
    if hour_price:
        words += f", {cost(hours * workers * 3600, hour_price)} at {hour_price:g} an hour of each"
    return f"{words} ({spell(plan.seconds or 0)} a subject, by the latest {len(plan.measured)})"


def spell(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`, `4 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 2 * 86400 else f"{seconds / 86400:.0f} days"


def cost(seconds: float, hour_price: float) -> str:
    """What so many seconds of a worker cost: `0.42`, `17`, `1,230`."""
    price = seconds / 3600 * hour_price
    return f"{price:,.0f}" if price >= 10 else f"{price:.2f}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def overrides_of(asked: dict[str, str], withheld: Sequence[str], own: str) -> list[Override]:
    """What was asked for on the fleet's command line and is meant for the recipe. own: the fleet's own step.

    Raises RecipeError for a value that was not kept because it looks like a secret.
    """
    if withheld:
        raise RecipeError(
            f"-P {withheld[0]}: looks like a secret; it is kept nowhere, so no worker would hear of it. Put it into "
            "the environment"
        )
    return [Override(name, value) for name, value in asked.items() if not name.startswith(f"{own}.")]
