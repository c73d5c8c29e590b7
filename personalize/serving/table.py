"""Requests out of a table, and a table of what came of them: CSV, parquet, JSON lines, Delta. Imports no torch.

The columns are a request's (`request.INPUTS`), the rows are counted from 0 as in an answer. A value is as the file has
it: of CSV, where all is text, an empty field is none, and in a column of numbers what reads as a number is one.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from personalize.csvrows import csv_rows
from personalize.files import whole
from personalize.serving.request import INPUTS, NUMBERS, RequestError, unknown_names

LINES = (".jsonl", ".ndjson")


def is_table(path: str | Path) -> bool:
    """Whether a file's name says that it is a table, or it is a folder, as Delta and Spark write them."""
    path = Path(path)
    return path.is_dir() or path.suffix.lower() in _READERS


def read_table(path: str | Path) -> list[dict[str, Any]]:
    """The rows, each with the columns that the table has.

    Raises:
        RequestError: it cannot be read, has no rows, or has a column that no request has; a broken row is named.
    """
    path = Path(path)
    kind = "delta" if (path / "_delta_log").is_dir() else ".parquet" if path.is_dir() else path.suffix.lower()
    try:
        rows = _READERS[kind](path)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors and OSErrors
        raise RequestError(f"{path} cannot be read ({error}).") from error
    if not rows:
        raise RequestError(f"{path} has no rows; its first line names the columns, e.g. prompt,seed.")
    if unknown := unknown_names(dict.fromkeys(name for row in rows for name in row)):
        raise RequestError(f"{path}: column {unknown}")
    if not any("prompt" in row for row in rows):
        raise RequestError(f"{path} has no column 'prompt'. Known are {', '.join(INPUTS)}.")
    return rows


def write_table(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replaces a file in one step: .csv, .parquet or .jsonl, by its name. Rows have the same columns, at least one."""
    path = Path(path)
    with whole(path) as part:
        if path.suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), part)
        elif path.suffix == ".csv":
            with part.open("w", encoding="utf-8", newline="") as stream:
                table = csv.DictWriter(stream, list(rows[0]))
                table.writeheader()
                table.writerows(rows)
        else:
            part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _csv(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row in csv_rows(path.read_text(encoding="utf-8-sig"))[1]:
        if row.fault:
            raise RequestError(f"row {len(rows)} (line {row.line}): {row.fault}.")
        rows.append({name: _value(name, field) for name, field in row.cells.items()})
    return rows


def _value(column: str, field: str) -> Any:
    if not field.strip():
        return None
    if column in NUMBERS and re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", field):
        return float(field)
    return field


def _lines(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"row {len(rows)} (line {number}) is no JSON: {error}.") from error
        if not isinstance(row, dict):
            raise RequestError(f"row {len(rows)} (line {number}) is no object: {line[:60]}")
        rows.append(row)
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_table(path).to_pylist())


def _delta(path: Path) -> list[dict[str, Any]]:
    """Not a folder of parquet: that would have rows which were deleted since."""
    try:
        from deltalake import DeltaTable
    except ImportError:
        raise RequestError(
            "this is a Delta table, and nothing here reads one. Install a reader (`uv pip install deltalake`), or "
            "write the table as parquet: `spark.table(...).write.parquet(...)`."
        ) from None
    return list(DeltaTable(str(path)).to_pyarrow_table().to_pylist())


_READERS: Mapping[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    **dict.fromkeys(LINES, _lines),
    "delta": _delta,
}
