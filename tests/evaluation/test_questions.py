"""What is asked, in which order, from which seeds."""

import pytest

from personalize.evaluation.questions import Answers, Questions

SUBJECTS = [("zwv", "chair"), ("brk", "chair"), ("lmp", "lamp")]
PROMPTS = ["a photo of a {token_noun} on the beach", "a photo of a {token_noun} in the snow"]


def test_every_subject_and_every_plain_class_noun_is_asked_for_in_every_prompt():
    prompts, seeds = Questions(SUBJECTS, PROMPTS, 2, first_seed=100).rows()
    assert len(prompts) == len(seeds) == (3 + 2) * 2 * 2
    assert prompts[:2] == ["a photo of a zwv chair on the beach"] * 2
    assert "a photo of a lmp lamp in the snow" in prompts
    assert prompts.count("a photo of a chair on the beach") == 2


def test_every_picture_has_a_seed_of_its_own():
    _, seeds = Questions(SUBJECTS, PROMPTS, 2, first_seed=100).rows()
    assert sorted(set(seeds)) == list(range(100, 120))


def test_answers_are_found_by_subject_prompt_and_seed():
    questions = Questions(SUBJECTS, PROMPTS, 2, first_seed=0)
    prompts, seeds = questions.rows()
    answers = Answers(questions, list(zip(prompts, seeds, strict=True)))
    assert answers.of(1, 1, 0) == ("a photo of a brk chair in the snow", questions.seeds[1, 1, 0])
    assert answers.plain(1, 0, 1) == ("a photo of a lamp on the beach", questions.seeds[4, 0, 1])


def test_clip_is_asked_without_the_token():
    assert Questions(SUBJECTS, PROMPTS, 1, 0).texts[2] == [
        "a photo of a lamp on the beach",
        "a photo of a lamp in the snow",
    ]


def test_labels_leave_out_what_all_prompts_begin_with():
    assert Questions(SUBJECTS, PROMPTS, 1, 0).labels == ["on the beach", "in the snow"]
    assert Questions(SUBJECTS, ["a {token_noun}", "my {token_noun}"], 1, 0).labels == ["a …", "my …"]


@pytest.mark.parametrize("prompt", ["a chair", "a {token_noun} beside a {token_noun}"])
def test_a_prompt_without_one_place_for_the_subject_is_refused(prompt):
    with pytest.raises(ValueError, match=r"must hold \{token_noun\} once"):
        Questions(SUBJECTS, [prompt], 1, 0)


def test_a_prompt_asked_twice_is_refused():
    with pytest.raises(ValueError, match="given twice"):
        Questions(SUBJECTS, [PROMPTS[0]] * 2, 1, 0)
