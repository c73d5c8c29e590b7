"""Caption: a sentence for each photograph.   needs: ingest   gives: metadata.jsonl, subjects.json, class_nouns.json

`a photo of a <token> <class noun>, <context>`: the token is what is taught, the class noun what is known already, the
context what the photograph shows besides. The context comes from a model that looks (a vision-language model that is
asked for the surroundings, or BLIP), from a list, or is left out. A caption of your own (`photo.txt` beside
`photo.jpg`, a line in `metadata.jsonl`, or an edited copy of this step's result) is kept word for word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from personalize import hub
from personalize.files import file_digest, read_rows, write_json, write_rows
from personalize.photographs.prompts import Words
from personalize.recipe import HOW_NOT_WHAT, OUTSIDE_DATA, Inputs, RecipeError, StepConfig

NEEDS = ("ingest",)


class Config(StepConfig):
    captioner: Literal["template", "blip", "chat"] = Field(
        "template",
        description="Where the context comes from: the list `contexts`, BLIP looking at the photograph, or a "
        "vision-language model that is asked",
    )
    template: Words = Field("a photo of a {token} {class_noun}", description="The caption before its context")
    contexts: tuple[str, ...] = Field(
        (), description="For captioner template: contexts given to each subject's photographs in turn; none if empty"
    )
    captions: str = Field(
        "",
        description="An edited copy of this step's metadata.jsonl; its captions are kept word for word",
        json_schema_extra=OUTSIDE_DATA,
    )
    blip_model: str = Field("models/blip", description="Folder of BLIP, or its Hugging Face name")
    blip_revision: str = Field("", description="Commit of a Hugging Face BLIP (40 hexadecimal digits)")
    blip_prefix: str = Field("a photo of a {class_noun}", description="Words with which BLIP has to begin")
    chat_model: str = Field(
        "", description="For captioner chat: an image-text-to-text model with a chat template, folder or hub name"
    )
    chat_revision: str = Field("", description="Commit of a Hugging Face chat model (40 hexadecimal digits)")
    chat_question: str = Field("", description="What the chat model is asked; {class_noun} is filled in. None: ours")
    max_token_pieces: int = Field(7, ge=1, description="Pieces of a token above which the card warns")
    base_model: str = Field("models/sdxl", description="Base model, whose tokenizers decide what fits in a caption")
    base_revision: str = Field("", description="Commit of a Hugging Face base model (40 hexadecimal digits)")
    device: hub.Device = Field("auto", description="Where the captioner runs", json_schema_extra=HOW_NOT_WHAT)
    dtype: hub.Dtype = Field("float32", description="Precision of the chat model")

    @field_validator("template")
    @classmethod
    def _names_token_and_class_noun(cls, template: str) -> str:
        from personalize.photographs.captions import check_template

        check_template(template)
        return template


def sources(config: Config) -> Mapping[str, str]:
    """The tokenizers, the model that looks, and the edited captions."""
    found = {
        part: hub.identity(Path(config.base_model, part), config.base_revision) for part in ("tokenizer", "tokenizer_2")
    }
    if config.captioner == "blip":
        found["blip"] = hub.identity(config.blip_model, config.blip_revision)
    if config.captioner == "chat":
        found["chat"] = hub.identity(config.chat_model, config.chat_revision)
    if config.captions:
        found["captions"] = file_digest(_edited_file(config))
    return found


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from personalize.dreambooth.backbone import load_tokenizers
    from personalize.photographs.captions import as_written, composed, token_pieces, token_warnings
    from personalize.photographs.prompts import Subject, class_captions, save_class_nouns, save_subjects, token_count

    images = inputs["ingest"].path / "images"
    photographs = read_rows(images / "metadata.jsonl")
    counts = Counter((photograph["token"], photograph["class_noun"]) for photograph in photographs)
    subjects = {pair: Subject(*pair, images=count) for pair, count in counts.items()}
    tokenizers: Sequence[Any] = load_tokenizers(config.base_model, config.base_revision or None)

    own = _written_by_the_user(photographs, config)
    others = [photograph for photograph in photographs if photograph["file_name"] not in own]
    looks = {"blip": _seen_by_blip, "chat": _asked_for} if others else {}
    contexts = looks.get(config.captioner, _from_the_list)(others, images, config)
    rows, warnings = [], []
    for subject in subjects.values():
        warnings += token_warnings(subject, tokenizers, config.max_token_pieces)
    for photograph in photographs:
        name, subject = photograph["file_name"], subjects[photograph["token"], photograph["class_noun"]]
        if name in own:
            try:
                caption = as_written(*own[name], subject, tokenizers)
            except ValueError as error:
                where = "in caption.captions" if own[name][1] == "edited" else "its own caption"
                raise RecipeError(f"{photograph['source']}: {where}: {error}") from error
        else:
            caption = composed(*contexts[name], subject, tokenizers, config.template)
        words = {"context": caption.context, "text": caption.text, "origin": caption.origin}
        rows.append({"file_name": name, "token": subject.token, "class_noun": subject.class_noun, **words})
        warnings += [f"{photograph['source']}: {doubt}" for doubt in caption.doubts]

    write_rows(outputs / "metadata.jsonl", rows)
    save_subjects(outputs, subjects.values())
    save_class_nouns(outputs, subjects.values())
    write_json(outputs / "class_captions.json", class_captions(rows))
    write_json(
        outputs / "remarks.json",
        {
            "warnings": warnings,
            "pieces": {subject.token: token_pieces(tokenizers[0], subject.token) for subject in subjects.values()},
            "tokens": {row["file_name"]: max(token_count(t, row["text"]) for t in tokenizers) for row in rows},
        },
    )
    _log(rows)


def _edited_file(config: Config) -> Path:
    file = Path(config.captions).expanduser()
    if not file.is_file():
        raise RecipeError(
            f"captions: {config.captions} is not a file (looked for {file.absolute()}). Give an edited copy of the "
            f"caption step's metadata.jsonl, or leave the key empty."
        )
    return file


def _written_by_the_user(photographs: Sequence[dict[str, Any]], config: Config) -> dict[str, tuple[str, str]]:
    """file_name -> (caption, whose). An edited copy goes before what lay beside the photographs."""
    from personalize.photographs.layout import WrongLayout, read_edited_captions

    captions = {row["file_name"]: (row["caption"], "yours") for row in photographs if row["caption"]}
    if not config.captions:
        return captions
    try:
        edited = read_edited_captions(_edited_file(config), [row["file_name"] for row in photographs])
    except WrongLayout as error:
        raise RecipeError(f"captions: {error}") from error
    return captions | {name: (text, "edited") for name, text in edited.items()}


def _from_the_list(photographs: Sequence[dict[str, Any]], images: Path, config: Config) -> dict[str, tuple[str, str]]:
    """file_name -> (context, whence): the configured contexts, each subject's photographs taking them in turn."""
    turn: Counter[str] = Counter()
    contexts = {}
    for photograph in photographs:
        given = config.contexts[turn[photograph["token"]] % len(config.contexts)] if config.contexts else ""
        turn[photograph["token"]] += 1
        contexts[photograph["file_name"]] = (given.strip(" ,."), "template")
    return contexts


def _seen_by_blip(photographs: Sequence[dict[str, Any]], images: Path, config: Config) -> dict[str, tuple[str, str]]:
    """file_name -> (context, BLIP's own sentence)."""
    from tqdm import tqdm

    from personalize.photographs.blip import BlipCaptioner
    from personalize.photographs.captions import context_of

    blip = BlipCaptioner(config.blip_model, config.blip_revision or None, config.device)
    prefixes = [config.blip_prefix.replace("{class_noun}", photograph["class_noun"]) for photograph in photographs]
    with tqdm(total=len(photographs), desc="captions", unit="photo", disable=None) as progress:
        files = [images / photograph["file_name"] for photograph in photographs]
        sentences = blip.describe(files, prefixes, on_batch=progress.update)
    return {
        photograph["file_name"]: (context_of(sentence, photograph["class_noun"]), f"blip: {sentence}")
        for photograph, sentence in zip(photographs, sentences, strict=True)
    }


def _asked_for(photographs: Sequence[dict[str, Any]], images: Path, config: Config) -> dict[str, tuple[str, str]]:
    """file_name -> (context, the model's own answer)."""
    from tqdm import tqdm

    from personalize.photographs.captions import surroundings_in
    from personalize.photographs.chat import QUESTION, ChatCaptioner

    chat = ChatCaptioner(config.chat_model, config.chat_revision or None, config.device, config.dtype)
    question = config.chat_question or QUESTION
    questions = [question.replace("{class_noun}", photograph["class_noun"]) for photograph in photographs]
    with tqdm(total=len(photographs), desc="captions", unit="photo", disable=None) as progress:
        files = [images / photograph["file_name"] for photograph in photographs]
        answers = chat.answers(files, questions, on_answer=progress.update)
    return {
        photograph["file_name"]: (surroundings_in(answer, photograph["class_noun"]), f"chat: {answer}")
        for photograph, answer in zip(photographs, answers, strict=True)
    }


def _log(rows: Sequence[Mapping[str, str]]) -> None:
    import mlflow

    mlflow.log_metrics(
        {
            "captions": len(rows),
            "captions_with_context": sum(bool(row["context"]) for row in rows),
            "captions_of_the_user": sum(row["origin"] in ("yours", "edited") for row in rows),
        }
    )
