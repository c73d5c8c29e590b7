"""What is asked, in which order, from which seeds."""

import itertools

import pytest

from personalize.evaluation.prompt_sets import SETS
from personalize.evaluation.questions import Answers, Questions, as_prompts, by_look

SUBJECTS = [("zwv", "chair"), ("brk", "chair"), ("lmp", "lamp")]
PROMPTS = as_prompts(
    {"place": {"beach": "a photo of a {token_noun} on the beach", "snow": "a photo of a {token_noun} in the snow"}}
)
MORE = as_prompts({"place": {p.name: p.text for p in PROMPTS} | {"grass": "a {token_noun} on green grass"}})


def test_every_subject_and_every_plain_class_noun_is_asked_for_in_every_prompt():
    prompts, seeds = Questions(SUBJECTS, PROMPTS, 2, 0).rows()
    assert len(prompts) == len(seeds) == (3 + 2) * 2 * 2
    assert prompts[:2] == ["a photo of a zwv chair on the beach"] * 2
    assert "a photo of a lmp lamp in the snow" in prompts
    assert prompts.count("a photo of a chair on the beach") == 2


def test_a_subject_and_the_plain_thing_of_its_class_start_from_the_same_noise():
    asked = Questions(SUBJECTS, PROMPTS, 2, 0)
    names = dict(zip(asked.names, asked.seeds.tolist(), strict=True))
    assert names["zwv chair"] == names["brk chair"] == names["chair"]
    assert names["lmp lamp"] == names["lamp"]


def test_every_noise_has_a_seed_of_its_own_that_can_be_typed_again():
    _, seeds = Questions(SUBJECTS, PROMPTS, 2, 0).rows()
    assert len(set(seeds)) == 2 * 2 * 2
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert not set(seeds) & set(Questions(SUBJECTS, PROMPTS, 2, 1).rows()[1])


def test_the_base_is_asked_about_class_nouns_alone_in_batches_that_the_tuned_model_draws_too():
    asked = Questions(SUBJECTS, PROMPTS, 2, 0)
    plain = asked.batches(3, plain=True)
    assert sorted(itertools.chain(*plain)) == list(range(3 * 2 * 2, 20))
    assert [batch for batch in asked.batches(3) if batch in plain] == plain


def test_the_bases_answer_about_a_subject_is_its_answer_about_the_class_noun():
    asked = Questions(SUBJECTS, PROMPTS, 2, 0)
    plain, files = Answers(asked, asked.plain_files), Answers(asked, asked.files)
    for name, noun in enumerate((0, 0, 1, 0, 1)):
        for prompt, k in itertools.product(range(2), range(2)):
            assert plain.of(name, prompt, k) == files.plain(noun, prompt, k)


def test_more_prompts_or_seeds_leave_the_pictures_there_are_as_they_are():
    few = Questions(SUBJECTS, PROMPTS, 2, 0)
    rows = set(zip(*few.rows(), few.files, strict=True))
    for many in (Questions(SUBJECTS, MORE, 2, 0), Questions(SUBJECTS, PROMPTS, 3, 0)):
        assert rows < set(zip(*many.rows(), many.files, strict=True))
    alone = Questions(SUBJECTS[:1], PROMPTS, 2, 0)
    assert set(zip(*alone.rows(), strict=True)) < set(zip(*few.rows(), strict=True))


def test_full_batches_stay_what_they_were_when_prompts_or_seeds_are_added():
    def batches(questions, size):
        rows = list(zip(*questions.rows(), strict=True))
        return [tuple(rows[row] for row in batch) for batch in questions.batches(size)]

    few = batches(Questions(SUBJECTS, PROMPTS, 2, 0), 2)
    assert sorted(itertools.chain(*Questions(SUBJECTS, PROMPTS, 2, 0).batches(5))) == list(range(20))
    assert all(len(batch) == 2 for batch in few)
    for many in (Questions(SUBJECTS, MORE, 2, 0), Questions(SUBJECTS, PROMPTS, 3, 0)):
        assert set(few) < set(batches(many, 2))


def test_the_first_look_is_a_share_of_every_category_and_the_last_is_all():
    prompts = as_prompts(SETS["objects"])
    first, last = by_look(prompts, [27])
    assert len(first) == 27
    assert {p.category for p in first} == set(SETS["objects"])
    assert list(last[:27]) == list(first), "what was drawn stays the first batches"
    assert sorted(p.name for p in last) == sorted(p.name for p in prompts)
    assert [p.name for p in first if p.category == "place"] == list(SETS["objects"]["place"])[:19]


@pytest.mark.parametrize("looks", [[], [2], [99], [2, 99]])
def test_a_look_at_more_prompts_than_there_are_is_the_last(looks):
    assert [list(each) for each in by_look(PROMPTS, looks)] == [list(PROMPTS)]


def test_three_looks_are_nested():
    prompts = as_prompts(SETS["animals"])
    looks = by_look(prompts, [10, 20])
    assert [len(each) for each in looks] == [10, 20, len(prompts)]
    for fewer, more in itertools.pairwise(looks):
        assert list(more[: len(fewer)]) == list(fewer)


def test_answers_are_found_by_subject_prompt_and_seed():
    questions = Questions(SUBJECTS, PROMPTS, 2, 0)
    answers = Answers(questions, list(zip(*questions.rows(), strict=True)))
    assert answers.of(1, 1, 0) == ("a photo of a brk chair in the snow", questions.seeds[1, 1, 0])
    assert answers.plain(1, 0, 1) == ("a photo of a lamp on the beach", questions.seeds[4, 0, 1])


def test_clip_is_asked_without_the_token():
    assert Questions(SUBJECTS, PROMPTS, 1, 0).texts[1] == [
        "a photo of a lamp on the beach",
        "a photo of a lamp in the snow",
    ]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"x": {"a": "a chair"}}, r"must hold \{token_noun\} once"),
        ({"x": {"a": "a {token_noun} beside a {token_noun}"}}, r"must hold \{token_noun\} once"),
        ({"x": {"a": "a {token_noun}"}, "y": {"b": "a {token_noun}"}}, "text 'a {token_noun}' is given twice"),
        ({"x": {"a": "a {token_noun}"}, "y": {"a": "my {token_noun}"}}, "name 'a' is given twice"),
        ({"x": {"a b": "a {token_noun}", "a/b": "my {token_noun}"}}, "one file name"),
        ({"x": {"?": "a {token_noun}"}}, "letters or digits"),
        ({}, "no prompt"),
    ],
)
def test_prompts_that_cannot_be_asked_are_refused(prompts, message):
    with pytest.raises(ValueError, match=message):
        as_prompts(prompts)


@pytest.mark.parametrize("name", SETS)
def test_every_set_has_prompts_enough_to_decide(name):
    assert len(as_prompts(SETS[name])) >= 24


def test_evaluation_asks_for_no_place_by_which_the_checkpoint_was_chosen():
    from personalize.dreambooth.validation import SCENES

    asked = [prompt.text for prompts in SETS.values() for prompt in as_prompts(prompts)]
    assert not [text for text in asked if any(text.endswith(scene) for scene in SCENES)]
