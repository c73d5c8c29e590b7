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
