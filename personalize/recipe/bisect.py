"""Bisect: the commit that moved a number, between the commits of a good run and of a bad one. git does the search.

At each commit that git asks for, the step that makes the number is run as it was then, in a folder of its own. What the
commits have in common is found in the tracking store, so only what differs is made.
"""

import contextlib
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from personalize.recipe import machine
from personalize.recipe.config import Override, load
from personalize.recipe.errors import RecipeError, nearest
from personalize.recipe.fingerprint import differences
from personalize.recipe.reproduce import (
    apart_from,
    artifact_of,
    bring,
    environment_of,
    has,
    lacking,
    project_run,
    pull_pinned,
    steps_of,
    withheld,
    worktree,
)
from personalize.recipe.steps import load_steps
from personalize.recipe.tracking import StepRun, Store

NOISE = 1e-3
"""What equal runs may differ by, as a share of the larger of the two numbers, where nobody says."""
STOPPED = 128
"""From this exit status on, a process was ended by a signal."""
_FOUND = re.compile(r"^# first bad commit: \[([0-9a-f]+)\]", re.MULTILINE)
_POSSIBLE = re.compile(r"^# possible first bad commit: \[([0-9a-f]+)\]", re.MULTILINE)


@dataclass(frozen=True)
class End:
    """One of the two runs. value: what its step came to. steps: the runs whose results it used."""

    name: str
    run: Any
    commit: str
    resolved: Mapping[str, Any]
    steps: Mapping[str, StepRun]
    value: float

    def __str__(self) -> str:
        return f"the {self.name} run ({self.run.info.run_id[:8]})"


@dataclass
class Search:
    """What is the same at each commit. values: what commits came to; None where one could not be run."""

    root: Path
    store: Store
    experiment: str
    metric: str
    step: str
    good: End
    bad: End
    noise: float
    overrides: Mapping[str, str]
    values: dict[str, float | None] = field(default_factory=dict)

    def is_bad(self, value: float) -> bool:
        """Nearer to the bad run's than to the good one's; what is no number is like the one that is none."""
        if any(math.isnan(each) for each in (value, self.good.value, self.bad.value)):
            return math.isnan(value) == math.isnan(self.bad.value)
        return abs(value - self.bad.value) < abs(value - self.good.value)


def bisect(
    root: Path, good: str, bad: str, metric: str, noise: float | None = None, given: Sequence[Override] = ()
) -> int:
    """Prints the first commit that comes nearer to the bad run's number than to the good one's.

    good, bad: run ids. noise: what equal runs may differ by, in the metric's own unit. given: values that the runs
    withheld because they hold a secret.

    Returns 0; 1 where commits that cannot be run hide it. Raises RecipeError where there is nothing to search: one
    commit, other settings, other data, no difference.
    """
    search = _prepared(root, good, bad, metric, noise, given)
    first, last = search.good, search.bad
    between = _git(root, "rev-list", "--count", f"{first.commit}..{last.commit}").strip()
    for said in machine.apart(first.run.data.tags, last.run.data.tags):
        print(f"note: {said}", flush=True)
    print(f"{metric} of {search.step}: {first.value:g}, then {last.value:g}, {between} commits later", flush=True)
    with worktree(root, last.commit, last.run.data.tags.get("lineage.repository", "")) as place:
        for end in (first, last):
            _git(place, "checkout", "--quiet", "--detach", end.commit)
            _refuse_other(search, end, place)
        found, possible = _found(search, place)
    if not found:
        print(f"\n{metric} moved in one of these, of which all but the last cannot be run\n{_told(root, possible)}")
        return 1
    before, now = search.values.get(_git(root, "rev-parse", f"{found}^").strip()), search.values.get(found)
    print(f"\n{metric} {_shown(before)} → {_shown(now)}, first in\n{_told(root, [found])}")
    print(_git(root, "show", "--stat", "--format=", found).rstrip())
    if now is not None and min(abs(now - first.value), abs(now - last.value)) > search.noise:
        print(f"note: neither run came to {now:g}: more than one commit may have moved it")
    return 0


def _prepared(
    root: Path, good_id: str, bad_id: str, metric: str, noise: float | None, given: Sequence[Override]
) -> Search:
    store, good_run = project_run(root, good_id)
    _, bad_run = project_run(root, bad_id)
    step = _step_with(metric, steps_of(store, good_run), steps_of(store, bad_run))
    good, bad = _end("good", store, good_run, step, metric), _end("bad", store, bad_run, step, metric)
    resolved = good.resolved
    if good.commit == bad.commit:
        raise RecipeError(
            f"both runs are of commit {good.commit[:8]}, so no commit moved {metric}; what differs between them: "
            f"{'; '.join(_between(store, good, bad)) or 'nothing that is recorded'}"
        )
    if apart := _asked_apart(good.resolved, bad.resolved):
        raise RecipeError(f"the runs were asked for other things, so not only commits differ: {'; '.join(apart)}")
    bound = noise if noise is not None else NOISE * max(abs(good.value), abs(bad.value))
    if good.value == bad.value or abs(good.value - bad.value) <= bound:
        raise RecipeError(
            f"{metric} is {good.value:g} in the good run and {bad.value:g} in the bad one: no more than noise "
            f"({bound:g}); -P noise=... says what equal runs may differ by"
        )
    for end in (good, bad):
        if not has(root, end.commit):
            raise RecipeError(f"commit {end.commit[:8]} of {end} is not in this clone: git fetch")
    _refuse_unrelated(root, good, bad)
    overrides = {**resolved["overrides"], **withheld(resolved, given)}
    named = [Override(*each) for each in overrides.items()]
    steps = load_steps(root, load(root, resolved["profile"], named).places)
    if step in steps and steps[step].acts:
        raise RecipeError(f"{metric} is of step '{step}', which acts outside: it is not run again and again")
    return Search(root, store, good_run.info.experiment_id, metric, step, good, bad, bound, overrides)


def _end(name: str, store: Store, run: Any, step: str, metric: str) -> End:
    resolved = yaml.safe_load(artifact_of(store, run, "recipe.resolved.yaml"))
    steps, tags = steps_of(store, run), run.data.tags
    end = End(name, run, tags.get("lineage.commit", "none"), resolved, steps, steps[step].metrics[metric])
    if end.commit == "none":
        raise RecipeError(f"{end} does not say from which commit it was made")
    if tags.get("lineage.dirty") == "true":
        raise RecipeError(f"{end} was made with changes that no commit holds; commit them, run again and give that run")
    return end


def _step_with(metric: str, good: Mapping[str, StepRun], bad: Mapping[str, StepRun]) -> str:
    """The last step that has the metric in both runs."""
    both = [
        step for step, past in good.items() if step in bad and metric in past.metrics and metric in bad[step].metrics
    ]
    if both:
        return both[-1]
    for name, steps in (("good", good), ("bad", bad)):
        known = sorted({each for past in steps.values() for each in past.metrics if not each.startswith("system/")})
        if metric not in known:
            raise RecipeError(f"the {name} run has no metric '{metric}'{nearest(metric, known)}")
    raise RecipeError(f"no step of both runs has the metric '{metric}'")


def _asked_apart(good: Mapping[str, Any], bad: Mapping[str, Any]) -> list[str]:
    """In what two runs were asked for other things by profile and parameters."""
    said = [] if good["profile"] == bad["profile"] else [f"profile {good['profile']}, then {bad['profile']}"]
    then, now = good["overrides"], bad["overrides"]
    names = [name for name in sorted({*then, *now}) if then.get(name) != now.get(name)]
    return said + [f"{name} {then.get(name, '(not given)')}, then {now.get(name, '(not given)')}" for name in names]


def _between(store: Store, good: End, bad: End) -> list[str]:
    said = []
    for step, past in good.steps.items():
        then = store.components(past)
        now = store.components(bad.steps[step]) if step in bad.steps else None
        if then is not None and now is not None:
            said += [words for words in differences(now, then) if not words.startswith("input ")]
    return list(dict.fromkeys(said + machine.apart(good.run.data.tags, bad.run.data.tags)))


def _refuse_unrelated(root: Path, good: End, bad: End) -> None:
    if _comes_before(root, good.commit, bad.commit):
        return
    if _comes_before(root, bad.commit, good.commit):
        raise RecipeError(
            "the bad run's commit comes before the good one's; give them the other way round to find what mended it"
        )
    shallow = _git(root, "rev-parse", "--is-shallow-repository").strip() == "true"
    why = "this clone lacks the history: git fetch --unshallow" if shallow else "they lie on branches of their own"
    raise RecipeError(f"commit {good.commit[:8]} is no ancestor of {bad.commit[:8]}: {why}")


def _comes_before(root: Path, one: str, other: str) -> bool:
    asked = ["git", "merge-base", "--is-ancestor", one, other]
    return subprocess.run(asked, cwd=root, capture_output=True, check=False).returncode == 0


def _refuse_other(search: Search, end: End, place: Path) -> None:
    """Raises RecipeError where a run's own commit does not come to its number here: then no other would either."""
    commit = end.commit[:8]
    with _given(search, place):
        apart = apart_from(search.store, end.run, place, end.resolved, search.overrides)
    if other := lacking(apart):
        raise RecipeError(f"{end} was made from something that is not here: {'; '.join(other)}")
    value = _tried(search, place, end.commit)
    if value is None:
        raise RecipeError(f"commit {commit} of {end} cannot be run here; its own message is above")
    if value != end.value and not abs(value - end.value) <= search.noise:
        known = "; ".join([*machine.apart(end.run.data.tags, machine.tags()), *apart])
        raise RecipeError(
            f"commit {commit} of {end} comes to {value:g} here, and the run to {end.value:g}: more than noise "
            f"({search.noise:g}) lies between them{f' ({known})' if known else ''}"
        )


def _found(search: Search, place: Path) -> tuple[str, list[str]]:
    """(The first bad commit, or nothing; those that it may be where some could not be run)."""
    _git(place, "bisect", "start", search.bad.commit, search.good.commit)
    while True:
        log = _git(place, "bisect", "log")
        if found := _FOUND.search(log):
            return found[1], []
        if possible := _POSSIBLE.findall(log):
            return "", possible
        commit = _git(place, "rev-parse", "HEAD").strip()
        value = _tried(search, place, commit)
        verdict = "skip" if value is None else "bad" if search.is_bad(value) else "good"
        print(f"{commit[:8]}  {verdict:<4}  {search.metric} {_shown(value)}", flush=True)
        _git(place, "bisect", verdict, also=2)  # only commits are left that cannot be run


def _tried(search: Search, place: Path, commit: str) -> float | None:
    """Runs the step at the commit that is checked out -> its number; None where that cannot be."""
    client = search.store.client
    tags = {"bisects": f"{search.metric} of {search.step}", "mlflow.runName": f"bisect {commit[:8]}"}
    run = client.create_run(search.experiment, tags=tags).info.run_id
    command = [sys.executable, "-m", "personalize.recipe", "run", "--step", search.step]
    command += ["--profile", search.good.resolved["profile"]]
    for name, text in search.overrides.items():
        command += [f"--{name}", text]
    print(f"running commit {commit[:8]}", flush=True)
    status = 2
    try:
        with _given(search, place):
            environment = environment_of(search.root, search.experiment) | {"MLFLOW_RUN_ID": run}
            status = subprocess.run(command, cwd=place, env=environment, check=False).returncode
    except RecipeError as error:  # what the commit pins is not to be had
        print(f"error: {error}", flush=True)
    finally:
        if client.get_run(run).info.status == "RUNNING":
            client.set_terminated(run, "FAILED" if status else "FINISHED")
    if status < 0 or status >= STOPPED:
        raise KeyboardInterrupt
    made = steps_of(search.store, client.get_run(run)).get(search.step) if status == 0 else None
    search.values[commit] = made.metrics.get(search.metric) if made else None
    return search.values[commit]


@contextlib.contextmanager
def _given(search: Search, place: Path) -> Iterator[None]:
    """With the data that the commit pins, and with what lies in this checkout and in no commit, for the block."""
    pull_pinned(place)
    missing = [name for name in search.good.resolved.get("outside_data", []) if not (place / name).exists()]
    bring(search.root, place, missing)
    try:
        yield
    finally:
        for name in missing:
            if (link := place / name.rstrip("/")).is_symlink():
                link.unlink()


def _told(root: Path, commits: Sequence[str]) -> str:
    said = _git(root, "show", "--no-patch", "--date=short", "--format=  %h %ad %s", *commits)
    return "\n".join(line for line in said.splitlines() if line)


def _shown(value: float | None) -> str:
    return "?" if value is None else f"{value:g}"


def _git(where: Path, *arguments: str, also: int = 0) -> str:
    """Raises RecipeError with git's own words where it fails otherwise than with the exit status `also`."""
    done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=False)
    if done.returncode not in (0, also):
        raise RecipeError(f"git {arguments[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
