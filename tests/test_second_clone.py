"""What the README says of pushing data brings it to a colleague's clone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]


def pushing(remote: Path) -> list[str]:
    """The README's own lines, with a folder for the remote."""
    block = re.search(r"```bash\n(dvc remote add .*?)```", (PROJECT / "README.md").read_text(), flags=re.DOTALL)
    assert block, "README.md says how data is pushed"
    return block[1].replace("s3://bucket/personalize", str(remote)).strip().split("\n")


@pytest.mark.slow
def test_pushed_photographs_come_to_a_second_clone(tmp_path: Path) -> None:
    author = {f"GIT_{who}_{what}": "x@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **author, "PATH": path}

    def shell(line: str, where: Path) -> None:
        done = subprocess.run(line, shell=True, cwd=where, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"

    first = tmp_path / "first"
    first.mkdir()
    (first / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore"):
        (first / name).write_bytes((PROJECT / name).read_bytes())
    (first / "data").mkdir()
    (first / "data" / "1.jpg").write_text("a photograph")
    shell("git init -q && git add . && git commit -qm start", first)
    for line in pushing(tmp_path / "remote"):
        shell(line, first)
    (first / "data" / "Thumbs.db").write_text("made by looking into the folder")
    shell("git clone -q first second", tmp_path)
    shell("dvc pull", tmp_path / "second")
    assert [file.read_text() for file in (tmp_path / "second" / "data").iterdir()] == ["a photograph"]
    shell("dvc status --quiet", first)
