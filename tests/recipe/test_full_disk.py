"""A disk that is really full: a small one in memory where this user may mount one, else one that says so."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from personalize.recipe.errors import advice, full_disk, in_words


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


def test_a_full_disk_is_called_by_where_it_begins(small_disk: Path) -> None:
    with pytest.raises(OSError, match="space") as found:
        (small_disk / "big.bin").write_bytes(bytes(1_000_000))
    (small_disk / "a folder").mkdir()
    assert "the disk is full (" in in_words(found.value)
    named = OSError(errno.ENOSPC, "No space left on device", str(small_disk / "a folder" / "x.bin"))
    assert in_words(named) == f"the disk is full ({named.filename} on {small_disk}, 0.0 MB free)"
    assert advice(named, "train", {}).startswith("Free some space there")


def test_so_is_what_a_library_says_in_its_own_words(small_disk: Path) -> None:
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with pytest.raises((SafetensorError, OSError)) as weights:
        save_file({"a": np.zeros(300_000, np.float32)}, str(small_disk / "a.safetensors"))
    database = sqlite3.connect(small_disk / "a.db")
    database.execute("create table t (x)")
    with pytest.raises(sqlite3.OperationalError) as rows:
        database.execute("insert into t values (zeroblob(20000000))")
    for found in (weights.value, rows.value):
        assert "the disk is full (" in in_words(found), str(found)


def test_an_error_that_comes_from_a_full_disk_is_one_and_others_are_none() -> None:
    def failing(cause: Exception) -> Exception:
        try:
            raise RuntimeError("the card could not be kept") from cause
        except RuntimeError as error:
            return error

    assert full_disk(failing(OSError(errno.ENOSPC, "No space left on device")))
    assert full_disk(failing(OSError(errno.EACCES, "Permission denied"))) == ""
    assert full_disk(ValueError("the disk")) == ""
