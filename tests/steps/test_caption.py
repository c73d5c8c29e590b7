"""The caption step: token, class noun and context for each photograph; a person's own words are kept word for word."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from pydantic import ValidationError

from personalize.cards import Card
from personalize.dreambooth.backbone import load_tokenizers
from personalize.photographs.captions import sees_class_noun
from personalize.photographs.prompts import Subject, load_subjects, token_count
from personalize.recipe import Inputs, RecipeError
from steps import caption
from steps.cards.caption import show
from tests.dreambooth.drawings import photograph
from tests.photographs.models import write_chat_model
from tests.steps.conftest import perform


@pytest.fixture(scope="module", autouse=True)
def tracking(tmp_path_factory: pytest.TempPathFactory) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}")


@pytest.fixture
def ingested(tmp_path: Path) -> Path:
    """What ingest leaves: two chairs of two photographs."""
    rows = []
    for token in ("bcnchr", "zwvchr"):
        for index in range(2):
            name = f"chair/{token}/{index}.png"
            photograph(tmp_path / "ingest/images" / name, len(rows), (96, 96))
            row = {"file_name": name, "token": token, "class_noun": "chair", "width": 96, "height": 96}
            rows.append(row | {"source": name.replace(".png", ".jpg"), "sha256": "", "caption": None})
    write(tmp_path / "ingest/images/metadata.jsonl", rows)
    return tmp_path / "ingest"


def write(file: Path, rows: list[dict]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def read(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def set_caption(ingested: Path, name: str, text: str) -> None:
    rows = read(ingested / "images/metadata.jsonl")
    next(row for row in rows if row["file_name"] == name)["caption"] = text
    write(ingested / "images/metadata.jsonl", rows)


@pytest.fixture
def run(tiny_models: Path, ingested: Path, tmp_path: Path) -> Callable[..., tuple[dict[str, dict], str]]:
    """Runs the step; gives its rows by file name, and the card's page."""

    def run_step(**options: object) -> tuple[dict[str, dict], str]:
        outputs = tmp_path / "outputs"
        shutil.rmtree(outputs, ignore_errors=True)
        models = {"base_model": str(tiny_models / "sdxl"), "blip_model": str(tiny_models / "blip"), "device": "cpu"}
        with mlflow.start_run():
            inputs = Inputs.from_paths({"ingest": ingested})
            card = perform("caption", caption.Config(**{**models, **options}), inputs, outputs)
        return {row["file_name"]: row for row in read(outputs / "metadata.jsonl")}, card.html()

    return run_step


def test_without_contexts_the_caption_is_the_instance_prompt(run, tmp_path: Path) -> None:
    rows, _ = run()
    assert [row["text"] for row in rows.values()] == ["a photo of a bcnchr chair"] * 2 + [
        "a photo of a zwvchr chair"
    ] * 2
    first = rows["chair/bcnchr/0.png"]
    assert {key: first[key] for key in ("token", "class_noun", "context")} == {
        "token": "bcnchr",
        "class_noun": "chair",
        "context": "",
    }
    assert load_subjects(tmp_path / "outputs") == [Subject("bcnchr", "chair", 2), Subject("zwvchr", "chair", 2)]


def test_contexts_are_given_in_turn_within_each_subject(run) -> None:
    rows, _ = run(contexts=("on a wooden floor", "by a window"), template="a picture of one {token} {class_noun}")
    assert [row["text"] for row in rows.values()] == [
        "a picture of one bcnchr chair, on a wooden floor",
        "a picture of one bcnchr chair, by a window",
        "a picture of one zwvchr chair, on a wooden floor",
        "a picture of one zwvchr chair, by a window",
    ]


def test_ones_own_captions_are_kept_word_for_word(run, ingested: Path) -> None:
    set_caption(ingested, "chair/bcnchr/1.png", "The bcnchr chair; <b>bold</b>, at Käthe's")
    rows, html = run(contexts=("on a wooden floor",))
    assert rows["chair/bcnchr/1.png"]["text"] == "The bcnchr chair; <b>bold</b>, at Käthe's"
    assert rows["chair/bcnchr/1.png"]["origin"] == "yours"
    assert rows["chair/bcnchr/0.png"]["text"] == "a photo of a bcnchr chair, on a wooden floor"
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert "<b>bold</b>" not in html
    assert "does not say" not in html


def test_a_caption_without_its_token_is_kept_and_warned_of(run, ingested: Path) -> None:
    set_caption(ingested, "chair/bcnchr/1.png", "my bcnchrs by a window")
    rows, html = run()
    assert rows["chair/bcnchr/1.png"]["text"] == "my bcnchrs by a window"
    assert "chair/bcnchr/1.jpg: your caption does not say" in html


def test_an_edited_copy_of_the_result_goes_before_everything(run, ingested: Path, tmp_path: Path) -> None:
    set_caption(ingested, "chair/bcnchr/1.png", "bcnchr from the sidecar")
    run()
    edited = read(tmp_path / "outputs/metadata.jsonl")
    edited[1]["text"] = "a bcnchr chair I know better"
    rows, _ = run(captions=str(write(tmp_path / "edited.jsonl", edited[:2])))
    assert rows["chair/bcnchr/1.png"]["text"] == "a bcnchr chair I know better"
    assert rows["chair/bcnchr/1.png"]["origin"] == "edited"
    assert rows["chair/zwvchr/1.png"]["origin"] == "template"


def test_editing_the_copy_again_is_noticed_and_its_place_is_not(tiny_models: Path, tmp_path: Path) -> None:
    def digests(name: str) -> dict[str, str]:
        return dict(
            caption.sources(caption.Config(base_model=str(tiny_models / "sdxl"), captions=str(tmp_path / name)))
        )

    (tmp_path / "a.jsonl").write_text("one")
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert digests("a.jsonl") == digests("b.jsonl")
    (tmp_path / "b.jsonl").write_text("two")
    assert digests("a.jsonl") != digests("b.jsonl")
    assert "captions" not in caption.Config.result_keys()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"file_name": "chair/bcnchr/9.png", "text": "x"}, "is no photograph of this run"),
        ({"file_name": "chair/bcnchr/0.png", "text": "  "}, "has an empty text for 'chair/bcnchr/0.png'"),
        ({"file_name": "chair/bcnchr/0.png"}, "edited.jsonl, line 1"),
    ],
)
def test_a_mistake_in_the_edited_copy_is_named(run, tmp_path: Path, row: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=f"captions: .*{message}"):
        run(captions=str(write(tmp_path / "edited.jsonl", [row])))


def test_an_edited_copy_that_is_not_there_is_named(run) -> None:
    with pytest.raises(RecipeError, match=r"captions: gone\.jsonl is not a file"):
        run(captions="gone.jsonl")


def test_a_context_past_77_tokens_is_shortened_loudly(run, tiny_models: Path) -> None:
    rows, html = run(contexts=(" ".join(["on a wooden floor"] * 30),))
    tokenizers = load_tokenizers(tiny_models / "sdxl")
    longest = max(token_count(tokenizer, row["text"]) for row in rows.values() for tokenizer in tokenizers)
    assert 70 < longest <= 77
    assert html.count("the caption passed 77 tokens; the end of its context went") == 4


def test_ones_own_caption_past_77_tokens_is_refused_and_not_cut(run, ingested: Path) -> None:
    set_caption(ingested, "chair/zwvchr/0.png", "zwvchr chair " + "on a wooden floor " * 40)
    with pytest.raises(RecipeError, match=r"chair/zwvchr/0\.jpg: its own caption: .*77"):
        run()


def test_the_card_of_a_run_says_how_to_fetch_its_captions_and_give_them_back_edited(
    run, ingested: Path, tmp_path: Path
) -> None:
    _, html = run()
    assert "runs:/&lt;run id of this step&gt;/outputs/metadata.jsonl" in html
    card = Card("caption")
    card.run_id = "0123abcd"
    show(caption.Config(), Inputs.from_paths({"ingest": ingested}), tmp_path / "outputs", card)  # needs no model
    assert "mlflow artifacts download -u runs:/0123abcd/outputs/metadata.jsonl -d ." in card.html()
    assert "mlflow run . --env-manager local -P caption.captions=metadata.jsonl" in card.html()


def test_a_common_word_for_a_token_is_warned_of(run, ingested: Path) -> None:
    rows = [
        row | {"token": row["token"].replace("bcnchr", "barcelona")} for row in read(ingested / "images/metadata.jsonl")
    ]
    write(ingested / "images/metadata.jsonl", rows)
    assert "barcelona&#39; is a common word" in run()[1]


def test_blip_gives_the_context_and_the_token_takes_the_subjects_place(run, ingested: Path) -> None:
    set_caption(ingested, "chair/bcnchr/1.png", "bcnchr as I say")
    rows, html = run(captioner="blip")
    assert rows["chair/bcnchr/1.png"]["text"] == "bcnchr as I say"
    for name in ("chair/bcnchr/0.png", "chair/zwvchr/0.png", "chair/zwvchr/1.png"):
        row = rows[name]
        assert row["origin"].startswith("blip: a photo of a chair")
        assert row["text"] == f"a photo of a {row['token']} chair" + (f", {row['context']}" if row["context"] else "")

    assert rows == run(captioner="blip")[0]
    for name, row in rows.items():  # what weights drawn at random say is not up to us; that it is noticed is
        unseen = row["origin"].startswith("blip") and not sees_class_noun(row["origin"], "chair")
        assert (f"{name.replace('.png', '.jpg')}: BLIP saw no chair" in html) == unseen


def test_a_chat_model_is_asked_for_what_surrounds_the_subject(run, ingested: Path, tmp_path: Path, monkeypatch) -> None:
    """What its random weights answer is not up to us, so the answer is put into its mouth."""
    model = write_chat_model(tmp_path / "chat")
    asked = []

    def answers(self, images, questions, **_):
        asked.extend(questions)
        return ["In a garden. The chair is red.", "It is red.", "On a rug, the chair has red legs"][: len(images)]

    monkeypatch.setattr("personalize.photographs.chat.ChatCaptioner.answers", answers)
    set_caption(ingested, "chair/bcnchr/1.png", "bcnchr as I say")
    rows, html = run(captioner="chat", chat_model=str(model))
    assert [row["text"] for row in rows.values()] == [
        "a photo of a bcnchr chair, in a garden",
        "bcnchr as I say",
        "a photo of a zwvchr chair",
        "a photo of a zwvchr chair, on a rug",
    ]
    assert len(asked) == 3
    assert all("Where is the chair in this photograph?" in question for question in asked)
    assert "chair/zwvchr/0.jpg: no surroundings were found in the model&#39;s answer (chat: It is red.)" in html
    assert caption.sources(caption.Config(captioner="chat", chat_model="a/b", chat_revision="0" * 40))["chat"]


def test_missing_models_are_named(run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.*dvc pull"):
        run(base_model=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"BLIP.*dvc pull"):
        run(captioner="blip", blip_model=str(tmp_path / "nowhere"))


def test_a_template_without_a_token_is_a_config_error() -> None:
    with pytest.raises(ValidationError, match=r"needs {token} and {class_noun}"):
        caption.Config(template="a photo of a {class_noun}")
