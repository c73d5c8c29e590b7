"""A sweep's trials on disk: what is proposed, what survives a kill, what mattered."""

import optuna
import pytest

from personalize.dreambooth import search, trials
from personalize.dreambooth.search import Dimension
from personalize.dreambooth.trials import Outcome

SPACE = {"learning_rate": Dimension(low=1e-5, high=1e-3, log=True), "rank": Dimension(choices=(8, 16, 32))}


def play(study: optuna.Study, count: int) -> list[dict]:
    """So many trials whose value is a function of what was proposed."""
    tried = []
    for _ in range(count):
        trial = trials.ask(study, 7, 2)
        tried.append(search.suggest(trial, SPACE))
        outcome = Outcome("complete", 1 - abs(tried[-1]["learning_rate"] - 3e-4))
        trials.close(study, trial, outcome, params=tried[-1])
    return tried


def opened(path) -> optuna.Study:
    return trials.open_study(path, trials.median_pruner("median", 2, 1, 10), wanted=8)


def test_a_sweep_that_was_stopped_tries_what_it_would_have_tried(tmp_path):
    whole = play(opened(tmp_path / "a"), 5)
    assert len({str(values) for values in whole}) == 5
    parts = [values for count in (2, 3) for values in play(opened(tmp_path / "b"), count)]
    assert parts == whole


def test_a_trial_that_a_kill_interrupted_is_tried_again_under_its_number(tmp_path):
    study = opened(tmp_path)
    play(study, 1)
    killed = trials.ask(study, 7, 2)
    values = search.suggest(killed, SPACE)
    killed.set_user_attr("scores", [{"step": 0}])
    study = opened(tmp_path)
    assert [trial.user_attrs["trial"] for trial in trials.pick_up(study)] == [2]
    again = trials.ask(study, 7, 2)
    assert search.suggest(again, SPACE) == values
    assert (again.user_attrs["trial"], again.user_attrs["scores"]) == (2, [{"step": 0}])
    assert trials.pick_up(study)[0].number == again.number
    assert len(trials.counted(study)) == 1


def test_failed_and_given_up_trials_count_and_are_told(tmp_path):
    study = opened(tmp_path)
    about = {"run_id": "r", "minutes": 0.5, "params": {}}
    trials.close(study, trials.ask(study, 0, 2), Outcome("failed", why="diverged"), **about)
    trial = trials.ask(study, 0, 2)
    trial.set_user_attr("scores", [{"step": 10}])
    trial.report(0.25, 10)
    trials.close(study, trial, Outcome("pruned"), **about)
    failed, pruned = map(trials.told, trials.counted(study))
    assert (failed["trial"], failed["state"], failed["value"], failed["why"]) == (1, "failed", None, "diverged")
    assert (pruned["trial"], pruned["state"], pruned["value"]) == (2, "pruned", 0.25)


def test_what_mattered_is_said_from_four_trials_on(tmp_path):
    study = opened(tmp_path)
    play(study, 3)
    assert trials.importances(study) == {}
    play(study, 5)
    found = trials.importances(study)
    assert set(found) == {"learning_rate", "rank"}
    assert sum(found.values()) == pytest.approx(1)
