"""Latents: each cut of a picture becomes VAE moments once, kept on disk by content."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from personalize.dreambooth import tensorfile
from personalize.dreambooth.buckets import Cut, Cuts
from personalize.dreambooth.examples import Size
from personalize.files import file_digest

FORMAT = "2"
"""Part of every cache key; changed when the meaning of a cached file changes."""


@dataclass(frozen=True)
class Encoded(Cuts):
    """Cuts with the VAE's posterior mean and standard deviation of each, [2, C, h, w] float32."""

    moments: tuple[tuple[Tensor, ...], ...]


class MomentCache:
    """VAE moments on disk, named by the picture's bytes, the cut and the VAE's weights. `folder=None` keeps none.

    Nothing here can be stale: what would change a value changes its name. A damaged file is made again.
    """

    def __init__(self, vae: Any, folder: Path | None) -> None:
        self.vae = vae
        self.folder = folder
        self.vae_digest = module_digest(vae) if folder is not None else ""
        self.encoded = 0

    def encode(
        self,
        jobs: Sequence[tuple[Path, Cut]],
        batch_size: int = 4,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Tensor]:
        """Moments [2, C, h, w] for every (file, cut), in order; only what is not on disk goes through the VAE."""
        digests = {path: file_digest(path) for path in {path for path, _ in jobs}}
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
                    if file := self._file(digests[jobs[index][0]], jobs[index][1]):
                        tensorfile.save(file, {"moments": moments})
                self.encoded += len(chunk)
                done += len(chunk)
                if on_done is not None:
                    on_done(done)
        return [moments for moments in found if moments is not None]

    def _file(self, content: str, cut: Cut) -> Path | None:
        if self.folder is None:
            return None
        key = hashlib.sha256(f"{FORMAT}|{self.vae_digest}|{content}|{cut}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"


def encode(
    cuts: Cuts, cache: MomentCache, batch_size: int = 4, on_done: Callable[[int], None] | None = None
) -> Encoded:
    """The moments of all cuts. `on_done` hears how many are known, whenever some more are."""
    jobs = [(example.path, cut) for example, own in zip(cuts.examples, cuts.cuts, strict=True) for cut in own]
    moments = iter(cache.encode(jobs, batch_size, on_done))
    of_each = tuple(tuple(next(moments) for _ in own) for own in cuts.cuts)
    return Encoded(cuts.examples, cuts.shapes, cuts.bucket_of, cuts.cuts, of_each)


def pixels(image: Image.Image) -> Tensor:
    """A picture as [3, H, W] float32 in [-1, 1]."""
    array = np.asarray(image.convert("RGB"), dtype=np.float32) / 127.5 - 1.0
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


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


def scale_latents(latents: Tensor, vae_config: Any) -> Tensor:
    """VAE units -> the unit-variance latents the UNet works in (per-channel statistics where the VAE has them)."""
    mean, std = getattr(vae_config, "latents_mean", None), getattr(vae_config, "latents_std", None)
    if mean is not None and std is not None:
        shape = (-1, 1, 1)
        latents = (latents - latents.new_tensor(mean).view(shape)) / latents.new_tensor(std).view(shape)
    return latents * vae_config.scaling_factor


def module_digest(module: torch.nn.Module) -> str:
    """sha256 over a module's parameters and buffers: two bases with the same weights share a cache."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(file: Path | None) -> Tensor | None:
    from safetensors import SafetensorError

    if file is None or not file.is_file():
        return None
    try:
        return tensorfile.load(file)["moments"]
    except (SafetensorError, OSError, KeyError):
        return None
