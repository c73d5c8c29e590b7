"""Cuts become latents once, in a cache that cannot be stale."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from personalize.dreambooth import latents
from personalize.dreambooth.buckets import Cut, cuts_of
from personalize.dreambooth.shapes import Size


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
                         up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4).eval()  # fmt: skip


@pytest.fixture
def photograph(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    file = tmp_path / "photo.png"
    Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file)
    return file


def jobs(photograph: Path, count: int = 3) -> list[tuple[Path, Cut]]:
    cuts = cuts_of(Size(48, 64), Size(32, 32), count, 1.3, False, 0, "p")
    return [(photograph, cut) for cut in cuts]


def test_a_photograph_is_encoded_once_and_found_again(vae, photograph, tmp_path):
    first = latents.MomentCache(vae, tmp_path / "cache")
    made = first.encode(jobs(photograph))
    again = latents.MomentCache(vae, tmp_path / "cache")
    found = again.encode(jobs(photograph))
    assert (first.encoded, again.encoded) == (3, 0)
    assert all(torch.equal(a, b) for a, b in zip(made, found, strict=True))
    assert made[0].shape == (2, 4, 16, 16)


def test_what_was_encoded_before_changes_no_bit_of_the_rest(vae, photograph, tmp_path):
    wanted = jobs(photograph, 7)
    at_once = latents.MomentCache(vae, tmp_path / "at once").encode(wanted)
    for some in (wanted[3:5], wanted[::2], wanted):
        in_turns = latents.MomentCache(vae, tmp_path / "in turns").encode(some)
    assert all(torch.equal(a, b) for a, b in zip(at_once, in_turns, strict=True))


def test_the_cache_follows_the_content_not_the_name(vae, photograph, tmp_path):
    latents.MomentCache(vae, tmp_path / "cache").encode(jobs(photograph))
    moved = photograph.rename(photograph.with_name("other name.png"))
    cache = latents.MomentCache(vae, tmp_path / "cache")
    cache.encode(jobs(moved))
    assert cache.encoded == 0
    Image.new("RGB", (64, 48)).save(moved)
    cache.encode(jobs(moved))
    assert cache.encoded == 3


def test_another_vae_shares_no_latents(vae, photograph, tmp_path):
    latents.MomentCache(vae, tmp_path / "cache").encode(jobs(photograph))
    other = AutoencoderKL.from_config(vae.config).eval()
    cache = latents.MomentCache(other, tmp_path / "cache")
    cache.encode(jobs(photograph))
    assert cache.encoded == 3


def test_a_damaged_cache_file_is_made_again(vae, photograph, tmp_path):
    made = latents.MomentCache(vae, tmp_path / "cache").encode(jobs(photograph, 1))
    file = next((tmp_path / "cache").rglob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:20])
    assert torch.equal(latents.MomentCache(vae, tmp_path / "cache").encode(jobs(photograph, 1))[0], made[0])


def test_a_vae_that_overflows_is_reported_with_the_file(vae, photograph):
    broken = AutoencoderKL.from_config(vae.config).eval()
    with torch.no_grad():
        broken.encoder.conv_in.weight.fill_(float("inf"))
    with pytest.raises(ValueError, match=r"photo\.png"):
        latents.MomentCache(broken, None).encode(jobs(photograph))


def test_a_half_precision_vae_is_refused(vae):
    half = AutoencoderKL.from_config(vae.config).half()
    with pytest.raises(TypeError, match="float32"):
        latents.encode_moments(half, torch.zeros(1, 3, 32, 32), ["a"])
