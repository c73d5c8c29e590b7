"""Sampling: prompts and seeds in, pictures out. A row is decided by its own prompt and seed, not by its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from personalize import hub
from personalize.dreambooth import backbone
from personalize.dreambooth.backbone import Pipeline
from personalize.photographs.prompts import check_prompt

if TYPE_CHECKING:
    import torch
    from PIL import Image

ADAPTER = "dreambooth"
"""Name of an adapter in a pipeline. (One that occurs inside a module's name makes diffusers warn falsely.)"""

DECODE_PIXELS = 1024 * 1024
"""Pixels that the float32 VAE decodes at once: one SDXL picture (4 GB), or a whole batch of small ones."""


@dataclass(frozen=True)
class Sampling:
    """How a picture is drawn. `width` and `height` in pixels, multiples of 8 (the miniature is 128, SDXL 1024)."""

    steps: int = 25
    guidance_scale: float = 5.0
    width: int = 128
    height: int = 128
    negative_prompt: str = ""


def load_pipeline(
    base: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device = "auto",
    dtype: str = "float32",
    lora: str | Path | None = None,
) -> Pipeline:
    """The base pipeline, with the adapter of the folder or file `lora` at the scale it was trained with.

    Raises ValueError when a file is missing or broken, or when the adapter does not say its scale.
    """
    pipe = backbone.load_pipeline(base, revision, device, dtype)
    if lora is not None:
        load_adapter(pipe, lora)
    return pipe


def load_adapter(pipe: Pipeline, lora: str | Path, name: str = ADAPTER) -> None:
    """Loads a diffusers-format adapter. Its rank and alpha come from the file's own metadata.

    Without the metadata diffusers would guess alpha = rank, and an adapter trained at alpha / rank = 1/4 would come out
    four times too strong; a file that does not say is refused. (Kohya's format carries an alpha with each layer.)
    """
    file = adapter_file(lora)
    check_scale_is_known(file)
    try:
        with hub.quiet("diffusers", "transformers"):
            pipe.load_lora_weights(
                str(file.parent), weight_name=file.name, adapter_name=name, use_safetensors=True, local_files_only=True
            )
    except Exception as error:  # KeyError, RuntimeError, ValueError: an adapter of another architecture
        raise ValueError(f"adapter {str(file)!r} does not fit this base model: {error}") from error
    for part in (pipe.unet, pipe.text_encoder, pipe.text_encoder_2):
        part.eval().requires_grad_(False)


def merge_adapter(pipe: Pipeline, scale: float = 1.0) -> None:
    """Adds the adapter to the base's weights at `scale` (1 is as trained): drawing then costs what the base costs.

    For a pipeline that draws at one scale to its end; the base's own weights are gone. In half precision the adapter
    stays beside them: many of its changes are smaller than what such a weight can still tell apart.
    """
    import torch

    pipe.set_adapters(ADAPTER, adapter_weights=scale)
    if pipe.unet.dtype == torch.float32:
        pipe.fuse_lora(adapter_names=[ADAPTER])
        pipe.unload_lora_weights()


def adapter_file(lora: str | Path) -> Path:
    """`pytorch_lora_weights.safetensors` of a folder, or the file itself. ValueError when it is not there."""
    path = Path(lora)
    file = path / "pytorch_lora_weights.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise ValueError(
            f"adapter {str(file)!r} does not exist. The train step writes it into its outputs, under lora/."
        )
    return file


def check_scale_is_known(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="np") as tensors:
            metadata = tensors.metadata() or {}
            keys = list(tensors.keys())
    except (SafetensorError, OSError) as error:
        raise ValueError(f"adapter {str(file)!r} is not a readable safetensors file: {error}") from error
    if "lora_adapter_metadata" not in metadata and not any(key.endswith(".alpha") for key in keys):
        raise ValueError(
            f"adapter {str(file)!r} does not say its alpha, so the scale it was trained with is unknown. Save it with "
            f"`save_lora_weights(..., unet_lora_adapter_metadata=...)`."
        )


def initial_noise(seeds: Sequence[int], channels: int, height: int, width: int) -> torch.Tensor:
    """Standard normal latents, float32 on the CPU, [len(seeds), channels, height, width] in latent pixels.

    Drawn on the CPU whatever the device and dtype, so a seed means the same picture on a laptop and on a GPU.
    """
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return torch.cat([torch.randn((1, channels, height, width), generator=g, dtype=torch.float32) for g in generators])


def sample(
    pipe: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    batch_size: int = 8,
    on_batch: Callable[[int], object] | None = None,
) -> list[Image.Image]:
    """One RGB picture per (prompt, seed), in order. `on_batch` hears how many pictures each batch finished.

    A row's noise depends on its own seed alone; its picture equals the one drawn in any other batch up to float
    tolerance. Raises ValueError for unequal lengths, a size that the VAE cannot make, or a prompt past 77 tokens,
    before anything is drawn.
    """
    import torch

    _check(pipe, prompts, seeds, sampling)
    factor = pipe.vae_scale_factor
    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch_size):
        rows = slice(start, start + batch_size)
        batch, batch_seeds = list(prompts[rows]), list(seeds[rows])
        noise = initial_noise(
            batch_seeds, pipe.unet.config.in_channels, sampling.height // factor, sampling.width // factor
        )
        with torch.inference_mode():
            latents = pipe(
                prompt=batch,
                # None, not "": SDXL was trained with zeros, not with an encoded empty prompt, as its unconditional
                negative_prompt=[sampling.negative_prompt] * len(batch) if sampling.negative_prompt else None,
                num_inference_steps=sampling.steps,
                guidance_scale=sampling.guidance_scale,
                width=sampling.width,
                height=sampling.height,
                latents=noise.to(pipe.device, pipe.unet.dtype),
                generator=[torch.Generator("cpu").manual_seed(seed + 1) for seed in batch_seeds],
                output_type="latent",
            ).images
            images += decode(pipe, latents)
        if on_batch is not None:
            on_batch(len(batch))
    return images


def decode(pipe: Pipeline, latents: torch.Tensor) -> list[Image.Image]:
    """Latents [n, c, h, w] -> n pictures, through the float32 VAE, as many at once as memory surely allows."""
    import torch

    config = pipe.vae.config
    latents = latents.to(pipe.vae.dtype) / config.scaling_factor
    pixels = latents.shape[-1] * latents.shape[-2] * pipe.vae_scale_factor**2
    at_once = max(1, DECODE_PIXELS // pixels)
    pictures = torch.cat([pipe.vae.decode(part, return_dict=False)[0] for part in latents.split(at_once)])
    if pipe.watermark is not None:
        pictures = pipe.watermark.apply_watermark(pictures)
    return pipe.image_processor.postprocess(pictures, output_type="pil")


def _check(pipe: Pipeline, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> None:
    if isinstance(prompts, str):
        raise ValueError("prompts: a list of prompts is needed, one per seed; got a single string.")
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds: each picture needs one of both.")
    for name, value in (("width", sampling.width), ("height", sampling.height)):
        if value <= 0 or value % pipe.vae_scale_factor:
            raise ValueError(f"{name}: {value} is not a positive multiple of {pipe.vae_scale_factor} pixels.")
    for text in {*prompts, sampling.negative_prompt}:
        check_prompt((pipe.tokenizer, pipe.tokenizer_2), text)
