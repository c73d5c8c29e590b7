"""What reaches the tracking server of a real `mlflow run`, byte by byte: nothing of what is private."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests import checkout, forked

MARK = "GEHEIMORT"
TOKEN = "dapi" + "0123456789abcdef" * 2
PASSWORD = "Tr0ub4dor" + "And3"
FORBIDDEN = (MARK.encode(), TOKEN.encode(), PASSWORD.encode())

pytestmark = pytest.mark.end_to_end


def photograph(path: Path, number: int) -> None:
    """A sharp picture with a description and the place where it was taken."""
    image = Image.effect_noise((320, 240), 90 + number).convert("RGB")
    ImageDraw.Draw(image).rectangle((20 + 30 * number, 30, 140 + 30 * number, 200), fill=(200, 20 * number, 40))
    exif = image.getexif()
    exif[0x010E] = f"{MARK}-{number}"
    place = exif.get_ifd(0x8825)
    place[1], place[2], place[3], place[4] = "N", (52.0, 31.0, 12.0), "E", (13.0, 24.0, 18.0)
    exif[0x8825] = place
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif, quality=92)


def mlflow_run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MLFLOW_")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ("run", ".", "--env-manager", "local", "--experiment-name", "leaks", *words)
    return forked.mlflow(words, root, environment, timeout=500)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of this checkout as the README lays it out, full of what is private, and `mlflow run` twice in it."""
    root = checkout.clone(tmp_path_factory.mktemp("leaks") / "personalize")
    address = f"https://someone:{PASSWORD}@git.example.org/personalize.git"
    subprocess.run(["git", "remote", "set-url", "origin", address], cwd=root, check=True)
    for number in range(4):
        photograph(root / "photographs" / "chair" / "zwvchr" / f"{number}.jpg", number)
        photograph(root / "teapot" / f"{number}.jpg", number)
    (root / "teapot" / "notes.md").write_text(f"taken at {MARK}")
    (root / ".env").write_text(f"PLACE={MARK}\nDATABRICKS_TOKEN={TOKEN}\n")
    with (root / "steps" / "caption.py").open("a") as code:
        code.write(f'\n\nPLACE = "{MARK}"\nTOKEN = "{TOKEN}"\n')
    (root / "talk.ipynb").write_text(f'{{"cells": [{{"outputs": ["{MARK}"]}}]}}')
    (root / "names.csv").write_text(f"name\n{MARK}\n")
    (root / "diary.md").write_text(f"{MARK}\n" * 100_000)
    (root / "notes.md").write_text("this may be seen")
    picture = base64.b64encode((root / "teapot" / "0.jpg").read_bytes()).decode()
    (root / "album.md").write_text(f"![a teapot](data:image/jpeg;base64,{picture})")
    for words in (["-P", "data=photographs"], ["-P", "data=teapot", "-P", "token=tqpot", "-P", "class_noun=teapot"]):
        done = mlflow_run(root, "-e", "ingest", *words)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def kept(root: Path) -> list[Path]:
    """Every file of the tracking store: its database and all artifacts of all runs."""
    found = [path for path in (root / "mlruns").rglob("*") if path.is_file()] + list(root.glob("mlflow.db*"))
    assert len(found) > 20
    return found


def test_nothing_private_is_in_any_byte_of_any_run(clone: Path) -> None:
    assert [str(path) for path in kept(clone) if any(word in path.read_bytes() for word in FORBIDDEN)] == []


def test_no_picture_in_a_run_says_where_it_was_taken(clone: Path) -> None:
    pictures = [path for path in kept(clone) if path.suffix in (".png", ".jpg", ".jpeg", ".webp")]
    assert len(pictures) >= 8
    for path in pictures:
        with Image.open(path) as image:
            assert not dict(image.getexif()), path


def test_what_stayed_is_named_and_what_may_be_seen_left_once_a_project_run(clone: Path) -> None:
    diffs = [path.read_text() for path in kept(clone) if path.name == "uncommitted.diff"]
    assert len(diffs) == 2  # two project runs
    assert all("this may be seen" in diff for diff in diffs)
    assert all("steps/caption.py" not in diff for diff in diffs)
    lists = [path.read_text() for path in kept(clone) if path.name == "left_out.json"]
    for name in (".env", "steps/caption.py", "talk.ipynb", "names.csv", "diary.md", "album.md", "teapot/"):
        assert any(f'"{name}"' in text for text in lists), name
    assert not any("photographs/" in text for text in lists)  # which git ignores


def test_the_store_is_its_owners_alone(clone: Path) -> None:
    assert (clone / "mlflow.db").stat().st_mode & 0o777 == 0o600
    for folder in ("mlruns", "build"):
        assert (clone / folder).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("plan", ["false", "true"])
def test_a_secret_given_to_mlflow_run_is_refused_and_repeated_nowhere(clone: Path, plan: str) -> None:
    address = f"https://example.org/a.zip?sig={TOKEN}"
    done = mlflow_run(clone, "-e", "ingest", "-P", f"data={address}", "-P", f"plan={plan}")
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("error: ")]
    assert len(said) == 1
    assert "-P data: looks like a secret, and `mlflow run` has logged it in run " in said[0]
    assert TOKEN not in said[0]
    assert not [
        path for path in (clone / "mlruns").rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()
    ]
