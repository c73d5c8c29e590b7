"""The self-test of the judge: models whose worth is known get the verdict they deserve."""

import json

import numpy as np
import pytest

from personalize.evaluation import statistics
from personalize.evaluation.gates import Gate, judge, verdict
from personalize.evaluation.scores import Photographs, Pictures, Scores

from .world import evaluation

GATES = [
    Gate(metric="dino", kind="superiority", margin=0.02),
    Gate(metric="clip_t", kind="non-inferiority", margin=0.15),
    Gate(metric="recognised", kind="threshold", threshold=0.6),
    Gate(metric="leakage", kind="threshold", threshold=0.3),
    Gate(metric="copied", kind="threshold", threshold=0.25),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 999)


def judged(scores: Scores) -> dict[str, str]:
    found = {
        gate.metric: judge(gate, scores.estimate(gate.metric, gate.kind != "threshold"), scores.missing(gate.metric))
        for gate in GATES
    }
    return {name: each.verdict for name, each in found.items()} | {"": verdict(list(found.values()))}


def test_a_good_model_passes():
    assert set(judged(evaluation(likeness=0.8)).values()) == {"passed"}


def test_shuffled_subjects_fail():
    """Each subject drawn well, but in another's place: likeness to "some chair of ours" must not be enough."""
    found = judged(evaluation(likeness=0.8, shuffled=True))
    assert found["recognised"] == "failed"
    assert found["dino"] == "failed"
    assert found[""] == "failed"


def test_a_model_identical_to_the_base_fails_for_likeness_alone():
    found = judged(evaluation(identical=True))
    assert found["dino"] == "failed"
    assert found["clip_t"] == found["leakage"] == found["copied"] == "passed"
    assert found[""] == "failed"


def test_a_model_that_forgets_the_prompt_fails_for_that():
    found = judged(evaluation(likeness=0.8, following=0.0))
    assert found["dino"] == "passed"
    assert found["clip_t"] == "failed"


def test_a_model_that_turns_every_chair_into_ours_fails_for_that():
    found = judged(evaluation(likeness=0.8, leak=0.9))
    assert found["leakage"] == "failed"
    assert found["recognised"] == "passed"


def test_pictures_like_the_photographs_closer_than_these_are_to_each_other_count_as_copied():
    scores = evaluation(subjects=2)
    copies = np.stack([each.dino[:1].repeat(8, 0)[:, None].repeat(2, 1) for each in scores.photographs])
    copying = Scores(scores.photographs, scores.texts, scores.base, Pictures(copies, copies, scores.tuned.plain))
    assert judged(copying)["copied"] == "failed"
    assert (copying.of_tuned["nearest_photograph"] == 0).all()


def test_the_very_subject_in_a_new_place_is_no_copy():
    """DINO alone would take it for one: it overlooks the surroundings, and CLIP does not."""
    scores = evaluation(subjects=2)
    faithful = np.stack([each.dino[:1].repeat(8, 0)[:, None].repeat(2, 1) for each in scores.photographs])
    elsewhere = Pictures(faithful, scores.tuned.clip, scores.tuned.plain)
    found = Scores(scores.photographs, scores.texts, scores.base, elsewhere)
    assert (found.of_tuned["nearest"] > found.closest_pairs[:, None, None]).all()
    assert judged(found)["copied"] == "passed"


def test_r_precision_falls_to_chance_when_the_prompt_is_not_heard():
    deaf, hearing = (evaluation(likeness=0.8, following=x) for x in (0.0, 1.0))
    assert hearing.estimate("r_precision").low > 0.9
    assert deaf.estimate("r_precision").value < 0.4
    assert deaf.estimate("r_precision", against_base=True).high < -0.3
    assert "one prompt" in evaluation(prompts=1).missing("r_precision")


def test_the_gap_closed_grows_with_likeness_from_nothing():
    none, half, most = (evaluation(likeness=x).estimate("gap_closed") for x in (0.0, 0.5, 1.0))
    assert none.low < 0.02
    assert none.high < half.low < half.high < most.low < 1


def test_one_subject_is_judged_without_confusion():
    found = judged(evaluation(subjects=1))
    assert found["recognised"] == "skipped"
    assert found[""] == "passed"


def test_one_photograph_leaves_ceiling_and_copying_open():
    scores = evaluation()
    lonely = [Photographs(p.token, p.class_noun, p.dino[:1], p.clip[:1]) for p in scores.photographs]
    scores = Scores(lonely, scores.texts, scores.base, scores.tuned)
    assert scores.estimate("gap_closed") is None
    assert "single photograph" in scores.missing("copied")
    assert json.loads(json.dumps(scores.summary(), allow_nan=False))["subjects"][0]["ceiling"]["dino"] is None


def test_class_nouns_keep_their_own_plain_pictures():
    scores = evaluation(subjects=2)
    lamp = Photographs("token1", "lamp", scores.photographs[1].dino, scores.photographs[1].clip)
    with pytest.raises(ValueError, match="each class noun its plain pictures"):
        Scores([scores.photographs[0], lamp], scores.texts, scores.base, scores.tuned)


def test_base_and_tuned_must_answer_the_same_questions():
    scores = evaluation()
    fewer = Pictures(scores.tuned.dino[:, :4], scores.tuned.clip[:, :4], scores.tuned.plain)
    with pytest.raises(ValueError, match="same prompts and seeds"):
        Scores(scores.photographs, scores.texts, scores.base, fewer)


def test_the_summary_is_plain_json_with_an_interval_for_every_subject():
    summary = json.loads(json.dumps(evaluation().summary(), allow_nan=False))
    assert [row["token"] for row in summary["subjects"]] == [f"token{s}" for s in range(5)]
    for row in summary["subjects"]:
        low, high = row["dino"]["difference"]["ci"]
        assert low < row["dino"]["tuned"] - row["dino"]["base"] < high
        assert row["improved_p_holm"] < 0.05
        assert row["dino"]["tuned"] < row["ceiling"]["dino"]
    assert np.diag(summary["confusion"]["shares"]).min() == 1
