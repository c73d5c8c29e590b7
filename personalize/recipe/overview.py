"""The whole recipe on one card: which step needs which, which are done, and why the others are not."""

from collections.abc import Mapping
from html import escape

from personalize.cards.card import Card
from personalize.recipe.plan import Planned, Prepared
from personalize.recipe.tracking import StepRun, Store

BOX, GAP_X, GAP_Y, HIGH = 132, 44, 22, 46


def overview(prepared: Prepared, plan: list[Planned], store: Store) -> Card:
    """The recipe's card: a drawing of its steps and a table of their states."""
    card = Card(
        "recipe",
        prepared.name,
        "Every step with what it needs, whether its result is at hand, and why not where it is not.",
    )
    states: dict[str, str] = {}
    rows: list[list[object]] = []
    by_name = {planned.step.name: planned for planned in plan}
    for name, step in prepared.steps.items():
        planned = by_name.get(name)
        if planned is None:
            state, why, past = "waiting", "needs a value that is not set", None
        else:
            past = planned.reused or store.latest(prepared.name, name, finished=False)
            state = state_of(planned, past)
            why = planned.why
        states[name] = state
        rows.append([name, state, why, past.run_id[:8] if past else None, step.about])
    needs = {
        name: prepared.needs(name) if name in prepared.configs else step.needs for name, step in prepared.steps.items()
    }
    card.drawing("Steps", draw(needs, states))
    card.table("States", ["step", "state", "why", "latest run", "what it does"], rows)
    return card


def state_of(planned: Planned, past: StepRun | None) -> str:
    """done · failed · to do, or for a step that always runs, how it went last."""
    if planned.reused is not None:
        return "done"
    if past is not None and past.status in ("FAILED", "KILLED"):
        return "failed"
    if not planned.step.reuse and past is not None and past.status == "FINISHED":
        return "done"
    return "to do"


def draw(needs: Mapping[str, tuple[str, ...]], states: Mapping[str, str]) -> str:
    """The steps as boxes from left to right, each after what it needs."""
    column: dict[str, int] = {}
    for name, before in needs.items():  # the recipe's order puts needs first
        column[name] = 1 + max((column[need] for need in before), default=-1)
    edges = [(need, name) for name, before in needs.items() for need in before if _is_direct(needs, need, before)]
    taken: set[tuple[int, int]] = set()
    place: dict[str, tuple[int, int]] = {}
    for name in needs:
        # a step has its row to itself as far as the last step that reads it: no line runs behind another's box
        last = max((column[user] for need, user in edges if need == name), default=0)
        columns = range(column[name], max(column[name] + 1, last))
        row = next(row for row in range(len(needs)) if not taken & {(x, row) for x in columns})
        taken |= {(x, row) for x in columns}
        place[name] = (column[name] * (BOX + GAP_X) + 2, row * (HIGH + GAP_Y) + 2)
    width = max(x for x, _ in place.values()) + BOX + 4
    height = max(y for _, y in place.values()) + HIGH + 4
    alt = "; ".join(
        f"{name} ({states[name]})" + (f" after {', '.join(before)}" if before else "") for name, before in needs.items()
    )
    size = f'viewBox="0 0 {width} {height}" width="{width}"'
    parts = [f'<svg class="dag" {size} role="img" aria-label="{escape(alt, quote=True)}">']
    for need, name in edges:
        (x0, y0), (x1, y1) = place[need], place[name]
        start, bend, end, half = x0 + BOX, x1 - GAP_X, x1, HIGH / 2
        middle = (bend + end) / 2
        curve = f"M{start},{y0 + half} H{bend} C{middle},{y0 + half} {middle},{y1 + half} {end},{y1 + half}"
        parts.append(f'<path class="edge" d="{curve}"/>')
    for name, (x, y) in place.items():
        kind = states[name].replace(" ", "-")
        parts.append(f'<g class="step {kind}"><rect x="{x}" y="{y}" width="{BOX}" height="{HIGH}" rx="9"/>')
        parts.append(f'<text x="{x + BOX / 2}" y="{y + 20}" text-anchor="middle">{escape(name)}</text>')
        parts.append(
            f'<text class="state" x="{x + BOX / 2}" y="{y + 36}" text-anchor="middle">{escape(states[name])}</text></g>'
        )
    return f'<div class="scroll">{"".join(parts)}</svg></div>'


def _is_direct(needs: Mapping[str, tuple[str, ...]], need: str, before: tuple[str, ...]) -> bool:
    """Whether no other of the steps needed says it already by a longer way."""
    return not any(need in _all_needs(needs, other) for other in before if other != need)


def _all_needs(needs: Mapping[str, tuple[str, ...]], name: str) -> set[str]:
    found: set[str] = set()
    for need in needs.get(name, ()):
        found |= {need} | _all_needs(needs, need)
    return found
