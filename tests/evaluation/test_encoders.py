"""Pictures and texts become unit vectors, the same on every machine, from pinned safetensors only."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from personalize.evaluation.encoders import ClipEncoder, DinoEncoder


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)) for _ in range(5)]


@pytest.fixture(scope="module")
def clip(tiny_models: Path) -> ClipEncoder:
    return ClipEncoder(tiny_models / "clip", device="cpu", batch_size=2)


def test_pictures_and_texts_share_a_space_of_unit_vectors(clip, pictures):
    features, texts = clip.images(pictures), clip.texts(["a red chair", "a lamp on a beach, seen from above", "x"])
    assert features.dtype == texts.dtype == np.float32
    assert features.shape == (5, texts.shape[1])
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([features, texts]), axis=1), 1, atol=1e-5)


def test_a_picture_or_text_scores_the_same_whatever_shares_its_batch(clip, pictures):
    np.testing.assert_allclose(clip.images(pictures)[3:4], clip.images(pictures[3:4]), atol=1e-5)
    texts = ["a lamp", "a red velvet armchair in front of a window"]
    np.testing.assert_allclose(clip.texts(texts)[:1], clip.texts(texts[:1]), atol=1e-5)


def test_pictures_of_any_mode_are_read_as_rgb(clip, pictures):
    np.testing.assert_allclose(clip.images([pictures[0].convert("RGBA")]), clip.images(pictures[:1]), atol=1e-6)


def test_a_text_that_clip_cannot_read_whole_is_refused(clip):
    with pytest.raises(ValueError, match="77 tokens"):
        clip.texts(["a chair", "a very long story about a chair " * 20])


def test_nothing_in_nothing_out(clip):
    assert clip.images([]).shape == (0, clip.texts(["a"]).shape[1])


def test_dino_gives_the_class_vector_of_each_picture(tiny_models, pictures):
    dino = DinoEncoder(tiny_models / "dino", device="cpu", batch_size=2)
    features = dino.images(pictures)
    assert features.shape == (5, dino.model.config.hidden_size)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(features[4:], dino.images(pictures[4:]), atol=1e-5)


def test_dinos_own_release_is_read_with_its_training_crop_and_not_squashed(tmp_path):
    """facebook/dino-vits16 names the ViT processor, which would distort every photograph that is not square."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, patch_size=32)
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    settings = {"feature_extractor_type": "ViTFeatureExtractor", "do_resize": True, "size": 224, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    dino = DinoEncoder(tmp_path, device="cpu")

    wide = Image.new("RGB", (512, 256), "white")
    wide.paste("black", (0, 0, 128, 256))  # outside the central square
    np.testing.assert_allclose(dino.images([wide]), dino.images([Image.new("RGB", (256, 256), "white")]), atol=1e-5)


def test_a_hub_model_must_be_pinned_by_commit():
    for revision in (None, "main", "v1.0"):
        with pytest.raises(ValueError, match="40-digit commit"):
            ClipEncoder("openai/clip-vit-base-patch32", revision)


def test_a_missing_directory_is_named_with_the_way_to_get_it(tmp_path):
    with pytest.raises(ValueError, match=r"no DINO model at .*nowhere.*dvc pull"):
        DinoEncoder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"models/nowhere.*dvc pull"):
        ClipEncoder("models/nowhere")


def test_pickled_weights_are_never_read(tiny_models, tmp_path):
    import torch

    shutil.copytree(tiny_models / "dino", tmp_path / "dino")
    (tmp_path / "dino" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "dino" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        DinoEncoder(tmp_path / "dino")
