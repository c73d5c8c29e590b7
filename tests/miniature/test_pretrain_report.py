"""The report measures any set of models and says plainly what is not reached."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniature import report, scenes
from miniature.pretrain.datasheet import Row

SITTING = {"stage": "vae", "samples": 64, "minutes": 2.0, "device": "cpu"}
LEDGER = {"samples": 64, "minutes": 2.0, "device": "cpu", "seconds_here": 130}
SCORES = {
    "overall": {"gap_closed": {"value": 0.8}, "clip_t": {"base": 0.6, "tuned": 0.45}},
    "subjects": [{"ceiling": {"clip_t": 0.5}}, {"ceiling": {"clip_t": 0.58}}],
    "pictures": [{}, {}],
}


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
    (models / "training.json").write_text(json.dumps([{**SITTING, "commit": "abc"}]))
    (tmp_path / "ledger.json").write_text(json.dumps({"vae": LEDGER, "clip": {**LEDGER, "samples": 96}}))
    (tmp_path / "scores.json").write_text(json.dumps(SCORES))
    where = ["--models", str(models), "--data", str(tmp_path / "data"), "--work", str(tmp_path), "--commit", "def"]
    where += ["--scores", str(tmp_path / "scores.json")]
    report.main(
        [*where, "--photographs", str(tmp_path / "photographs"), "--samples", "2", "--steps", "2", "--limit", "4"]
    )
    text = (models / "README.md").read_text()
    assert "They know only their own small world" in text
    assert "**no**" in text
    assert len(json.loads((models / "quality.json").read_text())) == 8
    assert "| vae | 64 | 2.0 | cpu | abc |\n| clip | 96 | 2.0 | cpu | def |" in text
    assert "share of the DINO gap closed | 2 | 80.0 % | 50 | 75 | yes |" in text
    assert "CLIP-T kept (the photographs: 90) | 2 | 75.0 % | 97 | 100 | **no** |" in text
    for name in ("samples", "captions", "vae-own-scenes", "vae-real-photographs", "designs"):
        assert f"pictures/{name}.jpg" in text
    assert "| VAE reconstruction, own scenes |" in capsys.readouterr().out


def test_a_row_is_reached_only_when_every_number_is() -> None:
    assert Row("clip", (91.0, 86.0, 96.0), (90, 85, 95), "97", "%", "9").reached
    assert not Row("clip", (91.0, 84.9, 96.0), (90, 85, 95), "97", "%", "9").reached


def test_where_nothing_must_be_reached_nothing_is_said_of_it() -> None:
    assert Row("chairs", (12.0,), (), "40", "%", "80").markdown() == "| chairs | 80 | 12.0 % | – | 40 | – |"


def test_area_under_the_curve_is_the_chance_of_the_right_order() -> None:
    assert report.auc([2, 3], [0, 1]) == 1.0
    assert report.auc([1, 1], [1, 1]) == 0.5
    assert report.auc([0.0, 2.0], [1.0]) == pytest.approx(0.5)
