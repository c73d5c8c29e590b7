"""Pictures drawn together, step by step: each as the pipeline draws it alone, whatever its neighbours are."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from personalize.dreambooth import adapters, lora, sampling
from personalize.dreambooth.adapters import SILENT, Adapter, Voice
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
def denoising(tiny_models: Path) -> Denoising:
    return Denoising(sampling.load_pipeline(tiny_models / "sdxl", device="cpu"))


@pytest.fixture(scope="module")
def known(denoising: Denoising, files: dict[str, Path]) -> dict[str, Adapter | None]:
    """The adapters of `denoising` by name; no name is the base."""
    return {"": None, **{name: denoising.adapters.load(file, name) for name, file in files.items()}}


def learnt(tiny_models: Path, folder: Path, names: tuple[str, ...], seed: int = 1, **options) -> Path:
    """An adapter as training leaves it, with something in it."""
    source = sampling.load_pipeline(tiny_models / "sdxl", device="cpu")
    parts = {name: getattr(source, name) for name in names}
    generator = torch.Generator().manual_seed(seed)
    spec = lora.LoraSpec(**{"rank": 4, "alpha": 2.0, **options})
    for weight in lora.add(parts, spec, seed=seed).values():
        weight.data += torch.randn(weight.shape, generator=generator) * (0.05 if weight.dim() > 1 else 0.01)
    folder.mkdir(exist_ok=True)
    lora.save(folder, parts)
    return folder


def by_peft(tiny_models: Path, file: Path | None, strength: float, seed: int = 1) -> Image.Image:
    """What a pipeline draws that has this one adapter, at this one strength, in peft's own layers."""
    pipe = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=file if strength else None)
    if file and strength:
        pipe.set_adapters(sampling.ADAPTER, adapter_weights=strength)
    return sample(pipe, [PROMPT], [seed], FAST)[0]


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


def test_any_adapter_in_any_row_is_that_adapter_alone(
    denoising: Denoising, known: dict[str, Adapter | None], files: dict[str, Path], tiny_models: Path
):
    voices = [("two__", 1.0), ("", 0.0), ("one__", 1.0), ("two__", 0.5), ("one__", 0.0), ("one__", 1.0)]
    expected = [by_peft(tiny_models, files.get(name), strength, n) for n, (name, strength) in enumerate(voices)]
    rows = [denoising.begin(PROMPT, n, FAST, (known[name], strength)) for n, (name, strength) in enumerate(voices)]
    got = drawn(denoising, rows)
    assert [grey_levels(a, b) <= 2 for a, b in zip(got, expected, strict=True)] == [True] * 6
    unlike = grey_levels(got[2], by_peft(tiny_models, None, 0.0, 2))
    assert unlike > 20, "an adapter that changes nothing would prove nothing"


def test_a_merged_adapter_costs_its_rows_nothing_and_the_others_do_not_hear_it(
    files: dict[str, Path], tiny_models: Path, monkeypatch: pytest.MonkeyPatch
):
    denoising = Denoising(sampling.load_pipeline(tiny_models / "sdxl", device="cpu"))
    one, two = (denoising.adapters.load(file, name) for name, file in files.items())
    assert denoising.adapters.merge(one)
    assert not denoising.adapters.merge(two)
    voices: list[Voice] = [(one, 1.0), (one, 0.3), SILENT, (two, 1.0)]
    expected = []
    for adapter, strength in voices:
        pipe = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=adapter and files[adapter.name])
        if adapter:
            sampling.merge_adapter(pipe, strength)
        expected += sample(pipe, [PROMPT], [1], FAST)
    with monkeypatch.context() as patch:
        patch.delattr(adapters, "_add")
        [alone] = drawn(denoising, [denoising.begin(PROMPT, 1, FAST, voices[0])])
    assert alone.tobytes() == expected[0].tobytes(), "what `-e generate` draws"
    got = drawn(denoising, [denoising.begin(PROMPT, 1, FAST, voice) for voice in voices])
    assert [grey_levels(a, b) <= 2 for a, b in zip(got, expected, strict=True)] == [True] * 4


KINDS: dict[str, tuple[tuple[str, ...], dict]] = {
    "dora": (("unet",), {"use_dora": True}),
    "dora everywhere": (("unet",), {"use_dora": True, "targets": "all"}),
    "convolutions": (("unet",), {"targets": "all", "rank": 8}),
    "rank-stabilised": (("unet",), {"use_rslora": True, "rank": 16, "targets": "attention"}),
    "text encoders": (("unet", "text_encoder", "text_encoder_2"), {"targets": "attention", "rank": 2, "alpha": 4.0}),
}


@pytest.fixture(scope="module")
def trained(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An adapter of each kind that can be trained, each apart from the others."""
    place = tmp_path_factory.mktemp("trained")
    return {
        kind: learnt(tiny_models, place / kind, names, seed=n, **options)
        for n, (kind, (names, options)) in enumerate(KINDS.items())
    }


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in ("dora", "rank-stabilised"))) for kind in KINDS]
)
def test_whatever_training_makes_is_heard_as_peft_hears_it(tiny_models: Path, trained: dict[str, Path], kind: str):
    strengths = (0.5, 0.0, 1.0)
    expected = [by_peft(tiny_models, trained[kind], strength) for strength in strengths]
    denoising = Denoising(sampling.load_pipeline(tiny_models / "sdxl", device="cpu"))
    adapter = denoising.adapters.load(trained[kind], kind)
    for merged in (False, denoising.adapters.merge(adapter)):
        got = drawn(denoising, [denoising.begin(PROMPT, 1, FAST, (adapter, strength)) for strength in strengths])
        assert [grey_levels(a, b) <= 2 for a, b in zip(got, expected, strict=True)] == [True] * 3, merged
        assert grey_levels(got[1], got[2]) > 5


@pytest.mark.parametrize("merged", [pytest.param("", marks=pytest.mark.slow), "convolutions"])
def test_adapters_that_were_trained_apart_share_a_batch(tiny_models: Path, trained: dict[str, Path], merged: str):
    """With other ranks, scales and layers, DoRA and text encoders among them, whichever is in the weights."""
    denoising = Denoising(sampling.load_pipeline(tiny_models / "sdxl", device="cpu"))
    known = {}
    if merged:
        known[merged] = denoising.adapters.load(trained[merged], merged)
        assert denoising.adapters.merge(known[merged])
    for kind in [kind for kind in KINDS if kind not in known]:  # read when another has changed the weights already
        known[kind] = denoising.adapters.load(trained[kind], kind)
    voices = [(kind, strength) for kind in KINDS for strength in (1.0, 0.6)]
    expected = [by_peft(tiny_models, trained[kind], strength) for kind, strength in voices]
    got = drawn(denoising, [denoising.begin(PROMPT, 1, FAST, (known[kind], strength)) for kind, strength in voices])
    assert [grey_levels(a, b) <= 2 for a, b in zip(got, expected, strict=True)] == [True] * len(voices)


def test_an_adapter_that_does_not_fit_says_where(denoising: Denoising, trained: dict[str, Path], tiny_models: Path):
    from safetensors.torch import load, save

    good = (trained["rank-stabilised"] / lora.WEIGHTS).read_bytes()
    tensors = load(good)
    name = next(key for key in tensors if key.endswith("to_q.lora_A.weight"))
    said = {"lora_adapter_metadata": '{"unet.lora_alpha": 4.0, "unet.r": 4}'}
    bad = {
        "does not say its alpha": save(tensors),
        r"has .*A\.weight": save({name: tensors[name]}, said),
        "by": save({**tensors, name: tensors[name][:, :-1].contiguous()}, said),
        "it has no layer vae": save({name.replace("unet", "vae"): tensors[name]}, said),
        "magnitude": save({**tensors, name.replace("A.weight", "magnitude_vector"): torch.ones(3)}, said),
        "biases of its own": save(tensors, {"lora_adapter_metadata": '{"unet.bias": "all"}'}),
        "not fit": good[:-1000],
    }
    for words, data in bad.items():
        with pytest.raises(ValueError, match=f"adapter one does not fit this base model: .*{words}|{words}"):
            denoising.adapters.read(data, "one")


def test_in_half_precision_an_adapter_is_heard_as_peft_hears_it(tiny_models: Path, files: dict[str, Path]):
    expected = sample(
        sampling.load_pipeline(tiny_models / "sdxl", device="cpu", dtype="bfloat16", lora=files["one__"]),
        [PROMPT], [1], FAST,
    )  # fmt: skip
    denoising = Denoising(sampling.load_pipeline(tiny_models / "sdxl", device="cpu", dtype="bfloat16"))
    one = denoising.adapters.load(files["one__"], "one__")
    assert not denoising.adapters.merge(one)
    [got] = drawn(denoising, [denoising.begin(PROMPT, 1, FAST, (one, 1.0))])
    assert np.abs(np.asarray(got, dtype=float) - np.asarray(expected[0], dtype=float)).mean() < 5


def test_a_prompt_is_encoded_once(denoising: Denoising, known: dict[str, Adapter | None], monkeypatch):
    asked = []
    encode = denoising.pipe.encode_prompt
    monkeypatch.setattr(denoising.pipe, "encode_prompt", lambda text, **kw: asked.append(text) or encode(text, **kw))
    for seed in range(3):
        denoising.begin("a green sofa", seed, FAST, (known["one__"], 1.0))
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
