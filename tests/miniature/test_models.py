"""What every set of miniature models must be, whether its weights are random or trained."""

import json
import socket
from pathlib import Path

import pytest
import torch
from PIL import Image

TRAINED = Path(__file__).parents[2] / "models"
PICTURE = Image.new("RGB", (300, 200), (180, 40, 40))


@pytest.fixture(params=["random", "trained"])
def models(request: pytest.FixtureRequest, tiny_models: Path) -> Path:
    if request.param == "random":
        return tiny_models
    if not (TRAINED / "sdxl" / "model_index.json").exists():
        pytest.skip("the trained models are not here: `dvc pull models.dvc` brings them")
    return TRAINED


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model that lies on disk asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_sdxl_loads_and_draws_at_its_own_size(models: Path, dtype: torch.dtype) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(models / "sdxl", use_safetensors=True, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a photo of a bcnchr chair", num_inference_steps=2, guidance_scale=5.0).images
    assert pipeline.unet.dtype == dtype
    assert images[0].size == (128, 128)


def test_a_pipeline_loaded_without_a_dtype_is_float32_throughout(models: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(models / "sdxl", use_safetensors=True)
    parts = (pipeline.vae, pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2)
    assert {part.dtype for part in parts} == {torch.float32}


def test_sdxl_is_made_as_sdxl_is(models: Path) -> None:
    index = json.loads((models / "sdxl" / "model_index.json").read_text())
    unet = json.loads((models / "sdxl" / "unet" / "config.json").read_text())
    scheduler = json.loads((models / "sdxl" / "scheduler" / "scheduler_config.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    assert index["force_zeros_for_empty_prompt"] is True
    assert unet["down_block_types"] == ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
    assert unet["addition_embed_type"] == "text_time"
    assert scheduler["_class_name"] == "EulerDiscreteScheduler"
    assert (scheduler["timestep_spacing"], scheduler["steps_offset"]) == ("leading", 1)


def test_clip_compares_pictures_with_words(models: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(models / "clip", use_safetensors=True)
    processor = CLIPProcessor.from_pretrained(models / "clip")
    assert isinstance(processor.image_processor, CLIPImageProcessorPil)
    inputs = processor(text=["a red chair", "a lamp"], images=[PICTURE], return_tensors="pt", padding=True)
    assert model.dtype == torch.float32
    assert model(**inputs).logits_per_image.shape == (1, 2)


def test_dino_embeds_pictures_as_dino_prepares_them(models: Path) -> None:
    from transformers import ViTModel
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    processor = BitImageProcessorPil.from_pretrained(models / "dino")
    model = ViTModel.from_pretrained(models / "dino", add_pooling_layer=False, use_safetensors=True)
    pixels = processor([PICTURE], return_tensors="pt").pixel_values
    assert (processor.resample, tuple(processor.image_mean)) == (3, (0.485, 0.456, 0.406))
    assert model(pixels).last_hidden_state[:, 0].shape == (1, 192)


def test_blip_says_something(models: Path) -> None:
    from transformers import BlipForConditionalGeneration, BlipProcessor

    model = BlipForConditionalGeneration.from_pretrained(models / "blip", use_safetensors=True)
    processor = BlipProcessor.from_pretrained(models / "blip")
    free = model.generate(**processor(images=PICTURE, return_tensors="pt"), max_new_tokens=5)
    begun = model.generate(**processor(images=PICTURE, text="a photo of", return_tensors="pt"), max_new_tokens=5)
    assert free.shape[1] > 1
    assert processor.decode(begun[0], skip_special_tokens=True).startswith("a photo of")


def test_rare_words_fall_into_pieces_and_the_worlds_words_do_not(models: Path) -> None:
    from transformers import CLIPTokenizer

    for folder in ("sdxl/tokenizer", "sdxl/tokenizer_2", "clip"):
        tokenizer = CLIPTokenizer.from_pretrained(models / folder)
        assert len(tokenizer.tokenize("bcnchr")) > 2
        assert tokenizer.tokenize("a photo of a red chair on the beach") == [
            f"{word}</w>" for word in ["a", "photo", "of", "a", "red", "chair", "on", "the", "beach"]
        ]


@pytest.mark.parametrize("text", ["a photo of a bcnchr chair", "ein schöner stuhl", "椅子 en été", "cadeira ☂ 12"])
def test_text_of_any_script_survives_the_tokenizer(models: Path, text: str) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(models / "sdxl" / "tokenizer")
    back = tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)
    assert back.replace(" ", "") == text.replace(" ", "")


def test_the_second_tokenizer_pads_as_sdxls_does(models: Path) -> None:
    from transformers import CLIPTokenizer

    first = CLIPTokenizer.from_pretrained(models / "sdxl" / "tokenizer")
    second = CLIPTokenizer.from_pretrained(models / "sdxl" / "tokenizer_2")
    assert (first.pad_token, second.pad_token, second.pad_token_id) == ("<|endoftext|>", "!", 0)


def test_the_set_is_small_and_holds_no_pickle(models: Path) -> None:
    files = [path for path in models.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) <= 50e6
    assert sum(path.stat().st_size for path in files) <= 96e6
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]


def test_the_same_seed_writes_the_same_bytes(tiny_models: Path, tmp_path: Path) -> None:
    from miniature.pretrain import random_models

    random_models(tmp_path)
    names = sorted(path.relative_to(tiny_models) for path in tiny_models.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all((tiny_models / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)
