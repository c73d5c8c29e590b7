"""Caption: a sentence for each photograph.   needs: ingest   gives: metadata.jsonl, subjects.json

`a photo of a <token> <class noun>, <context>`: the token is what is taught, the class noun what is known already, the
context what the photograph shows besides. The context comes from BLIP, from a list, or is left out. A caption of your
own (`photo.txt` beside `photo.jpg`, a line in `metadata.jsonl`, or an edited copy of this step's result) is kept word
for word.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from personalize.cards import Card
from personalize.files import file_digest, tree_digest
from personalize.recipe import Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from personalize.photographs.prompts import Subject, Tokenizer

NEEDS = ("ingest",)


class Config(StepConfig):
    captioner: Literal["template", "blip"] = Field(
        "template", description="Where the context comes from: the list `contexts`, or BLIP looking at the photograph"
    )
    template: str = Field("a photo of a {token} {class_noun}", description="The caption before its context")
    contexts: tuple[str, ...] = Field(
        (), description="For captioner template: contexts given to each subject's photographs in turn; none if empty"
    )
    captions: str = Field(
        "",
        description="An edited copy of this step's metadata.jsonl; its captions are kept word for word",
        json_schema_extra={"affects_result": False},  # its content does: see sources
    )
    blip_model: str = Field("models/blip", description="Folder of BLIP, or its Hugging Face name")
    blip_revision: str = Field("", description="Commit of a Hugging Face BLIP (40 hexadecimal digits)")
    blip_prefix: str = Field("a photo of a {class_noun}", description="Words with which BLIP has to begin")
    max_token_pieces: int = Field(7, ge=1, description="Pieces of a token above which the card warns")
    base_model: str = Field("models/sdxl", description="Base model, whose tokenizers decide what fits in a caption")
    base_revision: str = Field("", description="Commit of a Hugging Face base model (40 hexadecimal digits)")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where BLIP runs", json_schema_extra={"affects_result": False}
    )

    @field_validator("template")
    @classmethod
    def _names_token_and_class_noun(cls, template: str) -> str:
        from personalize.photographs.captions import check_template

        check_template(template)
        return template


def sources(config: Config) -> Mapping[str, str]:
    """The tokenizers, BLIP where it is asked, and the edited captions."""
    found = {}
    base = Path(config.base_model)
    for part in ("tokenizer", "tokenizer_2"):
        found[part] = tree_digest(base / part) if (base / part).is_dir() else config.base_revision
    if config.captioner == "blip":
        found["blip"] = tree_digest(config.blip_model) if Path(config.blip_model).is_dir() else config.blip_revision
    if config.captions:
        found["captions"] = file_digest(_edited_file(config))
    return found


def run(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    from personalize.dreambooth.backbone import load_tokenizers
    from personalize.photographs.captions import token_warnings
    from personalize.photographs.prompts import Subject, save_subjects

    images = inputs["ingest"].path / "images"
    photographs = [json.loads(line) for line in (images / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    counts = Counter((photograph["token"], photograph["class_noun"]) for photograph in photographs)
    subjects = {pair: Subject(*pair, images=count) for pair, count in counts.items()}
    tokenizers = load_tokenizers(config.base_model, config.base_revision or None)
    warnings = [
        w for subject in subjects.values() for w in token_warnings(subject, tokenizers, config.max_token_pieces)
    ]

    own = _written_by_the_user(photographs, config)
    others = [photograph for photograph in photographs if photograph["file_name"] not in own]
    contexts = (_seen_by_blip if config.captioner == "blip" and others else _from_the_list)(others, images, config)
    rows = []
    for photograph in photographs:
        name, subject = photograph["file_name"], subjects[photograph["token"], photograph["class_noun"]]
        row = {"file_name": name, "token": subject.token, "class_noun": subject.class_noun}
        if name in own:
            rows.append(row | _kept(*own[name], subject, photograph, tokenizers, warnings))
        else:
            rows.append(row | _composed(*contexts[name], subject, photograph, tokenizers, config, warnings))

    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (outputs / "metadata.jsonl").write_text(text, encoding="utf-8")
    save_subjects(outputs, subjects.values())
    _log(rows, subjects)
    _show(card, rows, images, list(subjects.values()), warnings, tokenizers, config)


def _edited_file(config: Config) -> Path:
    file = Path(config.captions).expanduser()
    if not file.is_file():
        raise RecipeError(
            f"captions: {config.captions} is not a file (looked for {file.absolute()}). Give an edited "
            f"copy of the "
            f"caption step's metadata.jsonl, or leave the key empty."
        )
    return file


def _written_by_the_user(photographs: Sequence[dict[str, Any]], config: Config) -> dict[str, tuple[str, str]]:
    """file_name -> (caption, whose). An edited copy goes before what lay beside the photographs."""
    from personalize.photographs.layout import WrongLayout, read_captions

    captions = {row["file_name"]: (row["caption"], "yours") for row in photographs if row["caption"]}
    if not config.captions:
        return captions
    file = _edited_file(config)
    try:
        edited = {path.relative_to(file.parent).as_posix(): text for path, text in read_captions(file).items()}
    except WrongLayout as error:
        raise RecipeError(f"captions: {error}") from error
    known = {row["file_name"] for row in photographs}
    if strangers := sorted(set(edited) - known):
        raise RecipeError(
            f"captions: {file} has a caption for {strangers[0]!r}, which is no photograph of this run (it has "
            f"{', '.join(sorted(known)[:3])}, ...). Take the line out, or start again from this run's metadata.jsonl."
        )
    if empty := next((name for name, text in edited.items() if not text.strip()), None):
        raise RecipeError(f"captions: {file} has an empty text for {empty!r}. Write one, or take the line out.")
    return captions | {name: (" ".join(text.split()), "edited") for name, text in edited.items()}


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

    from personalize.photographs.captions import BlipCaptioner, context_of

    blip = BlipCaptioner(config.blip_model, config.blip_revision or None, config.device)
    prefixes = [config.blip_prefix.replace("{class_noun}", photograph["class_noun"]) for photograph in photographs]
    with tqdm(total=len(photographs), desc="captions", unit="photo", disable=None) as progress:
        files = [images / photograph["file_name"] for photograph in photographs]
        sentences = blip.describe(files, prefixes, on_batch=progress.update)
    return {
        photograph["file_name"]: (context_of(sentence, photograph["class_noun"]), f"blip: {sentence}")
        for photograph, sentence in zip(photographs, sentences, strict=True)
    }


def _kept(
    text: str,
    origin: str,
    subject: Subject,
    photograph: dict[str, Any],
    tokenizers: Sequence[Tokenizer],
    warnings: list[str],
) -> dict[str, str]:
    """The user's caption as it is. RecipeError when the text encoders would not hear the whole of it."""
    from personalize.photographs.prompts import check_prompt

    try:
        check_prompt(tokenizers, text)
    except ValueError as error:
        where = "in caption.captions" if origin == "edited" else "its own caption"
        raise RecipeError(f"{photograph['source']}: {where}: {error}") from error
    if not re.search(rf"(?<![a-z0-9]){subject.token}(?![a-z0-9])", text.lower()):
        warnings.append(
            f"{photograph['source']}: your caption does not say {subject.token!r}, so this photograph teaches the "
            f"token "
            f"nothing: {text!r}"
        )
    return {"context": "", "text": text, "origin": origin}


def _composed(
    context: str,
    origin: str,
    subject: Subject,
    photograph: dict[str, Any],
    tokenizers: Sequence[Tokenizer],
    config: Config,
    warnings: list[str],
) -> dict[str, str]:
    """Token, class noun and as much of the context as the text encoders hear; what is given up is said."""
    from personalize.photographs.captions import compose, fitted, mentions

    context, lost = fitted(tokenizers, subject, context, config.template)
    if lost:
        warnings.append(f"{photograph['source']}: the caption passed 77 tokens; the end of its context went: {lost!r}")
    if origin.startswith("blip") and not mentions(origin, subject.class_noun):
        warnings.append(f"{photograph['source']}: BLIP saw no {subject.class_noun} on it; look at its caption.")
    return {"context": context, "text": compose(subject, context, config.template), "origin": origin}


def _log(rows: Sequence[dict[str, str]], subjects: Mapping[tuple[str, str], Subject]) -> None:
    import mlflow

    mlflow.log_metrics(
        {
            "captions": len(rows),
            "captions_with_context": sum(bool(row["context"]) for row in rows),
            "captions_of_the_user": sum(row["origin"] in ("yours", "edited") for row in rows),
        }
    )


def _show(
    card: Card,
    rows: Sequence[dict[str, str]],
    images: Path,
    subjects: Sequence[Subject],
    warnings: Sequence[str],
    tokenizers: Sequence[Tokenizer],
    config: Config,
) -> None:
    from personalize.photographs.captions import token_pieces
    from personalize.photographs.prompts import MAX_TOKENS, token_count

    own = sum(row["origin"] in ("yours", "edited") for row in rows)
    card.facts({"captions": len(rows), "your own": own, "captioner": config.captioner, "subjects": len(subjects)})
    for warning in warnings:
        card.warning(warning)
    heard = {subject: " + ".join(token_pieces(tokenizers[0], subject.token)) for subject in subjects}
    card.table(
        "Subjects",
        ["token", "class noun", "photographs", "the text encoder hears", "instance prompt", "class prompt"],
        [[s.token, s.class_noun, s.images, heard[s], s.instance_prompt, s.class_prompt] for s in subjects],
    )
    for subject in subjects:
        own_rows = [row for row in rows if (row["token"], row["class_noun"]) == (subject.token, subject.class_noun)]
        card.images(subject.name, [(images / row["file_name"], row["text"]) for row in own_rows], columns=5, width=160)
    card.table(
        "Captions",
        ["file", "caption", f"tokens of {MAX_TOKENS}", "from"],
        [
            [
                row["file_name"],
                row["text"],
                max(token_count(tokenizer, row["text"]) for tokenizer in tokenizers),
                row["origin"],
            ]
            for row in rows
        ],
    )
    card.text(
        "To write captions yourself, put photo.txt beside photo.jpg. Or take this step's metadata.jsonl, change "
        "what stands "
        'after "text", and run again with it: every caption in the file is kept word for word. Name the token in '
        "each, and "
        "name what surrounds the subject, but not what the subject looks like: that is for the token to learn."
    )
    card.code(
        "How to edit",
        f"mlflow artifacts download -u runs:/{_run_id()}/outputs/metadata.jsonl -d .\n"
        "# edit metadata.jsonl\n"
        "mlflow run . --env-manager local -P caption.captions=metadata.jsonl",
    )


def _run_id() -> str:
    import mlflow

    run = mlflow.active_run()
    return run.info.run_id if run else "<run id of this step>"
