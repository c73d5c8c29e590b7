"""Layout: which file in a folder shows which subject, and which caption was written for it.

    <data>/<class noun>/<token>/*.jpg        several subjects
    <data>/*.jpg  + token + class_noun       one subject

Folders as kohya's trainers want them, `10_<token> <class noun>/*.jpg`, are read as well (the number, repeats, has no
meaning here). How captions lie beside photographs: `sidecars`; how masks do: `masks`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from personalize.files import files_under
from personalize.photographs.masks import masks_of
from personalize.photographs.prompts import Subject
from personalize.photographs.reading import READ, SUFFIXES
from personalize.photographs.sidecars import (
    UnreadableCaption,
    captions_of,
    is_sidecar,
    read_table,
    same_but_for_spelling,
)

EXPECTED = """\
    <data>/
        chair/               class noun: what everyone calls it
            zwvchr/          token: an invented word for this one
                1.jpg
                2.jpg
or a flat folder of photographs of one subject, with token and class_noun given."""

_JUNK = {"__MACOSX", "Thumbs.db", "desktop.ini", "Icon\r"}
_KOHYA = re.compile(r"\d+_(\S+) +(\S.*)")


class WrongLayout(ValueError):
    """The folder is not laid out as a set of subjects; the message says what was found and what is expected."""


@dataclass(frozen=True)
class Candidate:
    """A file that claims to be a photograph of `subject`. `name` is its path inside the data folder, with slashes."""

    path: Path
    name: str
    subject: Subject
    caption: str | None = None
    mask: Path | None = None


@dataclass(frozen=True)
class Beside:
    """What lies beside photographs: captions by the photograph's name, masks by its path."""

    captions: Mapping[str, str]
    masks: Mapping[Path, Path]

    def candidate(self, path: Path, name: str, subject: Subject) -> Candidate:
        return Candidate(path, name, subject, self.captions.get(name), self.masks.get(path))


@dataclass(frozen=True)
class Layout:
    candidates: Sequence[Candidate]
    left_out: Mapping[str, str]  # name -> reason, for files that belong to no subject


def find_photographs(root: Path, token: str = "", class_noun: str = "") -> Layout:
    """Every photograph under `root` with its subject; `token`, `class_noun`: for a flat folder. Raises WrongLayout."""
    if bool(token) != bool(class_noun):
        given, lacking = ("token", "class_noun") if token else ("class_noun", "token")
        raise WrongLayout(f"{given} is given without {lacking}; a flat folder of one subject needs both.")
    files, sidecars, left_out = _files(root)
    masks, unmet = masks_of(files.values())
    left_out |= {name: unmet[path] for name, path in files.items() if path in unmet}
    files = {name: path for name, path in files.items() if path not in {*unmet, *masks.values()}}
    if not files:
        others = f" It has {len(left_out)} other file(s), such as {next(iter(left_out))!r}." if left_out else ""
        raise WrongLayout(
            f"{root}: no photograph ({', '.join(s[1:] for s in SUFFIXES)}) in this folder.{others}\n"
            f"Expected is\n{EXPECTED}"
        )
    files = _without_wrapping_folder(files, depth=1 if token else 3)
    try:
        captions, unused = captions_of(root, files, sidecars)
    except UnreadableCaption as error:
        raise WrongLayout(str(error)) from None
    left_out |= unused
    if token:
        subject = Subject(check_token(token, "token"), check_class_noun(class_noun, "class_noun"))
        return _flat(root, files, subject, Beside(captions, masks), left_out)
    return _nested(root, files, Beside(captions, masks), left_out)


def _flat(
    root: Path,
    files: Mapping[str, Path],
    subject: Subject,
    beside: Beside,
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
    candidates = [beside.candidate(path, name, subject) for name, path in flat.items()]
    reason = "lies in a folder below the flat folder; move it up to use it"
    return Layout(candidates, {**left_out, **dict.fromkeys(deep, reason)})


def _nested(root: Path, files: Mapping[str, Path], beside: Beside, left_out: Mapping[str, str]) -> Layout:
    named = {name: subject for name in files if (subject := _names_of(name))}
    if not named:
        raise WrongLayout(_wrong_depth(root, files))
    nouns = same_but_for_spelling(noun for noun, _ in named.values())
    subjects: dict[tuple[str, str], Subject] = {}
    owners: dict[str, str] = {}
    faults: list[str] = []
    for noun, token in dict.fromkeys((nouns[noun], token) for noun, token in named.values()):
        try:
            subjects[noun, token] = Subject(
                check_token(token, f"folder {root / noun / token}"), check_class_noun(noun, f"folder {root / noun}")
            )
        except WrongLayout as error:
            faults.append(str(error))
        if owners.setdefault(token, noun) != noun:
            faults.append(
                f"{root}: the token {token!r} names two subjects, {owners[token]}/{token} and {noun}/{token}. "
                f"One word cannot mean both: rename one of the two folders."
            )
    if faults:
        raise WrongLayout("\n".join(dict.fromkeys(faults)))
    candidates = [
        beside.candidate(files[name], name, subjects[nouns[noun], token]) for name, (noun, token) in named.items()
    ]
    reason = "does not lie in <class noun>/<token>/; move it there to use it"
    return Layout(candidates, {**left_out, **{name: reason for name in files if name not in named}})


def _names_of(name: str) -> tuple[str, str] | None:
    """Class noun and token by the folders that a photograph lies in; None where they say none."""
    folders = name.split("/")[:-1]
    if folders and (kohya := _KOHYA.fullmatch(folders[-1])):
        return kohya[2], kohya[1]
    return (folders[0], folders[1]) if len(folders) == 2 else None


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


def _files(root: Path) -> tuple[dict[str, Path], list[Path], dict[str, str]]:
    """Photographs by name, sorted; sidecars; what else lies there, with the reason why it is not used.

    Hidden files and systems' own clutter are passed over.
    """
    photographs: dict[str, Path] = {}
    sidecars: list[Path] = []
    others: dict[str, str] = {}
    for path in sorted(files_under(root)):
        parts = path.relative_to(root).parts
        hidden = any(part.startswith(".") and not part.startswith("..") for part in parts)
        if hidden or _JUNK.intersection(parts):
            continue
        name = PurePosixPath(*parts).as_posix()
        if (shown := os.fsencode(name).decode("utf-8", "replace")) != name:
            others[shown] = "its name is not UTF-8; rename it to use it"
        elif path.suffix.lower() in SUFFIXES:
            photographs[name] = path
        elif is_sidecar(path):
            sidecars.append(path)
        else:
            others[name] = f"not a photograph ({path.suffix or 'no suffix'}); {READ}"
    return photographs, sidecars, others


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


def read_edited_captions(file: Path, photographs: Collection[str]) -> dict[str, str]:
    """Captions of an edited `metadata.jsonl` by file name. WrongLayout for one that is empty or of no photograph."""
    try:
        captions = {PurePosixPath(name).as_posix(): text for name, text in read_table(file).values()}
    except UnreadableCaption as error:
        raise WrongLayout(str(error)) from None
    if strangers := sorted(captions.keys() - set(photographs)):
        raise WrongLayout(
            f"{file} has a caption for {strangers[0]!r}, which is no photograph of this run (it has "
            f"{', '.join(sorted(photographs)[:3])}, ...). Take the line out, or start again from this run's "
            f"metadata.jsonl."
        )
    if empty := next((name for name, text in captions.items() if not text.strip()), None):
        raise WrongLayout(f"{file} has an empty text for {empty!r}. Write one, or take the line out.")
    return {name: " ".join(text.split()) for name, text in captions.items()}


def subjects_of(candidates: Sequence[Candidate]) -> list[Subject]:
    """The distinct subjects in the order in which their photographs appear."""
    return list(dict.fromkeys(candidate.subject for candidate in candidates))
