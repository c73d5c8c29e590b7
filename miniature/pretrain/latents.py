"""Latents: the autoencoder's moments of every training image, computed once, so that the UNet never waits for it."""

import json
import time

import numpy as np
import torch
from tqdm import tqdm

from . import vae
from .data import Scenes
from .loop import Options, autocast

BATCH = 32


@torch.no_grad()
def cache(options: Options, mirrored: bool = False) -> dict[str, float]:
    """Write work/latents.npy: fp16 [copies, n, 8, 16, 16], mean then log-variance, in their order.

    A second copy holds mirror images when `mirrored`. Where a budget in minutes ends it early, the images done by then
    are used. Raises ValueError where no autoencoder was trained.
    """
    model = vae.load(options).to(memory_format=torch.channels_last)
    scenes = Scenes(options.data / "train")
    copies = 2 if mirrored else 1
    fresh = options.work / "latents.npy.new"
    moments = np.lib.format.open_memmap(fresh, "w+", np.float16, (copies, len(scenes), 8, 16, 16))
    began, done = time.monotonic(), 0
    for start in tqdm(range(0, len(scenes), BATCH), desc="latents", mininterval=10):
        if options.minutes and time.monotonic() - began > 60 * options.minutes:
            break
        rows = np.arange(start, min(start + BATCH, len(scenes)))
        done = start + len(rows)
        for copy in range(copies):
            pixels = scenes.pixels(rows).to(options.device).float() / 127.5 - 1
            pixels = pixels.flip(-1) if copy else pixels
            with autocast(options.device):
                posterior = model.encode(pixels.to(memory_format=torch.channels_last)).latent_dist
            both = torch.cat([posterior.mean, posterior.logvar], dim=1)
            moments[copy, start:done] = both.float().cpu().numpy().astype(np.float16)
    moments.flush()
    fresh.replace(options.work / "latents.npy")
    facts = {"images": done, "copies": copies, "scaling_factor": model.config.scaling_factor}
    (options.work / "latents.json").write_text(json.dumps(facts))
    return facts
