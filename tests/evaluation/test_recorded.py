"""Scores that were written are judged anew by whoever relies on them: what a file says of itself is not believed."""

import copy
import json

import pytest

from personalize.evaluation.questions import Questions, as_prompts
from personalize.evaluation.recorded import verdict_of
from personalize.evaluation.scorecard import scorecard

from .test_scores import GATES
from .world import evaluation


@pytest.fixture(scope="module", params=["good", "shuffled"])
def scores(request):
    found = evaluation(shuffled=request.param == "shuffled")
    prompts = as_prompts({"place": {f"p{p}": f"a {{token_noun}} at place {p}" for p in range(24)}})
    questions = Questions([(p.token, p.class_noun) for p in found.photographs], prompts, 2, 0)
    return json.loads(json.dumps(scorecard(found, questions, GATES, [[f"{i}.jpg" for i in range(4)]] * 5)))


def test_what_was_written_comes_to_the_same_verdict(scores):
    assert verdict_of(scores) == scores["verdict"]


def test_a_verdict_that_the_gates_do_not_come_to_is_refused(scores):
    forged = {**scores, "verdict": "failed" if scores["verdict"] == "passed" else "passed"}
    with pytest.raises(ValueError, match="the gates in them come to"):
        verdict_of(forged)


def test_a_gate_that_its_own_interval_does_not_come_to_is_refused(scores):
    forged = copy.deepcopy(scores)
    gate = next(gate for gate in forged["gates"] if gate["metric"] == "recognised")
    gate["verdict"] = "undecided"
    with pytest.raises(ValueError, match="gate recognised threshold is called 'undecided'"):
        verdict_of(forged)


@pytest.mark.parametrize("key", ["gate", "answers"])
def test_a_gate_that_does_not_say_what_was_required_or_found_is_refused(scores, key):
    forged = copy.deepcopy(scores)
    del forged["gates"][0][key]
    with pytest.raises(ValueError, match="do not say what was required and found"):
        verdict_of(forged)
