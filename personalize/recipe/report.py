"""What the terminal shows: the plan at the start, cards and next words at the end."""

from pathlib import Path

from personalize.recipe.outcome import next_words
from personalize.recipe.plan import Planned, Prepared
from personalize.recipe.runner import CARDS, Runner
from personalize.recipe.tracking import Past, Store


def plan_text(prepared: Prepared, plan: list[Planned]) -> str:
    """One line a step: what will happen, and why."""
    width = max(len(planned.step.name) for planned in plan)
    target = f"{'step' if prepared.alone else 'until'} {prepared.target}"
    lines = [f"{prepared.name} · profile {prepared.merged.profile.name} · {target}"]
    for planned in plan:
        lines.append(f"  {planned.step.name:<{width}}  {planned.action:<5}  {planned.why}")
    return "\n".join(lines)


def local_card(store: Store, past: Past, step: str) -> Path | None:
    """The card of a run in build/cards/, copied there where it is not the same already; None where it cannot be had."""
    path = store.root / CARDS / f"{step}.html"
    try:
        if path.is_file() and f'<meta name="run" content="{past.run_id}">' in path.read_text(encoding="utf-8")[:2000]:
            return path
        html = store.artifact(past, "card.html").read_text(encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    except Exception:  # a card that cannot be fetched is not worth failing for
        return None
    return path


def end_text(runner: Runner, seconds: float) -> str:
    """Where the cards are, how to see the runs, and what to type next."""
    prepared, store = runner.prepared, runner.store
    ran = sum(planned.action == "run" for planned in runner.plan)
    reused = len(runner.plan) - ran
    lines = [f"{prepared.name}: {ran} step{'s' if ran != 1 else ''} run, {reused} reused, {seconds:.1f} s"]
    shown = [
        planned.step.name for planned in runner.plan if planned.action == "run" or planned.step.name in _main(prepared)
    ]
    cards = [(step, local_card(store, runner.results[step], step)) for step in shown]
    width = max((len(step) for step, path in cards if path), default=0)
    for step, path in cards:
        if path is not None:
            star = "★" if step == prepared.merged.card else " "
            lines.append(f"{star} card  {step:<{width}}  {path}")
    lines.append(f"  runs  {runs_address(store, runner.parent_id)}")
    said, target = prepared.merged.next.get(prepared.target, ""), runner.results[prepared.target]
    if text := next_words(said, target.tags):
        lines.append("  next  " + text.replace("\n", "\n        "))
    return "\n".join(lines)


def _main(prepared: Prepared) -> set[str]:
    return {prepared.target, prepared.merged.card}


def runs_address(store: Store, run_id: str) -> str:
    """Where a person sees the run: a web address, or the command that gives one."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    if uri.startswith(("http://", "https://")):
        return f"{uri.rstrip('/')}/#/experiments/{store.experiment_id}/runs/{run_id}"
    if uri.startswith("databricks"):
        return f"run {run_id} in the workspace's experiment {store.experiment_id}"
    return f"mlflow ui --backend-store-uri {uri}   (run {run_id[:8]})"
