"""A picture as a file that says by itself how it was made."""

import io

import numpy as np
import pytest
from PIL import Image

from personalize.serving.encoding import encode, facts_of
from personalize.serving.request import WORST_BYTES_PER_PIXEL

FACTS = {
    "prompt": 'a <chair> & "table" 椅子\u0007 ]]>',
    "seed": 4294967295,
    "guidance_scale": 5.0,
    "fingerprint": "ab12",
}


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8))


@pytest.mark.parametrize("encoding", ["webp", "png", "jpeg"])
def test_the_file_carries_prompt_seed_and_fingerprint(noise: Image.Image, encoding: str):
    data = encode(noise, encoding, FACTS)
    assert facts_of(data) == FACTS
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format or "").lower() == encoding
        assert image.size == (256, 256)
    assert b"trainedAlgorithmicMedia" in data


@pytest.mark.parametrize("encoding", ["webp", "png", "jpeg"])
def test_not_even_noise_is_larger_than_the_size_that_requests_are_judged_by(noise: Image.Image, encoding: str):
    assert len(encode(noise, encoding, {})) < 256 * 256 * WORST_BYTES_PER_PIXEL[encoding] + 4096


def test_a_picture_from_elsewhere_has_no_facts(noise: Image.Image):
    data = io.BytesIO()
    noise.save(data, "png")
    assert facts_of(data.getvalue()) == {}


def test_png_keeps_every_pixel(noise: Image.Image):
    with Image.open(io.BytesIO(encode(noise, "png", FACTS))) as image:
        assert image.tobytes() == noise.tobytes()
