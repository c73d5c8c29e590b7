"""Which checkpoint is kept, and when training stops, from scores alone."""

import pytest

from personalize.dreambooth.choice import Margins, Point, choose, stalled

BASE = Point(0, fidelity=0.30, prompt=0.30, drift=0.30)
MARGINS = Margins(prompt=0.02, drift=0.05, gain=0.01)


def points(*rows: tuple[float, float, float]) -> list[Point]:
    return [Point(100 * (i + 1), *row) for i, row in enumerate(rows)]


def test_the_knee_is_the_most_faithful_checkpoint_that_still_hears_the_prompt():
    run = points((0.45, 0.31, 0.30), (0.60, 0.29, 0.32), (0.70, 0.25, 0.33))
    found = choose(run, BASE, MARGINS)
    assert (found.step, found.verdict) == (200, "knee")
    assert "1 of 1" in found.reason


def test_a_checkpoint_that_turned_every_chair_into_this_chair_is_not_kept():
    run = points((0.45, 0.31, 0.30), (0.70, 0.31, 0.50))
    assert choose(run, BASE, MARGINS).step == 100


def test_among_equals_the_earliest_is_kept():
    run = points((0.45, 0.3, 0.3), (0.600, 0.3, 0.3), (0.605, 0.3, 0.3), (0.603, 0.3, 0.3))
    assert choose(run, BASE, MARGINS).step == 200


def test_a_run_starved_of_steps_says_so():
    found = choose(points((0.40, 0.3, 0.3), (0.50, 0.3, 0.3)), BASE, MARGINS)
    assert (found.step, found.verdict) == (200, "still improving")
    assert "more steps" in found.reason


def test_of_a_single_checkpoint_nobody_says_that_it_was_still_rising():
    found = choose(points((0.60, 0.3, 0.3)), BASE, MARGINS, ceiling=0.75)
    assert (found.step, found.verdict) == (100, "only")
    assert "more steps" not in found.reason
    assert choose(points((0.40, 0.3, 0.3)), BASE, MARGINS, ceiling=0.75).verdict == "unlike", "the way to go is known"


def test_a_schedule_that_ended_flat_and_far_from_the_photographs_says_so():
    run = points((0.44, 0.3, 0.3), (0.445, 0.3, 0.3))
    assert choose(run, BASE, MARGINS).verdict == "knee"
    found = choose(run, BASE, MARGINS, ceiling=0.75)
    assert (found.step, found.verdict) == (100, "unlike")
    assert "31 %" in found.reason
    assert choose(run, BASE, MARGINS, ceiling=0.55).verdict == "knee"
    assert choose(run, BASE, MARGINS, ceiling=0.30).verdict == "knee"  # no way to go


def test_far_from_its_photographs_more_steps_are_advised_only_where_steps_did_no_harm():
    flat = points((0.44, 0.3, 0.3), (0.445, 0.3, 0.3))
    assert "more steps" in choose(flat, BASE, MARGINS, ceiling=0.75).reason
    deaf = choose([*flat, Point(300, 0.7, 0.05, 0.3)], BASE, MARGINS, ceiling=0.75)
    assert (deaf.step, deaf.verdict) == (100, "unlike")
    assert "1 of 2 later checkpoints lost" in deaf.reason
    assert "lower learning rate" in deaf.reason
    assert "more steps" not in deaf.reason


def test_when_every_checkpoint_broke_the_prompt_the_least_broken_is_kept_and_called_a_compromise():
    found = choose(points((0.6, 0.20, 0.3), (0.7, 0.10, 0.3)), BASE, MARGINS)
    assert (found.step, found.verdict) == (100, "compromise")
    assert "learning rate" in found.reason


def test_the_order_of_the_points_does_not_matter():
    run = points((0.45, 0.31, 0.30), (0.60, 0.29, 0.32), (0.70, 0.25, 0.33))
    assert choose(run[::-1], BASE, MARGINS) == choose(run, BASE, MARGINS)


def test_training_stops_when_likeness_no_longer_grows():
    run = points((0.45, 0.3, 0.3), (0.60, 0.3, 0.3), (0.605, 0.3, 0.3), (0.59, 0.3, 0.3))
    assert not stalled(run[:3], BASE, MARGINS, patience=2)
    assert stalled(run, BASE, MARGINS, patience=2)


def test_likeness_bought_with_the_prompt_does_not_keep_training_alive():
    run = points((0.50, 0.30, 0.3), (0.60, 0.20, 0.3), (0.70, 0.10, 0.3))
    assert stalled(run, BASE, MARGINS, patience=2)


def test_patience_zero_never_stops():
    assert not stalled(points(*[(0.3, 0.3, 0.3)] * 20), BASE, MARGINS, patience=0)


def test_a_scorer_that_forgets_a_number_is_told_which():
    with pytest.raises(ValueError, match="fidelity"):
        Point.of(100, {"prompt": 0.3})
