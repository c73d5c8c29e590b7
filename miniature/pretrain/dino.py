"""DINO's stand-in: self-distillation with multi-crop, no labels and no captions (Caron et al. 2021).

Two large and several small crops of a scene: the student sees all, the teacher (its moving average) the large ones, and
the student must give each crop the teacher's centred and sharpened distribution. Colours are jittered only lightly: the
judge of identity must tell a red chair from a blue one.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from . import architectures
from .data import Scenes, generator
from .loop import Options, attention_for, autocast, fit, follow

LARGE, SMALL, SMALL_CROPS, PROTOTYPES = 128, 64, 4, 1024
LARGE_SHARE, SMALL_SHARE = (0.4, 1.0), (0.12, 0.4)
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE, CENTRE_MOMENTUM = 0.1, 0.04, 0.9


class Head(nn.Module):
    """DINO's projection: an MLP, unit norm, and prototypes of unit norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, 384), nn.GELU(), nn.Linear(384, 128))
        self.prototypes = nn.Linear(128, PROTOTYPES, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        unit = functional.normalize(self.body(hidden).float(), dim=-1)
        return unit @ functional.normalize(self.prototypes.weight.float(), dim=-1).T


class Network(nn.Module):
    """Backbone, head and (in the teacher) the running centre of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = architectures.dino()
        self.head = Head(self.backbone.config.hidden_size)
        self.register_buffer("centre", torch.zeros(PROTOTYPES))

    def forward(self, pixels: Tensor) -> Tensor:
        """float [b, 3, s, s] -> scores [b, 1024]; small crops get interpolated position embeddings."""
        hidden = self.backbone(pixels, interpolate_pos_encoding=pixels.shape[-1] != LARGE).last_hidden_state[:, 0]
        return self.head(hidden)


def train(options: Options) -> dict[str, float]:
    """Train on the judge's part of `data/train`; the checkpoint is work/dino.pt."""
    torch.manual_seed(options.seed + 23)
    scenes = Scenes(options.data / "train", "judge")
    student = Network().to(options.device)
    teacher = copy.deepcopy(student).requires_grad_(False)
    batch = options.batch or (512 if options.device == "cuda" else 48)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        random = generator(options.seed + 23, step)
        pixels = scenes.pixels(scenes.draw(random, batch)).to(options.device)
        large = torch.cat([crop(pixels, random, LARGE, LARGE_SHARE) for _ in range(2)])
        small = torch.cat([crop(pixels, random, SMALL, SMALL_SHARE) for _ in range(SMALL_CROPS)])
        with autocast(options.device), attention_for(options.device):
            with torch.no_grad():
                scores = teacher(large).float()
            views = torch.cat([student(large), student(small)]).float()
        target = ((scores - teacher.centre) / TEACHER_TEMPERATURE).softmax(dim=-1).chunk(2)
        teacher.centre.lerp_(scores.mean(dim=0), 1 - CENTRE_MOMENTUM)
        guesses = (views / STUDENT_TEMPERATURE).log_softmax(dim=-1).chunk(2 + SMALL_CROPS)
        terms = [
            -(aim * guess).sum(dim=-1).mean()
            for index, aim in enumerate(target)
            for other, guess in enumerate(guesses)
            if index != other
        ]
        spread = -(torch.cat(target).mean(dim=0).clamp(min=1e-9).log() * torch.cat(target).mean(dim=0)).sum()
        return torch.stack(terms).mean(), {"spread": float(spread)}

    def teach(step: int, fraction: float) -> None:
        follow(teacher, student, 1 - 0.01 * 0.5 * (1 + np.cos(np.pi * fraction)))

    return fit(
        "dino",
        {"student": student, "teacher": teacher},
        loss,
        options,
        lr=1e-3,
        batch=batch,
        weight_decay=0.05,
        frozen=("teacher",),
        after_step=teach,
    )


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
    network = Network()
    saved = torch.load(options.work / "dino.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(saved["networks"]["teacher"])
    architectures.write_dino(options.out / "dino", network.backbone)
