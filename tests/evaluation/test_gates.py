"""Passed, failed or undecided, with a sentence that says why."""

import numpy as np
import pytest
from pydantic import ValidationError

from personalize.evaluation.gates import METRICS, Answer, Gate, judge, prompts_wanted, verdict
from personalize.evaluation.statistics import Estimate
from personalize.recipe.config import load
from tests.checkout import ROOT


def found(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, 0.95, 8)


def one(low: float, high: float, judge_name: str = "dino", subject: str = "") -> Answer:
    return Answer(judge_name, subject, found(low, high))


NOTHING = Answer("dino", "", None, "there is one seed")
SUPERIOR = Gate(metric="likeness", kind="superiority", margin=0.05)
NOT_WORSE = Gate(metric="clip_t", kind="non-inferiority", margin=0.02)
AT_LEAST = Gate(metric="recognised", kind="threshold", threshold=0.6)
EACH = Gate(metric="recognised", kind="threshold", threshold=0.6, each=True)
AT_MOST = Gate(metric="copied", kind="threshold", threshold=0.3)
THE_SAME = Gate(metric="sharpness", kind="equivalence", margin=0.5)
UNMOVED = Gate(metric="leakage", kind="equivalence", margin=0.3)


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
        (THE_SAME, (-0.4, 0.4), "passed"),
        (THE_SAME, (-0.6, 0.4), "undecided"),
        (THE_SAME, (-1.6, -0.6), "failed"),
        (THE_SAME, (0.6, 1.4), "failed"),
        (UNMOVED, (-0.1, 0.2), "passed"),
        (UNMOVED, (-2.5, -2.0), "failed"),
    ],
)
def test_a_gate_looks_at_the_whole_interval(gate, interval, expected):
    assert judge(gate, [one(*interval)]).verdict == expected


def test_a_model_equal_to_the_base_is_not_better_but_is_no_worse():
    nought = [one(0, 0)]
    assert judge(Gate(metric="likeness", kind="superiority"), nought).verdict == "failed"
    assert judge(Gate(metric="clip_t", kind="non-inferiority"), nought).verdict == "passed"


def test_the_worst_subject_decides():
    judged = judge(EACH, [one(0.9, 0.99, subject="a"), one(0.4, 0.7, subject="b"), one(0.8, 0.99, subject="c")])
    assert judged.verdict == "undecided"
    assert judged.decisive.subject == "b"
    assert "worst for b" in judged.why
    assert judge(EACH, [one(0.9, 0.99, subject="a"), one(0.1, 0.2, subject="b")]).verdict == "failed"


def test_all_judges_must_pass_and_those_that_contradict_each_other_leave_it_undecided():
    good, bad, open_ = one(0.7, 0.9), one(0.1, 0.3, "dinov2"), one(0.5, 0.7, "dinov2")
    assert judge(AT_LEAST, [good, one(0.7, 0.8, "dinov2")]).verdict == "passed"
    assert judge(AT_LEAST, [good, open_]).verdict == "undecided"
    assert judge(AT_LEAST, [one(0.5, 0.7), bad]).verdict == "failed"
    contradicted = judge(AT_LEAST, [good, bad])
    assert contradicted.verdict == "undecided"
    assert "the judges disagree (dino says passed; dinov2 says failed)" in contradicted.why


def test_a_judge_that_failed_its_examination_decides_nothing():
    bad, good = one(0.1, 0.3), one(0.7, 0.9, "dinov2")
    alone = judge(AT_LEAST, [one(0.7, 0.9)], {"dino": "it takes every second photograph for another subject"})
    assert alone.verdict == "undecided"
    assert "every second photograph" in alone.why
    assert judge(AT_LEAST, [bad, good], {"dino": "blind"}).verdict == "passed"


def test_the_sentence_gives_value_interval_and_requirement():
    why = judge(SUPERIOR, [one(0.06, 0.20)]).why
    for part in ("Likeness", "+0.130", "+0.060 to +0.200", "95 % interval", "more than +0.050", "against base"):
        assert part in why


def test_an_interval_that_is_not_known_leaves_the_gate_undecided():
    judged = judge(SUPERIOR, [Answer("dino", "", Estimate(0.3, np.nan, np.nan, 0.95, 3))])
    assert judged.verdict == "undecided"
    assert "3 prompts are too few" in judged.why


def test_a_question_without_meaning_is_skipped_and_says_why():
    judged = judge(AT_LEAST, [NOTHING])
    assert judged.verdict == "skipped"
    assert "there is one seed" in judged.why


def test_the_verdict_needs_every_gate_and_can_be_found_again_from_what_is_kept():
    passed, failed = judge(SUPERIOR, [one(0.1, 0.2)]), judge(SUPERIOR, [one(0, 0.01)])
    undecided, skipped = judge(SUPERIOR, [one(0, 0.1)]), judge(AT_LEAST, [NOTHING])
    for judged, expected in (
        ([passed, passed, skipped], "passed"),
        ([passed, undecided], "undecided"),
        ([passed, undecided, failed], "failed"),
        ([], "undecided"),
        ([skipped], "undecided"),
    ):
        assert verdict(judged) == expected
        assert verdict([{"verdict": each.verdict} for each in judged]) == expected


def test_how_many_prompts_would_decide_follows_from_the_interval_that_is_open():
    near = judge(AT_LEAST, [Answer("dino", "", Estimate(0.7, 0.5, 0.85, 0.95, 10))])
    assert prompts_wanted([near]) == 40  # twice as narrow
    on_the_line = judge(AT_LEAST, [Answer("dino", "", Estimate(0.6, 0.5, 0.7, 0.95, 10))])
    assert prompts_wanted([near, on_the_line]) == 4000  # it is not known to lie there to the last digit
    assert prompts_wanted([judge(SUPERIOR, [one(0.1, 0.2)])]) is None
    all_of_it = Gate(metric="recognised", kind="threshold", threshold=1.0)
    assert prompts_wanted([judge(all_of_it, [Answer("dino", "", Estimate(1.0, 0.9, 1.0, 0.95, 10))])]) == 4000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": "fidelity", "kind": "superiority"}, "no metric is called 'fidelity'"),
        ({"metric": "recognised", "kind": "superiority"}, "use `kind: threshold`"),
        ({"metric": "likeness", "kind": "threshold"}, "say which"),
        ({"metric": "likeness", "kind": "threshold", "threshold": 0.5, "margin": 0.1}, "takes no margin"),
        ({"metric": "likeness", "kind": "superiority", "threshold": 0.1}, "give a margin"),
        ({"metric": "noise", "kind": "equivalence"}, "nothing changes at all"),
        ({"metric": "leakage", "kind": "equivalence", "margin": 0.3, "each": True}, "not a subject's own"),
        ({"metric": "likeness", "kind": "superiority", "marign": 0.1}, "marign"),
    ],
)
def test_a_gate_that_makes_no_sense_is_refused_with_the_way_out(settings, message):
    with pytest.raises(ValidationError, match=message):
        Gate(**settings)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_can_be_asked_for(metric):
    Gate(metric=metric, kind="threshold", threshold=0.5, each=METRICS[metric].each)


@pytest.mark.parametrize("profile", ["local", "gpu"])
def test_no_fault_of_one_subject_hides_among_the_others(profile):
    """Whatever a subject can have by itself, and is asked against the base, is asked of each."""
    gates = [Gate(**gate) for gate in load(ROOT, profile, []).steps["evaluate"]["gates"].value]
    own = {gate.metric for gate in gates if METRICS[gate.metric].each and gate.against == "base"}
    by_subject = {gate.metric for gate in gates if gate.each}
    assert own - by_subject == {"gap_closed"}, "which likeness, asked of each, stands for"
