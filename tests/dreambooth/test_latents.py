"""Photographs become latents once: buckets, cuts, and a cache that cannot be stale."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from personalize.dreambooth import latents
from personalize.dreambooth.conditioning import Size


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


def test_buckets_keep_the_area_and_are_multiples_of_the_step():
    shapes = latents.buckets(1024, 64)
    assert shapes[0] == (1024, 1024)
    assert all(h % 64 == 0 and w % 64 == 0 and 0.75 * 1024**2 <= h * w <= 1024**2 for h, w in shapes)
    assert {(w, h) for h, w in shapes} == set(shapes)


def test_a_resolution_the_model_cannot_take_is_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        latents.buckets(100, 32)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((3000, 3000), (1024, 1024)), ((4032, 3024), (1152, 896)), ((3024, 4032), (896, 1152)), ((100, 900), (704, 1408))],
)
def test_a_photograph_goes_to_the_bucket_of_its_aspect(size, bucket):
    assert latents.nearest_bucket(Size(*size), latents.buckets(1024, 64)) == bucket


def test_the_first_cut_is_the_whole_picture_and_others_differ():
    cuts = latents.variants(Size(800, 600), Size(256, 192), count=4, zoom=1.3, flip=True, seed=0, name="a")
    assert cuts[0].resized == (256, 192)
    assert (cuts[0].top, cuts[0].left, cuts[0].mirrored) == (0, 0, False)
    assert len(cuts) == 4
    assert sum(cut.mirrored for cut in cuts) == 2
    assert latents.variants(Size(256, 192), Size(256, 192), 4, zoom=1.0, flip=False, seed=0, name="a") == [
        latents.Variant(Size(256, 192), Size(256, 192), 0, 0, Size(256, 192))
    ]


def test_micro_conditioning_tells_what_was_really_done_to_the_picture():
    """Every pixel carries its own position; the cut's corner must be where the conditioning says."""
    original, target = Size(64, 96), Size(32, 32)
    for cut in latents.variants(original, target, count=6, zoom=1.5, flip=True, seed=3, name="x"):
        ramp = np.zeros((*original, 3), dtype=np.uint8)
        ramp[..., 0] = np.arange(96)[None, :] * 2
        ramp[..., 1] = np.arange(64)[:, None] * 3
        pixels = np.asarray(cut.apply(Image.fromarray(ramp)), dtype=float)
        height, width, top, left, *_ = cut.time_ids().tolist()
        assert (height, width) == original
        row = (top + 16.5) / cut.resized.height * 64
        column = (left + 16.5) / cut.resized.width * 96
        assert pixels[16, 16, 1] / 3 == pytest.approx(row - 0.5, abs=2)
        assert pixels[16, 16, 0] / 2 == pytest.approx((96 - column if cut.mirrored else column) - 0.5, abs=2)


def test_a_base_that_never_learnt_sizes_is_told_what_sampling_will_say():
    cut = latents.variants(Size(800, 700), Size(256, 192), 1, 1.0, False, 0, "a")[0]
    assert cut.time_ids().tolist() == [800, 700, 0, 16, 256, 192]
    assert cut.time_ids("as sampled").tolist() == [256, 192, 0, 0, 256, 192]


def jobs(photograph: Path, count: int = 3) -> list[tuple[Path, latents.Variant]]:
    cuts = latents.variants(Size(48, 64), Size(32, 32), count, 1.3, False, 0, "p")
    return [(photograph, cut) for cut in cuts]


def test_a_photograph_is_encoded_once_and_found_again(vae, photograph, tmp_path):
    first = latents.MomentCache(vae, tmp_path / "cache")
    made = first.encode(jobs(photograph))
    again = latents.MomentCache(vae, tmp_path / "cache")
    found = again.encode(jobs(photograph))
    assert (first.encoded, again.encoded) == (3, 0)
    assert all(torch.equal(a, b) for a, b in zip(made, found, strict=True))
    assert made[0].shape == (2, 4, 16, 16)


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
