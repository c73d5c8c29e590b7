"""Run a logged run again (its commit and changes, pinned data, parameters) in a folder of its own, and compare."""

import contextlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from personalize.evidence import keys
from personalize.evidence.chain import Link, listed
from personalize.evidence.statement import EvidenceError
from personalize.files import read_json, scratch, sweep_scratch
from personalize.recipe import machine
from personalize.recipe.config import Override, load, profiles
from personalize.recipe.errors import RecipeError
from personalize.recipe.finding import PARTS, keep
from personalize.recipe.fingerprint import Components, differences
from personalize.recipe.project import DIFF, LEFT_OUT
from personalize.recipe.steps import Replay
from personalize.recipe.tracking import STEP, StepRun, Store, absolute, probe, used

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner


def reproduce(root: Path, run_id: str, tolerance: float, given: Sequence[Override] = ()) -> int:
    """Returns 0 where every metric of every step agrees within `tolerance` (relative), 1 where one does not.

    given: values that the run withheld because they hold a secret.

    Raises RecipeError where the run cannot be made again: what its results depend on is not in its record and not in
    this checkout either. That is found out before anything runs.
    """
    with _made_ready(root, run_id, given) as ready:
        store, original, run_id = ready.store, ready.original, ready.original.info.run_id
        print(f"running commit {ready.commit[:8]} again in {ready.place}", flush=True)
        ready.call("run", "--fresh", "true", "--reproduces", run_id)
        signer = ready.signer
    again = store.client.search_runs(
        [original.info.experiment_id],
        f"tags.reproduces = '{run_id}' AND tags.`recipe.target` != ''",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )[0]
    then, now = steps_of(store, original), steps_of(store, again)
    left_out_now = again.data.tags.get("reproduces.left_out", "").split(", ")
    lines, same = compare(then, now, tolerance, left_out_now)
    keep(store, again.info.run_id, then, same, f"within {tolerance:g} (relative)", signer)
    print("\n".join(lines))
    if cause := first_cause(then, now):
        print(cause)
    verdict = "agrees with" if same else "DIFFERS from"
    print(f"run {again.info.run_id[:8]} {verdict} run {run_id[:8]} (relative tolerance {tolerance:g})")
    return 0 if same else 1


def reproduce_parts(root: Path, run_id: str, asked: Replay, given: Sequence[Override] = ()) -> int:
    """Parts of a run's work done again from what it kept, and compared. Returns 0 where all of it holds, 1 where not.

    A run of its own says what was found, and is a result of nothing. Raises RecipeError as `reproduce` does.
    """
    print(f"seed {asked.seed} (-P seed={asked.seed} draws the same parts again)", flush=True)
    with _made_ready(root, run_id, given) as ready, scratch("report") as kept:
        report = kept / "links.json"
        words = {"segments": asked.segments, "seed": asked.seed, "tolerance": asked.tolerance, "report": report}
        given_words = [word for name, value in words.items() for word in (f"--{name}", str(value))]
        run_id = ready.original.info.run_id
        print(f"replaying parts of commit {ready.commit[:8]} in {ready.place}", flush=True)
        ready.call("replay", "--run", run_id, *given_words)
        links = [Link(**each) for each in read_json(report)]
    print("\n".join(listed(links)), flush=True)
    wrong = [link for link in links if not link.holds]
    how = f"within {asked.tolerance:g}" if asked.tolerance else "to the byte"
    tags = {
        "reproduces": run_id,
        PARTS: f"{asked.segments}, seed {asked.seed}",
        "mlflow.runName": f"parts of {run_id[:8]}",
    }
    client, experiment = ready.store.client, ready.original.info.experiment_id
    found = client.create_run(experiment, tags=tags).info.run_id
    ready.store.log_text(found, json.dumps([asdict(link) for link in links], indent=1), "replay.json")
    keep(ready.store, found, steps_of(ready.store, ready.original), not wrong, how, ready.signer)
    client.set_terminated(found)
    if wrong:
        print(f"run {run_id[:8]} does NOT hold: {wrong[0].name}: {wrong[0].words}")
        return 1
    print(f"run {run_id[:8]} holds where it was looked at, {how}")
    return 0


@dataclass(frozen=True)
class _Ready:
    """A run's commit in a folder of its own, with all that the run was made from, checked."""

    root: Path
    place: Path
    store: Store
    original: Any
    commit: str
    words: Sequence[str]
    """what was asked for then, as the engine's command line takes it"""
    signer: "CryptoSigner | None"
    """whose key stands for what is found"""

    def call(self, name: str, *more: str) -> None:
        """A command of the engine of that commit. Raises RecipeError where it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "personalize.recipe", name, *more, *self.words],
            cwd=self.place,
            env=environment_of(self.root, self.original.info.experiment_id),
            check=False,
        )
        if done.returncode:
            raise RecipeError(
                f"{'the run' if name == 'run' else name} of commit {self.commit[:8]} failed (exit {done.returncode}); "
                f"its own message is above"
            )


@contextlib.contextmanager
def _made_ready(root: Path, run_id: str, given: Sequence[Override]) -> Iterator[_Ready]:
    """Raises RecipeError where the run's code, data or values are not all here."""
    store, original = project_run(root, run_id)
    run_id = original.info.run_id
    commit = original.data.tags.get("lineage.commit", "none")
    if commit == "none":
        raise RecipeError(f"run {run_id} does not say from which commit it was made, so it cannot be reproduced")
    resolved = yaml.safe_load(artifact_of(store, original, "recipe.resolved.yaml"))
    overrides = {**resolved["overrides"], **withheld(resolved, given)}
    words = ["--step", resolved["step"]] if "step" in resolved else ["--until", resolved["until"]]
    words += ["--profile", resolved["profile"]]
    for name, text in overrides.items():
        words += [f"--{name}", text]
    left_out = json.loads(artifact_of(store, original, LEFT_OUT)) if "lineage.left_out" in original.data.tags else {}
    with worktree(root, commit, original.data.tags.get("lineage.repository", "")) as place:
        if original.data.tags.get("lineage.dirty") == "true":
            _apply(place, artifact_of(store, original, DIFF))
        pull_pinned(place)
        outside = [*left_out, *resolved.get("outside_data", [])]
        bring(root, place, [name for name in outside if not (place / name).exists()])
        apart = apart_from(store, original, place, resolved, overrides)
        if apart:
            bring(root, place, outside)
            apart = apart_from(store, original, place, resolved, overrides)
        if needed := lacking(apart, bool(left_out)):
            raise RecipeError(_missing(run_id, needed, left_out))
        for said in [*apart, *machine.apart(original.data.tags, machine.tags())]:
            print(f"note: {said}", flush=True)
        if left_out:
            print(f"not in the record, and as it was or without effect: {_listed(left_out)}", flush=True)
        yield _Ready(root, place, store, original, commit, words, _signer(root, resolved["profile"]))


def _signer(root: Path, profile: str) -> "CryptoSigner | None":
    """The key of the one who reproduces. Raises RecipeError where it was named and cannot be read."""
    with_profile = profile in profiles(root)  # it may be of that commit alone
    try:
        return keys.own(load(root, profile).trust.key if with_profile else "")
    except EvidenceError as error:
        raise RecipeError(str(error)) from error


def pull_pinned(place: Path) -> None:
    """Raises RecipeError where the data that a commit pins cannot be had."""
    if any(place.glob("*.dvc")):
        check(["dvc", "pull", "--quiet"], place, "the pinned data of that commit cannot be pulled")


def project_run(root: Path, run_id: str) -> tuple[Store, Any]:
    """The store, and the project run that is meant by its own id or by that of one of its steps' runs.

    Raises RecipeError where there is no such run.
    """
    probe(os.environ.get("MLFLOW_TRACKING_URI", ""))
    sweep_scratch()
    import mlflow

    client = mlflow.MlflowClient()
    try:
        original = client.get_run(run_id)
    except mlflow.MlflowException as error:
        raise RecipeError(f"run {run_id} is not in {mlflow.get_tracking_uri()}: {error.message}") from error
    if STEP in original.data.tags and (parent := original.data.tags.get("mlflow.parentRunId")):
        original = client.get_run(parent)
    return Store(client, original.info.experiment_id, [original.info.experiment_id], root), original


def withheld(resolved: Mapping[str, Any], given: Sequence[Override]) -> dict[str, str]:
    """The values that the run did not keep, from what is given now."""
    names, found = list(resolved.get("withheld", [])), {}
    for override in given:
        name = next((name for name in names if override.name in (name, name.rpartition(".")[2])), "")
        if not name:
            raise RecipeError(f"reproduce takes no {override.name}: its value then is the one that counts")
        found[name] = override.text
    if lacking := [name for name in names if name not in found]:
        raise RecipeError(
            f"the value of {lacking[0]} held a secret, which the run does not keep; give it again: "
            f"python -m personalize.recipe reproduce --run RUN_ID --{lacking[0]} ..."
        )
    return found


def bring(root: Path, place: Path, names: Iterable[str]) -> None:
    """Link into the worktree what lies in this checkout and was never in the record."""
    for name in names:
        source, target = root / name.rstrip("/"), place / name.rstrip("/")
        if Path(name).is_absolute() or not source.exists():
            continue
        if not Path(os.path.normpath(target)).is_relative_to(place.parent) or place.is_relative_to(target):
            continue
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(source.resolve())


_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_COMPONENTS = """
import json, sys
from pathlib import Path
from personalize.recipe.config import Override
from personalize.recipe.errors import RecipeError
from personalize.recipe.plan import prepare
profile, overrides, target = json.loads(sys.stdin.read())
try:
    prepared = prepare(Path.cwd(), profile, [Override(*each) for each in overrides.items()], **target)
    found = {name: json.loads(each.as_json()) for name, each in prepared.components.items()}
except RecipeError as error:
    found = {"error": str(error)}
print(json.dumps(found))
"""


def apart_from(
    store: Store, original: Any, place: Path, resolved: Mapping[str, Any], overrides: Mapping[str, str]
) -> list[str]:
    """In what the worktree differs from what the run's steps were made from: code, outside data, environment.

    Empty also where the engine of that commit cannot tell.
    """
    target = {key: resolved[key] for key in ("step", "until") if key in resolved}
    done = subprocess.run(
        [sys.executable, "-c", _COMPONENTS],
        cwd=place,
        input=json.dumps([resolved["profile"], overrides, target]),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return []
    if "error" in found:
        return [found["error"].replace(f"{place}{os.sep}", "")]
    said: list[str] = []
    for step, past in steps_of(store, original).items():
        then = store.components(past)
        if then is not None and step in found:
            now = replace(Components.from_json(json.dumps(found[step])), config=then.config, inputs=then.inputs)
            said += differences(now, then)
    return list(dict.fromkeys(said))


def lacking(apart: Iterable[str], left_out: bool = False) -> list[str]:
    """Those differences that are of something the run needs and that is not here; other packages are only a cause.

    left_out: whether some of its code may have stayed elsewhere.
    """
    words = ("environment changed",) if left_out else ("environment changed", "code of ")
    return [said for said in apart if not said.startswith(words)]


def _missing(run_id: str, apart: Sequence[str], left_out: Mapping[str, str]) -> str:
    said = f"run {run_id} cannot be made again from its record and this checkout: {'; '.join(apart)}."
    if not left_out:
        return said
    return (
        f"{said}\nThese stayed on the machine where the run was made: {_listed(left_out)}. Put them here as they were "
        f"then."
    )


def _listed(left_out: Mapping[str, str]) -> str:
    shown = [f"{name} ({why})" for name, why in list(left_out.items())[:20]]
    return ", ".join(shown) + (f" and {len(left_out) - 20} more" if len(left_out) > 20 else "")


def first_cause(then: Mapping[str, StepRun], now: Mapping[str, StepRun]) -> str:
    """Which step was the first to come to other bytes, and what is known to differ in how; empty where none did."""
    for step, before in then.items():
        after = now.get(step)
        if after is None or before.digest == after.digest:
            continue
        causes = machine.apart(before.tags, after.tags)
        environments = [of.tags.get("lineage.environment", "") for of in (before, after)]
        if environments[0] != environments[1]:
            causes.append("another environment")
        return f"the first to differ is {step}: {'; '.join(causes) or 'nothing that is recorded tells why'}"
    return ""


def compare(
    then: Mapping[str, StepRun], now: Mapping[str, StepRun], tolerance: float, left_out: Collection[str] = ()
) -> tuple[list[str], bool]:
    """One line a step, and whether all agree. System metrics and durations are not results and do not count."""
    lines, agree = [], True
    for step, before in then.items():
        after = now.get(step)
        if after is None and step in left_out:
            lines.append(f"  {step}: left out, for what it does is seen outside")
            continue
        if after is None:
            lines.append(f"  {step}: not run again")
            agree = False
            continue
        same_bytes = before.tags.get("recipe.outputs.digest") == after.tags.get("recipe.outputs.digest")
        names = sorted(name for name in {*before.metrics, *after.metrics} if counts(name))
        apart = [name for name in names if not close(before.metrics.get(name), after.metrics.get(name), tolerance)]
        for name in apart:
            lines.append(f"  {step}: {name} {before.metrics.get(name)} → {after.metrics.get(name)}")
        agree &= not apart
        if not apart:
            outputs = "identical" if same_bytes else "not identical byte for byte"
            lines.append(f"  {step}: {len(names)} metrics agree, outputs {outputs}")
    return lines, agree


def counts(metric: str) -> bool:
    """Whether a metric is a result: not the machine's load, not a speed or a time."""
    words = ("second", "duration", "memory", "throughput", "tflop", "mfu")
    return (
        not metric.startswith("system/") and not metric.endswith("time") and not any(word in metric for word in words)
    )


def close(before: float | None, after: float | None, tolerance: float) -> bool:
    """Relative closeness; two values that are not numbers agree."""
    if before is None or after is None:
        return False
    return (math.isnan(before) and math.isnan(after)) or math.isclose(before, after, rel_tol=tolerance, abs_tol=1e-12)


def has(root: Path, commit: str) -> bool:
    """Whether the clone has the commit."""
    asked = ["git", "cat-file", "-e", f"{commit}^{{commit}}"]
    return subprocess.run(asked, cwd=root, capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def worktree(root: Path, commit: str, repository: str = "") -> Iterator[Path]:
    """The commit's files in a temporary folder; the checkout that a person works in is not touched.

    repository: where the commit was when it was run, for the message. Raises RecipeError where it is not to be had.
    """
    if not _COMMIT.fullmatch(commit):
        raise RecipeError(f"'{commit}' is no commit (40 hexadecimal digits)")
    cloned_from = f"; it was run from {repository}" if repository else ""
    subprocess.run(["git", "worktree", "prune"], cwd=root, capture_output=True, check=False)
    if not has(root, commit):  # a clone of one commit, as `mlflow run <address>` makes it
        subprocess.run(["git", "fetch", "--quiet", "origin", commit], cwd=root, capture_output=True, check=False)
    with scratch("reproduce") as temporary:
        place = temporary / "project"
        check(
            ["git", "worktree", "add", "--quiet", "--detach", str(place), commit],
            root,
            f"commit {commit} is not in this clone, nor where it was cloned from{cloned_from}",
        )
        try:
            inside = subprocess.run(
                ["git", "rev-parse", "--show-prefix"], cwd=root, capture_output=True, text=True, check=True
            )
            yield place / inside.stdout.strip()
        finally:
            subprocess.run(
                ["git", "worktree", "remove", "--force", str(place)], cwd=root, capture_output=True, check=False
            )


def environment_of(root: Path, experiment_id: str) -> dict[str, str]:
    """The variables for a run in another folder that is to go to this one's store."""
    import mlflow

    uri = absolute(mlflow.get_tracking_uri(), root)
    kept = {
        name: value for name, value in os.environ.items() if name not in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME")
    }
    return {**kept, "MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_ID": experiment_id}


def _apply(place: Path, diff: str) -> None:
    if not diff:
        return
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"],
        cwd=place,
        input=diff.encode("utf-8", "surrogateescape"),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RecipeError(
            f"the uncommitted changes of that run cannot be applied: {done.stderr.decode(errors='replace').strip()}"
        )


def check(command: list[str], where: Path, trouble: str) -> None:
    """Runs a command. Raises RecipeError with `trouble` and what it said where it fails."""
    try:
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    except OSError as error:
        raise RecipeError(f"{trouble}: {error}") from error
    if done.returncode:
        raise RecipeError(f"{trouble}: {(done.stderr or done.stdout).strip()}")


def artifact_of(store: Store, run: Any, name: str) -> str:
    """A text that a run keeps. Raises RecipeError where it is not there."""
    try:
        return store.artifact(store.step_run(run), name).read_text(encoding="utf-8")
    except Exception as error:
        raise RecipeError(f"run {run.info.run_id} has no {name}, so it cannot be reproduced: {error}") from error


def steps_of(store: Store, run: Any) -> dict[str, StepRun]:
    """The runs whose results a project run used, made by it or reused."""
    found = {step: store.step_run(store.client.get_run(run_id)) for step, run_id in used(run.data.tags).items()}
    return dict(sorted(found.items(), key=lambda each: each[1].started))
