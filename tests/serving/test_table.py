"""Requests out of a table: what is taken, and what is refused with its row before anything is drawn."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pyarrow
import pyarrow.parquet
import pytest

from personalize.dreambooth.sampling import Sampling
from personalize.serving.request import Defaults, Limits, RequestError, all_of, read_rows
from personalize.serving.table import is_table, read_table, write_table
from personalize.serving.versions import Version, Versions

ROWS = [{"prompt": "a red chair, old", "seed": 7.0}, {"prompt": 'it\'s "blue"\nand 椅', "seed": None}]


class Tokenizer:
    """Counts words, as the real ones count their tokens."""

    def __call__(self, text: str, **options: object) -> object:
        return SimpleNamespace(input_ids=[0, *range(len(text.split())), 1])

    def decode(self, ids: list[int], **options: object) -> str:
        return "..."


def orders(rows: list[dict], **limits: object):
    tokenizers = (Tokenizer(), Tokenizer())
    defaults, find = Defaults(Sampling(steps=2, width=64, height=64)), Versions(Version([]), {}).find
    found, faults = read_rows(rows, defaults, Limits(**limits), find, tokenizers, lambda: 1)
    if faults:
        raise RequestError(all_of(faults))
    return found


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".ndjson", ".parquet"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str):
    file = tmp_path / f"prompts{suffix}"
    assert is_table(file)
    write_table(file, ROWS)
    assert read_table(file) == ROWS


def test_a_folder_of_parquet_as_spark_leaves_it(tmp_path: Path):
    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for part, row in enumerate(ROWS):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), folder / f"part-{part}.parquet")
    assert is_table(folder)
    assert [row["prompt"] for row in read_table(folder)] == [row["prompt"] for row in ROWS]


def test_a_spreadsheets_csv(tmp_path: Path):
    """Semicolons, a byte order mark, carriage returns, text that looks like a number or like nothing."""
    (tmp_path / "a.csv").write_bytes("\ufeffprompt;seed;width\r\n7;7;\r\nNA;1e3;64\r\n".encode())
    assert read_table(tmp_path / "a.csv") == [
        {"prompt": "7", "seed": 7.0, "width": None},
        {"prompt": "NA", "seed": 1000.0, "width": 64.0},
    ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "has no rows"),
        ("a.csv", "prompt,seed\n", "has no rows"),
        ("a.csv", "promt,seed\na,1\n", "column 'promt' is not known; did you mean 'prompt'"),
        ("a.csv", "seed\n1\n", "no column 'prompt'"),
        ("a.csv", "prompt,seed,seed\na,1,2\n", "column 'seed' is there twice"),
        ("a.csv", "prompt,seed\na,1\na chair, red,2\n", r"row 1 \(line 3\): it has 3 fields"),
        ("a.csv", 'prompt,seed\n"a,1\n', "cannot be read"),
        ("a.jsonl", '{"prompt": "a"}\n{"prompt":\n', r"row 1 \(line 2\) is no JSON"),
        ("a.jsonl", '{"prompt": "a"}\n[1]\n', r"row 1 \(line 2\) is no object"),
        ("a.jsonl", '{"prompt": "a", "sed": 1}\n', "column 'sed' is not known; did you mean 'seed'"),
        ("a.parquet", "PAR1", "cannot be read"),
    ],
)
def test_what_is_no_table_of_requests_is_named(tmp_path: Path, name: str, content: str, words: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(RequestError, match=words) as refused:
        read_table(tmp_path / name)
    assert str(tmp_path / name) in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(RequestError, match="cannot be read"):
        read_table(tmp_path / "nowhere.csv")


def test_a_delta_table_needs_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "table" / "_delta_log").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(RequestError, match="uv pip install deltalake"):
        read_table(tmp_path / "table")


def test_a_delta_table_is_read_by_the_reader_that_is_installed(tmp_path: Path):
    """Rows that were deleted since lie in its files still."""
    deltalake = pytest.importorskip("deltalake", reason="DELTA NOT TESTED: deltalake is not installed")
    deltalake.write_deltalake(str(tmp_path / "t"), pyarrow.table({"prompt": ["a", "b"], "seed": [1, 2]}))
    deltalake.DeltaTable(str(tmp_path / "t")).delete("seed = 1")
    assert read_table(tmp_path / "t") == [{"prompt": "b", "seed": 2}]


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("seed", "seven", "row 2: seed must be a number, not 'seven'"),
        ("width", 65.0, "row 2: 65 x 64 pixels"),
        ("format", "gif", "row 2: format 'gif' is not one of"),
        ("prompt", None, "row 2: prompt is missing or empty"),
        ("prompt", "word " * 80, "row 2: the prompt is 82 tokens long"),
        ("num_images", 1e9, "row 2: num_images 1000000000 is outside"),
        ("guidance_scale", True, "row 2: guidance_scale must be a number"),
    ],
)
def test_a_wrong_value_is_named_with_its_row(column: str, value: object, words: str):
    rows = [{"prompt": "a", "seed": float(i)} for i in range(4)]
    rows[2][column] = value
    with pytest.raises(RequestError, match=words):
        orders(rows)


def test_a_hundred_thousand_rows_are_read_at_once_and_the_wrong_one_is_found(tmp_path: Path):
    rows = [f'{{"prompt": "a photo of chair {i}", "seed": {i}}}\n' for i in range(100_000)]
    (tmp_path / "many.jsonl").write_text("".join(rows))
    begun = time.process_time()
    assert len(orders(read_table(tmp_path / "many.jsonl"))) == 100_000
    assert time.process_time() - begun < 60
    rows[99_999] = json.dumps({"prompt": "a", "seed": -1}) + "\n"
    (tmp_path / "many.jsonl").write_text("".join(rows))
    with pytest.raises(RequestError, match="row 99999: seed -1 is outside"):
        orders(read_table(tmp_path / "many.jsonl"))
