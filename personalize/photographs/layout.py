"""Layout: which file in a folder shows which subject, and which caption was written for it.

    <data>/<class noun>/<token>/*.jpg        several subjects
    <data>/*.jpg  + token + class_noun       one subject

A caption is `<photo>.txt` beside the photograph, or a line {"file_name": ..., "text": ...} of a `metadata.jsonl` in
the data folder (or beside the photographs).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from personalize.photographs.prompts import Subject
from personalize.photographs.reading import SUFFIXES

EXPECTED = """\
    <data>/
        chair/               class noun: what everyone calls it
            zwvchr/          token: an invented word for this one
                1.jpg
                2.jpg
or a flat folder of photographs of one subject, with token and class_noun given."""

_JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini", "Icon\r"}
_COMPANIONS = {".txt", ".jsonl"}


class WrongLayout(ValueError):
    """The folder is not laid out as a set of subjects; the message says what was found and what is expected."""


@dataclass(frozen=True)
class Candidate:
    """A file that claims to be a photograph of `subject`. `name` is its path inside the data folder, with slashes."""

    path: Path
    name: str
    subject: Subject
    caption: str | None = None


@dataclass(frozen=True)
class Layout:
    candidates: Sequence[Candidate]
    left_out: Mapping[str, str]  # name -> reason, for files that belong to no subject


def find_photographs(root: Path, token: str = "", class_noun: str = "") -> Layout:
    """Every photograph under `root` with its subject; `token`, `class_noun`: for a flat folder. Raises WrongLayout."""
    if bool(token) != bool(class_noun):
        given, lacking = ("token", "class_noun") if token else ("class_noun", "token")
        raise WrongLayout(f"{given} is given without {lacking}; a flat folder of one subject needs both.")
    files, left_out = _files(root)
    if not files:
        others = f" It has {len(left_out)} other file(s), such as {next(iter(left_out))!r}." if left_out else ""
        raise WrongLayout(
            f"{root}: no photograph ({', '.join(s[1:] for s in SUFFIXES)}) in this folder.{others}\n"
            f"Expected is\n{EXPECTED}"
        )
    files = _without_wrapping_folder(files, depth=1 if token else 3)
    captions = _captions(root, files)
    if token:
        subject = Subject(check_token(token, "token"), check_class_noun(class_noun, "class_noun"))
        return _flat(root, files, subject, captions, left_out)
    return _nested(root, files, captions, left_out)


def _flat(
    root: Path,
    files: Mapping[str, Path],
    subject: Subject,
    captions: Mapping[str, str],
    left_out: Mapping[str, str],
) -> Layout:
    flat = {name: path for name, path in files.items() if "/" not in name}
    deep = [name for name in files if name not in flat]
    if not flat:
        raise WrongLayout(
            f"{root}: token={subject.token} and class_noun={subject.class_noun} say that this is a flat folder of one "
            f"subject, but its photographs lie in folders, e.g. {deep[0]!r}. Set data to the folder of that subject, "
            f"such as {files[deep[0]].parent}; or, to learn every subject in it, leave token and class_noun out."
        )
    candidates = [Candidate(path, name, subject, captions.get(name)) for name, path in flat.items()]
    reason = "lies in a folder below the flat folder; move it up to use it"
    return Layout(candidates, {**left_out, **dict.fromkeys(deep, reason)})


def _nested(root: Path, files: Mapping[str, Path], captions: Mapping[str, str], left_out: Mapping[str, str]) -> Layout:
    placed = {name: path for name, path in files.items() if name.count("/") == 2}
    if not placed:
        raise WrongLayout(_wrong_depth(root, files))
    candidates: list[Candidate] = []
    nouns: dict[str, str] = {}
    for name, path in placed.items():
        noun_folder, token_folder, _ = name.split("/")
        noun = check_class_noun(noun_folder, f"folder {root / noun_folder}")
        token = check_token(token_folder, f"folder {root / noun_folder / token_folder}")
        if nouns.setdefault(token, noun_folder) != noun_folder:
            raise WrongLayout(
                f"{root}: the token {token!r} names two subjects, {nouns[token]}/{token} and {noun_folder}/{token}. "
                f"One word cannot mean both: rename one of the two folders."
            )
        candidates.append(Candidate(path, name, Subject(token, noun), captions.get(name)))
    reason = "does not lie in <class noun>/<token>/; move it there to use it"
    return Layout(candidates, {**left_out, **{name: reason for name in files if name not in placed}})


def check_token(token: str, where: str) -> str:
    """`token` itself, or WrongLayout: 2 to 32 lower-case letters and digits, at least one of them a letter.

    CLIP's tokenizers lower-case everything, so a capital would promise a difference that the model cannot see.
    """
    if re.fullmatch(r"(?=.*[a-z])[a-z0-9]{2,32}", token):
        return token
    better = re.sub(r"[^a-z0-9]", "", token.lower())[:32]
    advice = f"{better!r}" if re.fullmatch(r"(?=.*[a-z])[a-z0-9]{2,}", better) else "an invented word such as 'zwvchr'"
    raise WrongLayout(
        f"{where}: {token!r} cannot be a token. A token is one invented word of 2 to 32 lower-case letters a-z and "
        f"digits; use {advice}."
    )


def check_class_noun(noun: str, where: str) -> str:
    """`noun` with underscores read as spaces, or WrongLayout when it is not a plain word or two."""
    words = " ".join(noun.replace("_", " ").split())
    if re.fullmatch(r"[^\W\d_][\w' -]{0,39}", words):
        return words
    raise WrongLayout(
        f"{where}: {noun!r} cannot be a class noun. It is the everyday word for the subject (chair, office chair, "
        f"teapot): letters, digits, spaces and hyphens, at most 40 characters, beginning with a letter."
    )


def _files(root: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Photographs by name, sorted, and what else lies there. Hidden files and systems' own clutter are passed over."""
    photographs: dict[str, Path] = {}
    others: dict[str, str] = {}
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") and not part.startswith("..") for part in parts)
        if hidden or _JUNK.intersection(parts) or not path.is_file():
            continue
        name = PurePosixPath(*parts).as_posix()
        if path.suffix.lower() in SUFFIXES:
            photographs[name] = path
        elif path.suffix.lower() not in _COMPANIONS:
            others[name] = f"not a photograph ({path.suffix or 'no suffix'}); jpg, jpeg, png and webp are read"
    return photographs, others


def _without_wrapping_folder(files: dict[str, Path], depth: int) -> dict[str, Path]:
    """Names without the folders that everything lies in, as archives often have them. `depth`: slashes a name needs."""
    if len({name.split("/")[0] for name in files}) > 1 or any(name.count("/") < depth for name in files):
        return files
    return _without_wrapping_folder({name.split("/", 1)[1]: path for name, path in files.items()}, depth)


def _wrong_depth(root: Path, files: Mapping[str, Path]) -> str:
    folders = Counter(str(PurePosixPath(name).parent) for name in files)
    found = "\n".join(
        f"    {'' if folder == '.' else folder + '/'}{_example(files, folder)}   (photographs there: {count})"
        for folder, count in list(folders.items())[:6]
    )
    more = f"\n    ... and {len(folders) - 6} more folders" if len(folders) > 6 else ""
    if set(folders) == {"."}:
        way_out = "This is a flat folder: give token and class_noun, e.g. -P token=zwvchr -P class_noun=chair."
    elif all(name.count("/") == 1 for name in files):
        folder = next(iter(folders))
        way_out = (
            f"For one of these subjects set data to {root / folder} and give token and class_noun; for all of them "
            f"put each folder into a folder named by its class noun."
        )
    else:
        way_out = "Move the photographs to this depth."
    return (
        f"{root}: the photographs do not lie in <class noun>/<token>/. Found\n{found}{more}\n"
        f"expected\n{EXPECTED}\n{way_out}"
    )


def _example(files: Mapping[str, Path], folder: str) -> str:
    return next(PurePosixPath(name).name for name in files if str(PurePosixPath(name).parent) == folder)


def _captions(root: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """The user's own captions by photograph name; a `.txt` beside the photograph wins over a `metadata.jsonl`."""
    listed: dict[Path, str] = {}
    for folder in sorted({root, *(parent for path in files.values() for parent in _between(root, path))}):
        if (folder / "metadata.jsonl").is_file():
            listed.update(read_captions(folder / "metadata.jsonl"))
    captions: dict[str, str] = {}
    for name, path in files.items():
        sidecar = path.with_suffix(".txt")
        text = _text(sidecar) if sidecar.is_file() else listed.get(path, "")
        if text.strip():
            captions[name] = " ".join(text.split())
    return captions


def _between(root: Path, path: Path) -> list[Path]:
    return [parent for parent in path.parents if parent.is_relative_to(root)]


def read_captions(file: Path) -> dict[Path, str]:
    """Captions of a `metadata.jsonl` by the file they are for: {"file_name": relative path, "text": caption} a line.

    Raises WrongLayout naming the line that cannot be read.
    """
    captions: dict[Path, str] = {}
    for number, line in enumerate(_text(file).split("\n"), start=1):  # text may hold what Python takes for a line's end
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            file_name, text = row["file_name"], row["text"]
            if not isinstance(file_name, str) or not isinstance(text, str):
                raise TypeError("file_name and text must be strings")
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise WrongLayout(
                f"{file}, line {number}: {type(error).__name__}: {error}. Each line is one JSON object such as "
                f'{{"file_name": "chair/zwvchr/1.jpg", "text": "a photo of a zwvchr chair, by a window"}}.'
            ) from None
        captions[file.parent / file_name] = text
    return captions


def read_edited_captions(file: Path, photographs: Collection[str]) -> dict[str, str]:
    """Captions of an edited `metadata.jsonl` by file name. WrongLayout for one that is empty or of no photograph."""
    captions = {path.relative_to(file.parent).as_posix(): text for path, text in read_captions(file).items()}
    if strangers := sorted(captions.keys() - set(photographs)):
        raise WrongLayout(
            f"{file} has a caption for {strangers[0]!r}, which is no photograph of this run (it has "
            f"{', '.join(sorted(photographs)[:3])}, ...). Take the line out, or start again from this run's "
            f"metadata.jsonl."
        )
    if empty := next((name for name, text in captions.items() if not text.strip()), None):
        raise WrongLayout(f"{file} has an empty text for {empty!r}. Write one, or take the line out.")
    return {name: " ".join(text.split()) for name, text in captions.items()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise WrongLayout(f"{file}: not UTF-8 text; save it as UTF-8.") from None


def subjects_of(candidates: Sequence[Candidate]) -> list[Subject]:
    """The distinct subjects in the order in which their photographs appear."""
    return list(dict.fromkeys(candidate.subject for candidate in candidates))
