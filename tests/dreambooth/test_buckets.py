"""Which shape a photograph is cut to, how, and what the UNet is told of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from personalize.dreambooth import backbone
from personalize.dreambooth.buckets import Cut, cut_photographs, cuts_of
from personalize.dreambooth.examples import Example
from personalize.dreambooth.shapes import Size, bucket_shapes, check_shape, halvings, nearest_shape
from personalize.files import read_json
from tests.dreambooth import training


def test_buckets_keep_the_area_and_are_multiples_of_the_step():
    shapes = bucket_shapes(1024, 64)
    assert shapes[0] == (1024, 1024)
    assert all(h % 64 == 0 and w % 64 == 0 and 0.75 * 1024**2 <= h * w <= 1024**2 for h, w in shapes)
    assert {(w, h) for h, w in shapes} == set(shapes)


def test_a_resolution_the_model_cannot_take_is_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        bucket_shapes(100, 32)


@pytest.mark.parametrize(
    ("size", "bucket"),
    [((3000, 3000), (1024, 1024)), ((4032, 3024), (1152, 896)), ((3024, 4032), (896, 1152)), ((100, 900), (704, 1408))],
)
def test_a_photograph_goes_to_the_bucket_of_its_aspect(size, bucket):
    assert nearest_shape(Size(*size), bucket_shapes(1024, 64)) == bucket


@pytest.mark.parametrize("size", [(300, 300), (300, 400), (400, 300), (100, 900)])
@pytest.mark.parametrize("buckets", [True, False])
def test_what_is_learnt_at_a_size_can_be_asked_for_at_it_and_nothing_else(tiny_models, size, buckets):
    base = tiny_models / "sdxl"
    sizes = backbone.shapes(base, None, "float32", 256, buckets)
    step = halvings(*(read_json(base / part / "config.json") for part in ("unet", "vae")))
    settings = training.settings(resolution=256, aspect_ratio_buckets=buckets)
    cuts = cut_photographs([Example(Path("a/b/c.png"), Size(*size), "")], settings, step)
    assert set(cuts.shapes) <= set(sizes)
    assert len(sizes) > 1 if buckets else sizes == [(256, 256)]
    for shape in sizes:
        check_shape(shape, sizes)
    with pytest.raises(ValueError, match=r"264 x 256 pixels .* nearest in aspect ratio is 256 x 256"):
        check_shape(Size(256, 264), sizes)


def test_the_first_cut_is_the_whole_picture_and_others_differ():
    cuts = cuts_of(Size(800, 600), Size(256, 192), count=4, zoom=1.3, flip=True, seed=0, name="a")
    assert cuts[0].resized == (256, 192)
    assert (cuts[0].top, cuts[0].left, cuts[0].mirrored) == (0, 0, False)
    assert len(cuts) == 4
    assert sum(cut.mirrored for cut in cuts) == 2
    assert cuts_of(Size(256, 192), Size(256, 192), 4, zoom=1.0, flip=False, seed=0, name="a") == [
        Cut(Size(256, 192), Size(256, 192), 0, 0, Size(256, 192))
    ]


def test_micro_conditioning_tells_what_was_really_done_to_the_picture():
    """Every pixel carries its own position; the cut's corner must be where the conditioning says."""
    original, target = Size(64, 96), Size(32, 32)
    for cut in cuts_of(original, target, count=6, zoom=1.5, flip=True, seed=3, name="x"):
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
    cut = cuts_of(Size(800, 700), Size(256, 192), 1, 1.0, False, 0, "a")[0]
    assert cut.time_ids().tolist() == [800, 700, 0, 16, 256, 192]
    assert cut.time_ids("as sampled").tolist() == [256, 192, 0, 0, 256, 192]
