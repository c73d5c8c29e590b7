"""Datasets on disk: the same file however often the writer was killed, and no mixing of two datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from miniature.scenes import caption, render, sample_scene, truth
from miniature.scenes.__main__ import main
from miniature.scenes.dataset import CAPTIONS, CHUNK, Chunk, scene_chunk, write
from miniature.scenes.textures import KINDS, texture, texture_chunk

COUNT, SIZE = CHUNK + 16, 16
SETTINGS: dict[str, Any] = {"seed": 0, "split": "train", "samples": 1}


def _contents(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "images.npy").read_bytes(), (folder / "truth.jsonl").read_bytes()


def test_a_dataset_holds_pictures_truth_and_captions(tmp_path: Path) -> None:
    write(tmp_path, 20, SIZE, SETTINGS, scene_chunk)
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    rows = [json.loads(line) for line in (tmp_path / "truth.jsonl").read_text().splitlines()]
    assert images.shape == (20, SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    scene = sample_scene(13)
    assert (images[13] == render(scene, SIZE)).all()
    told = json.loads(json.dumps(truth(scene)))
    assert {key: rows[13][key] for key in told} == told
    assert rows[13]["captions"] == [caption(scene, k) for k in range(CAPTIONS)]
    assert json.loads((tmp_path / "progress.json").read_text())["done"] == 20


def test_a_killed_writer_goes_on_and_gives_the_same_files(tmp_path: Path) -> None:
    write(tmp_path / "whole", COUNT, SIZE, SETTINGS, scene_chunk)

    def killed(first: int, last: int, size: int, **settings: Any) -> Chunk:
        if first >= CHUNK:
            raise KeyboardInterrupt
        return scene_chunk(first, last, size, **settings)

    part = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        write(part, COUNT, SIZE, SETTINGS, killed)
    with (part / "truth.jsonl").open("a") as lines:
        lines.write('{"index": 64, "half a li')
    assert json.loads((part / "progress.json").read_text())["done"] == CHUNK
    write(part, COUNT, SIZE, SETTINGS, scene_chunk)
    assert _contents(part) == _contents(tmp_path / "whole")


def test_two_workers_write_what_one_writes(tmp_path: Path) -> None:
    for workers in (1, 2):
        write(tmp_path / str(workers), COUNT, SIZE, SETTINGS, scene_chunk, workers)
    assert _contents(tmp_path / "1") == _contents(tmp_path / "2")


def test_another_dataset_in_the_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["dataset", "--out", str(tmp_path), "--count", "4", "--size", "16", "--samples", "1", "--workers", "1"]
    assert main(command) == 0
    before = _contents(tmp_path)
    assert main([*command, "--seed", "9"]) == 2
    assert "another dataset" in capsys.readouterr().err
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("kind", [kind for kind, _ in KINDS], ids=lambda kind: kind.__name__)
def test_every_kind_of_texture_is_a_picture_with_contrast(kind: Any) -> None:
    picture = kind(np.random.default_rng(3), 32)
    assert picture.shape == (32, 32, 3)
    assert np.isfinite(picture).all()
    assert np.clip(picture, 0, 1).std() > 0.01


def test_textures_are_the_same_for_a_seed_and_of_every_kind() -> None:
    assert (texture(5, 32)[0] == texture(5, 32)[0]).all()
    _, rows = texture_chunk(0, 150, 16, seed=0, samples=1)
    assert {row["kind"] for row in rows} == {kind.__name__ for kind, _ in KINDS}
