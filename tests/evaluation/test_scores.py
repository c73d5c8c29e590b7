"""The self-test of the verdict: models whose worth is known get what they deserve, one at fault in every way."""

import json
from dataclasses import replace

import numpy as np
import pytest

from personalize.evaluation.gates import Gate, verdict
from personalize.evaluation.questions import Questions, as_prompts
from personalize.evaluation.scorecard import judge_all, scorecard
from personalize.evaluation.scores import Photographs, Pictures, Scores

from .world import evaluation, own, unit, with_tuned

GATES = [
    Gate(metric="likeness", kind="superiority", margin=0.02, each=True),
    Gate(metric="recognised", kind="threshold", threshold=0.8, each=True),
    Gate(metric="clip_t", kind="non-inferiority", margin=0.15),
    Gate(metric="r_precision", kind="non-inferiority", margin=0.25),
    Gate(metric="variety", kind="threshold", threshold=0.25),
    Gate(metric="copied", kind="threshold", threshold=0.25),
    Gate(metric="sharpness", kind="equivalence", margin=0.5),
    Gate(metric="class_r_precision", kind="non-inferiority", margin=0.25),
    Gate(metric="leakage", kind="equivalence", margin=0.3),
]


def judged(scores: Scores) -> dict[str, str]:
    judgements = judge_all(scores, GATES)
    return {each.gate.metric: each.verdict for each in judgements} | {"": verdict(judgements)}


def like(scores: Scores, judge: str, photograph: int, of_next: float = 0.0) -> np.ndarray:
    """Pictures that a judge cannot tell from one photograph of their subject, but for a part of the next."""
    mixed = [
        (1 - of_next) * each.features[judge][photograph] + of_next * each.features[judge][photograph + 1]
        for each in scores.photographs
    ]
    return np.stack([np.broadcast_to(each / np.linalg.norm(each), (24, 2, 64)) for each in mixed])


def like_the_first(scores: Scores) -> dict[str, np.ndarray]:
    """Features of a model whose pictures no judge can tell from each subject's first photograph."""
    return {judge: own(scores, like(scores, judge, 0)) for judge in ("dino", "clip")}


def somewhere_else(scores: Scores) -> np.ndarray:
    """That every subject's surroundings lie elsewhere than the base's, as a copied photograph's do."""
    moved = np.zeros(scores.drawn["tuned"].qualities["displaced"].shape)
    moved[: len(scores.photographs)] = 1
    return moved


def with_two_prints(scores: Scores) -> Scores:
    """The same evaluation with each subject's first photograph there twice."""
    doubled = [
        replace(each, features={name: np.concatenate([f, f[:1]]) for name, f in each.features.items()})
        for each in scores.photographs
    ]
    return replace(scores, photographs=doubled)


def with_guesses(scores: Scores) -> Scores:
    """The same evaluation with the second opinion of one that knows nothing of the pictures."""
    rng = np.random.default_rng(0)

    def guessed(of):
        return replace(of, features={**of.features, "net": unit(rng.normal(size=of.features["dino"].shape))})

    drawn = {side: guessed(of) for side, of in scores.drawn.items()}
    return replace(scores, photographs=list(map(guessed, scores.photographs)), drawn=drawn)


@pytest.mark.parametrize("subjects", [1, 2, 5])
def test_a_good_model_passes(subjects):
    assert set(judged(evaluation(subjects=subjects)).values()) == {"passed"}


def test_shuffled_subjects_fail():
    """Each subject drawn well, but in another's place: likeness to "some chair of ours" must not be enough."""
    found = judged(evaluation(shuffled=True))
    assert found["recognised"] == found["likeness"] == found[""] == "failed"


@pytest.mark.parametrize(("name", "called"), [(3, "token3"), (5, "a plain chair")])
def test_one_subject_or_the_plain_class_that_is_blurred_fails_among_sharp_ones(name, called):
    scores = evaluation()
    sharpness = scores.drawn["tuned"].qualities["sharpness"].copy()
    sharpness[name] -= 1
    blurred = with_tuned(scores, sharpness=sharpness)
    of_all, of_each = judge_all(
        blurred,
        [Gate(metric="sharpness", kind="equivalence", margin=0.5, each=each) for each in (False, True)],
    )
    assert of_all.verdict == "passed"
    assert (of_each.verdict, of_each.decisive.subject) == ("failed", called)
    assert f"worst for {called}" in of_each.why


@pytest.mark.parametrize("instead", ["another subject", "any chair"])
def test_one_subject_that_is_missing_fails_though_the_average_is_good(instead):
    scores = evaluation()
    pictures = scores.drawn["tuned"].features["dino"][:5].copy()
    pictures[0] = pictures[1] if instead == "another subject" else scores.drawn["base"].features["dino"][0]
    found = judged(with_tuned(scores, dict.fromkeys(("dino", "clip"), own(scores, pictures))))
    assert found["recognised"] == found[""] == "failed"


def test_one_picture_in_five_of_another_subject_does_not_pass():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = evaluation(subjects=2, seed=seed)
        pictures = scores.drawn["tuned"].features["dino"][:2].copy()
        swapped = rng.random(pictures.shape[1:3]) < 0.2
        pictures[0][swapped] = pictures[1][swapped]
        assert judged(with_tuned(scores, {"dino": own(scores, pictures)}))[""] != "passed"


def test_a_model_identical_to_the_base_fails_for_likeness_alone():
    found = judged(evaluation(identical=True))
    assert found.pop("likeness") == found.pop("recognised") == found.pop("") == "failed"
    assert set(found.values()) == {"passed"}


def test_a_model_that_forgets_the_prompt_fails_for_that():
    found = judged(evaluation(following=0.0))
    assert found["likeness"] == "passed"
    assert found["clip_t"] == found["r_precision"] == "failed"


@pytest.mark.parametrize("leak", [0.9, -2.0])
def test_a_model_that_moves_every_chair_towards_ours_or_away_fails_for_that(leak):
    found = judged(evaluation(leak=leak))
    assert found["leakage"] == "failed"
    assert found["recognised"] == "passed"


def test_one_picture_for_all_seeds_of_a_prompt_fails_for_that():
    scores = evaluation()
    pictures = scores.drawn["tuned"].features["dino"][:5]
    found = judged(with_tuned(scores, {"dino": own(scores, np.repeat(pictures[:, :, :1], 2, axis=2))}))
    assert found["variety"] == "failed"


def test_blurred_pictures_fail_whatever_they_show():
    scores = evaluation()
    blurred = scores.drawn["tuned"].qualities["sharpness"] - 1.4
    found = judged(with_tuned(scores, sharpness=blurred))
    assert found.pop("sharpness") == found.pop("") == "failed"
    assert set(found.values()) == {"passed"}


def test_plain_pictures_of_something_else_fail():
    scores = evaluation()
    features = scores.drawn["tuned"].features["clip"].copy()
    features[-1] = np.roll(features[-1], 1, axis=0)
    assert judged(with_tuned(scores, {"clip": features}))["class_r_precision"] == "failed"


def test_pictures_like_the_photographs_closer_than_these_are_to_each_other_count_as_copied():
    scores = evaluation(subjects=2)
    copying = with_tuned(scores, like_the_first(scores), displaced=somewhere_else(scores))
    assert judged(copying)["copied"] == "failed"
    assert (copying.of("tuned")["nearest_photograph"] == 0).all()


def test_the_subject_where_a_photograph_shows_it_is_no_copy_when_the_base_laid_out_the_place():
    scores = evaluation(subjects=2)
    assert judged(with_tuned(scores, like_the_first(scores)))["copied"] == "passed"


PROPORTIONS = Gate(metric="proportions", kind="equivalence", margin=0.33, each=True)


def test_one_subject_that_is_too_narrow_fails_and_one_that_cannot_be_told_is_passed_over():
    scores = evaluation()
    found = np.zeros((6, 24, 2))
    found[5], found[1] = np.nan, np.nan
    (judged,) = judge_all(with_tuned(scores, proportions=found), [PROPORTIONS])
    assert judged.verdict == "passed"
    assert [answer.found is None for answer in judged.answers] == [False, True, False, False, False]
    assert "colours of the photographs" in judged.answers[1].reason
    found[3] = -0.4 + np.random.default_rng(0).normal(0, 0.1, (24, 2))
    (judged,) = judge_all(with_tuned(scores, proportions=found), [PROPORTIONS])
    assert (judged.verdict, judged.decisive.subject) == ("failed", "token3")


def test_proportions_are_not_asked_where_no_subject_shows_its_own():
    (judged,) = judge_all(with_tuned(evaluation(), proportions=np.full((6, 24, 2), np.nan)), [PROPORTIONS])
    assert judged.verdict == "skipped"


def test_two_prints_of_a_photograph_do_not_hide_a_copy():
    scores = evaluation(subjects=2)
    doubled = with_two_prints(scores)
    near = {judge: own(scores, like(doubled, judge, 0, of_next=0.02)) for judge in ("dino", "clip")}
    copying = with_tuned(doubled, near, displaced=somewhere_else(scores))
    assert [list(each.values()) for each in copying.left_out] == [["nearly the same picture as one before it"]] * 2
    assert judged(copying)["copied"] == "failed"


def test_the_very_subject_in_a_new_place_is_no_copy():
    """DINO alone would take it for one: it overlooks the surroundings, and CLIP does not."""
    scores = evaluation(subjects=2)
    found = with_tuned(scores, {"dino": own(scores, like(scores, "dino", 0))}, displaced=somewhere_else(scores))
    assert (found.of("tuned")["nearest"] > found.closest_pairs("dino")[:, None, None]).all()
    assert judged(found)["copied"] == "passed"


def test_the_pose_of_one_photograph_in_the_place_of_another_is_no_copy():
    """DINO is nearer to the first, CLIP to the second than any two photographs are to each other."""
    scores = evaluation(subjects=2)
    looks = {"dino": own(scores, like(scores, "dino", 0)), "clip": own(scores, like(scores, "clip", 1))}
    found = with_tuned(scores, looks, displaced=somewhere_else(scores))
    assert not found.of("tuned")["copied"].any()
    assert judged(found)["copied"] == "passed"
    assert found.of("tuned")["copied"].shape == found.of("base")["copied"].shape == (2, 24, 2)


def test_a_second_opinion_sways_no_gate_and_hides_neither_copies_nor_prints():
    scores = evaluation(subjects=2)
    copying = with_tuned(scores, like_the_first(scores), displaced=somewhere_else(scores))
    for before in (scores, copying, with_two_prints(scores)):
        after = with_guesses(before)
        assert after.judges == ["dino", "clip", "net"]
        assert [each.found for each in judge_all(after, GATES)] == [each.found for each in judge_all(before, GATES)]
        assert after.left_out == before.left_out
    assert judged(with_guesses(copying))["copied"] == "failed"


def test_a_photograph_of_something_else_is_left_out_of_what_can_be_asked():
    scores = evaluation(photographs=5)
    strange = {name: f.copy() for name, f in scores.photographs[0].features.items()}
    for name, features in strange.items():
        features[4] = scores.photographs[1].features[name][0]
    mixed = replace(scores, photographs=[replace(scores.photographs[0], features=strange), *scores.photographs[1:]])
    assert list(mixed.left_out[0]) == [4]
    assert mixed.ceilings("dino")[0] == pytest.approx(scores.ceilings("dino")[0], abs=0.01)
    assert mixed.estimate("gap_closed", subject=0).value < 1


def test_r_precision_falls_to_chance_when_the_prompt_is_not_heard():
    deaf, hearing = (evaluation(following=x) for x in (0.0, 1.0))
    assert hearing.estimate("r_precision").low > 0.84
    assert deaf.estimate("r_precision").value < 0.2
    assert deaf.estimate("r_precision", against="base").high < -0.5
    assert "one prompt" in evaluation(prompts=1).missing("r_precision")


def test_where_the_verdict_is_asked_twice_each_interval_is_wider_and_still_says_95_per_cent():
    once = evaluation()
    first = replace(once, looks=(24, 72))
    a, b = (scores.estimate("likeness", against="base") for scores in (once, first))
    assert b.low < a.low < a.high < b.high
    assert a.level == b.level == 0.95
    assert a.value == b.value


def test_what_is_kept_of_the_prompt_is_a_share_of_what_the_base_has_of_it():
    deaf, half, hearing = (evaluation(following=x).estimate("prompt_kept") for x in (0.0, 0.5, 1.0))
    assert deaf.high < half.low < half.high < hearing.low
    assert abs(deaf.value) < 0.1
    assert hearing.low > 0.8  # the subject takes some of the room in a picture
    assert evaluation(identical=True).estimate("prompt_kept").value == pytest.approx(1)
    of_one = evaluation(following=0.5).estimate("prompt_kept", subject=0)
    assert of_one.value == pytest.approx(half.value, abs=0.1)
    assert "one prompt" in evaluation(prompts=1).missing("prompt_kept")


def test_where_the_base_does_not_hear_the_prompt_nothing_can_be_kept():
    scores = evaluation()
    turned = np.roll(scores.texts, 1, axis=1)  # every picture is of another prompt than its own
    assert "no better" in replace(scores, texts=turned).missing("prompt_kept")
    assert replace(scores, texts=turned).estimate("prompt_kept") is None


def test_the_gap_closed_grows_with_likeness_from_nothing():
    none, half, most = (evaluation(likeness=x).estimate("gap_closed") for x in (0.0, 0.5, 1.0))
    assert none.low < 0.02
    assert none.high < half.low < half.high < most.low < 1


def test_one_photograph_leaves_ceiling_and_copying_open():
    scores = evaluation()
    lonely = [Photographs(p.token, p.class_noun, {n: f[:1] for n, f in p.features.items()}) for p in scores.photographs]
    scores = replace(scores, photographs=lonely)
    assert scores.estimate("gap_closed") is None
    assert "single photograph" in scores.missing("copied")
    assert np.isnan(scores.ceilings("dino")).all()


def test_a_champion_is_a_rival_where_there_is_one():
    scores = evaluation()
    gate = Gate(metric="likeness", kind="non-inferiority", margin=0.05, against="champion")
    assert judge_all(scores, [gate])[0].verdict == "skipped"
    rival = replace(scores, drawn={**scores.drawn, "champion": evaluation(likeness=0.3).drawn["tuned"]})
    better = replace(
        scores, drawn={**scores.drawn, "champion": scores.drawn["tuned"], "tuned": rival.drawn["champion"]}
    )
    assert judge_all(rival, [gate])[0].verdict == "passed"
    assert judge_all(better, [gate])[0].verdict == "failed"


def test_all_models_must_answer_the_same_questions():
    scores = evaluation()
    fewer = Pictures({name: f[:, :4] for name, f in scores.drawn["tuned"].features.items()}, {})
    with pytest.raises(ValueError, match="same prompts and seeds"):
        replace(scores, drawn={**scores.drawn, "tuned": fewer})
    lamp = replace(scores.photographs[1], class_noun="lamp")
    with pytest.raises(ValueError, match="same prompts and seeds"):
        replace(scores, photographs=[*scores.photographs[:1], lamp, *scores.photographs[2:]])


def test_an_a_a_comparison_is_superior_no_oftener_than_it_may_be():
    gate = Gate(metric="likeness", kind="superiority")
    won = sum(
        judge_all(evaluation(likeness=0, subjects=2, prompts=12, seed=seed), [gate])[0].verdict == "passed"
        for seed in range(100)
    )
    assert won <= 5


def test_the_scorecard_is_plain_json_with_all_of_it():
    scores = evaluation()
    prompts = as_prompts({"place": {f"p{p}": f"a {{token_noun}} at place {p}" for p in range(24)}})
    questions = Questions([(p.token, p.class_noun) for p in scores.photographs], prompts, 2, 0)
    names = [[f"{i}.jpg" for i in range(4)]] * 5
    card = json.loads(json.dumps(scorecard(scores, questions, GATES, names), allow_nan=False))
    assert card["verdict"] == "passed"
    assert [row["token"] for row in card["subjects"]] == scores.tokens
    for row in card["subjects"]:
        low, high = row["likeness"]["difference"]["ci"]
        assert low < row["likeness"]["tuned"] - row["likeness"]["base"] < high
        assert row["likeness"]["tuned"] < row["ceiling"]["likeness"]
    assert card["confusion"]["columns"][-1] == "any chair"
    assert np.diag(card["confusion"]["shares"]).min() == 1
    assert np.shape(card["matrix"]["likeness"]) == (5, 24)
    assert len(card["pictures"]) == 5 * 24 * 2
    of_each = next(gate for gate in card["gates"] if gate["metric"] == "recognised")
    assert [answer["subject"] for answer in of_each["answers"]] == scores.tokens
    assert {opinion["judge"] for opinion in of_each["opinions"]} == {"clip"}
