"""The card of a fleet: how many came through, what the others have in common, and every subject, the worst first."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personalize.cards import Advice, Card, Line
from personalize.cards.pictures import Picture
from personalize.files import read_json, read_rows
from personalize.fleet.plan import cost, spell
from personalize.fleet.record import came_to
from personalize.recipe import Inputs
from steps.fleet import Config

Row = Mapping[str, Any]
ORDER = ("failed", "stopped", "not passed", "undecided", "passed", "done", "waiting")
"""The worst first."""
TONES = {"failed": "failed", "stopped": "failed", "not passed": "failed", "undecided": "undecided", "passed": "passed"}
MOST_ROWS, MOST_FAULTS, MOST_CAUSES = 10_000, 500, 12
SIDE = 36


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    rows = sorted(read_rows(outputs / "subjects.jsonl"), key=lambda row: _rank(row, config.shows))
    faults, about = read_rows(outputs / "invalid.jsonl"), read_json(outputs / "fleet.json")
    states = Counter(map(came_to, rows))
    _verdict(card, states, len(rows), faults, about)
    card.facts(_facts(rows, states, faults, about, config.hour_price))
    if advice := list(_advice(config, states, card.run_id)):
        card.advice("What to do next", advice)
    _common(card, rows)
    for name, metric in config.shows.items():
        groups = _by_state(rows, lambda row, metric=metric: row["metrics"].get(metric))
        if groups:
            card.histogram(name.capitalize(), groups, x=f"{name} ({metric})")
    if took := _by_state(rows, lambda row: row["seconds"]):
        card.histogram("Seconds", took, x="seconds that a subject took")
    _roster(card, rows, config)
    if faults:
        shown = [[of["row"] or "–", of["name"], of["why"]] for of in faults[:MOST_FAULTS]]
        card.table("Cannot be done", ["row", "subject", "why"], shown, stacked=True)
        if len(faults) > MOST_FAULTS:
            card.text(f"{len(faults) - MOST_FAULTS} more are in invalid.jsonl.")


def _rank(row: Row, shows: Mapping[str, str]) -> tuple[int, float, str]:
    first = next(iter(shows.values()), "")
    value = row["metrics"].get(first)
    return ORDER.index(came_to(row)), float("-inf") if value is None else float(value), row["subject"]


def _verdict(card: Card, states: Counter[str], total: int, faults: Sequence[Row], about: Row) -> None:
    rows = "1 row of the catalogue" if len(faults) == 1 else f"{len(faults)} rows of the catalogue"
    invalid = [f"{rows} cannot be done, listed at the end"] if faults else []
    if about["planned"]:
        words = f"{about['waiting']} of {total} subjects would run, {about['done']} are done already"
        card.verdict("undecided", words, invalid, stamp="Plan")
        card.outcome("planned")
        return
    passed = states["passed"]
    reasons = [f"{states[name]} {WORDS[name]}" for name in WORDS if states[name]]
    stamp = f"{passed} of {total}"
    if total and passed == total and not faults:
        card.verdict("passed", f"all {total} subjects passed", reasons, stamp=stamp)
    else:
        status = "undecided" if passed else "failed"
        card.verdict(status, f"{passed} of {total} subjects passed", [*reasons, *invalid], stamp=stamp)  # type: ignore[arg-type]
    card.outcome("open" if states["waiting"] or states["stopped"] else "done", run=card.run_id)


WORDS = {
    "not passed": "did not pass their gates",
    "undecided": "are undecided: too few pictures to tell",
    "failed": "failed before they could be judged",
    "stopped": "were stopped",
    "waiting": "have not run yet",
    "done": "are done, and nothing judges them",
}


def _facts(
    rows: Sequence[Row], states: Counter[str], faults: Sequence[Row], about: Row, hour_price: float
) -> dict[str, Any]:
    took = sorted(row["seconds"] for row in rows if row["seconds"] and not row["reused"])
    facts: dict[str, Any] = {
        "subjects": len(rows),
        "passed": states["passed"],
        "not passed": states["not passed"],
        "undecided": states["undecided"],
        "failed": states["failed"],
        "invalid": len(faults),
        "done before": sum(row["reused"] for row in rows),
        "class nouns": len({row["class_noun"] for row in rows}),
    }
    if took:
        facts |= {"a subject takes": spell(took[len(took) // 2]), "all together": spell(sum(took))}
    if about["workers"]:
        facts["workers"] = about["workers"]
    if took and hour_price:
        facts["cost"] = f"{cost(sum(took), hour_price)}, at {hour_price:g} an hour of a worker"
    if about["planned"] and about["seconds"]:
        facts["would take, one at a time"] = spell(about["seconds"] * about["waiting"])
        if hour_price:
            facts["would cost"] = cost(about["seconds"] * about["waiting"], hour_price)
    return facts


def _advice(config: Config, states: Counter[str], run_id: str) -> Any:
    again = {"catalogue": config.catalogue}
    if config.group_size > 1:
        again["group_size"] = str(config.group_size)
    if config.plan:
        yield Advice("", "Run it.", Card.command("fleet", **again))
        return
    if states["waiting"]:
        because = f"{states['waiting']} subjects have not run yet; what is done is not run again."
        yield Advice(because, "Go on.", Card.command("fleet", **again))
    if states["failed"]:
        because = "What failed has a card or a line that says why; once that is put right:"
        yield Advice(because, "Run those that failed once more.", Card.command("fleet", **again, only="failed"))
    if states["passed"]:
        because = f"{states['passed']} passed their gates. A random sample of them, looked at, bounds how many are bad."
        yield Advice(because, "Look at a sample and approve them together.", Card.command("fleet_review", fleet=run_id))


def _common(card: Card, rows: Sequence[Row]) -> None:
    """What those that failed or did not pass have in common: causes, with how many have each, and of which classes."""
    of: dict[str, list[Row]] = defaultdict(list)
    bad = [row for row in rows if came_to(row) in ("failed", "not passed", "undecided")]
    for row in bad:
        for cause in dict.fromkeys(plain(text, row) for text in ([row["why"]] if row["why"] else row["reasons"])):
            of[cause].append(row)
    every = Counter(row["class_noun"] for row in rows)
    if causes := sorted(of.items(), key=lambda item: -len(item[1]))[:MOST_CAUSES]:
        table = []
        for cause, found in causes:
            nouns = Counter(row["class_noun"] for row in found).most_common(3)
            said = ", ".join(f"{noun} {count} of {every[noun]}" for noun, count in nouns)
            table.append([cause, len(found), f"{100 * len(found) / len(bad):.0f} %", said, found[0]["subject"]])
        card.table("What the failures have in common", ["cause", "subjects", "share", "classes", "for example"], table)
    bad_of = Counter(row["class_noun"] for row in bad)
    if bad and len(every) > 1:
        worst = sorted(every, key=lambda noun: (-bad_of[noun] / every[noun], noun))[:MOST_CAUSES]
        table = [[noun, bad_of[noun], every[noun], f"{100 * bad_of[noun] / every[noun]:.0f} %"] for noun in worst]
        card.table("By class", ["class noun", "not through", "of", "share"], table)


def plain(text: str, row: Row) -> str:
    """A reason without what is this subject's own (its words, paths, ids, numbers), so that equal ones are one."""
    first = next((line for line in text.splitlines() if line.strip()), "").strip()
    for word in sorted([*row["tokens"], *row["subject"].split(", ")], key=len, reverse=True):
        first = first.replace(word, "…")
    first = re.sub(r"(?<![\w<])/[\w.-]+(?:/[\w.-]+)+", "…", first)
    first = re.sub(r"\b[0-9a-f]{8,}\b", "…", first)
    first = re.sub(r"[-−+]?\d+(?:[.,]\d+)*", "#", first)
    return first[:160]


def _by_state(rows: Sequence[Row], value: Any) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for name in ("passed", "undecided", "not passed", "failed", "done"):
        values = [number for row in rows if came_to(row) == name and (number := value(row)) is not None]
        if values:
            found[name] = values
    return found


def _roster(card: Card, rows: Sequence[Row], config: Config) -> None:
    columns = ["subject", "came to", *config.shows, "seconds", "why"]
    lines = [
        Line(
            [
                row["subject"],
                came_to(row) + (", before" if row["reused"] else ""),
                *(_rounded(row["metrics"].get(metric)) for metric in config.shows.values()),
                row["seconds"],
                _why(row),
            ],
            [came_to(row), row["class_noun"]],
            row["card"],
            TONES.get(came_to(row), ""),
            Picture(f"data:image/webp;base64,{row['picture']}", SIDE, SIDE, (SIDE, SIDE)) if row["picture"] else None,
        )
        for row in rows[:MOST_ROWS]
    ]
    more = len(rows) - len(lines)
    note = f"The worst first; {more} better ones are in subjects.jsonl." if more > 0 else "The worst first."
    card.roster("Every subject", columns, ["came to", "class noun"], lines, note)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)


def _why(row: Row) -> str:
    said = row["why"] or ("; ".join(row["reasons"][:2]) if came_to(row) in ("not passed", "undecided") else "")
    said = " ".join(said.split())
    return said if len(said) <= 160 else f"{said[:159]}…"
