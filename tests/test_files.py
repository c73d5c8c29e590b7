"""Digests are DVC's own, follow content and nothing else, and are remembered for files that have not changed."""

import os
import subprocess
import sys
import tempfile
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


CLUTTER = {
    "Thumbs.db": "Thumbs.db",
    "a.tmp": "*.tmp",
    "deep/er/b.tmp": "*.tmp",
    "cache/x": "cache/",
    "deep/cache/x": "cache/",
    "notes/private/y": "/data/notes/private",
    ".DS_Store": ".DS_Store",
}
KEPT = ("1.jpg", "deep/er/2.jpg", "keep.tmp", "notes/z", "cached", "other/data/notes/private")


def test_what_dvc_leaves_out_does_not_count(tmp_path: Path) -> None:
    """Patterns of every kind, in the repository's .dvcignore and in one nearer to the folder."""
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], check=True)
    for data in ("data", "below/data"):
        for name in (*CLUTTER, *KEPT):
            (tmp_path / data / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / data / name).write_text(name)
    patterns = ["# clutter", *CLUTTER.values(), "!keep.tmp"]
    (tmp_path / ".dvcignore").write_text("\n".join(patterns) + "\n")
    (tmp_path / "below" / ".dvcignore").write_text("/data/other\n!Thumbs.db\n")
    subprocess.run([*dvc, "add", "-q", "data", "below/data"], check=True)
    for data in ("data", "below/data"):
        pinned = files.dvc_digest(f"{data}.dvc")
        assert files.tree_digest(data) == pinned
        assert files.tree_digest(data, dvcignore=False) != pinned
        (tmp_path / data / "deep" / ".DS_Store").write_text("made by looking into the folder")
        assert files.tree_digest(data) == pinned
        (tmp_path / data / "deep" / "new.jpg").write_text("a photograph")
        assert files.tree_digest(data) != pinned


def test_a_folder_that_dvc_ignores_counts_whole(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "build" / "step").mkdir(parents=True)
    (tmp_path / "build" / "step" / "x.tmp").write_text("x")
    before = files.tree_digest("build/step")
    (tmp_path / ".dvcignore").write_text("build/\n*.tmp\n")
    assert files.tree_digest("build/step") == before


def test_a_renamed_or_changed_file_changes_the_digest_and_a_touched_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    file = tmp_path / "d" / "x"
    file.write_text("x")
    before = files.tree_digest("d")
    os.utime(file, (1, 1))
    assert files.tree_digest("d") == before
    file.rename(tmp_path / "d" / "y")
    assert files.tree_digest("d") != before


def test_a_large_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_SETTLED_SECONDS", -1)
    file = tmp_path / "weights"
    file.write_bytes(b"0" * (files.REMEMBER_FROM_BYTES + 1))
    first = files.file_digest(file)
    with monkeypatch.context() as unread:
        unread.setattr(files.hashlib, "file_digest", None)
        assert files.file_digest(file) == first
    file.write_bytes(b"1" * (files.REMEMBER_FROM_BYTES + 1))
    assert files.file_digest(file) != first


def test_a_large_file_that_was_changed_and_dated_back_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_SETTLED_SECONDS", -1)
    file = tmp_path / "weights"
    file.write_bytes(b"0" * (files.REMEMBER_FROM_BYTES + 1))
    first, before = files.file_digest(file), file.stat()
    with file.open("r+b") as stream:
        stream.write(b"1")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
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


@pytest.mark.parametrize("first_wins", [False, True])
def test_two_processes_may_make_the_same_folder_at_once(tmp_path: Path, first_wins: bool) -> None:
    made = """
import sys, time
from pathlib import Path
from personalize.files import whole
for number in range(200):
    with whole(Path(sys.argv[1], str(number % 3)), first_wins=bool(int(sys.argv[2]))) as part:
        part.mkdir()
        (part / "a").write_text("a")
        (part / "b").write_text("b")
"""
    words = [sys.executable, "-c", made, str(tmp_path), str(int(first_wins))]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(process.communicate()[1], process.returncode) for process in both] == [("", 0)] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]
    assert all(sorted(file.name for file in folder.iterdir()) == ["a", "b"] for folder in tmp_path.iterdir())


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


HOLDS = """
import sys, time
from personalize.files import scratch
with scratch("photographs") as folder:
    (folder / "front.jpg").write_text("raw")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_swept_and_a_living_ones_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    command = [sys.executable, "-c", HOLDS]
    environment = {**os.environ, "PYTHONPATH": str(Path(files.__file__).parents[1])}
    killed, living = (subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2))
    try:
        left, kept = (Path(process.stdout.readline().strip()) for process in (killed, living) if process.stdout)
        killed.kill()
        killed.wait()
        assert (left / "front.jpg").is_file()
        assert left.stat().st_mode & 0o777 == left.parent.stat().st_mode & 0o777 == 0o700
        files.sweep_scratch()
        assert not left.exists()
        assert (kept / "front.jpg").is_file()
    finally:
        for process in (killed, living):
            process.kill()
            process.communicate()
    files.sweep_scratch()
    assert list(kept.parent.iterdir()) == []


def test_scratch_is_gone_after_an_error_and_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ZeroDivisionError), files.scratch("photographs") as folder:
        raise ZeroDivisionError
    assert list(folder.parent.iterdir()) == []
    folder.parent.rmdir()
    (tmp_path / "somebody's").mkdir()
    folder.parent.symlink_to(tmp_path / "somebody's")
    with pytest.raises(PermissionError, match="somebody else's"), files.scratch("photographs"):
        pass


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    files.write_json(tmp_path / "state.json", {}, private=True)
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    files.write_json(tmp_path / "card.json", {})
    (tmp_path / "card.json").chmod(0o644)
    (tmp_path / "card.json").parent.chmod(0o755)
    for path in (tmp_path, tmp_path / "card.json", tmp_path / "nowhere"):
        files.keep_private(path)
    assert (tmp_path / "card.json").stat().st_mode & 0o777 == 0o600
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_what_dvc_leaves_out_is_named_among_the_files_all_the_same(tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvcignore").write_text("Thumbs.db\n")
    (tmp_path / "made").mkdir()
    for name in ("a.txt", "Thumbs.db"):
        (tmp_path / "made" / name).write_text("x")
    assert set(files.tree_files(tmp_path / "made")) == {"a.txt", "Thumbs.db"}
