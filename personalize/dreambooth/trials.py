"""Trials: a sweep's trials in Optuna's own store, so that what a kill interrupts goes on where it was.

Optuna's TPE proposes values (Bergstra et al. 2011) and its median rule gives up trials that lag. A trial's attributes
hold what is to be remembered of it: number, state, params, scores, minutes, run_id, and step or why.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import optuna


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


def open_study(file: Path, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    """The study in the sqlite file, made where it is not there yet."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file.parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        study_name="sweep", storage=f"sqlite:///{file}", direction="maximize", pruner=pruner, load_if_exists=True
    )


def counted(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that came to an end of their own, in order; one that a kill interrupted is not among them."""
    return [t for t in study.trials if t.state.is_finished() and "state" in t.user_attrs]


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


def ask(study: optuna.Study, seed: int, random_trials: int) -> optuna.Trial:
    """The next trial. Its proposal depends on the seed, its number and the trials before it, not on the process.

    So a sweep that was killed tries what it would have tried. The first `random_trials` are drawn at random.
    """
    import numpy as np
    import optuna

    number = len(counted(study)) + 1
    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=state, n_startup_trials=random_trials)
    trial = study.ask()
    trial.set_user_attr("trial", number)
    return trial


def close(study: optuna.Study, trial: optuna.Trial, state: str, value: float | None = None, **about: Any) -> None:
    """Ends a trial as complete, pruned or failed, with what is to be remembered of it."""
    import optuna

    for name, content in {**about, "state": state}.items():
        trial.set_user_attr(name, content)
    states = {"pruned": optuna.trial.TrialState.PRUNED, "failed": optuna.trial.TrialState.FAIL}
    if state in states:
        study.tell(trial, state=states[state])
    else:
        study.tell(trial, value)


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
        "step": about.get("step"),
        "minutes": round(about["minutes"], 2),
        "run_id": about["run_id"],
        "why": about.get("why", ""),
        "scores": scores,
    }
