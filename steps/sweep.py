"""Sweep: look for the training settings that suit these photographs best.   gives: trials.json, best.json, samples/

    mlflow run . -e sweep -P trials=8

Every trial is one training as the train step would do it. The Config extends train's, so a setting that is not searched
has the value that recipe.yaml and -P train.key=value give it there; -P sweep.key=value changes it for the trials alone.
The first trial has the settings as configured, Optuna proposes the others. A trial is worth the likeness of its best
checkpoint that still follows prompts and still knows its class; one that lags behind the others' median is given up,
one that diverges is a failed trial. What was tried lies in `work`, so a sweep that was killed, or that is given more
trials, goes on where it was. With -P workers=4 so many trials are at work at once, on the fleet's workers (Ray's).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from personalize.cards import command
from personalize.dreambooth import choice, search, trials
from personalize.dreambooth.search import Dimension, Front, spelt
from personalize.files import write_json
from personalize.fleet import workers
from personalize.recipe import HOW_NOT_WHAT, Inputs, RecipeError
from personalize.recipe.fingerprint import code_closure
from personalize.recipe.past import asked
from steps import train

if TYPE_CHECKING:
    import optuna

    from personalize.dreambooth.validation import Sample

NEEDS = train.NEEDS

SPACE: dict[str, Any] = {
    "learning_rate": {"low": 3e-5, "high": 1e-3, "log": True},
    "rank": {"choices": [8, 16, 32]},
    "prior_loss_weight": {"low": 0.25, "high": 2, "log": True},
}
"""What decides how soon a subject is learnt, how much of it fits, and how well its class is kept."""


class Config(train.Config):
    trials: int = Field(12, ge=1, description="trainings to try, those given up and failed among them")
    timeout_minutes: float | None = Field(
        None, gt=0, description="no trial starts after so many minutes; empty: no limit"
    )
    space: dict[str, Dimension] = Field(
        SPACE, description="training settings to search, each with low and high (log, step), or choices"
    )
    warmup_trials: int = Field(
        4, ge=1, description="first trials, drawn at random (the first as configured) and never given up"
    )
    pruner: Literal["median", "none"] = Field(
        "median", description="median: give up trials that are worth less than most"
    )
    warmup_checkpoints: int = Field(1, ge=0, description="first checkpoints of a trial at which it is never given up")
    workers: int = Field(
        1,
        ge=1,
        description="trials at once, each in a process of Ray's; so many are proposed at a time",
    )
    gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs a worker, 0.5 for half a one; empty: 1 where there are any",
        json_schema_extra=HOW_NOT_WHAT,
    )
    tries: int = Field(
        3, ge=1, description="times that a trial is tried whose process dies", json_schema_extra=HOW_NOT_WHAT
    )

    @field_validator("space")
    @classmethod
    def _known(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        return search.check_space(space)


def sources(config: Config) -> Mapping[str, str]:
    """What train reads. Raises ValueError for a sweep that could not be carried out, before a model is loaded."""
    if not config.judged:
        raise ValueError("nothing would judge the trials: set train.judges, and train.validation_every above 0.")
    if config.processes not in (1, "auto"):
        raise ValueError(f"a trial trains in one process, not {config.processes}: add -P sweep.processes=1.")
    search.check_combinations(config.space, train.settings_of(config).model_dump(mode="json"))
    return train.sources(config)


def check(config: Config) -> None:
    """Before anything runs: workers can be had, where some are asked for."""
    if config.workers > 1:
        workers.check_installed()


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    place = Path(config.work).absolute() / "sweeps" / identity(config, inputs)
    try:
        with trials.alone(place):
            study = open_study(config, place)
            if finished := trials.take_over(study):
                print(f"  going on after {finished} trials", flush=True)
            with hands(config) as carry_out:
                _search(config, inputs, study, place, carry_out)
            keep(study, place, outputs)
            trials.finish(study, place, config.trials)
    except BlockingIOError as error:
        raise RecipeError(f"sweep: {error}") from None


def _search(config: Config, inputs: Inputs, study: optuna.Study, place: Path, carry_out: CarryOut) -> None:
    """As many trials as are asked for, `workers` of them proposed at a time."""
    import mlflow

    began, active = time.monotonic(), mlflow.active_run()
    folders = {name: str(folder) for name, folder in train.read_from(config, inputs).items()}
    while (done := len(trials.counted(study))) < config.trials:
        minutes = (time.monotonic() - began) / 60
        if config.timeout_minutes is not None and minutes >= config.timeout_minutes and done:
            print(f"  after {minutes:.0f} minutes and {done} trials no other is started", flush=True)
            return
        jobs: list[Job] = []
        for _ in range(min(config.workers, config.trials - done)):
            trial = trials.ask(study, config.seed, config.warmup_trials, [job.number for job in jobs])
            params, number = search.suggest(trial, config.space), int(trial.user_attrs["trial"])
            said = ", ".join(f"{name} {spelt(value)}" for name, value in params.items())
            print(f"  trial {number} of {config.trials}: {said}", flush=True)
            parent = active.info.run_id if active else ""
            jobs.append(Job(config, folders, str(place), trial._trial_id, number, params, parent))
        for job, outcome in carry_out(jobs):
            trials.give_up(study, job.trial_id, outcome, params=dict(job.params), minutes=0.0)
            if outcome.why:
                print(f"  trial {job.number} failed: {outcome.why}", flush=True)
            if active and outcome.value is not None:
                mlflow.log_metric("best_value", study.best_value, step=job.number)
        shutil.rmtree(place / "runs", ignore_errors=True)


def identity(config: Config, inputs: Inputs) -> str:
    """Of everything that decides what a trial comes to. Neither how many there are nor how long they may take does."""
    decides = set(Config.result_keys()) - {"trials", "timeout_minutes"}
    parts = [
        config.model_dump(mode="json", include=decides),
        {name: inputs[name].digest for name in NEEDS},
        dict(train.sources(config)),
        code_closure(Path(__file__).parents[1], Path(__file__)),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def open_study(config: Config, place: Path) -> optuna.Study:
    first = search.start(config.space, train.settings_of(config).model_dump(mode="json"))
    return trials.open_study(place, pruner_of(config), config.trials, first)


def pruner_of(config: Config) -> optuna.pruners.BasePruner:
    c = config
    return trials.median_pruner(c.pruner, c.warmup_trials, c.warmup_checkpoints, c.validation_every)


@dataclass(frozen=True)
class Job:
    """A trial that was asked for, and all that a process needs to carry it out. parent: the sweep's run, or empty."""

    config: Config
    folders: Mapping[str, str]
    place: str
    trial_id: int
    number: int
    params: Mapping[str, Any]
    parent: str


CarryOut = Callable[[Sequence[Job]], Iterable[tuple[Job, trials.Outcome]]]


@contextlib.contextmanager
def hands(config: Config) -> Iterator[CarryOut]:
    """Who carries trials out: this process, one after the other, or Ray's workers."""
    if config.workers == 1:
        yield lambda jobs: ((job, attempt(job)) for job in jobs)
        return
    with workers.hired(min(config.workers, config.trials), config.gpus, "sweep", config.tries) as hired:
        if hired.crew.elsewhere:
            raise RecipeError(
                f"a sweep keeps what it tried in {config.work}, which other machines of the cluster do not have: unset "
                "RAY_ADDRESS to work on this one, or run the catalogue as a fleet"
            )

        yield lambda jobs: (
            (ended.of, _outcome(ended)) for ended in hired.spread(attempt, [(job, (job,)) for job in jobs])
        )


def _outcome(ended: workers.Ended[Job]) -> trials.Outcome:
    try:
        found: trials.Outcome = ended.result()
        return found
    except workers.Lost as error:
        return trials.Outcome("failed", why=str(error))


def attempt(job: Job) -> trials.Outcome:
    """One trial, in a run of its own under the sweep's."""
    config, number, place = job.config, job.number, Path(job.place)
    began = time.monotonic()
    study, trial = trials.taken_up(place, pruner_of(config), job.trial_id)
    folder = place / "trials" / f"{number:03d}"
    front = Front(trial, choice.margins(config))

    def learn(run_id: str) -> int:
        values = {name: getattr(config, name) for name in train.Config.model_fields}
        settings = train.Config(**(values | dict(job.params) | {"work": str(place), "proof_every": 0}))
        folders = {name: Path(at) for name, at in job.folders.items()}
        with contextlib.closing(Watch(settings, run_id, number, front)) as watch:
            return train.learn(settings, folders, folder, watch).choice.step

    outcome = trials.attempt(trial, number, job.params, learn, front, job.parent)
    trials.tidy(folder, outcome.step)
    trials.close(study, trial, outcome, params=dict(job.params), minutes=(time.monotonic() - began) / 60)
    return outcome


class Watch(train.Watch):
    """As train's, and asks at every checkpoint whether the trial may go on."""

    def __init__(self, config: train.Config, run_id: str, number: int, front: Front) -> None:
        super().__init__(config, run_id, f"trial {number}")
        self.front = front

    def begins(self, steps: int) -> None:
        super().begins(steps)
        self.front.last = steps

    def scored(self, step: int, scores: Mapping[str, float], samples: Sequence[Sample]) -> None:
        import mlflow

        super().scored(step, scores, samples)
        named = {name: scores[name] for name in ("fidelity", "prompt", "drift")}
        mlflow.log_metrics(named, step=step, run_id=self.run_id, synchronous=False)
        value = self.front.scored(step, scores)
        if value is not None:
            mlflow.log_metric("value", value, step=step, run_id=self.run_id, synchronous=False)


def keep(study: optuna.Study, place: Path, outputs: Path) -> None:
    """What was found, and pictures: the base's, the best trial's and those of the settings as configured.

    Raises RecipeError where no trial came to its end; what was tried is forgotten then.
    """
    import mlflow

    found = [trials.told(trial) for trial in trials.counted(study)]
    complete = [trial for trial in found if trial["state"] == "complete"]
    if not complete:
        trials.forget(place)
        whys = "; ".join(f"trial {trial['trial']}: {trial['why']}" for trial in found)
        raise RecipeError(f"sweep: none of {len(found)} trials came to its end ({whys}). Try lower learning rates.")
    best = max(complete, key=lambda trial: (trial["value"], -trial["trial"]))
    if mlflow.active_run():
        mlflow.log_params({f"sweep.best.{name}": spelt(value) for name, value in best["params"].items()})
        mlflow.log_metrics({"best_value": best["value"], "best_trial": best["trial"], "trials_complete": len(complete)})
    write_json(outputs / "trials.json", found)
    write_json(outputs / "best.json", best | {"command": best_command(best["params"], asked())})
    write_json(outputs / "importances.json", trials.importances(study))
    write_json(outputs / "diagnostics" / "trials.json", [trials.went(trial) for trial in trials.counted(study)])
    shown = {"base": (best, 0), "best": (best, best["step"])}
    if complete[0]["trial"] == 1 != best["trial"]:
        shown["configured"] = (complete[0], complete[0]["step"])
    for name, (trial, step) in shown.items():
        samples = place / "trials" / f"{trial['trial']:03d}" / "samples" / f"step-{step:06d}"
        shutil.copytree(samples, outputs / "samples" / name)


def best_command(params: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What trains with these settings: they, and all else that was asked for when the sweep was started."""
    kept = {name: value for name, value in given.get("overrides", {}).items() if not name.startswith("sweep.")}
    best = {f"train.{name}": spelt(value) for name, value in params.items()}
    return command(**({"profile": given.get("profile")} | kept | best))
