"""What a sweep tries, what a trial is worth, and what is refused before anything is trained."""

import optuna
import pytest

from personalize.dreambooth import search
from personalize.dreambooth.choice import Margins, Point
from personalize.dreambooth.search import Dimension, Front
from personalize.dreambooth.settings import TrainSettings

BASE = Point(0, fidelity=0.30, prompt=0.30, drift=0.30)
MARGINS = Margins(prompt=0.02, drift=0.05, gain=0.01)
RATES = {"low": 1e-5, "high": 1e-3, "log": True}


def space(**dimensions: dict) -> dict[str, Dimension]:
    return search.check_space({name: Dimension(**dimension) for name, dimension in dimensions.items()})


@pytest.mark.parametrize(
    ("dimensions", "words"),
    [
        ({}, "names no setting"),
        ({"rnak": {"choices": [8]}}, "'rnak' is not a training setting; did you mean 'rank'?"),
        ({"rank": {"low": 0, "high": 8}}, "rank: 0.0 is not a value of it: input should be greater than or equal to 1"),
        ({"rank": {"choices": [8, 600]}}, "rank: 600 is not a value"),
        ({"rank": {"low": 1.5, "high": 8}}, "rank: 1.5 is not a value"),
        ({"rank": {"choices": [8, True]}}, "rank: true is not a value"),
        ({"rank": {"choices": [8, 8]}}, "given twice"),
        ({"targets": {"low": 1, "high": 2}}, "targets: is not a number; give choices"),
        ({"targets": {"choices": ["attention", "everything"]}}, 'targets: "everything" is not a value'),
        ({"validation_every": {"choices": [5, 10]}}, "decides how trials are measured"),
        ({"seed": {"choices": [1, 2]}}, "decides how trials are measured"),
        ({"log_every": {"choices": [1, 2]}}, "nothing to search"),
        ({"rank": {"low": 8}}, "both low and high"),
        ({"rank": {"low": 8, "high": 4}}, "must be below"),
        ({"rank": {"low": 8, "high": 16, "choices": [8]}}, "either low and high, or choices"),
        ({"rank": {"choices": [8], "log": True}}, "belong to low and high"),
        ({"prior_loss_weight": {"low": 0, "high": 1, "log": True}}, "log needs low above 0"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused_with_the_reason(dimensions, words):
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        space(**dimensions)


def test_a_value_that_fits_no_combination_is_refused():
    settings = TrainSettings().model_dump(mode="json")
    both = space(optimizer={"choices": ["adamw", "schedule-free"]}, lr_scheduler={"choices": ["cosine", "constant"]})
    search.check_combinations(both, settings)
    with pytest.raises(ValueError, match=r"optimizer: \"schedule-free\".*no combination.*lr_scheduler: constant"):
        search.check_combinations(space(optimizer={"choices": ["adamw", "schedule-free"]}), settings)


def test_proposals_have_their_settings_types_and_few_digits():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    searched = space(
        learning_rate={"low": "1e-5", "high": "1e-3", "log": True},
        rank={"low": 4, "high": 64},
        snr_gamma={"choices": [None, 5]},
        adam_betas={"choices": [[0.9, 0.99], [0.9, 0.999]]},
        use_rslora={"choices": [True, False]},
    )
    for _ in range(20):
        values = search.suggest(study.ask(), searched)
        assert 1e-5 <= values["learning_rate"] <= 1e-3
        assert values["learning_rate"] == float(f"{values['learning_rate']:.3g}")
        assert isinstance(values["rank"], int)
        assert values["snr_gamma"] in (None, 5.0)
        assert TrainSettings(**values).adam_betas[0] == 0.9


def test_the_first_trial_is_as_configured_where_that_lies_in_the_space():
    settings = TrainSettings(learning_rate=1e-4, rank=64).model_dump(mode="json")
    searched = space(learning_rate=RATES, rank={"choices": [8, 16]}, adam_betas={"choices": [[0.9, 0.99]]})
    first = search.start(searched, settings)
    assert first == {"learning_rate": 1e-4, "adam_betas": "[0.9, 0.99]"}
    study = optuna.create_study()
    study.enqueue_trial(first)
    assert search.suggest(study.ask(), searched)["adam_betas"] == [0.9, 0.99]


def test_a_trial_is_worth_its_most_faithful_admissible_checkpoint():
    points = [Point(1, 0.4, 0.30, 0.30), Point(2, 0.5, 0.29, 0.33), Point(3, 0.8, 0.20, 0.30)]
    assert search.worth(points, BASE, MARGINS) == 0.5


def test_without_one_it_is_worth_less_than_any_the_less_the_further_it_breaks_the_margins():
    far, near = Point(1, 0.9, 0.10, 0.30), Point(2, 0.9, 0.279, 0.30)
    assert search.worth([far], BASE, MARGINS) < search.worth([far, near], BASE, MARGINS) < -1
    assert search.worth([Point(1, -1.0, 0.30, 0.30)], BASE, MARGINS) == -1


ROW = {"prompt": 0.3, "drift": 0.3}


def front(study: optuna.Study, last: int = 30) -> Front:
    return Front(study.ask(), MARGINS, last)


def test_a_trial_that_lags_behind_the_median_is_given_up_but_not_at_its_last_step():
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(1, 0))
    good = front(study)
    assert good.scored(0, {"fidelity": 0.3, **ROW}) is None
    assert [good.scored(step, {"fidelity": 0.5 + step / 100, **ROW}) for step in (10, 20, 30)] == [0.6, 0.7, 0.8]
    study.tell(good.trial, good.value)
    poor = front(study)
    poor.scored(0, {"fidelity": 0.3, **ROW})
    with pytest.raises(optuna.TrialPruned):
        poor.scored(10, {"fidelity": 0.4, **ROW})
    late = front(study)
    late.scored(0, {"fidelity": 0.3, **ROW})
    late.scored(10, {"fidelity": 0.65, **ROW})
    late.scored(20, {"fidelity": 0.70, **ROW})
    assert late.scored(30, {"fidelity": 0.4, **ROW}) == 0.7


def test_a_trial_goes_on_with_the_scores_it_had():
    study = optuna.create_study(direction="maximize")
    rows = [{"step": step, "fidelity": 0.3 + step / 100, **ROW} for step in (0, 10, 20)]
    study.enqueue_trial({}, user_attrs={"scores": rows})
    again = front(study)
    assert again.scored(20, {"fidelity": 0.4, **ROW}) == 0.4  # scored anew: what had been known of it counts no more
    assert study.trials[0].intermediate_values == {10: 0.4, 20: 0.4}
