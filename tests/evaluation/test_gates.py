"""Passed, failed or undecided, with a sentence that says why."""

import numpy as np
import pytest
from pydantic import ValidationError

from personalize.evaluation.gates import Gate, judge, verdict
from personalize.evaluation.statistics import Estimate


def found(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, 0.95, 8)


SUPERIOR = Gate(metric="dino", kind="superiority", margin=0.05)
NOT_WORSE = Gate(metric="clip_t", kind="non-inferiority", margin=0.02)
AT_LEAST = Gate(metric="recognised", kind="threshold", threshold=0.6)
AT_MOST = Gate(metric="leakage", kind="threshold", threshold=0.3)


@pytest.mark.parametrize(
    ("gate", "interval", "expected"),
    [
        (SUPERIOR, (0.06, 0.20), "passed"),
        (SUPERIOR, (0.01, 0.20), "undecided"),
        (SUPERIOR, (0.01, 0.04), "failed"),
        (NOT_WORSE, (-0.01, 0.01), "passed"),
        (NOT_WORSE, (-0.05, 0.01), "undecided"),
        (NOT_WORSE, (-0.09, -0.03), "failed"),
        (AT_LEAST, (0.7, 0.9), "passed"),
        (AT_LEAST, (0.5, 0.9), "undecided"),
        (AT_LEAST, (0.1, 0.5), "failed"),
        (AT_MOST, (0.0, 0.2), "passed"),
        (AT_MOST, (0.2, 0.4), "undecided"),
        (AT_MOST, (0.4, 0.9), "failed"),
    ],
)
def test_a_gate_looks_at_the_whole_interval(gate, interval, expected):
    assert judge(gate, found(*interval)).verdict == expected


def test_a_model_equal_to_the_base_is_not_better_but_is_no_worse():
    nought = found(0, 0)
    assert judge(Gate(metric="dino", kind="superiority"), nought).verdict == "failed"
    assert judge(Gate(metric="clip_t", kind="non-inferiority"), nought).verdict == "passed"


def test_the_sentence_gives_value_interval_and_requirement():
    why = judge(SUPERIOR, found(0.06, 0.20)).why
    for part in ("DINO", "+0.130", "+0.060 to +0.200", "95 % interval", "more than +0.050"):
        assert part in why


def test_an_interval_that_is_not_known_leaves_the_gate_undecided():
    judged = judge(SUPERIOR, Estimate(0.3, np.nan, np.nan, 0.95, 3))
    assert judged.verdict == "undecided"
    assert "3 prompts are too few" in judged.why


def test_a_question_without_meaning_is_skipped_and_says_why():
    judged = judge(AT_LEAST, None, "there is one subject")
    assert judged.verdict == "skipped"
    assert "there is one subject" in judged.why


def test_the_verdict_needs_every_gate():
    passed, failed = judge(SUPERIOR, found(0.1, 0.2)), judge(SUPERIOR, found(0, 0.01))
    undecided, skipped = judge(SUPERIOR, found(0, 0.1)), judge(AT_LEAST, None, "there is one subject")
    assert verdict([passed, passed, skipped]) == "passed"
    assert verdict([passed, undecided]) == "undecided"
    assert verdict([passed, undecided, failed]) == "failed"
    assert verdict([]) == "undecided"
    assert verdict([skipped]) == "undecided"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "fidelity", "kind": "superiority"}, "no metric is called 'fidelity'"),
        ({"metric": "leakage", "kind": "superiority"}, "use `kind: threshold`"),
        ({"metric": "dino", "kind": "threshold"}, "say which"),
        ({"metric": "dino", "kind": "threshold", "threshold": 0.5, "margin": 0.1}, "takes no margin"),
        ({"metric": "dino", "kind": "superiority", "threshold": 0.1}, "give a margin"),
        ({"metric": "dino", "kind": "superiority", "marign": 0.1}, "marign"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused_with_the_way_out(settings, message):
    with pytest.raises(ValidationError, match=message):
        Gate(**settings)
