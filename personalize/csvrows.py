"""CSV as people and spreadsheets write it: commas, semicolons or tabs, and every row known by the line it begins on."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

WIDEST = 1_000_000
"""Characters of a field; Python's own bound is 131,072, and its words name no row."""


class NoTable(ValueError):
    """The text as a whole, or from some line on, cannot be read as CSV."""


@dataclass(frozen=True)
class CsvRow:
    """line: counted from 1; cells: by column, as they are written; fault: why they are not to be trusted, or empty."""

    line: int
    cells: dict[str, str]
    fault: str = ""


def csv_rows(text: str) -> tuple[list[str], Iterator[CsvRow]]:
    """The columns that the first line names, and the rows that are not blank.

    A row with more or fewer fields than columns has a fault: mostly a comma in a text that nobody put between quotes,
    which would cut the text without a word. Empty fields beyond the columns, as spreadsheets leave them, are nothing.

    Raises NoTable where a column is there twice, and, while rows are taken, where quotes do not close.
    """
    head = text.partition("\n")[0]
    csv.field_size_limit(WIDEST)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise NoTable(f"line 1: {error}") from None
    while columns and not columns[-1]:
        columns.pop()
    if twice := next((name for name, count in Counter(filter(None, columns)).items() if count > 1), ""):
        raise NoTable(f"column {twice!r} is there twice")

    def rows() -> Iterator[CsvRow]:
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise NoTable(f"line {line}: {error}") from None
            if not any(field.strip() for field in fields):
                continue
            while len(fields) > len(columns) and not fields[-1].strip():
                fields.pop()
            fault = ""
            if len(fields) != len(columns):
                fault = (
                    f"it has {len(fields)} fields, the first line names {len(columns)} columns; a text with a comma in "
                    "it stands between double quotes"
                )
            yield CsvRow(line, dict(zip(columns, fields, strict=False)), fault)

    return columns, rows()
