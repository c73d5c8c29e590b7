"""UNet: noise prediction on cached latents with SDXL's own conditioning.

* min-SNR weighting, gamma 5 (Hang et al. 2023); timesteps uniform, one from each of `batch` equal parts;
* a tenth of the captions dropped: mostly to zeros, as the pipeline's `force_zeros_for_empty_prompt` has it, sometimes
  to the empty caption, so that an empty negative prompt means the same as none;
* micro-conditioning with the true original size, crop and target size (Podell et al. 2023, section 2.2);
* an exponential moving average of the weights is what is written.
"""

import copy
import json

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import architectures, text, vae
from .data import Scenes, caption, generator, with_rare_word
from .loop import Options, attention_for, autocast, begin, fit, trained
from .tokens import MAX_LENGTH, world_words

GAMMA, DROPPED, DROPPED_TO_ZERO, RARE = 5.0, 0.10, 0.07, 0.05


class Prompts:
    """Encodes captions as the pipeline's encode_prompt does: penultimate states of both, pooled of the second."""

    def __init__(self, options: Options) -> None:
        self.towers = text.load(options)
        words = world_words()
        self.tokenizers = architectures.write_sdxl_tokenizers(options.work / "tokenizers", words)
        self.device = options.device

    @torch.no_grad()
    def __call__(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """b captions -> states [b, 77, 320] and pooled [b, 192]."""
        states = []
        for encoder, tokenizer in zip(
            (self.towers.text_encoder, self.towers.text_encoder_2), self.tokenizers, strict=True
        ):
            ids = tokenizer(
                captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt"
            ).input_ids
            output = encoder(ids.to(self.device), output_hidden_states=True)
            states.append(output.hidden_states[-2])
        return torch.cat(states, dim=-1), output.text_embeds


def train(options: Options) -> dict[str, float]:
    """Train on work/latents.npy and the captions of `data/train`; the checkpoint is work/unet.pt."""
    if not (options.work / "latents.npy").exists():
        raise ValueError(f"{options.work} holds no latents.npy: run `python -m miniature.pretrain latents` first")
    torch.manual_seed(options.seed + 2)
    scenes = Scenes(options.data / "train")
    facts = json.loads((options.work / "latents.json").read_text())
    moments = np.load(options.work / "latents.npy", mmap_mode="r")
    prompts = Prompts(options)
    model = begin(architectures.unet(), options, "unet", "sdxl/unet")
    model.to(options.device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).requires_grad_(False)
    batch = options.batch or (512 if options.device == "cuda" else 64)
    alphas = architectures.scheduler().alphas_cumprod.to(options.device)
    size = float(architectures.SIZE)
    time_ids = torch.tensor([size, size, 0.0, 0.0, size, size], device=options.device).repeat(batch, 1)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = generator(options.seed + 2, step)
        places = random.integers(0, facts["images"], batch)
        copies = random.integers(0, facts["copies"], batch)
        latents = sample(torch.from_numpy(moments[copies, places]).to(options.device)) * facts["scaling_factor"]
        chances = random.random(batch)
        captions = [
            ""
            if DROPPED_TO_ZERO <= chance < DROPPED
            else with_rare_word(caption(scenes.rows[row], random), scenes.rows[row], random, RARE)
            for row, chance in zip(places, chances, strict=True)
        ]
        kept = torch.from_numpy(chances >= DROPPED_TO_ZERO).to(options.device)
        strata = (np.arange(batch) + random.random(batch)) / batch
        timesteps = torch.from_numpy((strata * len(alphas)).astype(np.int64)).to(options.device)
        noise = torch.randn(latents.shape, device=options.device)
        alpha = alphas[timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        with autocast(options.device), attention_for(options.device):
            states, pooled = prompts(captions)
            predicted = model(
                noisy.to(memory_format=torch.channels_last),
                timesteps,
                encoder_hidden_states=states * kept.view(-1, 1, 1),
                added_cond_kwargs={"text_embeds": pooled * kept.view(-1, 1), "time_ids": time_ids},
            ).sample
        errors = functional.mse_loss(predicted.float(), noise, reduction="none").mean(dim=(1, 2, 3))
        return (min_snr_weights(alphas[timesteps]) * errors).mean(), {"mse": float(errors.detach().mean())}

    averages, peak = {"unet": average}, options.peak(8e-4)
    return fit("unet", {"unet": model}, loss, options, lr=peak, batch=batch, averages=averages, betas=(0.9, 0.99))


def sample(moments: Tensor) -> Tensor:
    """A draw [b, 4, 16, 16] from the posteriors [b, 8, 16, 16] (mean, log-variance)."""
    mean, logvar = moments.float().chunk(2, dim=1)
    return mean + (0.5 * logvar.clamp(-30, 20)).exp() * torch.randn_like(mean)


def min_snr_weights(alphas_cumprod: Tensor, gamma: float = GAMMA) -> Tensor:
    """min(SNR, gamma) / SNR for noise prediction (Hang et al. 2023, Eq. 8), [b]."""
    snr = alphas_cumprod / (1 - alphas_cumprod)
    return snr.clamp(max=gamma) / snr


def write(options: Options) -> None:
    """Write the whole pipeline directory out/sdxl from the checkpoints of vae, text and unet."""
    towers = text.load(options)
    model = architectures.unet()
    model.load_state_dict(trained(options, "unet")["unet.ema"])
    autoencoder = vae.load(options)
    facts = json.loads((options.work / "latents.json").read_text())
    autoencoder.register_to_config(scaling_factor=facts["scaling_factor"])
    parts = {
        "vae": autoencoder,
        "text_encoder": towers.text_encoder,
        "text_encoder_2": towers.text_encoder_2,
        "unet": model,
    }
    architectures.write_sdxl(options.out / "sdxl", parts, world_words())
