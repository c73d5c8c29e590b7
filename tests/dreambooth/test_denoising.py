"""Pictures drawn together, step by step: each as the pipeline draws it alone, whatever its neighbours are."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from personalize.dreambooth import sampling
from personalize.dreambooth.adapters import SILENT, Adapters
from personalize.dreambooth.denoising import Denoising, Row
from personalize.dreambooth.sampling import Sampling, sample
from tests.random_adapter import random_adapter

FAST = Sampling(steps=3, width=64, height=64)
PROMPT = "a photo of a red chair"


@pytest.fixture(scope="module")
def files(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters that differ in rank and scale."""
    folder = tmp_path_factory.mktemp("lora")
    return {
        "one__": random_adapter(tiny_models / "sdxl", folder / "one", rank=4, alpha=1.0, seed=1),
        "two__": random_adapter(tiny_models / "sdxl", folder / "two", rank=2, alpha=2.0, seed=2),
    }


@pytest.fixture(scope="module")
def denoising(tiny_models: Path, files: dict[str, Path]) -> Denoising:
    pipe = sampling.load_pipeline(tiny_models / "sdxl", device="cpu")
    adapters = Adapters(pipe)
    for name, file in files.items():
        adapters.load(file, name)
    return Denoising(pipe, adapters)


def drawn(denoising: Denoising, rows: list[Row]) -> list[Image.Image]:
    """The pictures of rows of one size, each leaving when it is done."""
    pictures: dict[int, Image.Image] = {}
    while going := [row for row in rows if row.left]:
        denoising.step(going)
        for row in [row for row in going if not row.left]:
            pictures[id(row)] = denoising.finish([row])[0]
    return [pictures[id(row)] for row in rows]


def grey_levels(one: Image.Image, other: Image.Image) -> float:
    """The largest difference of any pixel, of 255."""
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).max())


SCHEDULERS = {
    "EulerDiscreteScheduler": {},
    "EulerAncestralDiscreteScheduler": {},
    "DDIMScheduler": {},
    "DPMSolverMultistepScheduler": {},
    "UniPCMultistepScheduler": {},
    "LCMScheduler": {},
    "HeunDiscreteScheduler": {},
}


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("guidance", [5.0, 1.0])
def test_a_row_alone_is_the_pipelines_own_picture_to_the_byte(tiny_models: Path, kind: str, guidance: float):
    """Also with samplers that remember earlier steps, and with those that draw noise on the way."""
    pipe = sampling.load_pipeline(tiny_models / "sdxl", device="cpu")
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config)
    asked = Sampling(steps=3, width=96, height=64, guidance_scale=guidance, negative_prompt="snow")
    [expected] = sample(pipe, [PROMPT], [7], asked)
    denoising = Denoising(pipe)
    assert drawn(denoising, [denoising.begin(PROMPT, 7, asked)])[0].tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "LCMScheduler"])
def test_a_row_does_not_depend_on_its_neighbours_whenever_they_come_and_go(tiny_models: Path, kind: str):
    pipe = sampling.load_pipeline(tiny_models / "sdxl", device="cpu")
    pipe.scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config)
    asks = [
        (PROMPT, 1, Sampling(steps=4, width=64, height=64)),
        ("a blue sofa", 2, Sampling(steps=2, width=64, height=64, guidance_scale=1.0)),
        (PROMPT, 3, Sampling(steps=6, width=64, height=64, guidance_scale=9.0, negative_prompt="snow")),
    ]
    alone = [sample(pipe, [prompt], [seed], asked)[0] for prompt, seed, asked in asks]
    denoising = Denoising(pipe)
    rows = [denoising.begin(*ask) for ask in asks[:2]]
    denoising.step(rows)
    rows.append(denoising.begin(*asks[2]))
    for picture, expected in zip(drawn(denoising, rows), alone, strict=True):
        assert grey_levels(picture, expected) <= 2


def test_any_adapter_in_any_row_is_that_adapter_alone(denoising: Denoising, files: dict[str, Path], tiny_models: Path):
    """Each row against a pipeline that has this one adapter, at this one strength, by peft's own layers."""
    voices = [("two__", 1.0), SILENT, ("one__", 1.0), ("two__", 0.5), ("one__", 0.0), ("one__", 1.0)]
    expected = []
    for seed, (name, strength) in enumerate(voices):
        pipe = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=files.get(name))
        if name:
            pipe.set_adapters(sampling.ADAPTER, adapter_weights=strength)
        expected += sample(pipe, [PROMPT], [seed], FAST)
    rows = [denoising.begin(PROMPT, seed, FAST, voice) for seed, voice in enumerate(voices)]
    got = drawn(denoising, rows)
    assert [grey_levels(a, b) <= 2 for a, b in zip(got, expected, strict=True)] == [True] * 6
    unlike = grey_levels(
        got[2], sample(sampling.load_pipeline(tiny_models / "sdxl", device="cpu"), [PROMPT], [2], FAST)[0]
    )
    assert unlike > 20, "an adapter that changes nothing would prove nothing"


def test_a_merged_adapter_costs_its_rows_nothing_and_the_others_do_not_hear_it(
    files: dict[str, Path], tiny_models: Path
):
    denoising = Denoising(sampling.load_pipeline(tiny_models / "sdxl", device="cpu"))
    for name, file in files.items():
        denoising.adapters.load(file, name)
    assert denoising.adapters.merge("one__")
    with denoising.adapters.speaking([("one__", 1.0)] * 4):
        assert denoising.adapters.voices == []
    voices = [("one__", 1.0), ("one__", 0.3), SILENT, ("two__", 1.0)]
    expected = []
    for name, strength in voices:
        pipe = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=files.get(name))
        if name:
            sampling.merge_adapter(pipe, strength)
        expected += sample(pipe, [PROMPT], [1], FAST)
    [alone] = drawn(denoising, [denoising.begin(PROMPT, 1, FAST, voices[0])])
    assert alone.tobytes() == expected[0].tobytes(), "what `-e generate` draws"
    got = drawn(denoising, [denoising.begin(PROMPT, 1, FAST, voice) for voice in voices])
    assert [grey_levels(a, b) <= 2 for a, b in zip(got, expected, strict=True)] == [True] * 4


@pytest.mark.parametrize(
    ("learns", "options"),
    [
        ("unet", {"use_dora": True}),
        ("unet", {"targets": "all"}),
        ("unet", {"use_rslora": True}),
        ("text encoders", {"targets": "attention"}),
    ],
)
def test_whatever_training_makes_is_heard_as_peft_hears_it(
    tiny_models: Path, tmp_path: Path, learns: str, options: dict
):
    from personalize.dreambooth import lora

    names = ("unet", "text_encoder", "text_encoder_2") if learns == "text encoders" else ("unet",)
    source = sampling.load_pipeline(tiny_models / "sdxl", device="cpu")
    parts = {name: getattr(source, name) for name in names}
    generator = torch.Generator().manual_seed(0)
    for weight in lora.add(parts, lora.LoraSpec(rank=4, alpha=2.0, **options), seed=1).values():
        if weight.dim() > 1:
            weight.data += torch.randn(weight.shape, generator=generator) * 0.05
    lora.save(tmp_path, parts)
    expected = []
    pipe = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=tmp_path)
    for strength in (0.5, 0.0, 1.0):
        pipe.set_adapters(sampling.ADAPTER, adapter_weights=strength)
        expected += sample(pipe, [PROMPT], [1], FAST)
    denoising = Denoising(sampling.load_pipeline(tiny_models / "sdxl", device="cpu"))
    denoising.adapters.load(tmp_path, "learnt__")
    for merged in (False, denoising.adapters.merge("learnt__")):
        rows = [denoising.begin(PROMPT, 1, FAST, ("learnt__", strength)) for strength in (0.5, 0.0, 1.0)]
        got = drawn(denoising, rows)
        assert [grey_levels(a, b) <= 2 for a, b in zip(got, expected, strict=True)] == [True] * 3, merged
        assert grey_levels(got[1], got[2]) > 5


def test_in_half_precision_an_adapter_is_heard_as_peft_hears_it(tiny_models: Path, files: dict[str, Path]):
    expected = sample(
        sampling.load_pipeline(tiny_models / "sdxl", device="cpu", dtype="bfloat16", lora=files["one__"]),
        [PROMPT], [1], FAST,
    )  # fmt: skip
    denoising = Denoising(sampling.load_pipeline(tiny_models / "sdxl", device="cpu", dtype="bfloat16"))
    denoising.adapters.load(files["one__"], "one__")
    assert not denoising.adapters.merge("one__")
    [got] = drawn(denoising, [denoising.begin(PROMPT, 1, FAST, ("one__", 1.0))])
    assert np.abs(np.asarray(got, dtype=float) - np.asarray(expected[0], dtype=float)).mean() < 5


def test_a_prompt_is_encoded_once(denoising: Denoising, monkeypatch):
    asked = []
    encode = denoising.pipe.encode_prompt
    monkeypatch.setattr(denoising.pipe, "encode_prompt", lambda text, **kw: asked.append(text) or encode(text, **kw))
    for seed in range(3):
        denoising.begin("a green sofa", seed, FAST, ("one__", 1.0))
    assert asked.count("a green sofa") == 1


def test_on_a_small_card_the_parts_take_turns(tiny_models: Path, monkeypatch):
    """The CPU is given out as a card of 8 GB; what moves the parts is the same."""
    from personalize.dreambooth import backbone

    take_turns = diffusers.DiffusionPipeline.enable_model_cpu_offload
    monkeypatch.setattr(backbone, "takes_turns", lambda device: True)
    monkeypatch.setattr(
        diffusers.DiffusionPipeline, "enable_model_cpu_offload", lambda p, device="cpu": take_turns(p, None, device)
    )
    pipe = sampling.load_pipeline(tiny_models / "sdxl", device="cpu")
    assert hasattr(pipe.unet, "_hf_hook")
    denoising = Denoising(pipe)
    [expected] = sample(pipe, [PROMPT], [1], FAST)
    assert drawn(denoising, [denoising.begin(PROMPT, 1, FAST)])[0].tobytes() == expected.tobytes()
