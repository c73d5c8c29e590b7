"""The report measures any set of models and says plainly what is not reached."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniature import report, scenes
from miniature.pretrain.datasheet import Row


def test_the_report_runs_on_random_models_and_hides_nothing(tiny_models: Path, tmp_path: Path, capsys) -> None:
    models = tmp_path / "models"
    shutil.copytree(tiny_models, models)
    held_out = tmp_path / "data" / "heldout"
    held_out.mkdir(parents=True)
    drawn = [scenes.sample_scene(seed, "heldout") for seed in range(4)]
    np.save(held_out / "images.npy", np.stack([scenes.render(scene, 128) for scene in drawn]))
    (held_out / "truth.jsonl").write_text("".join(json.dumps(scenes.truth(scene)) + "\n" for scene in drawn))
    (held_out / "progress.json").write_text(json.dumps({"count": 4, "done": 4}))
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (640, 480), (200, 120, 40)).save(tmp_path / "photographs" / "one.jpg")
    where = ["--models", str(models), "--data", str(tmp_path / "data"), "--work", str(tmp_path)]
    report.main(
        [*where, "--photographs", str(tmp_path / "photographs"), "--samples", "2", "--steps", "2", "--limit", "4"]
    )
    text = (models / "README.md").read_text()
    assert "They know only their own small world" in text
    assert "**no**" in text
    assert len(json.loads((models / "quality.json").read_text())) == 6
    for name in ("samples", "captions", "vae-own-scenes", "vae-real-photographs", "designs"):
        assert f"pictures/{name}.jpg" in text
    assert "| VAE reconstruction, own scenes |" in capsys.readouterr().out


def test_a_row_is_reached_only_when_every_number_is() -> None:
    assert Row("clip", (91.0, 86.0, 96.0), (90, 85, 95), "97", "%", "9").reached
    assert not Row("clip", (91.0, 84.9, 96.0), (90, 85, 95), "97", "%", "9").reached


def test_area_under_the_curve_is_the_chance_of_the_right_order() -> None:
    assert report.auc([2, 3], [0, 1]) == 1.0
    assert report.auc([1, 1], [1, 1]) == 0.5
    assert report.auc([0.0, 2.0], [1.0]) == pytest.approx(0.5)
