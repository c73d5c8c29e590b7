"""Autoencoder: random 64 px crops, because a crop teaches as much as a picture and four fit in its time.

Loss: L1 + 0.5 * L1 of the gradients (edges) + a tiny KL, as there is no discriminator to sharpen the rest. A third of
the crops come from textures and colour-changed scenes: photographs of the real world are not made of clean surfaces.
What begins from published weights is tuned towards the squared error instead, as stabilityai/sd-vae-ft-mse was.

Afterwards the decoder alone is tuned so: the encoder rests, so latents cached before stay true and the UNet can train
meanwhile, or stays as it was where the decoder goes on from published weights.
"""

import numpy as np
import torch
from torch import Tensor

from . import architectures
from .data import Scenes, generator
from .loop import Options, autocast, begin, fit, trained

CROP, KL_WEIGHT, GRADIENT_WEIGHT, TEXTURE_SHARE, RECOLOUR_SHARE = 64, 1e-6, 0.5, 0.3, 0.2
SCALING_SAMPLES = 256


def train(options: Options) -> dict[str, float]:
    """Train on `data/train` (and `data/textures` where there is one); the checkpoint is work/vae.pt."""
    torch.manual_seed(options.seed)
    scenes, textures = _sources(options)
    model = begin(architectures.vae(), options, "vae", "sdxl/vae")
    model.to(options.device, memory_format=torch.channels_last)
    batch = options.batch or (512 if options.device == "cuda" else 32)
    run = torch.compile(_reconstruct) if options.compile else _reconstruct

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pixels = crops(scenes, textures, generator(options.seed, step), batch).to(options.device)
        pixels = pixels.to(memory_format=torch.channels_last)
        with autocast(options.device):
            reconstruction, mean, logvar = run(model, pixels)
        error, kl = reconstruction.float() - pixels, divergence(mean.float(), logvar.float())
        pixel = fine_tuning_loss(error) if options.start else sharp_loss(error)
        return pixel + KL_WEIGHT * kl, {"psnr": _psnr(error), "kl": float(kl.detach())}

    return fit("vae", {"vae": model}, loss, options, lr=options.peak(2e-3), batch=batch, weight_decay=0.0)


def train_decoder(options: Options) -> dict[str, float]:
    """Tune the decoder of work/vae.pt, or of the published weights of --start, into work/decoder.pt.

    Raises ValueError where there is neither.
    """
    torch.manual_seed(options.seed)
    scenes, textures = _sources(options)
    model = begin(architectures.vae(), options, "decoder", "sdxl/vae")
    if options.start is None:
        model.load_state_dict(trained(options, "vae")["vae"])
    model.to(options.device, memory_format=torch.channels_last)
    for part in (model.encoder, model.quant_conv):
        part.requires_grad_(False)
    batch = options.batch or (512 if options.device == "cuda" else 32)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        pixels = crops(scenes, textures, generator(options.seed + 5, step), batch).to(options.device)
        pixels = pixels.to(memory_format=torch.channels_last)
        with autocast(options.device):
            with torch.no_grad():
                latents = model.encode(pixels).latent_dist.sample()
            output = model.decode(latents).sample
        error = output.float() - pixels
        return fine_tuning_loss(error), {"psnr": _psnr(error)}

    return fit("decoder", {"vae": model}, loss, options, lr=options.peak(1e-3), batch=batch, weight_decay=0.0)


def _sources(options: Options) -> tuple[Scenes, Scenes]:
    """Scenes and textures; scenes for both where there are no textures."""
    scenes = Scenes(options.data / "train")
    return scenes, Scenes(options.data / "textures") if (options.data / "textures").exists() else scenes


def _reconstruct(model: torch.nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    posterior = model.encode(pixels).latent_dist
    return model.decode(posterior.sample()).sample, posterior.mean, posterior.logvar


def crops(scenes: Scenes, textures: Scenes, random: np.random.Generator, batch: int) -> Tensor:
    """float [b, 3, 64, 64] in [-1, 1]; some from textures, some with gains and inversions of their colours."""
    out = torch.empty(batch, 3, CROP, CROP)
    for index in range(batch):
        source = textures if random.random() < TEXTURE_SHARE else scenes
        row = int(source.draw(random, 1)[0])
        top, left = random.integers(0, source.images.shape[1] - CROP + 1, 2)
        patch = source.images[row, top : top + CROP, left : left + CROP]
        if random.random() < 0.5:
            patch = patch[:, ::-1]
        values = torch.from_numpy(np.ascontiguousarray(patch)).permute(2, 0, 1).float() / 127.5 - 1
        if random.random() < RECOLOUR_SHARE:
            gains = torch.tensor(random.uniform(0.4, 1.0, 3), dtype=torch.float32).view(3, 1, 1)
            lifts = torch.tensor(random.uniform(-1, 1, 3), dtype=torch.float32).view(3, 1, 1) * (1 - gains)
            values = values[torch.from_numpy(random.permutation(3))] * gains + lifts
        out[index] = values
    return out


def sharp_loss(error: Tensor) -> Tensor:
    """L1 + 0.5 * gradient L1 of an error [b, 3, h, w]."""
    return error.abs().mean() + GRADIENT_WEIGHT * _gradient(error)


def fine_tuning_loss(error: Tensor) -> Tensor:
    """5 * MSE + 0.25 * gradient L1 of an error [b, 3, h, w]."""
    return 5 * error.square().mean() + 0.25 * _gradient(error)


def divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL from the posterior to N(0, 1), mean over its elements."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def _gradient(error: Tensor) -> Tensor:
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def _psnr(error: Tensor) -> float:
    """In dB, of errors of values in [-1, 1]."""
    return float(10 * torch.log10(4 / error.detach().square().mean()))


def write_decoder(options: Options) -> None:
    """Write out/sdxl/vae with the tuned decoder where it went on from published weights; else `unet` writes it."""
    if options.start is not None:
        architectures.write_vae(options.out / "sdxl" / "vae", load(options))


@torch.no_grad()
def load(options: Options) -> architectures.AutoencoderKL:
    """The trained autoencoder, its scaling factor measured as 1 / std of latents (Rombach et al. 2022, App. D).

    With the tuned decoder where that belongs to this encoder. Where no autoencoder was trained here, the published one
    of --start, with its scaling factor.
    """
    if options.start is not None and not (options.work / "vae.pt").exists():
        published = architectures.AutoencoderKL.load_config(options.start / "sdxl" / "vae")
        model = architectures.vae(published["scaling_factor"])
        if (options.work / "decoder.pt").exists():
            model.load_state_dict(trained(options, "decoder")["vae"])
        else:
            begin(model, options, "vae", "sdxl/vae")
        return model.to(options.device).eval()
    model = architectures.vae()
    weights = trained(options, "vae")["vae"]
    if (options.work / "decoder.pt").exists():
        tuned = trained(options, "decoder")["vae"]
        if all(torch.equal(tuned[key], value) for key, value in weights.items() if key.startswith("encoder.")):
            weights = tuned
    model.load_state_dict(weights)
    scenes = Scenes(options.data / "train")
    rows = scenes.draw(generator(options.seed, 0), min(SCALING_SAMPLES, len(scenes)))
    parts = np.array_split(rows, max(1, len(rows) // 32))
    latents = [model.encode(scenes.pixels(part).float() / 127.5 - 1).latent_dist.mean for part in parts]
    model.register_to_config(scaling_factor=round(1 / float(torch.cat(latents).std()), 5))
    return model.to(options.device).eval()
