"""Trials: a sweep's trials in Optuna's own store, so that what a kill interrupts goes on where it was; a run for each.

Optuna's TPE proposes values (Bergstra et al. 2011) and its median rule gives up trials that lag. A trial's attributes
hold what is to be remembered of it: number, state, params, scores, minutes, run_id, and step or why.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from personalize.dreambooth.search import Front, fault, spelt

if TYPE_CHECKING:
    import optuna
    from mlflow import MlflowClient

STUDY = "study.db"


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Nobody else in the sweep's folder. Raises BlockingIOError where another process is at this very sweep."""
    from filelock import FileLock, Timeout

    place.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place / "lock", timeout=0):
            yield
    except Timeout:
        raise BlockingIOError(f"another process is at this very sweep (in {place}); wait for it.") from None


def median_pruner(
    kind: Literal["median", "none"], trials: int, checkpoints: int, every: int
) -> optuna.pruners.BasePruner:
    """Gives up a trial that at a checkpoint is worth less than the median of the others there.

    Not before `trials` trials are complete, and never at its own first `checkpoints` checkpoints, `every` steps apart.
    """
    import optuna

    if kind == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=trials, n_warmup_steps=checkpoints * every + 1)


def open_study(
    place: Path, pruner: optuna.pruners.BasePruner, wanted: int, first: Mapping[str, Any] | None = None
) -> optuna.Study:
    """The sweep in the folder as it was left; a new one where there is none, or where this one came to its end before.

    wanted: how many trials are asked for. first: the values that a new sweep tries before any other.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{place / STUDY}"

    def opened() -> optuna.Study:
        return optuna.create_study(
            study_name="sweep", storage=storage, direction="maximize", pruner=pruner, load_if_exists=True
        )

    study = opened()
    if study.user_attrs.get("finished") == wanted:
        forget(place)
        study = opened()
    if first is not None and not study.trials:
        study.enqueue_trial(dict(first))
    return study


def finish(study: optuna.Study, place: Path, wanted: int) -> None:
    """Asked for as many trials once more, the sweep will begin anew."""
    shutil.rmtree(place / "latents", ignore_errors=True)
    study.set_user_attr("finished", wanted)


def forget(place: Path) -> None:
    """As if nothing had been tried."""
    (place / STUDY).unlink()
    shutil.rmtree(place / "trials", ignore_errors=True)


def counted(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that came to an end of their own, in order; one that a kill interrupted is not among them."""
    ended = [t for t in study.trials if t.state.is_finished() and "state" in t.user_attrs]
    return sorted(ended, key=lambda trial: int(trial.user_attrs["trial"]))


def pick_up(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that a kill interrupted. Each is closed, and the same values with the scores so far wait to be asked."""
    import optuna

    interrupted = study.get_trials(states=[optuna.trial.TrialState.RUNNING])
    for trial in interrupted:
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if trial.params:
            kept = {"scores": trial.user_attrs["scores"]} if "scores" in trial.user_attrs else {}
            study.enqueue_trial(trial.params, user_attrs=kept)
    return interrupted


def take_over(study: optuna.Study) -> int:
    """Hangs the runs of trials that an earlier process made under the active run -> how many came to an end there.

    The run in which it died is closed; its trial is tried again.
    """
    import mlflow

    client, active = mlflow.MlflowClient(), mlflow.active_run()
    for trial in pick_up(study):
        _end_run(client, trial.user_attrs)
    finished = counted(study)
    if active is None:
        return len(finished)
    for trial in finished:
        with contextlib.suppress(mlflow.MlflowException):  # its run was deleted
            client.set_tag(trial.user_attrs["run_id"], "mlflow.parentRunId", active.info.run_id)
    return len(finished)


def ask(study: optuna.Study, seed: int, random_trials: int, beside: Collection[int] = ()) -> optuna.Trial:
    """The next trial. Its proposal depends on the seed, its number and the trials before it, not on the process.

    So a sweep that was killed tries what it would have tried. The first `random_trials` are drawn at random. beside:
    the numbers of trials that were asked for just before and have not ended; they count as bad ones (the constant
    liar), so that no two try the same.
    """
    import numpy as np
    import optuna

    known = {int(trial.user_attrs["trial"]) for trial in counted(study)} | set(beside)
    number = next(number for number in itertools.count(1) if number not in known)
    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=state, n_startup_trials=random_trials, constant_liar=bool(beside))
    trial = study.ask()
    trial.set_user_attr("trial", number)
    return trial


def taken_up(place: Path, pruner: optuna.pruners.BasePruner, trial_id: int) -> tuple[optuna.Study, optuna.Trial]:
    """The sweep and a trial of it that another process has asked for. Ends the run in which an earlier try died."""
    import mlflow
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{place / STUDY}", pruner=pruner)
    trial = optuna.trial.Trial(study, trial_id)
    _end_run(mlflow.MlflowClient(), trial.user_attrs)
    return study, trial


@dataclass(frozen=True)
class Outcome:
    """What a trial came to. A complete one has a `value` and the `step` it would keep, a failed one says `why`."""

    state: Literal["complete", "pruned", "failed"]
    value: float | None = None
    step: int | None = None
    why: str = ""


def _end_run(client: MlflowClient, about: Mapping[str, Any]) -> None:
    """The run in which a trial's process died, where it had come so far. about: the trial's attributes."""
    import mlflow

    if run_id := about.get("run_id"):
        with contextlib.suppress(mlflow.MlflowException):  # it was deleted
            client.set_tag(run_id, "sweep.state", "interrupted")
            client.set_terminated(run_id, "KILLED")


def attempt(
    trial: optuna.Trial,
    number: int,
    params: Mapping[str, Any],
    train: Callable[[str], int],
    front: Front,
    parent: str = "",
) -> Outcome:
    """A trial's outcome, found in an MLflow run of its own, under `parent`, or the active one.

    `train` is given the run's id, reports its checkpoints to `front` and gives the step that it would keep. Settings
    that cannot be trained with, a loss that is no longer a number and a GPU that is too small are outcomes; whatever
    else it raises is raised again, and the trial waits to be picked up.
    """
    import mlflow

    tags = {"sweep.trial": str(number), "sweep.state": "running"}
    nested = mlflow.active_run() is not None
    started = mlflow.start_run(run_name=f"trial {number}", nested=nested, parent_run_id=parent or None, tags=tags)
    run_id = started.info.run_id
    trial.set_user_attr("run_id", run_id)
    mlflow.log_params({f"sweep.{name}": spelt(value) for name, value in params.items()})
    status, state = "KILLED", "interrupted"
    try:
        outcome = _outcome(train, run_id, front)
        status, state = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}[outcome.state], outcome.state
    except Exception:
        status = "FAILED"
        raise
    finally:
        mlflow.flush_async_logging()
        mlflow.set_tag("sweep.state", state)
        mlflow.end_run(status)
    return outcome


def _outcome(train: Callable[[str], int], run_id: str, front: Front) -> Outcome:
    import torch
    from optuna import TrialPruned

    from personalize.dreambooth.progress import Diverged

    try:
        step = train(run_id)
        return Outcome("complete", front.value, step)
    except TrialPruned:
        return Outcome("pruned")
    except ValidationError as error:
        return Outcome("failed", why=fault(error))
    except Diverged as error:
        return Outcome("failed", why=str(error))
    except torch.OutOfMemoryError:
        return Outcome("failed", why="the GPU's memory was not enough")


def tidy(folder: Path, step: int | None) -> None:
    """Leaves of a trial the base's pictures and those of its chosen step, and gives back the memory it had."""
    from personalize.dreambooth.hardware import release_memory

    shutil.rmtree(folder / "lora", ignore_errors=True)
    for samples in (folder / "samples").glob("step-*"):
        if step is None or samples.name not in ("step-000000", f"step-{step:06d}"):
            shutil.rmtree(samples)
    gc.collect()
    release_memory()


def give_up(study: optuna.Study, trial_id: int, outcome: Outcome, **about: Any) -> None:
    """Ends a trial, and its run, whose process has died; nothing where it has ended by itself."""
    import mlflow
    import optuna

    found = next(trial for trial in study.trials if trial._trial_id == trial_id)
    if found.state == optuna.trial.TrialState.RUNNING:
        _end_run(mlflow.MlflowClient(), found.user_attrs)
        about = {"run_id": found.user_attrs.get("run_id", ""), **about}
        close(study, optuna.trial.Trial(study, trial_id), outcome, **about)


def close(study: optuna.Study, trial: optuna.Trial, outcome: Outcome, **about: Any) -> None:
    """Ends a trial, with what else is to be remembered of it."""
    import optuna

    for name, content in {**about, "step": outcome.step, "why": outcome.why, "state": outcome.state}.items():
        trial.set_user_attr(name, content)
    states = {"pruned": optuna.trial.TrialState.PRUNED, "failed": optuna.trial.TrialState.FAIL}
    if outcome.state in states:
        study.tell(trial, state=states[outcome.state])
    else:
        study.tell(trial, outcome.value)


def importances(study: optuna.Study, least: int = 4) -> dict[str, float]:
    """How much each setting mattered for being among the best (PED-ANOVA, Watanabe et al. 2023); they sum to 1.

    Empty with fewer than `least` complete trials, or where these do not differ.
    """
    import optuna

    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    if len(complete) < least or len({trial.value for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def told(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """A trial in plain values. Where it was given up, its value is what it was worth at its last checkpoint."""
    about = trial.user_attrs
    scores = about.get("scores", [])
    last = int(scores[-1]["step"]) if scores else 0
    return {
        "trial": about["trial"],
        "state": about["state"],
        "params": about["params"],
        "value": trial.value if about["state"] == "complete" else trial.intermediate_values.get(last),
        "step": about["step"],
        "why": about["why"],
        "scores": [{name: value if math.isfinite(value) else None for name, value in row.items()} for row in scores],
    }


def went(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """How a trial went: what differs from one time to the next."""
    about = trial.user_attrs
    return {"trial": about["trial"], "minutes": round(about["minutes"], 2), "run_id": about["run_id"]}
