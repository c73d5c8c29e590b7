"""Masks in training: cut as their photograph is, weighed so that the loss keeps its size, and without effect at 1."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from personalize.dreambooth import losses
from personalize.dreambooth.buckets import cut_photographs, cuts_of
from personalize.dreambooth.examples import Example, read_photographs
from personalize.dreambooth.lora import WEIGHTS
from personalize.dreambooth.masks import in_latents, loss_weights
from personalize.dreambooth.setup import Base
from personalize.dreambooth.shapes import Size
from personalize.dreambooth.train import train
from personalize.files import write_rows
from tests.dreambooth import training


def masked(example: Example, *boxes: tuple[int, int, int, int]) -> Example:
    """With a mask of boxes (left, top, right, bottom)."""
    mask = Image.new("L", (example.size.width, example.size.height), 0)
    for box in boxes:
        mask.paste(255, box)
    file = example.path.with_name(f"{example.path.stem}.mask.png")
    mask.save(file)
    return replace(example, mask=file)


def test_a_mask_is_cut_mirrored_and_bucketed_as_its_photograph_is(tmp_path: Path) -> None:
    """The photograph is its own mask, so what is cut out of both must stay the same."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 2, (30, 40), dtype=np.uint8) * 255).resize((400, 300))
    noise.convert("RGB").save(tmp_path / "photo.png")
    noise.save(tmp_path / "mask.png")
    example = Example(tmp_path / "photo.png", Size(300, 400), "", mask=tmp_path / "mask.png")
    settings = training.settings(resolution=256, variants=6, zoom=1.5, flip=True, aspect_ratio_buckets=True)
    cuts = cut_photographs([example], settings, 32)
    assert cuts.shapes[0].width > cuts.shapes[0].height
    assert {cut.mirrored for cut in cuts.cuts[0]} == {True, False}
    latent = [(cut.target.height // 8, cut.target.width // 8) for cut in cuts.cuts[0]]
    weights = loss_weights(example, cuts.cuts[0], latent, 0.0)
    for cut, weight, size in zip(cuts.cuts[0], weights, latent, strict=True):
        seen = in_latents(cut.apply(noise.convert("RGB")).convert("L"), size)
        assert weight is not None
        assert weight.shape == size
        assert torch.allclose(weight / weight.max(), seen / seen.max(), atol=0.01)


def test_the_loss_keeps_its_size_whatever_the_mask(tmp_path: Path) -> None:
    example = training.photographs(tmp_path, 1)[0]
    whole = cuts_of(example.size, Size(64, 64), 1, 1.0, False, 0, "a")
    for boxes in ([(0, 0, 36, 72)], [(10, 10, 40, 50)]):
        for surroundings in (0.0, 0.1, 0.5):
            (weight,) = loss_weights(masked(example, *boxes), whole, [(8, 8)], surroundings)
            assert weight is not None
            assert weight.mean().item() == pytest.approx(1, abs=1e-5)
            assert weight.min() == pytest.approx(surroundings * weight.max().item(), abs=0.02)


def test_a_subject_of_a_few_latents_does_not_outweigh_a_picture() -> None:
    mask = torch.zeros(16, 16)
    mask[3, 3] = 1
    assert losses.mask_weights(mask, 0.0, float(mask.mean())).max().item() == pytest.approx(1 / losses.LEAST_SHARE)


def test_a_cut_without_the_subject_teaches_little(tmp_path: Path) -> None:
    example = masked(training.photographs(tmp_path, 1)[0], (0, 0, 20, 72))
    whole = cuts_of(example.size, Size(64, 64), 1, 1.0, False, 0, "a")[0]
    beside = replace(whole, resized=Size(128, 128), left=64)
    weights = loss_weights(example, [whole, beside], [(8, 8)] * 2, 0.1)
    assert weights[1] is not None
    assert weights[1].max() < 0.5


def test_surroundings_of_weight_nothing_get_no_gradient() -> None:
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    prediction = torch.randn(1, 4, 8, 8, requires_grad=True)
    weights = losses.mask_weights(mask, 0.0, 0.5)
    losses.squared_error(prediction, torch.zeros(1, 4, 8, 8), weights).sum().backward()
    assert prediction.grad is not None
    assert prediction.grad[..., 4:].abs().max() == 0
    assert prediction.grad[..., :4].abs().min() > 0


def test_photographs_are_read_with_the_masks_that_ingest_left(tmp_path: Path) -> None:
    rows = [
        {"file_name": f"chair/bcnchr/{i}.png", "token": "bcnchr", "class_noun": "chair", "text": ""} for i in range(2)
    ]
    for row in rows:
        training.picture(tmp_path / "images" / row["file_name"], 1)
    training.picture(tmp_path / "masks" / rows[1]["file_name"], 1)
    write_rows(tmp_path / "metadata.jsonl", rows)
    found = read_photographs(tmp_path / "images", tmp_path / "metadata.jsonl")
    assert [example.mask for example in found] == [None, tmp_path / "masks/chair/bcnchr/1.png"]


def test_masks_change_what_is_learnt_and_a_weight_of_one_ignores_them(tiny_models: Path, tmp_path: Path) -> None:
    plain, classes = training.photographs(tmp_path / "pictures"), training.class_images(tmp_path / "pictures")
    cut_out = [masked(example, (0, 0, 36, 36)) for example in plain[:2]] + plain[2:]

    def adapter(photographs: list[Example], **changed: float) -> bytes:
        outputs = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        settings = training.settings(max_train_steps=2, **changed)
        base = Base(str(tiny_models / "sdxl"), device="cpu")
        train(settings, base, photographs, classes, outputs, work=tmp_path / "work")
        return (outputs / "lora" / WEIGHTS).read_bytes()

    unmasked = adapter(plain)
    assert adapter(cut_out) != unmasked
    assert adapter(cut_out, mask_weight=1.0) == unmasked
