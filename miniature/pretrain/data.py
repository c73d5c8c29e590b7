"""Reads the drawn data sets and words their captions.

A data set is a folder written by `python -m miniature.scenes dataset`: images.npy (uint8 [n, 128, 128, 3]), truth.jsonl
(one row an image) and progress.json. It may still be growing while it is read: only finished rows are used.

The judges (CLIP, DINO) must not have seen what the judged (text encoders, autoencoder, UNet) learnt from: theirs is the
folder `judge`, drawn from other seeds than `train`, with two pictures of every design side by side.
"""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from miniature.scenes.captions import ADJECTIVE
from miniature.scenes.vocabulary import PLACES

PREFIXES = ("a photo of ", "a picture of ", "a photograph of ", "")
FACETS = ("class", "colour", "place", "whole")


class Scenes:
    """Images and truth of one folder.

    Raises ValueError when the folder holds held-out designs and `training` is set, or when it is empty.
    """

    def __init__(self, path: Path, training: bool = True) -> None:
        self.path, self.training = path, training
        self.images = np.load(path / "images.npy", mmap_mode="r")
        self._grow()
        if len(self) == 0:
            raise ValueError(f"{path} has no finished image yet: draw it with `python -m miniature.scenes dataset`")

    def _grow(self) -> None:
        """Take in the rows that were finished since."""
        self.checked = time.monotonic()
        progress = json.loads((self.path / "progress.json").read_text())
        count, self.growing = progress["done"], progress["done"] < progress["count"]
        with (self.path / "truth.jsonl").open(encoding="utf-8") as lines:
            self.rows: list[dict[str, Any]] = [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
        if self.training and any(row.get("held_out") for row in self.rows):
            raise ValueError(f"{self.path} holds held-out designs: they may only be measured on, never trained on")

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, generator: np.random.Generator, batch: int) -> np.ndarray:
        """`batch` random row numbers; a folder that is still growing is looked at again once a minute."""
        if self.growing and time.monotonic() - self.checked > 60:
            self._grow()
        return generator.integers(0, len(self.rows), batch)

    def pixels(self, rows: np.ndarray) -> Tensor:
        """uint8 [b, 3, h, w] of the rows."""
        return torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2)


def generator(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step: a resumed run draws what an uninterrupted one would have drawn."""
    return np.random.default_rng((seed, step))


def with_article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def wording(row: dict[str, Any], facet: str, random: np.random.Generator | None = None) -> str:
    """A caption that names one facet of a scene: its class, colour, place, or all; plainest words without `random`."""
    places = PLACES[row["surroundings"]]
    place = places[0] if random is None else str(random.choice(places))
    prefix = PREFIXES[0] if random is None else str(random.choice(PREFIXES))
    noun, colour, material = row["class_name"], row["colour"], ADJECTIVE[row["material"]]
    stuff = random is not None and random.random() < 0.5
    body = {
        "class": with_article(noun),
        "colour": with_article(f"{colour} {noun}"),
        "place": with_article(noun) + " " + place,
        "material": with_article(f"{material} {noun}"),
        "whole": with_article(f"{colour} {material} {noun}" if stuff else f"{colour} {noun}") + " " + place,
    }[facet]
    return prefix + body


def natural(row: dict[str, Any], random: np.random.Generator) -> str:
    """One of the scene's own captions, or all facts in plain words where it has none."""
    return str(random.choice(row["captions"])) if row.get("captions") else wording(row, "whole", random)


def caption(row: dict[str, Any], random: np.random.Generator) -> str:
    """A caption for the generator: half the time the scene's own natural wording, else one of the plain forms."""
    if random.random() < 0.5:
        return natural(row, random)
    return wording(row, str(random.choice(["class", "colour", "place", "material", "whole", "whole"])), random)


def with_rare_word(caption: str, row: dict[str, Any], random: np.random.Generator, share: float = 0.1) -> str:
    """In a `share` of captions puts a made-up word such as `bcnchr` before the class: the unknown means nothing."""
    if random.random() >= share:
        return caption
    word = made_up_word(random, "bcdfghjklmnpqrstvwxz")
    return caption.replace(row["class_name"], f"{word} {row['class_name']}", 1)


def made_up_word(random: np.random.Generator, letters: str) -> str:
    """Three to seven letters."""
    return "".join(random.choice(list(letters), random.integers(3, 8)))


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [b, 3, h, w] -> float, standardised as an image processor does."""
    scale = torch.tensor(std, device=pixels.device).view(3, 1, 1)
    return (pixels.float() / 255 - torch.tensor(mean, device=pixels.device).view(3, 1, 1)) / scale


def moved(pixels: Tensor, random: np.random.Generator, shift: int = 8) -> Tensor:
    """Mirrored half the time and shifted by up to `shift` pixels: uint8 [b, c, h, w] in and out."""
    height, width = pixels.shape[-2:]
    padded = torch.nn.functional.pad(pixels.float(), (shift,) * 4, mode="replicate").to(torch.uint8)
    out = torch.empty_like(pixels)
    for index in range(len(pixels)):
        top, left = random.integers(0, 2 * shift + 1, 2)
        image = padded[index, :, top : top + height, left : left + width]
        out[index] = image.flip(-1) if random.random() < 0.5 else image
    return out


def relit(pixels: Tensor, random: np.random.Generator, light: float = 0.1) -> Tensor:
    """Brightness and contrast changed by up to a share `light`: uint8 [b, 3, h, w] in and out."""
    gain, lift = random.uniform(-light, light, (2, len(pixels), 1, 1, 1)).astype(np.float32)
    bright = (pixels.float() - 128) * torch.from_numpy(1 + gain) + 128 + torch.from_numpy(255 * lift / 2)
    return bright.round().clamp(0, 255).to(torch.uint8)
