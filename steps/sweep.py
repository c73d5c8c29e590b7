"""Sweep: look for the training settings that suit these photographs best.   gives: trials.json, best.json, samples/

    mlflow run . -e sweep -P trials=8

Every trial is one training as the train step would do it. The Config extends train's, so a setting that is not searched
has the value that recipe.yaml and -P train.key=value give it there; -P sweep.key=value changes it for the trials alone.
The first trial has the settings as configured, Optuna proposes the others. A trial is worth the likeness of its best
checkpoint that still follows prompts and still knows its class; one that lags behind the others' median is given up,
one that diverges is a failed trial. What was tried lies in `work`, so a sweep that was killed, or that is given more
trials, goes on where it was.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator

from personalize.cards import Card
from personalize.dreambooth import search, trials
from personalize.dreambooth.search import Dimension, Front
from personalize.dreambooth.settings import TrainSettings
from personalize.recipe import Inputs, RecipeError
from personalize.recipe.fingerprint import code_closure
from personalize.recipe.outcome import LONGEST
from steps import train

if TYPE_CHECKING:
    import optuna

    from personalize.dreambooth.previews import Sample

NEEDS = train.NEEDS

SPACE = {
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

    @field_validator("space")
    @classmethod
    def _known(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        return search.check_space(space)


def sources(config: Config) -> Mapping[str, str]:
    """What train reads. Raises ValueError for a sweep that could not be carried out, before a model is loaded."""
    if not config.clip_model or not config.validation_every:
        raise ValueError("nothing would judge the trials: set train.clip_model, and train.validation_every above 0.")
    if config.processes > 1:
        raise ValueError(f"a trial trains in one process, not {config.processes}: add -P sweep.processes=1.")
    search.check_combinations(config.space, settings_of(config))
    return train.sources(config)


def run(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    import mlflow

    place = Path(config.work).absolute() / "sweeps" / identity(config, inputs)
    with alone(place):
        study = open_study(config, place)
        take_over(study)
        began = time.monotonic()
        while (number := len(trials.counted(study)) + 1) <= config.trials:
            minutes = (time.monotonic() - began) / 60
            if config.timeout_minutes is not None and minutes >= config.timeout_minutes and number > 1:
                print(f"  after {minutes:.0f} minutes and {number - 1} trials no other is started", flush=True)
                break
            attempt(config, inputs, study, number, place)
        found = [trials.told(trial) for trial in trials.counted(study)]
        complete = [trial for trial in found if trial["state"] == "complete"]
        if not complete:
            (place / "study.db").unlink()
            whys = "; ".join(f"trial {trial['trial']}: {trial['why']}" for trial in found)
            raise RecipeError(f"sweep: none of {len(found)} trials came to its end ({whys}). Try lower learning rates.")
        best = max(complete, key=lambda trial: (trial["value"], -trial["trial"]))
        best["command"] = command(best["params"], asked())
        if mlflow.active_run():
            mlflow.log_params({f"sweep.best.{name}": text(value) for name, value in best["params"].items()})
            mlflow.log_metrics(
                {"best_value": best["value"], "best_trial": best["trial"], "trials_complete": len(complete)}
            )
        keep(found, best, place, outputs)
        show(card, found, best, place)
        if important := trials.importances(study):
            rows = sorted(important.items(), key=lambda row: -row[1])
            card.table("What mattered", ["setting", "share"], [[name, round(share, 3)] for name, share in rows])
        shutil.rmtree(place / "latents", ignore_errors=True)
        study.set_user_attr("finished", config.trials)


def identity(config: Config, inputs: Inputs) -> str:
    """Of everything that decides what a trial comes to. Neither how many there are nor how long they may take does."""
    decides = set(Config.result_keys()) - {"trials", "timeout_minutes"}
    parts = [
        config.model_dump(mode="json", include=decides),
        {name: inputs[name].fingerprint for name in NEEDS},
        dict(train.sources(config)),
        code_closure(Path(__file__).parents[1], Path(__file__)),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Nobody else in the sweep's folder. Raises RecipeError where another process is at this very sweep."""
    from filelock import FileLock, Timeout

    place.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place / "lock", timeout=0):
            yield
    except Timeout:
        raise RecipeError(f"sweep: another process is at this very sweep (in {place}); wait for it.") from None


def open_study(config: Config, place: Path) -> optuna.Study:
    """The sweep as it was left; a new one where there is none, or where just this one came to its end before."""
    pruner = trials.median_pruner(
        config.pruner, config.warmup_trials, config.warmup_checkpoints, config.validation_every
    )
    study = trials.open_study(place / "study.db", pruner)
    if study.user_attrs.get("finished") == config.trials:
        (place / "study.db").unlink()
        shutil.rmtree(place / "trials", ignore_errors=True)
        study = trials.open_study(place / "study.db", pruner)
    if not study.trials:
        study.enqueue_trial(search.start(config.space, settings_of(config)))
    return study


def take_over(study: optuna.Study) -> None:
    """Hangs the runs of trials that an earlier process made under this sweep's run, and closes the one it died in."""
    import mlflow

    client, active = mlflow.MlflowClient(), mlflow.active_run()
    for trial in trials.pick_up(study):
        with contextlib.suppress(mlflow.MlflowException):
            client.set_tag(trial.user_attrs["run_id"], "sweep.state", "interrupted")
            client.set_terminated(trial.user_attrs["run_id"], "KILLED")
    finished = trials.counted(study)
    if finished:
        print(f"  going on after {len(finished)} trials", flush=True)
    for trial in finished if active else ():
        with contextlib.suppress(mlflow.MlflowException):  # its run was deleted
            client.set_tag(trial.user_attrs["run_id"], "mlflow.parentRunId", active.info.run_id)


def attempt(config: Config, inputs: Inputs, study: optuna.Study, number: int, place: Path) -> None:
    """One trial, in a run of its own under the sweep's."""
    import mlflow
    import torch
    from optuna import TrialPruned

    from personalize.dreambooth.train import Diverged, margins

    trial, began = trials.ask(study, config.seed, config.warmup_trials), time.monotonic()
    params = search.suggest(trial, config.space)
    said = ", ".join(f"{name} {text(value)}" for name, value in params.items())
    print(f"  trial {number} of {config.trials}: {said}", flush=True)
    parent = mlflow.active_run()
    tags = {"sweep.trial": str(number), "sweep.state": "running"}
    run_id = mlflow.start_run(run_name=f"trial {number}", nested=parent is not None, tags=tags).info.run_id
    trial.set_user_attr("run_id", run_id)
    mlflow.log_params({f"sweep.{name}": text(value) for name, value in params.items()})
    status, state, value, about = "KILLED", "", None, {}
    folder = place / "trials" / f"{number:03d}"
    try:
        values = {name: getattr(config, name) for name in train.Config.model_fields}
        settings = train.Config(**(values | params | {"work": str(place)}))
        watch = Watch(settings, run_id, number, Front(trial, margins(settings), settings.max_train_steps))
        with contextlib.closing(watch):
            result = train.learn(settings, train.read_from(settings, inputs), folder, watch)
        status, state, value, about = "FINISHED", "complete", watch.front.value, {"step": result.choice.step}
    except TrialPruned:
        state = "pruned"
    except (Diverged, ValidationError, torch.OutOfMemoryError) as error:
        why = search.fault(error) if isinstance(error, ValidationError) else str(error)
        status, state, about = "FAILED", "failed", {"why": why}
        print(f"  trial {number} failed: {why}", flush=True)
    except BaseException as error:
        if isinstance(error, Exception):
            status = "FAILED"
        raise
    finally:
        mlflow.flush_async_logging()
        mlflow.set_tag("sweep.state", state or "interrupted")
        mlflow.end_run(status)
    tidy(place, folder, about.get("step"))
    trials.close(study, trial, state, value, params=params, minutes=(time.monotonic() - began) / 60, **about)
    if parent and value is not None:
        mlflow.log_metric("best_value", study.best_value, step=number)


class Watch(train.Watch):
    """As train's, and asks at every checkpoint whether the trial may go on."""

    def __init__(self, config: train.Config, run_id: str, number: int, front: Front) -> None:
        super().__init__(config, run_id, f"trial {number}")
        self.front = front

    def scored(self, step: int, scores: Mapping[str, float], samples: Sequence[Sample]) -> None:
        import mlflow

        super().scored(step, scores, samples)
        named = {name: scores[name] for name in ("fidelity", "prompt", "drift")}
        mlflow.log_metrics(named, step=step, run_id=self.run_id, synchronous=False)
        value = self.front.scored(step, scores)
        if value is not None:
            mlflow.log_metric("value", value, step=step, run_id=self.run_id, synchronous=False)


def tidy(place: Path, folder: Path, step: int | None) -> None:
    """Leaves of a trial the base's pictures and those of its chosen step, and gives back the memory it had."""
    import torch

    shutil.rmtree(place / "runs", ignore_errors=True)
    shutil.rmtree(folder / "lora", ignore_errors=True)
    for samples in (folder / "samples").glob("step-*"):
        if step is None or samples.name not in ("step-000000", f"step-{step:06d}"):
            shutil.rmtree(samples)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def settings_of(config: train.Config) -> dict[str, Any]:
    return config.model_dump(mode="json", include=set(TrainSettings.model_fields))


def command(params: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """What trains with these settings: they, and all else that was asked for when the sweep was started."""
    profile = str(given.get("profile", "local"))
    words = ["mlflow", "run", ".", "--env-manager", "local"]
    kept = {} if profile == "local" else {"profile": profile}
    kept |= {name: value for name, value in given.get("overrides", {}).items() if not name.startswith("sweep.")}
    kept |= {f"train.{name}": text(value) for name, value in params.items()}
    return shlex.join([*words, *(word for name, value in kept.items() for word in ("-P", f"{name}={value}"))])


def asked() -> Mapping[str, Any]:
    """The profile and the overrides of the project run, as the engine has logged them; empty outside the engine."""
    import mlflow
    import yaml

    active = mlflow.active_run()
    parent = active.data.tags.get("mlflow.parentRunId") if active else None
    if not parent:
        return {}
    return yaml.safe_load(mlflow.artifacts.load_text(f"runs:/{parent}/recipe.resolved.yaml"))


def text(value: Any) -> str:
    """A value as it is typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def keep(found: Sequence[Mapping[str, Any]], best: Mapping[str, Any], place: Path, outputs: Path) -> None:
    """trials.json, best.json, and the pictures of the base and of the best trial's chosen step."""
    (outputs / "trials.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (outputs / "best.json").write_text(json.dumps(best, indent=1) + "\n", encoding="utf-8")
    for name, step in (("base", 0), ("best", best["step"])):
        shutil.copytree(samples(place, best, step), outputs / "samples" / name)


def samples(place: Path, trial: Mapping[str, Any], step: int) -> Path:
    return place / "trials" / f"{trial['trial']:03d}" / "samples" / f"step-{step:06d}"


def show(card: Card, found: Sequence[Mapping[str, Any]], best: Mapping[str, Any], place: Path) -> None:
    states = [trial["state"] for trial in found]
    card.facts(
        {
            "best trial": best["trial"],
            "likeness to the subject": round(best["value"], 4),
            **{name: text(value) for name, value in best["params"].items()},
            "chosen step": best["step"],
            "trials": ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)),
        }
    )
    card.text(f"To train with the best settings: {best['command']}")
    card.outcome("found" if len(best["command"]) <= LONGEST else "long", command=best["command"])
    if best["value"] < -1:
        card.warning(
            "No trial kept prompt following and class drift within the margins; the one that breaks them least is "
            "called best. Search lower learning rates, smaller ranks or more prior preservation."
        )
    names = sorted(best["params"])
    about = ("state", "value", "step", "minutes", "why")
    rows = [
        [trial["trial"], *(text(trial["params"][n]) for n in names), *(trial[key] for key in about)] for trial in found
    ]
    card.table("Trials", ["trial", *names, "state", "value", "chosen step", "minutes", "why"], rows)
    complete = [trial for trial in found if trial["state"] == "complete"]
    chosen = {f"trial {trial['trial']}": row_at(trial, trial["step"]) for trial in complete}
    dots = {name: ([row["prompt"]], [row["fidelity"]]) for name, row in ({"base": row_at(best, 0)} | chosen).items()}
    at = {f"trial {best['trial']}, the best": row_at(best, best["step"])["prompt"]}
    card.chart("Chosen checkpoints", dots, x="prompt following", y="likeness to the subject", marks=at)
    good = [trial for trial in complete if trial["value"] > -1]
    reached = [max(other["value"] for other in good[: index + 1]) for index in range(len(good))]
    if good:
        numbers = [trial["trial"] for trial in good]
        lines = {"best so far": (numbers, reached), "trial": (numbers, [trial["value"] for trial in good])}
        card.chart("Value by trial", lines, x="trial", y="likeness to the subject")
    shown = {"base": samples(place, best, 0)}
    if complete[0]["trial"] == 1 and best["trial"] != 1:
        shown["trial 1, as configured"] = samples(place, complete[0], complete[0]["step"])
    shown[f"trial {best['trial']}, step {best['step']}"] = samples(place, best, best["step"])
    card.grid("The best trial beside the base", list(shown), train.side_by_side(list(shown.values())))


def row_at(trial: Mapping[str, Any], step: int) -> Mapping[str, float]:
    """A trial's scores at a step."""
    return next(row for row in trial["scores"] if row["step"] == step)
