"""Latents: photographs become VAE moments once, in buckets of equal shape, with several crops each, kept by content."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from personalize.dreambooth.conditioning import Size, time_ids
from personalize.dreambooth.randomness import uniform

SizeConditioning = Literal["true", "as sampled"]
MAX_ASPECT = 2.0
FORMAT = "1"
"""Part of every cache key; changed when the meaning of a cached file changes."""


def buckets(resolution: int, step: int, max_aspect: float = MAX_ASPECT) -> list[Size]:
    """Shapes of at most resolution² pixels whose sides are multiples of `step`, the square first.

    One shape a batch keeps shapes static; several shapes keep a chair's legs in the picture.
    """
    if resolution % step:
        raise ValueError(f"resolution: {resolution} is not a multiple of {step}, which this base model needs.")
    shapes = [Size(resolution, resolution)]
    for long in range(resolution + step, int(resolution * math.sqrt(max_aspect)) + 1, step):
        short = resolution**2 // long // step * step
        if short and long / short <= max_aspect:
            shapes += [Size(long, short), Size(short, long)]
    return shapes


def nearest_bucket(size: Size, shapes: Sequence[Size]) -> Size:
    """The shape whose aspect ratio is nearest (in logarithm) to that of `size`; on a tie the larger one."""
    wanted = math.log(size.height / size.width)
    return min(shapes, key=lambda s: (round(abs(math.log(s.height / s.width) - wanted), 9), -s.height * s.width))


@dataclass(frozen=True)
class Variant:
    """One way of cutting a photograph to a bucket: mirrored or not, resized, then cropped at (top, left).

    `original` is the photograph's own size; the crop corner is in pixels of the resized, already mirrored picture, so
    `time_ids` tells the UNet exactly what was done.
    """

    original: Size
    resized: Size
    top: int
    left: int
    target: Size
    mirrored: bool = False

    def time_ids(self, conditioning: SizeConditioning = "true") -> Tensor:
        """What the UNet is told, [6]. "as sampled" tells what a pipeline says when it draws: nothing was cut."""
        if conditioning == "true":
            return time_ids(self.original, (self.top, self.left), self.target)
        return time_ids(self.target, (0, 0), self.target)

    def apply(self, image: Image.Image) -> Image.Image:
        if self.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = image.resize((self.resized.width, self.resized.height), Image.Resampling.LANCZOS)
        return image.crop((self.left, self.top, self.left + self.target.width, self.top + self.target.height))


def variants(original: Size, target: Size, count: int, zoom: float, flip: bool, seed: int, name: str) -> list[Variant]:
    """`count` cuts of one photograph. The first is always the whole picture, centred and unmirrored.

    The others are enlarged by up to `zoom` and cropped at random; every second one is mirrored when `flip` is set. A
    pure function of its arguments (`name` is the photograph's), so the cache and a resumed run meet the same cuts.
    """
    cuts = []
    cover = max(target.height / original.height, target.width / original.width)
    for index in range(count):
        enlarge = 1.0 if index == 0 else 1.0 + (zoom - 1.0) * uniform(seed, "zoom", name, index)
        resized = Size(
            max(target.height, round(original.height * cover * enlarge)),
            max(target.width, round(original.width * cover * enlarge)),
        )
        spare_height, spare_width = resized.height - target.height, resized.width - target.width
        down, right = (
            (0.5, 0.5) if index == 0 else (uniform(seed, "top", name, index), uniform(seed, "left", name, index))
        )
        top, left = math.floor(spare_height * down), math.floor(spare_width * right)
        cut = Variant(original, resized, top, left, target, mirrored=flip and index % 2 == 1)
        if cut not in cuts:
            cuts.append(cut)
    return cuts


def pixels(image: Image.Image) -> Tensor:
    """A picture as [3, H, W] float32 in [-1, 1]."""
    array = np.asarray(image.convert("RGB"), dtype=np.float32) / 127.5 - 1.0
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def module_digest(module: torch.nn.Module) -> str:
    """sha256 over a module's parameters and buffers: two bases with the same weights share a cache."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


@torch.no_grad()
def encode_moments(vae: Any, batch: Tensor, names: Sequence[str]) -> Tensor:
    """Pixels [B, 3, H, W] -> the VAE's posterior mean and standard deviation, [B, 2, C, h, w] float32 on the CPU.

    The VAE must be float32: SDXL's overflows in float16. ValueError naming the files when the result is not finite.
    """
    if vae.dtype != torch.float32:
        raise TypeError(f"the VAE must encode in float32, it is {vae.dtype}: SDXL's overflows in half precision.")
    with torch.autocast(device_type=vae.device.type, enabled=False):
        posterior = vae.encode(batch.to(vae.device, torch.float32)).latent_dist
    moments = torch.stack([posterior.mean, posterior.std], dim=1).cpu()
    bad = [name for name, rows in zip(names, moments, strict=True) if not torch.isfinite(rows).all()]
    if bad:
        raise ValueError(
            f"the VAE gave values that are not finite for {', '.join(bad)}. Its weights overflow or are damaged: use "
            f"the base's float32 VAE (or one repaired for half precision) and fetch it again if need be."
        )
    return moments


class MomentCache:
    """VAE moments on disk, named by the photograph's bytes, the cut and the VAE's weights. `folder=None` keeps none.

    Nothing here can be stale: what would change a value changes its name. A damaged file is made again.
    """

    def __init__(self, vae: Any, folder: Path | None) -> None:
        self.vae = vae
        self.folder = folder
        self.vae_digest = module_digest(vae) if folder is not None else ""
        self.encoded = 0

    def _file(self, content: str, cut: Variant) -> Path | None:
        if self.folder is None:
            return None
        key = hashlib.sha256(f"{FORMAT}|{self.vae_digest}|{content}|{cut}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"

    def encode(
        self,
        jobs: Sequence[tuple[Path, Variant]],
        batch_size: int = 4,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Tensor]:
        """Moments [2, C, h, w] for every (file, cut), in order; only what is not on disk goes through the VAE."""
        digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in {path for path, _ in jobs}}
        found = [_read(self._file(digests[path], cut)) for path, cut in jobs]
        missing: dict[Size, list[int]] = {}
        for index, moments in enumerate(found):
            if moments is None:
                missing.setdefault(jobs[index][1].target, []).append(index)
        done = sum(moments is not None for moments in found)
        for rows in missing.values():
            for start in range(0, len(rows), batch_size):
                chunk = rows[start : start + batch_size]
                images = []
                for index in chunk:
                    path, cut = jobs[index]
                    with Image.open(path) as image:
                        images.append(pixels(cut.apply(image.convert("RGB"))))
                batch = encode_moments(self.vae, torch.stack(images), [str(jobs[index][0]) for index in chunk])
                for index, moments in zip(chunk, batch, strict=True):
                    found[index] = moments.clone()
                    _write(self._file(digests[jobs[index][0]], jobs[index][1]), found[index])
                self.encoded += len(chunk)
                done += len(chunk)
                if on_done is not None:
                    on_done(done)
        return [moments for moments in found if moments is not None]


def _read(file: Path | None) -> Tensor | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file is None or not file.is_file():
        return None
    try:
        return load_file(str(file))["moments"]
    except (SafetensorError, OSError, KeyError):
        return None


def _write(file: Path | None, moments: Tensor | None) -> None:
    from safetensors.torch import save_file

    if file is None or moments is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    save_file({"moments": moments.contiguous()}, str(part))
    part.replace(file)


def scale_latents(latents: Tensor, vae_config: Any) -> Tensor:
    """VAE units -> the unit-variance latents the UNet works in (per-channel statistics where the VAE has them)."""
    mean, std = getattr(vae_config, "latents_mean", None), getattr(vae_config, "latents_std", None)
    if mean is not None and std is not None:
        shape = (-1, 1, 1)
        latents = (latents - latents.new_tensor(mean).view(shape)) / latents.new_tensor(std).view(shape)
    return latents * vae_config.scaling_factor
