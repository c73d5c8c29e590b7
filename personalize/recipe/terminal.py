"""What the terminal shows: the plan at the start, cards and next words at the end."""

from personalize.recipe.fingerprint import unlocked
from personalize.recipe.plan import Planned, Prepared
from personalize.recipe.runner import Runner
from personalize.recipe.showing import next_words
from personalize.recipe.tracking import Store

MOST_PACKAGES = 5


def plan_text(prepared: Prepared, plan: list[Planned]) -> str:
    """One line a step: what will happen, and why. Before them, what is not installed as it is locked."""
    width = max(len(planned.step.name) for planned in plan)
    target = f"{'step' if prepared.alone else 'until'} {prepared.target}"
    lines = [f"{prepared.name} · profile {prepared.merged.profile.name} · {target}"]
    if apart := unlocked(prepared.components[plan[0].step.name].environment):
        more = f" and {len(apart) - MOST_PACKAGES} more" if len(apart) > MOST_PACKAGES else ""
        lines.append(f"  not installed as locked: {', '.join(apart[:MOST_PACKAGES])}{more}; what is installed counts")
    for planned in plan:
        lines.append(f"  {planned.step.name:<{width}}  {planned.action:<5}  {planned.why}")
    return "\n".join(lines)


def end_text(runner: Runner, seconds: float) -> str:
    """Where the cards are, how to see the runs, and what to type next."""
    prepared, store = runner.prepared, runner.store
    ran, reused = len(runner.ran), len(runner.plan) - len(runner.ran)
    lines = [f"{prepared.name}: {ran} step{'s' if ran != 1 else ''} run, {reused} reused, {seconds:.1f} s"]
    width = max((len(step) for step in runner.shown), default=0)
    for step, shown in runner.shown.items():
        star = "★" if step == prepared.merged.card else " "
        lines.append(f"{star} card  {step:<{width}}  {shown.path}")
    lines.append(f"  runs  {runs_address(store, runner.parent_id)}")
    target = prepared.target
    if text := next_words(prepared.merged.next.get(target, ""), runner.shown[target].tags):
        lines.append("  next  " + text.replace("\n", "\n        "))
    return "\n".join(lines)


def runs_address(store: Store, run_id: str) -> str:
    """Where a person sees the run: a web address, or the command that gives one."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    if uri.startswith(("http://", "https://")):
        return f"{uri.rstrip('/')}/#/experiments/{store.experiment_id}/runs/{run_id}"
    if uri.startswith("databricks"):
        return f"run {run_id} in the workspace's experiment {store.experiment_id}"
    return f"mlflow ui --backend-store-uri {uri}   (run {run_id[:8]})"
