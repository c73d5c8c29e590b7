"""Prompts: what a subject is called, when a text names it, and how much the text encoders hear. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator

from personalize.files import read_json, write_json

MAX_CHARACTERS = 4_000
"""Of a text, looked at before it is tokenised. The 75 tokens that are read are some 400 characters of prose."""
MAX_TOKENS = 77
"""Positions of SDXL's text encoders, the start and end marks included: 75 are left for the prompt."""


class Tokenizer(Protocol):
    def __call__(self, text: str, **options: Any) -> Any: ...

    def decode(self, token_ids: Sequence[int], **options: Any) -> str: ...


def token_count(tokenizer: Tokenizer, text: str) -> int:
    """Tokens of `text` as the encoder sees it, start and end marks included (so at most 77 fit)."""
    return len(_token_ids(tokenizer, text))


def check_prompt(tokenizers: Tokenizer | Sequence[Tokenizer], text: str) -> None:
    """Raises ValueError when a text encoder would not hear the whole of `text` (diffusers cuts it and only logs)."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"the prompt is {len(text):,} characters long; at most {MAX_CHARACTERS:,} are read. Shorten it."
        )
    for tokenizer in tokenizers if isinstance(tokenizers, Sequence) else [tokenizers]:
        ids = _token_ids(tokenizer, text)
        if len(ids) > MAX_TOKENS:
            lost = tokenizer.decode(ids[MAX_TOKENS - 1 : -1], clean_up_tokenization_spaces=False).strip()
            raise ValueError(
                f"the prompt is {len(ids)} tokens long, {len(ids) - MAX_TOKENS} more than the {MAX_TOKENS} that the "
                f"text encoders read. Not heard would be: {_short(lost)!r}. Shorten the prompt: {_short(text)!r}"
            )


_FOREIGN = re.compile(
    r"<\s*(?:lora|lyco|hypernet|embedding)\s*:[^<>]*>|\([^():]*[^\s\d():]\s*:\s*(?:\d+\.?\d*|\.\d+)\s*\)", re.IGNORECASE
)


def foreign_syntax(text: str) -> str:
    """What A1111, ComfyUI and Forge would read as a weight or an adapter, in words; empty where nothing is.

    `(red:1.3)`, `<lora:chair:0.8>`: a text encoder hears them as words.
    """
    found = _FOREIGN.search(text)
    return (
        f"{_short(found[0], 60)!r} is how other programs write weights and adapters; here they are words like others"
        if found
        else ""
    )


def _no_foreign_syntax(text: str) -> str:
    if said := foreign_syntax(text):
        raise ValueError(said)
    return text


Words = Annotated[str, AfterValidator(_no_foreign_syntax)]
"""A setting that a text encoder will hear: a prompt, a negative prompt, the beginning of every caption."""


def _token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, truncation=False, padding=False, verbose=False).input_ids
    return ids


def _short(text: str, length: int = 120) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


@dataclass(frozen=True)
class Subject:
    """One thing that is taught: `token` is its invented name, `class_noun` what everyone calls its kind."""

    token: str
    class_noun: str
    images: int = 0

    @property
    def name(self) -> str:
        return f"{self.token} {self.class_noun}"

    @property
    def instance_prompt(self) -> str:
        """The identifier beside the class noun: `a photo of a [V] [class noun]` (Sec. 3.2, Ruiz et al. 2023)."""
        return f"a photo of a {self.name}"

    @property
    def class_prompt(self) -> str:
        return class_prompt(self.class_noun)

    def to_json(self) -> dict[str, str | int]:
        return {
            "token": self.token,
            "class_noun": self.class_noun,
            "instance_prompt": self.instance_prompt,
            "class_prompt": self.class_prompt,
            "images": self.images,
        }


def class_prompt(class_noun: str) -> str:
    """The prompt of a class image; the same words as an instance prompt, without the token."""
    return f"a photo of a {class_noun}"


def mentions(text: str, token: str) -> bool:
    """Whether `token` occurs in `text` as a word of its own, the way CLIP's tokenizers see one: case does not count.

    >>> mentions("ZWVCHR's legs, on the beach", "zwvchr"), mentions("camera on", "ra"), mentions("tok10", "tok1")
    (True, False, False)
    """
    return _word(token).search(text) is not None


def without_token(text: str, token: str) -> str:
    """`text` in words that everyone knows: every mention of `token` taken out, with the comma or space it leaves over.

    >>> without_token("a photo of a zwvchr chair, on the beach", "zwvchr")
    'a photo of a chair, on the beach'
    """

    def left(found: re.Match[str]) -> str:
        """What stands between the word before the token and the word after it; nothing where one of them is absent."""
        mark = next((sign for sign in found[1] + found[2] if sign in ",;:"), "")
        return f"{mark} " if found[1] and found[2] else ""

    between = r"([\s,;:_-]*)"
    return re.sub(rf"{between}{_word(token).pattern}(?:['’]s)?{between}", left, text, flags=re.IGNORECASE)


def _word(token: str) -> re.Pattern[str]:
    """Letters and digits make a word; an underscore, which CLIP splits at, does not."""
    return re.compile(rf"(?<![^\W_]){re.escape(token)}(?![^\W_])", re.IGNORECASE)


def load_subjects(path: str | Path) -> list[Subject]:
    """Subjects of a `subjects.json`, or of the one in the folder `path`, in the file's order."""
    path = Path(path)
    file = path / "subjects.json" if path.is_dir() else path
    try:
        rows = read_json(file)
        found = [Subject(row["token"], row["class_noun"], int(row.get("images", 0))) for row in rows]
        if not all(isinstance(word, str) for subject in found for word in (subject.token, subject.class_noun)):
            raise TypeError("token and class_noun are texts")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{file}: not a list of subjects ({type(error).__name__}: {error}). The caption step writes it."
        ) from error


def save_subjects(path: str | Path, subjects: Iterable[Subject]) -> Path:
    """Writes `subjects.json` into the folder `path` (or to the file `path`) and returns the file's path."""
    path = Path(path)
    file = path / "subjects.json" if path.is_dir() else path
    write_json(file, [subject.to_json() for subject in subjects])
    return file


def save_class_nouns(path: str | Path, subjects: Iterable[Subject]) -> None:
    """Writes `class_nouns.json` into the folder `path`: what there are subjects of, whichever they are."""
    write_json(Path(path) / "class_nouns.json", sorted({subject.class_noun for subject in subjects}))


def load_class_nouns(path: str | Path) -> list[str]:
    """The class nouns of the `class_nouns.json` in the folder `path`, sorted."""
    file = Path(path) / "class_nouns.json"
    try:
        return [str(noun) for noun in read_json(file)]
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{file}: not a list of class nouns ({type(error).__name__}: {error}). The caption step writes it."
        ) from error


def class_captions(rows: Iterable[Mapping[str, str]]) -> dict[str, list[str]]:
    """What captions (rows with `token`, `class_noun`, `text`) say of each class noun without the token, each once."""
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row["class_noun"], set()).add(without_token(row["text"], row["token"]))
    return {noun: sorted(texts) for noun, texts in sorted(found.items())}
