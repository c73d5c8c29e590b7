"""Advice follows from what failed and from what training said, and never says the opposite of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from personalize.dreambooth.choice import Margins, Point, choose
from personalize.evaluation.scorecard import SCHEMA
from steps.advice import advise, in_brief
from tests.evaluation_folder import SETTINGS, make

MARGINS = Margins(prompt=0.05, drift=0.05, gain=0.005, reach=0.5)
BASE = Point(0, 0.3, 0.6, 0.2)


def scores(verdict: str, gates: list[dict[str, Any]], wanted: int | None = None, prompts: int = 24) -> dict[str, Any]:
    subject = {"token": "zwvchr", "left_out": {}}
    return {
        "schema": SCHEMA,
        "verdict": verdict,
        "gates": gates,
        "judges": {"deciding": ["dino"], "reading": "clip", "all": ["dino", "clip"]},
        "unfit": {},
        "subjects": [subject],
        "confusion": {"tokens": ["zwvchr"], "columns": ["zwvchr", "any chair"], "shares": [[0.4, 0.6]]},
        "prompts": [{}] * prompts,
        "prompts_wanted": wanted,
    }


def gate(metric: str, verdict: str, *answers: tuple[str, str]) -> dict[str, Any]:
    said = [{"judge": judge, "subject": "", "verdict": found} for judge, found in answers or [("dino", verdict)]]
    return {"metric": metric, "verdict": verdict, "words": metric, "subject": "", "answers": said}


def history(*points: Point, ceiling: float | None = None) -> dict[str, Any]:
    """As train writes it, with its real choice and its real words."""
    chosen = choose(list(points), BASE, MARGINS, ceiling)
    return {"chosen": {"step": chosen.step, "verdict": chosen.verdict, "reason": chosen.reason}, "settings": SETTINGS}


DEAF = history(Point(10, 0.6, 0.4, 0.3), Point(20, 0.7, 0.3, 0.4))
RISING = history(Point(10, 0.4, 0.6, 0.2), Point(20, 0.5, 0.6, 0.2))
KNEE = history(Point(10, 0.7, 0.6, 0.2), Point(20, 0.7, 0.6, 0.2))
SHORT = history(Point(10, 0.35, 0.6, 0.2), Point(20, 0.35, 0.6, 0.2), ceiling=0.9)
ONLY = history(Point(20, 0.7, 0.6, 0.2))
LOST = history(Point(10, 0.35, 0.6, 0.2), Point(20, 0.7, 0.3, 0.4), ceiling=0.9)


@pytest.mark.parametrize(
    ("training", "verdict", "lower", "longer"),
    [
        (DEAF, "compromise", True, False),
        (RISING, "still improving", False, True),
        (SHORT, "unlike", False, True),
        (ONLY, "only", False, True),
        (LOST, "unlike", True, False),
    ],
)
def test_what_training_lacked_decides_the_direction(training, verdict, lower, longer):
    assert training["chosen"]["verdict"] == verdict
    advice = advise(scores("failed", [gate("likeness", "failed")]), training)
    typed = " ".join(each.command for each in advice)
    assert ("learning_rate=0.001" in typed) == lower
    assert ("max_train_steps=630" in typed) == longer
    assert training["chosen"]["reason"] in advice[0].because


@pytest.mark.parametrize("metric", ["likeness", "clip_t", "leakage", "copied", "recognised", "r_precision", "variety"])
def test_where_no_checkpoint_kept_the_prompt_nothing_advises_more_steps(metric):
    advice = advise(scores("failed", [gate(metric, "failed"), gate("likeness", "failed")]), DEAF)
    assert not any("max_train_steps" in each.command or "longer" in each.do for each in advice)


def test_undecided_says_how_many_prompts_in_all_decide():
    (advice,) = advise(scores("undecided", [gate("likeness", "undecided")], wanted=40), KNEE)
    assert "about 40 prompts in all (there are 24): add 16" in advice.do
    assert "trained again" in advice.do


def test_undecided_where_training_was_not_at_its_end_asks_for_more_of_it_first():
    first, second = advise(scores("undecided", [gate("likeness", "undecided")], wanted=90), RISING)
    assert "Train again for longer" in first.do
    assert first.because.startswith("Undecided: likeness. Training said: ")
    assert "prompts" in second.do
    (alone,) = advise(scores("undecided", [gate("sharpness", "undecided")], wanted=40), RISING)
    assert "prompts" in alone.do, "longer training is no answer to what training did not speak of"


def test_nobody_is_sent_to_draw_ten_times_as_much_but_told_how_the_model_gets_better():
    first, second, last = advise(scores("undecided", [gate("recognised", "undecided")], wanted=900), KNEE)
    assert "rank=" in first.command
    assert "photographs" in second.do
    assert "better model" in last.do
    assert "900" in last.do


def test_judges_that_disagree_are_not_settled_by_more_prompts():
    disputed = gate("likeness", "undecided", ("dino", "passed"), ("lite0", "failed"))
    (advice,) = advise(scores("undecided", [disputed]), KNEE)
    assert "disagree" in advice.because


def test_judges_that_cannot_see_are_to_be_replaced_first():
    blind = scores("undecided", [gate("likeness", "undecided")], wanted=40) | {"unfit": {"dino": "recognises 3 of 25"}}
    assert "evaluate.judges" in advise(blind, RISING)[0].do


def test_a_subject_taken_for_another_is_named_with_the_other():
    advice = advise(scores("failed", [gate("recognised", "failed")]), SHORT)
    assert any("60 % of the pictures of zwvchr look more like any chair" in each.because for each in advice)


@pytest.mark.parametrize(("had", "more"), [(None, "0.25"), (0.0, "0.25"), (0.25, "0.5"), (0.7, "1")])
def test_surroundings_that_changed_are_kept_by_more_class_images_with_the_token(had, more):
    training = {**KNEE, "settings": {**KNEE["settings"], "prior_surroundings": had}}
    *_, last = advise(scores("failed", [gate("altered", "failed")]), training)
    assert f"train.prior_surroundings={more}" in last.command
    assert "train.prior_target=base" in last.command


def test_passed_asks_a_person_and_older_evaluations_are_done_again():
    (advice,) = advise(scores("passed", [gate("likeness", "passed")]), {})
    assert "Look at the pictures yourself" in advice.do
    (older,) = advise({"verdict": "failed", "gates": []}, {})
    assert "-e evaluate" in older.command


def test_a_run_ends_with_whole_lines_of_it_that_fit_into_a_tag():
    failed = [gate(metric, "failed") for metric in ("likeness", "clip_t", "leakage", "copied", "sharpness")]
    advice = advise(scores("failed", failed), DEAF)
    brief = in_brief(advice)
    assert len(brief) < 500
    assert brief.startswith(f"{advice[0].do}\n  {advice[0].command}")
    said = [line.strip() for each in advice for line in (each.do, *each.command.splitlines())]
    assert all(line.strip() in said for line in brief.splitlines())


def test_of_a_whole_evaluation(tmp_path: Path):
    made = make(tmp_path, mixed_up=(1,), side=32)
    advice = advise(
        made.scores, {"chosen": {"step": 1, "verdict": "knee", "reason": "it is the best."}, "settings": {}}
    )
    assert made.scores["verdict"] == "failed"
    assert any("brkchr look more like orbchr" in each.because for each in advice)
