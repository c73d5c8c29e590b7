"""DINO's stand-in: a ViT whose class token knows a design again, in other surroundings, light and pose.

Self-supervised, with no label and no caption: crops of two pictures of one design must be nearer to each other than to
all other designs of the batch (InfoNCE, SimCLR: Chen et al. 2020). DINO's own loss takes its crops from one picture,
so that background alone solves it, and needs a hundred times the pictures this budget sees; what it is asked for here
is identity. Negatives are mostly of the same class. Light is jittered only little: a red chair is not a blue one.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import architectures
from .data import Scenes, generator
from .loop import Options, attention_for, autocast, begin, fit, trained

LARGE, LARGE_SHARE, TEMPERATURE, CLASSES_A_BATCH = 128, (0.5, 1.0), 0.1, 3


def train(options: Options) -> dict[str, float]:
    """Train on `data/judge`, two pictures a design; the checkpoint is work/dino.pt."""
    torch.manual_seed(options.seed + 23)
    scenes = Scenes(options.data / "judge")
    model = begin(architectures.dino(), options, "dino", "dino").to(options.device)
    batch = options.batch or (512 if options.device == "cuda" else 96)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = generator(options.seed + 23, step)
        first = draw_designs(scenes, random, batch)
        pixels = torch.cat([crop(scenes.pixels(rows), random, LARGE, LARGE_SHARE) for rows in (first, first + 1)])
        with autocast(options.device), attention_for(options.device):
            tokens = model(pixels.to(options.device)).last_hidden_state[:, 0]
        one, two = functional.normalize(tokens.float(), dim=-1).chunk(2)
        logits = one @ two.T / TEMPERATURE
        own = torch.arange(len(logits), device=logits.device)
        found = float((logits.argmax(dim=1) == own).float().mean())
        return functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own), {"found": found}

    return fit("dino", {"dino": model}, loss, options, lr=options.peak(1e-3), batch=batch, weight_decay=0.05)


def draw_designs(scenes: Scenes, random: np.random.Generator, count: int) -> np.ndarray:
    """First rows [count] of distinct designs (each design is two rows) of few classes."""
    pairs = len(scenes) // 2
    classes = np.array([scenes.rows[2 * pair]["class_name"] for pair in range(pairs)])
    chosen = random.choice(np.unique(classes), CLASSES_A_BATCH, replace=False)
    candidates = np.flatnonzero(np.isin(classes, chosen))
    return 2 * random.choice(candidates, min(count, len(candidates)), replace=False)


def crop(pixels: Tensor, random: np.random.Generator, size: int, share: tuple[float, float]) -> Tensor:
    """uint8 [b, 3, h, w] -> normalised random resized crops [b, 3, size, size] with mirroring and a little light."""
    count = len(pixels)
    side = np.sqrt(random.uniform(*share, count))
    centre = random.uniform(-1, 1, (count, 2)) * (1 - side[:, None])
    mirror = random.choice([-1.0, 1.0], count)
    theta = np.zeros((count, 2, 3), dtype=np.float32)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = side * mirror, side, centre
    grid = functional.affine_grid(
        torch.from_numpy(theta).to(pixels.device), [count, 3, size, size], align_corners=False
    )
    out = functional.grid_sample(pixels.float() / 255, grid, align_corners=False, padding_mode="reflection")
    gain = torch.from_numpy(random.uniform(0.85, 1.15, (count, 1, 1, 1)).astype(np.float32)).to(pixels.device)
    mean = torch.tensor(architectures.IMAGENET_MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(architectures.IMAGENET_STD, device=pixels.device).view(3, 1, 1)
    return ((out * gain).clamp(0, 1) - mean) / std


def write(options: Options) -> None:
    model = architectures.dino()
    model.load_state_dict(trained(options, "dino")["dino"])
    architectures.write_dino(options.out / "dino", model)
