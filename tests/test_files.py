"""Digests are DVC's own, follow content and nothing else, and are remembered for files that have not changed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from personalize import files


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_folder_has_the_digest_that_dvc_pins(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "a b" / "ü"
    folder.mkdir(parents=True)
    (folder / "1.txt").write_text("one")
    (tmp_path / "data" / "2.bin").write_bytes(bytes(range(256)))
    (tmp_path / "data" / "empty").touch()
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], check=True)
    subprocess.run([*dvc, "add", "-q", "data"], check=True)
    assert files.tree_digest("data") == files.dvc_digest("data.dvc")


def test_a_renamed_or_changed_file_changes_the_digest_and_a_touched_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    file = tmp_path / "d" / "x"
    file.write_text("x")
    before = files.tree_digest("d")
    os.utime(file, (1, 1))
    assert files.tree_digest("d") == before
    file.rename(tmp_path / "d" / "y")
    assert files.tree_digest("d") != before


def test_a_large_file_is_read_once_until_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"0" * (files.REMEMBER_FROM_BYTES + 1))
    os.utime(file, (1_000_000, 1_000_000))
    first = files.file_digest(file)
    assert files.MEMORY.exists()
    file.chmod(0o000)  # content is not needed again (root may read it all the same)
    assert files.file_digest(file) == first
    file.chmod(0o600)
    file.write_bytes(b"1" * (files.REMEMBER_FROM_BYTES + 1))
    assert files.file_digest(file) != first


def test_what_is_missing_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        files.tree_digest("nowhere")
    assert files.dvc_digest("nowhere.dvc") is None


def test_what_is_left_out_of_a_folder_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "d" / "inside" / "diagnostics").mkdir(parents=True)
    (tmp_path / "d" / "x").write_text("x")
    before = files.tree_digest("d", leave_out="diagnostics")
    (tmp_path / "d" / "diagnostics").mkdir()
    (tmp_path / "d" / "diagnostics" / "seconds").write_text("1")
    assert files.tree_digest("d", leave_out="diagnostics") == before
    (tmp_path / "d" / "inside" / "diagnostics" / "y").write_text("y")  # only the one at the top
    assert files.tree_digest("d", leave_out="diagnostics") != before


def test_a_file_is_whole_or_what_it_was(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "a.txt"
    files.write_text(file, "one")
    with pytest.raises(OSError, match="nowhere"), files.whole(file) as part:
        part.write_text("hal" + (tmp_path / "nowhere").read_text())
    assert file.read_text() == "one"
    assert [path.name for path in file.parent.iterdir()] == ["a.txt"]


def test_a_folder_is_whole_or_not_there(tmp_path: Path) -> None:
    for content in ("one", "two"):
        with files.whole(tmp_path / "d") as part:
            part.mkdir()
            (part / content).touch()
    with pytest.raises(OSError, match="no such name"), files.whole(tmp_path / "d") as part:
        (part / "no such name").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["two"]


def test_rows_come_back_whatever_is_in_them(tmp_path: Path) -> None:
    rows = [{"text": "line\u2028separator, \n newline, ünï 日本"}, {"text": ""}]
    files.write_rows("rows.jsonl", rows)
    assert files.read_rows("rows.jsonl") == rows


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json("a.json", {"value": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_nothing_that_lies_there_is_overwritten(tmp_path: Path) -> None:
    for name in ("a-7.png", "a-7-2.png", "a-7-3.png"):
        path = files.free_path(tmp_path, "a-7", ".png")
        assert path.name == name
        path.touch()
