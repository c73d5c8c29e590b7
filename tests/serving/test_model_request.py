"""What a caller may send: every row honoured or refused with its number, nothing cut or guessed in silence."""

from pathlib import Path

import pytest

from personalize.dreambooth.backbone import load_tokenizers
from personalize.dreambooth.sampling import Sampling
from personalize.photographs.prompts import Subject
from personalize.serving.request import Defaults, Limits, Order, RequestError, all_of, orders
from personalize.serving.versions import NotServed, Unreachable, Version, Versions

OWN = Version([Subject("bcnchr", "chair"), Subject("zwvchr", "chair")])
DEFAULTS = Defaults(Sampling(steps=25, guidance_scale=5.0, width=128, height=128))
LIMITS = Limits(rows=4, images=6, steps=50, sizes=((192, 128), (128, 192)))


@pytest.fixture(scope="module")
def read(tiny_models: Path):
    tokenizers = load_tokenizers(tiny_models / "sdxl")

    def read(*rows: dict, limits: Limits = LIMITS) -> list[Order]:
        found, faults = orders(rows, DEFAULTS, limits, Versions(OWN, {}).find, tokenizers, draw_seed=lambda: 99)
        if faults:
            raise RequestError(all_of(faults))
        return found

    return read


def test_a_prompt_alone_takes_the_defaults_and_a_drawn_seed(read):
    (order,) = read({"prompt": "a photo of a chair"})
    assert order == Order(0, "a photo of a chair", 99, DEFAULTS.sampling, 1.0, "webp", OWN)


def test_a_row_says_everything(read):
    (order,) = read(
        {
            "prompt": "a chair",
            "negative_prompt": "snow",
            "seed": 7.0,
            "num_inference_steps": 10,
            "guidance_scale": 0,
            "width": 192,
            "height": 128,
            "adapter_scale": 0.5,
            "format": "JPG",
        }
    )
    assert order.sampling == Sampling(10, 0.0, 192, 128, "snow")
    assert (order.seed, order.adapter_scale, order.format) == (7, 0.5, "jpeg")


def test_absent_values_arrive_from_pandas_as_nan_and_none(read):
    (order,) = read({"prompt": "a chair", "seed": float("nan"), "negative_prompt": None, "format": float("nan")})
    assert (order.seed, order.sampling.negative_prompt, order.format) == (99, "", "webp")


def test_the_pictures_of_a_row_have_consecutive_seeds_of_32_bits(read):
    assert [order.seed for order in read({"prompt": "a", "seed": 2**32 - 1, "num_images": 3})] == [2**32 - 1, 0, 1]


def test_rows_keep_their_order_and_number(read):
    assert [order.row for order in read({"prompt": "a", "num_images": 2}, {"prompt": "b"})] == [0, 0, 1]


def test_the_subject_fills_its_place_in_the_prompt(read):
    assert read({"prompt": "a {subject} in snow", "subject": "zwvchr"})[0].prompt == "a zwvchr chair in snow"
    assert read({"prompt": "a zwvchr chair", "subject": "zwvchr"})[0].prompt == "a zwvchr chair"


@pytest.mark.parametrize("prompt", ["a photo of zwvchr, on the beach", "ZWVCHR", "a (Zwvchr) chair", "zwvchr's legs"])
def test_a_subject_is_mentioned_as_the_text_encoders_read_it_in_any_case_and_beside_any_mark(read, prompt):
    assert read({"prompt": prompt, "subject": "zwvchr"})[0].prompt == prompt


@pytest.mark.parametrize("subject", ["zwvchr,", "Zwvchr", '"zwvchr"'])
def test_a_subject_is_known_as_a_person_writes_it(read, subject):
    assert read({"prompt": "a photo of a {subject}", "subject": subject})[0].prompt == "a photo of a zwvchr chair"


def test_control_characters_do_not_reach_the_model(read):
    assert read({"prompt": " a\x00photo\n\tof \ud800 a chair "})[0].prompt == "a photo of a chair"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "prompt is missing"),
        ({"prompt": "  "}, "prompt is missing"),
        ({"prompt": 7}, "prompt must be text, not int '7'"),
        ({"prompt": "a", "seed": 1.5}, r"seed 1\.5 is not a whole number"),
        ({"prompt": "a", "seed": -1}, "seed -1 is outside 0 to 4294967295"),
        ({"prompt": "a", "seed": 2**32}, "seed 4294967296 is outside"),
        ({"prompt": "a", "seed": float("inf")}, "seed inf is not a whole number"),
        ({"prompt": "a", "seed": "seven"}, "seed must be a number, not 'seven'"),
        ({"prompt": "a", "seed": True}, "seed must be a number, not 'True'"),
        ({"prompt": "a", "width": [64]}, r"width must be a number, not '\[64\]'"),
        ({"prompt": "a" * 4001}, "prompt is 4,001 characters long; at most 4,000"),
        ({"prompt": "a (red:1.3) chair"}, r"'\(red:1\.3\)' is how other programs write weights .* adapter_scale"),
        ({"prompt": "a", "negative_prompt": "<lora:x:1>"}, "'<lora:x:1>' is how other programs write"),
        ({"prompt": "a", "sed": 1}, "'sed' is not known; did you mean 'seed'?"),
        ({"prompt": "a", "num_inference_steps": 0}, "num_inference_steps 0 is outside 1 to 50"),
        ({"prompt": "a", "num_inference_steps": 51}, "num_inference_steps 51 is outside 1 to 50"),
        ({"prompt": "a", "guidance_scale": -1}, "guidance_scale -1 is outside 0 to 30"),
        ({"prompt": "a", "width": 100}, "100 x 128 pixels .* not a size .* nearest in aspect ratio is 128 x 192"),
        ({"prompt": "a", "width": 1000}, r"nearest .* is 192 x 128\. It draws 128 x 128, 192 x 128, 128 x 192\."),
        ({"prompt": "a", "width": 0}, "width 0 is outside 1 to 65536"),
        ({"prompt": "a", "width": 192, "height": 192}, "192 x 192 pixels .* nearest in aspect ratio is 128 x 128"),
        ({"prompt": "a", "num_images": 0}, "num_images 0 is outside 1 to 6"),
        ({"prompt": "a", "adapter_scale": 3}, "adapter_scale 3 is outside 0 to 2"),
        ({"prompt": "a", "format": "gif"}, "format 'gif' is not one of webp, png, jpeg"),
        ({"prompt": "chair " * 80}, "tokens long"),
        ({"prompt": "a", "negative_prompt": "chair " * 80}, "tokens long"),
        ({"prompt": "a", "subject": "eames"}, "subject 'eames' is not known. This model was taught: bcnchr, zwvchr"),
        ({"prompt": "a {subject}"}, "no subject is given: bcnchr, zwvchr"),
        ({"prompt": "a chair", "subject": "zwvchr"}, "does not mention subject 'zwvchr'"),
        ({"prompt": "a zwvchrs chair", "subject": "zwvchr"}, "does not mention subject 'zwvchr'"),
        ({"prompt": "a", "model_version": 2}, "this server draws with what it carries, and no other versions"),
        ({"prompt": "a", "model_version": 2.5}, r"model_version 2\.5 is not a whole number"),
        ({"prompt": "a", "model": "chairs"}, "this server draws with what it carries, and no other versions"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_row_and_the_bounds(read, row: dict, message: str):
    with pytest.raises(RequestError, match=f"^row 1: .*{message}"):
        read({"prompt": "a chair"}, row)


def test_every_row_at_fault_is_named(read):
    with pytest.raises(RequestError, match=r"row 0: .*seed.*; row 2: prompt is missing"):
        read({"prompt": "a", "seed": -1}, {"prompt": "a"}, {})


def test_of_rows_at_fault_each_says_whose_fault_it_is(tiny_models: Path):
    def find(model: str, which: str, subject: str) -> Version:
        if which == "9":
            raise NotServed("nobody has approved it")
        if which == "8":
            raise Unreachable("the registry does not answer")
        return OWN

    rows = [{"prompt": "a"}, {"prompt": "b", "model_version": 9}, {"prompt": "c", "model_version": "8"}, {}]
    found, faults = orders(rows, DEFAULTS, LIMITS, find, load_tokenizers(tiny_models / "sdxl"), draw_seed=lambda: 1)
    assert [order.row for order in found] == [0]
    assert [(fault.row, fault.status) for fault in faults] == [(1, 400), (2, 503), (3, 400)]


def test_no_rows_too_many_rows_and_too_many_pictures_are_refused(read):
    with pytest.raises(RequestError, match="has no rows"):
        read()
    with pytest.raises(RequestError, match="has 5 rows; at most 4"):
        read(*[{"prompt": "a"}] * 5)
    with pytest.raises(RequestError, match="asks for 8 pictures; at most 6"):
        read(*[{"prompt": "a", "num_images": 4}] * 2)


def test_an_answer_that_could_pass_16_mb_is_refused_before_it_is_drawn(read):
    sdxl = Limits(images=8, sizes=[(1024, 1024)])
    square = {"prompt": "a", "width": 1024, "height": 1024}
    assert len(read({**square, "num_images": 8, "format": "webp"}, limits=sdxl)) == 8
    assert len(read({**square, "num_images": 3, "format": "png"}, limits=sdxl)) == 3
    with pytest.raises(RequestError, match=r"could be 17\.4 MB, more than the 15\.0 MB.*webp or jpeg instead of png"):
        read({**square, "num_images": 4, "format": "png"}, limits=sdxl)
