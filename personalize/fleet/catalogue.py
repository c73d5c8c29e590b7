"""A catalogue: which subjects there are, where their photographs lie, and what is wrong with it, row by row.

    products.csv | products.parquet      columns token, class_noun, photographs; captions, rights where there are any
    <folder>/<class noun>/<token>/       a folder for each subject
    <catalog>.<schema>.<table>           a table of a lakehouse, where Spark is at hand

Paths are relative to the catalogue's own folder. What is wrong with one row stops no other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from personalize.csvrows import NoTable, csv_rows
from personalize.photographs.layout import WrongLayout, check_class_noun, check_token
from personalize.photographs.reading import SUFFIXES
from personalize.photographs.unpacking import is_archive
from personalize.recipe import RecipeError
from personalize.recipe.errors import nearest

REQUIRED = ("token", "class_noun", "photographs")
OPTIONAL = ("captions", "rights")
COLUMNS = (*REQUIRED, *OPTIONAL)
CALLED = {
    "token": ("name", "id", "sku", "product", "subject", "article", "word"),
    "class_noun": ("noun", "class", "category", "kind", "type"),
    "photographs": ("photos", "pictures", "images", "folder", "data", "path", "dir", "directory"),
    "captions": ("caption", "texts", "text"),
    "rights": ("right", "licence", "license", "permission", "allowed_by"),
}
"""What others call a column."""
_TABLE = re.compile(r"\w+\.\w+\.\w+")


@dataclass(frozen=True)
class Entry:
    """One subject. row: of the catalogue, as an editor counts it (1 is a file's header); 0 in a folder.

    photographs: a folder or an archive. captions: an edited copy of the caption step's metadata.jsonl, or nothing.
    """

    row: int
    token: str
    class_noun: str
    photographs: str
    captions: str = ""
    rights: str = ""

    @property
    def name(self) -> str:
        """`chair/zwvchr`."""
        return f"{self.class_noun}/{self.token}"


@dataclass(frozen=True)
class Fault:
    """A row that cannot be used, and why."""

    row: int
    name: str
    why: str

    def __str__(self) -> str:
        return f"{f'row {self.row}' if self.row else self.name}: {self.why}"


@dataclass(frozen=True)
class Catalogue:
    """entries: those that can be used. unused: columns of no meaning here."""

    entries: tuple[Entry, ...]
    faults: tuple[Fault, ...]
    unused: tuple[str, ...] = ()


def read(place: str, fewest: int = 1) -> Catalogue:
    """fewest: photographs that a subject needs. Raises RecipeError where there is no catalogue or it lacks a column."""
    path = Path(place).expanduser()
    unused: tuple[str, ...] = ()
    if path.is_dir():
        entries, faults = _of_folder(path)
    else:
        columns, rows = _table(place, path)
        unused = _known_columns(place, columns)
        root = path.parent if path.is_file() else Path()
        entries, faults = [], []
        for number, row in rows:
            entry = Fault(number, "", row) if isinstance(row, str) else _entry(number, row, root)
            (entries if isinstance(entry, Entry) else faults).append(entry)  # type: ignore[arg-type]
    if not entries and not faults:
        raise RecipeError(f"catalogue {place} has no subject in it")
    entries, doubled = _unlike(entries)
    usable, empty = _with_photographs(entries, fewest)
    return Catalogue(tuple(usable), tuple(sorted([*faults, *doubled, *empty], key=lambda each: each.row)), unused)


def _of_folder(root: Path) -> tuple[list[Entry], list[Fault]]:
    entries: list[Entry] = []
    faults: list[Fault] = []
    for noun in _folders(root):
        tokens = _folders(noun)
        if not tokens:
            why = "it is no folder <class noun>/<token>/: there is no folder below it"
            faults.append(Fault(0, noun.name, why))
        for token in tokens:
            entry = _checked(Entry(0, token.name, noun.name, str(token)))
            (entries if isinstance(entry, Entry) else faults).append(entry)  # type: ignore[arg-type]
    return entries, faults


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def _table(place: str, path: Path) -> tuple[list[str], Iterable[tuple[int, Mapping[str, str] | str]]]:
    """The columns, and each row with its number; in its place why it cannot be read."""
    if path.suffix.lower() == ".parquet" and path.is_file():
        return _of_frame(_parquet(path), first=1)
    if path.is_file():
        return _of_csv(path)
    if _TABLE.fullmatch(place):
        return _of_frame(_lakehouse(place), first=1)
    raise RecipeError(
        f"catalogue {place} does not exist (looked for {path.absolute()}). Give a CSV or parquet file with the columns "
        f"{', '.join(COLUMNS)}, or a folder <class noun>/<token>/"
    )


def _of_csv(path: Path) -> tuple[list[str], Iterable[tuple[int, Mapping[str, str] | str]]]:
    try:
        columns, rows = csv_rows(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise RecipeError(f"catalogue {path} is not UTF-8 text (byte {error.start}); save it as CSV UTF-8") from None
    except NoTable as error:
        raise RecipeError(f"catalogue {path}: {error}") from None

    def each() -> Iterator[tuple[int, Mapping[str, str] | str]]:
        try:
            for row in rows:
                yield row.line, row.fault or {name: cell.strip() for name, cell in row.cells.items()}
        except NoTable as error:
            raise RecipeError(f"catalogue {path} cannot be read: {error}") from None

    return columns, each()


def _parquet(path: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except Exception as error:  # whatever a broken file makes the reader raise
        raise RecipeError(f"catalogue {path} cannot be read as parquet: {error}") from None


def _lakehouse(table: str) -> Any:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise RecipeError(
            f"catalogue {table} is the name of a table, and nothing that reads one is here (pyspark, as on "
            "Databricks); export it as CSV or parquet"
        ) from None
    return SparkSession.builder.getOrCreate().read.table(table).toPandas()


def _of_frame(frame: Any, first: int) -> tuple[list[str], Iterable[tuple[int, Mapping[str, str]]]]:
    columns = [str(name) for name in frame.columns]
    wanted = [name for name in columns if name in COLUMNS]
    cells = zip(*(frame[name].tolist() for name in wanted), strict=True) if wanted else iter(())
    blank = (None, "nan", "None", "NaT", "<NA>")

    def rows() -> Iterator[tuple[int, Mapping[str, str]]]:
        for number, row in enumerate(cells, first):
            said = {name: "" if cell is None or str(cell) in blank else str(cell) for name, cell in zip(wanted, row)}  # noqa: B905
            yield number, {name: text.strip() for name, text in said.items()}

    return columns, rows()


def _known_columns(place: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that are of no use. Raises RecipeError where one is missing, naming what it may be called."""
    others = [name for name in columns if name not in COLUMNS]
    lacking = [name for name in REQUIRED if name not in columns]
    if lacking:
        said = "; ".join(f"no column '{name}'{_meant(name, others)}" for name in lacking)
        raise RecipeError(f"catalogue {place}: {said}. Its columns are {', '.join(columns) or 'none'}")
    return tuple(f"{name}{meant}" if (meant := _may_be(name, columns)) else name for name in others)


def _meant(column: str, others: Sequence[str]) -> str:
    plain = {re.sub(r"[^a-z]+", "_", name.lower()).strip("_"): name for name in others}
    for word in (column, *CALLED[column]):
        if word in plain:
            return f"; is it '{plain[word]}'? Rename that to '{column}'"
    said = nearest(column, others)
    return f"{said}, rename it to '{column}'" if "did you mean" in said else ""


def _may_be(name: str, columns: Sequence[str]) -> str:
    """` (captions?)` for a column that was probably meant to be another."""
    plain = re.sub(r"[^a-z]+", "_", name.lower()).strip("_")
    meant = next((column for column in OPTIONAL if plain in (column, *CALLED[column]) and column not in columns), "")
    return f" ({meant}?)" if meant else ""


def _entry(number: int, row: Mapping[str, str], root: Path) -> Entry | Fault:
    token, noun, place = (row.get(name, "") for name in REQUIRED)
    if lacking := [name for name in REQUIRED if not row.get(name)]:
        return Fault(number, f"{noun}/{token}".strip("/"), f"it has no {' and no '.join(lacking)}")
    captions = row.get("captions", "")
    return _checked(
        Entry(
            number, token, noun, _under(root, place), _under(root, captions) if captions else "", row.get("rights", "")
        )
    )


def _under(root: Path, place: str) -> str:
    """A path as it is seen from here; an address stays what it is."""
    return place if "://" in place else os.path.normpath(root / Path(place).expanduser())


def _checked(entry: Entry) -> Entry | Fault:
    try:
        check_token(entry.token, "token")
        return replace(entry, class_noun=check_class_noun(entry.class_noun, "class_noun"))
    except WrongLayout as error:
        return Fault(entry.row, entry.name, str(error))


def _unlike(entries: Sequence[Entry]) -> tuple[list[Entry], list[Fault]]:
    """Without those that say what an earlier one has said: a token, or photographs."""
    tokens: dict[str, Entry] = {}
    places: dict[str, Entry] = {}
    kept: list[Entry] = []
    faults: list[Fault] = []
    for entry in entries:
        before, there = tokens.setdefault(entry.token, entry), places.setdefault(entry.photographs, entry)
        if before is not entry and before.class_noun != entry.class_noun:
            why = (
                f"the token '{entry.token}' is a {before.class_noun} in {_at(before)} and a {entry.class_noun} here; "
                "one word cannot mean both"
            )
        elif before is not entry:
            why = f"the token '{entry.token}' is in {_at(before)} already"
        elif there is not entry:
            why = (
                f"its photographs are those of {there.name} ({_at(there)}): {entry.photographs}. Each subject needs a "
                "folder of its own"
            )
        else:
            kept.append(entry)
            continue
        faults.append(Fault(entry.row, entry.name, why))
        if there is entry:
            del places[entry.photographs]
    return kept, faults


def _at(entry: Entry) -> str:
    return f"row {entry.row}" if entry.row else entry.name


def _with_photographs(entries: Sequence[Entry], fewest: int) -> tuple[list[Entry], list[Fault]]:
    owners = {entry.photographs: entry for entry in entries}
    kept: list[Entry] = []
    faults: list[Fault] = []
    for entry in entries:
        why = _lacks(entry, owners, fewest)
        if why:
            faults.append(Fault(entry.row, entry.name, why))
        else:
            kept.append(entry)
    return kept, faults


def _lacks(entry: Entry, owners: Mapping[str, Entry], fewest: int) -> str:
    """Why an entry's files cannot be used; empty where they can, as far as a look into the folder tells."""
    if entry.captions and not os.path.isfile(entry.captions):
        return f"its captions {entry.captions} are no file"
    if "://" in entry.photographs:
        return ""
    if is_archive(Path(entry.photographs)):
        return "" if os.path.isfile(entry.photographs) else f"its photographs {entry.photographs} do not exist"
    try:
        with os.scandir(entry.photographs) as found:
            inside = [(each.name, each.is_dir()) for each in found if not each.name.startswith(".")]
    except NotADirectoryError:
        return f"its photographs {entry.photographs} are one file, and neither a folder, a zip nor a tar"
    except OSError:
        return f"its photographs {entry.photographs} do not exist"
    for folder in (name for name, is_folder in inside if is_folder):
        if owner := owners.get(os.path.join(entry.photographs, folder)):
            return f"the photographs of {owner.name} ({_at(owner)}) lie inside its folder {entry.photographs}"
    count = sum(not is_folder and name.lower().endswith(SUFFIXES) for name, is_folder in inside)
    if count >= fewest:
        return ""
    deeper = " (they lie in folders below it)" if not count and any(is_folder for _, is_folder in inside) else ""
    return f"it has {count or 'no'} photograph{'s' * (count > 1)}{deeper}, and needs {fewest}: {entry.photographs}"
