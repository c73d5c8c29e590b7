"""CSV as people write it: what is read, what has a fault, and where."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalize.csvrows import CsvRow, NoTable, csv_rows


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_rows_are_known_by_the_line_they_begin_on_and_blank_ones_are_none(mark: str) -> None:
    text = f' a {mark}b\r\n"1\n2"{mark}x\r\n\r\n{mark} \r\n3{mark}y\r\n'
    columns, rows = csv_rows(text)
    assert columns == ["a", "b"]
    assert list(rows) == [CsvRow(2, {"a": "1\n2", "b": "x"}), CsvRow(6, {"a": "3", "b": "y"})]


def test_empty_columns_that_a_spreadsheet_leaves_are_nothing() -> None:
    columns, rows = csv_rows("a,b,,\n1,2,,\n3,4\n")
    assert columns == ["a", "b"]
    assert list(rows) == [CsvRow(2, {"a": "1", "b": "2"}), CsvRow(3, {"a": "3", "b": "4"})]


@pytest.mark.parametrize("row", ["1.jpg,a chair, by a window", "1.jpg"])
def test_a_text_that_a_comma_cuts_and_a_row_that_was_cut_have_a_fault(row: str) -> None:
    (found,) = csv_rows(f"file_name,text\n{row}\n")[1]
    assert found.line == 2
    assert "the first line names 2 columns" in found.fault


def test_what_is_no_table_says_from_which_line_on() -> None:
    with pytest.raises(NoTable, match="column 'a' is there twice"):
        csv_rows("a,a\n")
    with pytest.raises(NoTable, match="line 3: "):
        list(csv_rows('a,b\n1,2\n"3,4\n')[1])
    assert csv_rows("")[0] == []


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2)))
def test_what_a_program_writes_is_read_as_it_was(cells: list[list[str]]) -> None:
    cells = [row for row in cells if any(cell.strip() for cell in row)]
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([["a", "b"], *cells])
    columns, rows = csv_rows(buffer.getvalue())
    assert [list(row.cells.values()) for row in rows] == cells
    assert columns == ["a", "b"]
