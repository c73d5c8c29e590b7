"""Sidecars: captions that people have written beside their photographs, in the ways in which they do.

For `photo.jpg` that is `photo.txt`, `photo.jpg.txt`, `photo.caption` or `photo.jpg.caption`, in capitals too, or a row
of a `metadata.jsonl` or `metadata.csv` (columns file_name and text) in its folder or in one above. A caption that
meets no photograph is named, with the reason.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from personalize.csvrows import NoTable, csv_rows
from personalize.files import parse_json, read_handed
from personalize.photographs.prompts import MAX_CHARACTERS

TABLES = ("metadata.jsonl", "metadata.csv")
_SUFFIXES = (".txt", ".caption")


class UnreadableCaption(ValueError):
    """A caption that cannot be read; the message names file and line."""


def is_sidecar(path: Path) -> bool:
    """Whether a file is there to say what photographs show."""
    return path.suffix.lower() in _SUFFIXES or path.name.lower() in TABLES


def captions_of(
    root: Path, photographs: Mapping[str, Path], sidecars: Iterable[Path]
) -> tuple[dict[str, str], dict[str, str]]:
    """Captions by the photograph's name, and why others are not used, by the sidecar's path inside `root`.

    photographs: paths by name. What lies beside a photograph wins over a table, and the nearer table over one above.
    Raises UnreadableCaption.
    """
    names = {path: name for name, path in photographs.items()}
    folders: dict[Path, list[Path]] = {}
    for path in names:
        folders.setdefault(path.parent, []).append(path)
    near: dict[str, str] = {}
    tables, unused = [], {}
    for file in sorted(sidecars, key=lambda path: (-len(path.stem), path.suffix.lower() != ".txt", str(path))):
        if file.name.lower() in TABLES:
            tables.append(file)
        elif (photograph := Names(folders.get(file.parent, ()), file.parent).meant(file.stem)) is None:
            unused[_shown(file, root)] = "a caption for which there is no photograph of that name"
        elif names[photograph] in near:
            unused[_shown(file, root)] = f"a second caption of {photograph.name}"
        elif text := " ".join(_of_some_length(_text(file), str(file)).split()):
            near[names[photograph]] = text
    listed: dict[str, str] = {}
    for table in sorted(tables, key=lambda path: len(path.parts)):
        called = Names(names, table.parent)
        for number, (file_name, text) in read_table(table).items():
            photograph = called.meant(file_name)
            if photograph is None:
                unused[f"{_shown(table, root)}, line {number}"] = f"a caption for {file_name!r}, which is not there"
            elif text.strip():
                listed[names[photograph]] = " ".join(text.split())
    return {**listed, **near}, unused


def read_table(file: Path) -> dict[int, tuple[str, str]]:
    """(file_name, text) of each row by its line, counted from 1. Raises UnreadableCaption naming the line."""
    return _rows_of_csv(file) if file.suffix.lower() == ".csv" else _rows_of_json(file)


def _rows_of_json(file: Path) -> dict[int, tuple[str, str]]:
    rows = {}
    for number, line in enumerate(_text(file).split("\n"), start=1):  # text may hold what Python takes for a line's end
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            file_name, text = row["file_name"], row["text"]
            if not isinstance(file_name, str) or not isinstance(text, str):
                raise TypeError("file_name and text must be strings")
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableCaption(
                f"{file}, line {number}: {type(error).__name__}: {str(error)[:200]}. Each line is one JSON object "
                f'such as {{"file_name": "chair/zwvchr/1.jpg", "text": "a photo of a zwvchr chair, by a window"}}.'
            ) from None
        rows[number] = (file_name, _of_some_length(text, f"{file}, line {number}"))
    return rows


def _rows_of_csv(file: Path) -> dict[int, tuple[str, str]]:
    try:
        columns, rows = csv_rows(_text(file))
        if not {"file_name", "text"} <= set(columns):
            named = ", ".join(columns or ["nothing"])[:200]
            raise UnreadableCaption(f"{file}: its first line names {named}, not the columns file_name and text")
        found = {}
        for row in rows:
            if row.fault:
                raise UnreadableCaption(f"{file}, line {row.line}: {row.fault}")
            text = _of_some_length(row.cells["text"], f"{file}, line {row.line}")
            found[row.line] = (row.cells["file_name"], text)
    except NoTable as error:
        raise UnreadableCaption(f"{file}, {error}") from None
    return found


class Names:
    """Photographs below a folder by how they are called: composed or decomposed, in capitals or not, all the same."""

    def __init__(self, photographs: Collection[Path], folder: Path) -> None:
        self.folder = folder
        self._by: list[dict[str, list[Path]]] = [{}, {}, {}]
        for path in photographs:
            if path.is_relative_to(folder):
                for key, found in zip(self._keys(path.relative_to(folder).as_posix()), self._by, strict=True):
                    found.setdefault(_plain(key), []).append(path)

    def meant(self, name: str) -> Path | None:
        """By its path; else by its file name, else by that without suffix, where only one can be meant.

        The folder or the suffix was another one, perhaps, when the name was written.
        """
        path, called, stem = self._keys(name)
        for level, key in ((0, path), (1, called), (2, called), (2, stem)):  # `chair.v2` may have no suffix to take off
            met = self._by[level].get(_plain(key), [])
            if len(met) > 1:  # twins, told apart by their capitals
                met = [one for one in met if self._keys(one.relative_to(self.folder).as_posix())[level] == key]
                return met[0] if len(met) == 1 else None
            if met:
                return met[0]
        return None

    def _keys(self, name: str) -> tuple[str, str, str]:
        path = PurePosixPath(name.replace("\\", "/"))
        return path.as_posix(), path.name, path.stem


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _text(file: Path) -> str:
    try:
        return read_handed(file)
    except UnicodeDecodeError:
        raise UnreadableCaption(f"{file}: not UTF-8 text; save it as UTF-8.") from None
    except ValueError as error:
        raise UnreadableCaption(str(error)) from None


def _of_some_length(text: str, where: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise UnreadableCaption(
            f"{where}: a caption of {len(text):,} characters; at most {MAX_CHARACTERS:,} are taken, and the text "
            "encoders hear some 400 of them."
        )
    return text


def same_but_for_spelling(names: Iterable[str]) -> dict[str, str]:
    """For each name the one that stands for all that differ by capitals alone: the most frequent, then the small."""
    counts = Counter(names)
    best: dict[str, str] = {}
    for name in sorted(counts, key=lambda name: (-counts[name], name.swapcase())):
        best.setdefault(name.casefold(), name)
    return {name: best[name.casefold()] for name in counts}
