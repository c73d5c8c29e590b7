"""A vision-language model of the Qwen-VL class, with random weights: how it is loaded, asked and heard."""

from pathlib import Path

import pytest

from personalize.photographs.captions import surroundings_in
from personalize.photographs.chat import QUESTION, ChatCaptioner
from tests.dreambooth.drawings import photograph
from tests.photographs.models import write_chat_model


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_model(tmp_path_factory.mktemp("qwen3-vl"))


def test_a_model_of_the_class_answers_each_photograph_the_same_each_time(chat_model: Path, tmp_path: Path) -> None:
    captioner = ChatCaptioner(chat_model, device="cpu")
    files = [photograph(tmp_path / f"{i}.png", i, (96, 64 + 32 * i)) for i in range(2)]
    questions = [QUESTION.format(class_noun="chair")] * 2
    heard: list[int] = []
    answers = captioner.answers(files, questions, max_new_tokens=6, on_answer=heard.append)
    assert heard == [1, 1]
    assert answers == captioner.answers(files, questions, max_new_tokens=6)
    assert all("\n" not in answer and "<|" not in answer for answer in answers)


def test_it_is_shown_the_photograph_and_asked_for_its_surroundings(chat_model: Path, tmp_path: Path) -> None:
    captioner = ChatCaptioner(chat_model, device="cpu")
    seen = {}
    generate = captioner.model.generate

    def watched(**inputs):
        seen.update(inputs)
        return generate(**inputs)

    captioner.model.generate = watched
    captioner.answers([photograph(tmp_path / "a.png", 0, (96, 64))], [QUESTION.format(class_noun="desk lamp")], 2)
    asked = captioner.processor.decode(seen["input_ids"][0])
    assert "Where is the desk lamp in this photograph?" in asked
    assert "Do not describe the desk lamp itself" in asked
    assert asked.count("<|image_pad|>") == seen["image_grid_thw"].prod() // 4 == 6
    assert seen["do_sample"] is False


def test_what_is_no_such_model_is_refused(tiny_models: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be loaded: .* It has to be an image-text-to-text model"):
        ChatCaptioner(tiny_models / "dino", device="cpu")
    with pytest.raises(ValueError, match="CHAT_REVISION"):
        ChatCaptioner("Qwen/Qwen3-VL-2B-Instruct", "main")


@pytest.mark.parametrize(
    ("answer", "surroundings"),
    [
        ("On a wooden floor beside a window.", "on a wooden floor beside a window"),
        ("The chair is standing in a bright kitchen.", "in a bright kitchen"),
        ('"Against a plain white backdrop"', "against a plain white backdrop"),
        ("In a garden. The chair is red and has four legs.", "in a garden"),
        ("In a garden, where the chair has red cushions", "in a garden"),
        ("On a rug, and the armchair is made of velvet", "on a rug"),
        ("Sure! Here it is: on the beach at sunset", "on the beach at sunset"),
        ("In this photograph, the chair stands on a lawn; the chair is red", "on a lawn"),
        ("The chair is in a hall with other chairs around it", "in a hall"),
        ("next to another chair in a hall", ""),
        ("It is red, with four wooden legs.", ""),
        ("", ""),
    ],
)
def test_of_an_answer_the_surroundings_are_kept_and_the_subject_is_not(answer: str, surroundings: str) -> None:
    assert surroundings_in(answer, "chair") == surroundings
