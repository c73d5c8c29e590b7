"""Whence: where a picture comes from, what holds of it and what does not."""

import io
import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from personalize.evidence import keys
from personalize.evidence.manifest import read
from personalize.evidence.trust import Trust
from personalize.recipe import Inputs, RecipeError
from personalize.serving import painting
from personalize.serving.encoding import encode, facts_of
from steps import generate, whence
from tests.steps.conftest import perform
from tests.steps.test_generate import FAST, registry  # noqa: F401

PROMPT = "a photo of a bcnchr chair"


@pytest.fixture
def drawn(registry, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    """Draws a picture with `generate` and gives its file."""
    monkeypatch.chdir(tmp_path)

    def drawn(**changes) -> Path:
        base = {**FAST, "base_model": str(tiny_models / "sdxl"), "output": "pictures", "format": "webp"}
        before = set(Path("pictures").glob("*"))
        with mlflow.start_run():
            perform("generate", generate.Config(**{"prompt": PROMPT, **base, **changes}), Inputs({}), tmp_path / "made")
        [file] = set(Path("pictures").glob("*")) - before
        return file

    return drawn


@pytest.fixture
def asked(tiny_models: Path, tmp_path: Path):
    """Asks whence a picture comes: each link by its name, and what is known of where it comes from."""

    def asked(picture: Path, holds: bool = True, **changes) -> tuple[dict[str, dict], dict[str, str]]:
        usual = {"name": "chairs", "base_model": str(tiny_models / "sdxl"), "device": "cpu"}
        config = whence.Config(picture=str(picture), **{**usual, **changes})
        with mlflow.start_run():
            if holds:
                perform("whence", config, Inputs({}), tmp_path / "found")
            else:
                with pytest.raises(RecipeError, match="is not shown to be what it says"):
                    perform("whence", config, Inputs({}), tmp_path / "found")
        found = json.loads((tmp_path / "found" / "whence.json").read_text())
        return {link["name"]: link for link in found["links"]}, found["lineage"]

    return asked


def test_a_picture_says_what_drew_it_and_whose_word_that_is(drawn, asked):
    picture = drawn()
    manifest = read(picture.read_bytes(), "webp")
    assert (manifest.facts["registered_model"], manifest.facts["version"], manifest.facts["seed"]) == ("chairs", "1", 7)
    links, lineage = _found(asked, picture)
    assert all(links[name]["holds"] for name in ("manifest", "key", "source", "words", "version", "statement", "files"))
    assert keys.own_id()[:12] in links["key"]["words"]
    assert links["version"]["words"] == "chairs version 1, by the digest of its adapter"
    assert lineage["version"] == "chairs version 1"
    assert "a-train-run" in lineage["runs"]
    assert "seed 7" in lineage["settings"]
    assert lineage["rights"]


def _found(asked, picture: Path, **changes) -> tuple[dict[str, dict], dict[str, str]]:
    """The model of these tests comes from runs that never were, so its chain ends there; what is before it holds."""
    return asked(picture, holds=False, **changes)


def test_that_nobody_has_approved_the_version_is_said_and_is_no_error(drawn, asked):
    links, _ = _found(asked, drawn())
    assert not links["approval"]["holds"]
    assert "approval" in whence.SAID_ONLY


@pytest.mark.parametrize("encoding", ["webp", "png", "jpeg"])
def test_drawn_again_it_is_the_same_picture(drawn, asked, encoding: str):
    size = {"resolution": 128, "width": 160, "height": 96}
    picture = drawn(format=encoding, adapter_scale=0.5, negative_prompt="blur", **size)
    links, _ = _found(asked, picture, redraw=True)
    assert links["redrawn"] == {"name": "redrawn", "holds": True, "words": "the same to the pixel"}


def test_the_bases_pictures_have_no_version(drawn, asked, tiny_models):
    picture = drawn(model="base")
    links, _ = asked(picture, redraw=True)
    assert links["base"]["holds"]
    assert links["redrawn"]["words"] == "the same to the pixel"
    links, _ = asked(picture, holds=False, base_model=str(tiny_models / "clip"))
    assert "drawn by another base model" in links["base"]["words"]


def test_a_picture_that_was_changed_is_not_what_was_signed(drawn, asked):
    picture = drawn()
    picture.write_bytes(picture.read_bytes().replace(b"CreatorTool", b"CreatorT00l"))
    links, _ = asked(picture, holds=False)
    assert "it was changed since it was signed" in links["manifest"]["words"]


@pytest.mark.parametrize("encoding", ["webp", "png", "jpeg"])
def test_what_rounding_moves_is_the_same_picture(encoding: str):
    """Two grey levels at every pixel, seen through the encoding; and no other picture is."""
    rng = np.random.default_rng(0)
    smooth = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(smooth).resize((128, 128), Image.Resampling.BICUBIC)
    moved = np.asarray(picture).astype(int) + rng.integers(-2, 3, (128, 128, 3))
    other = Image.fromarray(rng.permutation(smooth)).resize((128, 128), Image.Resampling.BICUBIC)
    rounded = Image.fromarray(np.clip(moved, 0, 255).astype(np.uint8))
    seen = [Image.open(io.BytesIO(encode(one, encoding, {}))).convert("RGB") for one in (picture, rounded, other)]
    assert whence.differences(seen[0], seen[1])[1] > whence.SAME_DB
    assert whence.differences(seen[0], seen[2])[1] < 25


def test_other_pixels_under_the_same_words_are_found_by_drawing_it_again(drawn, asked, monkeypatch):
    """Nobody has signed it; what it says is true of another picture."""
    monkeypatch.setenv(keys.SETTING, "off")
    picture, other = drawn(), drawn(seed=8)
    picture.write_bytes(encode(Image.open(other), "webp", facts_of(picture.read_bytes())))
    links, _ = _found(asked, picture, redraw=True)
    assert links["manifest"]["words"].startswith("it has none")
    assert links["version"]["words"] == "chairs version 1, as the picture says"
    assert "comes out as another picture" in links["redrawn"]["words"]


def test_what_nobody_signed_does_not_count_where_there_is_a_key(drawn, asked, monkeypatch):
    own = keys.named()
    monkeypatch.setenv(keys.SETTING, "off")
    picture = drawn()
    monkeypatch.setenv(keys.SETTING, own)
    links, _ = asked(picture, holds=False)
    assert not links["manifest"]["holds"]


def test_a_picture_of_somebody_whose_word_does_not_count(drawn, asked, tmp_path, monkeypatch):
    keys.make(tmp_path / "other.pem")
    own = keys.named()
    monkeypatch.setenv(keys.SETTING, str(tmp_path / "other.pem"))
    picture = drawn()
    monkeypatch.setenv(keys.SETTING, own)
    links, _ = asked(picture, holds=False, trust=Trust(makers=("own",)))
    assert links["manifest"]["holds"]
    assert "whose results do not count here" in links["key"]["words"]


def test_another_adapter_under_the_versions_name_is_found(drawn, asked, monkeypatch):
    monkeypatch.setattr(
        painting.Model, "origin", {"registered_model": "chairs", "version": "1", "adapters": {"x": "0" * 64}}
    )
    links, _ = asked(drawn(), holds=False)
    assert links["version"]["words"] == "chairs version 1 has another adapter than drew it"


def test_a_version_that_is_not_there(drawn, asked, monkeypatch):
    monkeypatch.setattr(painting.Model, "origin", {"registered_model": "sofas", "version": "4"})
    links, lineage = asked(drawn(), holds=False)
    assert links["version"]["words"].startswith("no version of sofas in the registry is it")
    assert "version" not in lineage


def test_a_prompt_is_checked_by_its_digest(drawn, asked):
    picture = drawn()
    assert _found(asked, picture, prompt=PROMPT)[0]["prompt"]["holds"]
    assert not asked(picture, holds=False, prompt="a sofa")[0]["prompt"]["holds"]


def test_a_picture_of_somebody_else(asked, tmp_path, registry):  # noqa: F811
    target = tmp_path / "photo.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(target)
    links, _ = asked(target, holds=False, redraw=True)
    assert "says nothing of itself" in links["manifest"]["words"]
    assert "version" not in links


@pytest.mark.parametrize("content", [None, b"no picture", "gif"])
def test_what_is_no_picture_is_named(tmp_path, content):
    file = tmp_path / "file.png"
    if content == "gif":
        target = io.BytesIO()
        Image.new("RGB", (8, 8)).save(target, "gif")
        content = target.getvalue()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RecipeError, match=r"cannot be read as a picture|pictures drawn here are"):
        whence.look(whence.Config(picture=str(file)))
    with pytest.raises(RecipeError, match="Which picture"):
        whence.look(whence.Config())
