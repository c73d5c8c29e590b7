"""Pictures from prompts and seeds: what decides a row, what is refused, at which strength an adapter speaks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from personalize.dreambooth import backbone, sampling
from personalize.dreambooth.sampling import Sampling, sample
from tests.random_adapter import random_adapter

FAST = Sampling(steps=2, width=64, height=64)
PROMPT = "a photo of a red chair"


@pytest.fixture(scope="module")
def pipe(tiny_models: Path):
    return sampling.load_pipeline(tiny_models / "sdxl", device="cpu")


@pytest.fixture(scope="module")
def adapter(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_adapter(tiny_models / "sdxl", tmp_path_factory.mktemp("lora"), rank=4, alpha=1.0)


def distance(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference in grey levels of 255."""
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


def test_the_same_seed_gives_the_same_picture(pipe):
    first, again, other = (sample(pipe, [PROMPT], [seed], FAST)[0] for seed in (7, 7, 8))
    assert first.tobytes() == again.tobytes()
    assert distance(first, other) > 1


def test_a_row_does_not_depend_on_its_neighbours(pipe):
    batch = sample(pipe, [PROMPT, "a blue sofa on the beach", PROMPT], [1, 2, 3], FAST, batch_size=3)
    alone = sample(pipe, ["a blue sofa on the beach"], [2], FAST)[0]
    assert distance(batch[1], alone) < 1
    assert distance(batch[1], batch[0]) > 1


def test_pictures_come_back_in_order_whatever_the_batch_size(pipe):
    seeds = [5, 6, 7, 8, 9]
    finished: list[int] = []
    by_two = sample(pipe, [PROMPT] * 5, seeds, FAST, batch_size=2, on_batch=finished.append)
    at_once = sample(pipe, [PROMPT] * 5, seeds, FAST, batch_size=5)
    assert finished == [2, 2, 1]
    assert all(distance(one, other) < 1 for one, other in zip(by_two, at_once, strict=True))


def test_size_is_what_was_asked_for(pipe):
    (image,) = sample(pipe, [PROMPT], [0], Sampling(steps=1, width=96, height=64))
    assert image.size == (96, 64)
    assert image.mode == "RGB"


def test_the_negative_prompt_is_heard(pipe):
    plain = sample(pipe, [PROMPT], [1], FAST)[0]
    pushed = sample(pipe, [PROMPT], [1], Sampling(steps=2, width=64, height=64, negative_prompt="a blue sofa"))[0]
    assert plain.tobytes() != pushed.tobytes()


def test_the_noise_of_a_seed_is_the_same_for_every_dtype_and_device():
    noise = sampling.initial_noise([3, 4], channels=4, height=8, width=8)
    assert noise.dtype == torch.float32
    assert torch.equal(noise[1:], sampling.initial_noise([4], 4, 8, 8))


def test_half_precision_draws_nearly_the_same_picture(pipe, tiny_models: Path):
    half = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", dtype="bfloat16")
    assert distance(sample(half, [PROMPT], [1], FAST)[0], sample(pipe, [PROMPT], [1], FAST)[0]) < 5


def test_a_prompt_past_77_tokens_is_refused_not_cut(pipe):
    with pytest.raises(ValueError, match="tokens long"):
        sample(pipe, [PROMPT, "chair " * 80], [1, 2], FAST)
    with pytest.raises(ValueError, match="tokens long"):
        sample(pipe, [PROMPT], [1], Sampling(negative_prompt="chair " * 80))


@pytest.mark.parametrize("size", [0, -8, 100])
def test_a_size_that_the_vae_cannot_make_is_refused(pipe, size: int):
    with pytest.raises(ValueError, match=f"width: {size} is not a positive multiple of 8"):
        sample(pipe, [PROMPT], [1], Sampling(width=size))


def test_prompts_and_seeds_must_pair_up(pipe):
    with pytest.raises(ValueError, match="2 prompts but 1 seeds"):
        sample(pipe, [PROMPT, PROMPT], [1], FAST)
    with pytest.raises(ValueError, match="a list of prompts"):
        sample(pipe, PROMPT, [1] * len(PROMPT), FAST)


def test_an_adapter_is_loaded_at_the_scale_it_was_trained_with(tiny_models: Path, adapter: Path):
    tuned = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=adapter)
    scales = {m.scaling[sampling.ADAPTER] for m in tuned.unet.modules() if hasattr(m, "scaling")}
    assert scales == {0.25}  # alpha 1 / rank 4
    assert not any(weight.requires_grad for weight in tuned.unet.parameters())


def test_an_adapter_changes_the_picture(pipe, tiny_models: Path, adapter: Path):
    tuned = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=adapter)
    assert distance(sample(tuned, [PROMPT], [1], FAST)[0], sample(pipe, [PROMPT], [1], FAST)[0]) > 1


def test_on_a_small_card_the_parts_take_turns_and_draw_the_same_picture(tiny_models: Path, adapter: Path, monkeypatch):
    """The CPU is given out as a card of 8 GB; what moves the parts is the same."""
    whole = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=adapter)
    take_turns = DiffusionPipeline.enable_model_cpu_offload
    monkeypatch.setattr(backbone, "takes_turns", lambda device: True)
    monkeypatch.setattr(
        DiffusionPipeline, "enable_model_cpu_offload", lambda p, device="cpu": take_turns(p, None, device)
    )
    turns = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=adapter)
    assert hasattr(turns.unet, "_hf_hook")
    assert hasattr(turns.vae, "_hf_hook")
    assert sample(turns, [PROMPT], [1], FAST)[0].tobytes() == sample(whole, [PROMPT], [1], FAST)[0].tobytes()


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_merged_adapter_draws_the_same_picture_with_the_base_s_layers(tiny_models: Path, adapter: Path, scale: float):
    beside, merged = (sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=adapter) for _ in range(2))
    beside.set_adapters(sampling.ADAPTER, adapter_weights=scale)
    sampling.merge_adapter(merged, scale)
    assert not any(hasattr(module, "scaling") for module in merged.unet.modules())
    assert distance(sample(merged, [PROMPT], [1], FAST)[0], sample(beside, [PROMPT], [1], FAST)[0]) < 0.01


def test_in_half_precision_an_adapter_stays_beside_the_weights(tiny_models: Path, adapter: Path):
    half = sampling.load_pipeline(tiny_models / "sdxl", device="cpu", dtype="bfloat16", lora=adapter)
    sampling.merge_adapter(half, 0.5)
    assert {m.scaling[sampling.ADAPTER] for m in half.unet.modules() if hasattr(m, "scaling")} == {0.125}


def test_an_adapter_that_does_not_say_its_alpha_is_refused(tiny_models: Path, adapter: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    save_file(load_file(adapter / "pytorch_lora_weights.safetensors"), tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(ValueError, match="does not say its alpha"):
        sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=tmp_path)


def test_a_missing_or_damaged_adapter_is_named(tiny_models: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"pytorch_lora_weights.safetensors' does not exist"):
        sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=tmp_path)
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        sampling.load_pipeline(tiny_models / "sdxl", device="cpu", lora=tmp_path)
