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
from personalize.dreambooth.masks import loss_weights
from personalize.files import file_digest

FORMAT = "3"
"""Part of every cache key; changed when the meaning of a cached file changes."""


@dataclass(frozen=True)
class Encoded(Cuts):
    """Cuts with the VAE's posterior mean and standard deviation of each, [2, C, h, w] float32."""

    moments: tuple[tuple[Tensor, ...], ...]
    weights: tuple[tuple[Tensor | None, ...], ...]
    """what each latent counts in the loss, [h, w] float32; None where all count alike"""

    @property
    def masked(self) -> bool:
        return any(weights is not None for own in self.weights for weights in own)


class MomentCache:
    """VAE moments on disk, named by the picture's bytes, the cut and the VAE's weights. `folder=None` keeps none.

    Nothing here can be stale: what would change a value changes its name. A damaged file is made again.
    """

    def __init__(self, vae: Any, folder: Path | None) -> None:
        self.vae = vae
        self.folder = folder
        self.vae_digest = module_digest(vae) if folder is not None else ""
        self.encoded = 0

    def encode(self, jobs: Sequence[tuple[Path, Cut]], on_done: Callable[[int], None] | None = None) -> list[Tensor]:
        """Moments [2, C, h, w] for every (file, cut), in order; only what is not on disk goes through the VAE.

        One at a time: in a batch the last bits of each would depend on the others, and so on what was encoded before.
        """
        digests = {path: file_digest(path) for path in {path for path, _ in jobs}}
        found = [_read(self._file(digests[path], cut)) for path, cut in jobs]
        done = sum(moments is not None for moments in found)
        for index, (path, cut) in enumerate(jobs):
            if found[index] is not None:
                continue
            with Image.open(path) as image:
                picture = pixels(cut.apply(image.convert("RGB")))
            found[index] = moments = encode_moments(self.vae, picture[None], [str(path)])[0].clone()
            if file := self._file(digests[path], cut):
                tensorfile.save(file, {"moments": moments})
            self.encoded += 1
            done += 1
            if on_done is not None:
                on_done(done)
        return [moments for moments in found if moments is not None]

    def _file(self, content: str, cut: Cut) -> Path | None:
        if self.folder is None:
            return None
        key = hashlib.sha256(f"{FORMAT}|{self.vae_digest}|{content}|{cut}".encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"


def encode(
    cuts: Cuts, cache: MomentCache, surroundings: float, on_done: Callable[[int], None] | None = None
) -> Encoded:
    """The moments of all cuts, and what each latent counts where masks give `surroundings` a weight of their own.

    `on_done` hears how many are known, whenever some more are.
    """
    jobs = [(example.path, cut) for example, own in zip(cuts.examples, cuts.cuts, strict=True) for cut in own]
    moments = iter(cache.encode(jobs, on_done))
    of_each = tuple(tuple(next(moments) for _ in own) for own in cuts.cuts)
    weights = tuple(
        loss_weights(example, own, [(m.shape[-2], m.shape[-1]) for m in known], surroundings)
        for example, own, known in zip(cuts.examples, cuts.cuts, of_each, strict=True)
    )
    return Encoded(cuts.examples, cuts.shapes, cuts.bucket_of, cuts.cuts, of_each, weights)


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
