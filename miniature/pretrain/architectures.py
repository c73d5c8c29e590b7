"""The miniature models: the real ones' classes and files on disk, at sizes two cores can train.

| Directory | Loads with | Stands in for |
|---|---|---|
| sdxl | StableDiffusionXLPipeline | SDXL 1.0 base: block pattern, two text encoders, micro-conditioning, scheduler |
| clip | CLIPModel, CLIPProcessor | CLIP ViT, the judge of text and of likeness |
| dino | ViTModel, BitImageProcessorPil | DINO ViT-S, the judge of identity |
| blip | BlipForConditionalGeneration, BlipProcessor | BLIP, the captioner |

Weights are stored as fp16 safetensors: no file over 50 MB, 96 MB in all.
"""

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipProcessor,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    ViTConfig,
    ViTModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from .tokens import MAX_LENGTH, blip_tokenizer, world_words, write_clip_tokenizer

SIZE = 128
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEXT_WIDTHS = (128, 192)
TIME_IDS, TIME_WIDTH = 6, 64


def vae(scaling_factor: float = 0.13025) -> AutoencoderKL:
    """SDXL's autoencoder: four levels, factor 8, four latent channels.

    One normalisation group: with groups of three channels the norms wipe out a picture's overall colour.
    """
    return AutoencoderKL(
        block_out_channels=(24, 48, 96, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=1,
        latent_channels=4,
        sample_size=SIZE,
        scaling_factor=scaling_factor,
        force_upcast=False,
    )


def text_config(tokenizer: CLIPTokenizer, width: int, activation: str) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=4,
        num_attention_heads=width // 32,
        projection_dim=width,
        max_position_embeddings=MAX_LENGTH,
        hidden_act=activation,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def text_encoders(
    tokenizer: CLIPTokenizer, tokenizer_2: CLIPTokenizer
) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """SDXL's pair: one read at its penultimate layer, one that also gives the pooled projection."""
    first = CLIPTextModel(text_config(tokenizer, TEXT_WIDTHS[0], "quick_gelu"))
    return first, CLIPTextModelWithProjection(text_config(tokenizer_2, TEXT_WIDTHS[1], "gelu"))


def unet() -> UNet2DConditionModel:
    """SDXL's pattern: no attention at the finest level, heads of 64, linear projections, text_time conditioning."""
    return UNet2DConditionModel(
        sample_size=SIZE // 8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 192),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        attention_head_dim=(1, 2, 3),
        cross_attention_dim=sum(TEXT_WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH,
        projection_class_embeddings_input_dim=TIME_IDS * TIME_WIDTH + TEXT_WIDTHS[1],
        norm_num_groups=8,
    )


def scheduler() -> EulerDiscreteScheduler:
    """SDXL 1.0's own configuration."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        prediction_type="epsilon",
        interpolation_type="linear",
        timestep_spacing="leading",
        steps_offset=1,
        use_karras_sigmas=False,
    )


VISION = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 8,
    "hidden_act": "gelu",
}
"""The image tower of CLIP, and of BLIP, which begins as CLIP's."""


def clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    return CLIPModel(
        CLIPConfig(text_config=text_config(tokenizer, 128, "gelu").to_dict(), vision_config=VISION, projection_dim=128)
    )


def clip_image_processor() -> CLIPImageProcessorPil:
    square = {"height": SIZE, "width": SIZE}
    return CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size=square, image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD)
    )


def dino() -> ViTModel:
    return ViTModel(
        ViTConfig(
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=6,
            num_attention_heads=3,
            image_size=SIZE,
            patch_size=16,
        ),
        add_pooling_layer=False,
    )


def dino_image_processor() -> BitImageProcessorPil:
    """DINO's own preprocessing: bicubic, centre crop, ImageNet statistics; ViTImageProcessor would squash and shift."""
    return BitImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        resample=3,
        image_mean=list(IMAGENET_MEAN),
        image_std=list(IMAGENET_STD),
    )


def blip(tokenizer: BertTokenizer) -> BlipForConditionalGeneration:
    vision = VISION | {"initializer_range": 0.02}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 192,
        "encoder_hidden_size": VISION["hidden_size"],
        "intermediate_size": 768,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "max_position_embeddings": MAX_LENGTH,
        "bos_token_id": tokenizer.convert_tokens_to_ids("[DEC]"),
        "eos_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=128))


def blip_image_processor() -> BlipImageProcessorPil:
    return BlipImageProcessorPil(
        size={"height": SIZE, "width": SIZE}, image_mean=list(CLIP_MEAN), image_std=list(CLIP_STD)
    )


def write_sdxl(path: Path, parts: dict[str, torch.nn.Module], words: Sequence[str]) -> None:
    """Write a pipeline directory from `parts` (vae, text_encoder, text_encoder_2, unet) in fp16."""

    def write(folder: Path) -> None:
        first, second = write_sdxl_tokenizers(folder, words)
        pipeline = StableDiffusionXLPipeline(
            **{name: _half(part) for name, part in parts.items()},
            tokenizer=first,
            tokenizer_2=second,
            scheduler=scheduler(),
            force_zeros_for_empty_prompt=True,
            add_watermarker=False,
        )
        pipeline.save_pretrained(folder, safe_serialization=True)
        for encoder in ("text_encoder", "text_encoder_2"):
            _load_as_float32(folder / encoder)
        write_sdxl_tokenizers(folder, words)

    _replace(path, write)


def write_vae(path: Path, model: AutoencoderKL) -> None:
    """Write an autoencoder alone, as it stands inside a pipeline directory, in fp16."""
    _replace(path, lambda folder: _half(model).save_pretrained(folder, safe_serialization=True))


def write_sdxl_tokenizers(path: Path, words: Sequence[str]) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    first = write_clip_tokenizer(path / "tokenizer", words)
    return first, write_clip_tokenizer(path / "tokenizer_2", words, pad_token="!")


def write_clip(path: Path, model: CLIPModel, words: Sequence[str]) -> None:
    def write(folder: Path) -> None:
        _half(model).save_pretrained(folder, safe_serialization=True)
        _load_as_float32(folder)
        tokenizer = write_clip_tokenizer(folder, words)
        CLIPProcessor(clip_image_processor(), tokenizer).save_pretrained(folder)
        clip_image_processor().save_pretrained(folder)

    _replace(path, write)


def write_dino(path: Path, model: ViTModel) -> None:
    def write(folder: Path) -> None:
        _half(model).save_pretrained(folder, safe_serialization=True)
        _load_as_float32(folder)
        dino_image_processor().save_pretrained(folder)

    _replace(path, write)


def write_blip(path: Path, model: BlipForConditionalGeneration, words: Sequence[str]) -> None:
    def write(folder: Path) -> None:
        _half(model).save_pretrained(folder, safe_serialization=True)
        _load_as_float32(folder)
        BlipProcessor(blip_image_processor(), blip_tokenizer(words)).save_pretrained(folder)
        blip_image_processor().save_pretrained(folder)

    _replace(path, write)


def random_models(path: str | Path, seed: int = 0) -> None:
    """Write sdxl, clip, dino and blip under `path` with random weights of `seed`: the real files, empty heads."""
    path = Path(path)
    words = world_words()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        path.mkdir(parents=True, exist_ok=True)
        tokenizers = write_sdxl_tokenizers(path / ".tokenizers", words)
        first, second = text_encoders(*tokenizers)
        parts = {"vae": vae(), "text_encoder": first, "text_encoder_2": second, "unet": unet()}
        write_sdxl(path / "sdxl", parts, words)
        write_clip(path / "clip", clip(tokenizers[0]), words)
        write_dino(path / "dino", dino())
        write_blip(path / "blip", blip(blip_tokenizer(words)), words)
        shutil.rmtree(path / ".tokenizers")


def _half(model: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(model).to(device="cpu", dtype=torch.float16)


def _load_as_float32(folder: Path) -> None:
    """Say in config.json that fp16 weights are to be loaded as float32 where the caller names no dtype."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write a directory beside `path` and put it in place at once, so that a reader never sees half a model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = path.with_name(path.name + ".new"), path.with_name(path.name + ".old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    write(fresh)
    if path.exists():
        path.rename(old)
    fresh.rename(path)
    shutil.rmtree(old, ignore_errors=True)
