"""Pictures beyond the small world, for an autoencoder that must also carry real photographs: crowded scenes and
close-ups, noise with the spectrum of photographs, gradients, stripes, checks, strokes like writing, blobs and mixtures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from miniature.scenes.dataset import STRIDE, Chunk
from miniature.scenes.parts import Dice
from miniature.scenes.render import render
from miniature.scenes.scene import Clutter, sample_scene
from miniature.scenes.vocabulary import CLASSES, COLOURS, MATERIALS

Picture = np.ndarray  # float [size, size, 3], about 0 to 1


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    v, u = np.mgrid[0:size, 0:size] / size
    return u, v


def _noise(rng: np.random.Generator, size: int, power: float, channels: int = 3) -> Picture:
    """Noise whose amplitude falls as 1 / f^power, as photographs' does (power near 1), each channel standardised."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    f[0, 0] = 1.0
    spectrum = rng.normal(size=(channels, *f.shape)) + 1j * rng.normal(size=(channels, *f.shape))
    spectrum = spectrum / f**power
    spectrum[:, 0, 0] = 0.0
    field = np.fft.irfft2(spectrum, s=(size, size))
    field /= field.std(axis=(1, 2), keepdims=True) + 1e-9
    return np.moveaxis(field, 0, -1)


def _colours(rng: np.random.Generator, n: int) -> np.ndarray:
    """Colours [n, 3] around a common one, now muted, now vivid."""
    base = rng.uniform(0.15, 0.85, 3)
    return np.clip(base + rng.normal(size=(n, 3)) * rng.uniform(0.05, 0.35), 0, 1)


def spectra(rng: np.random.Generator, size: int) -> Picture:
    """Coloured 1/f noise whose channels go together, as in photographs."""
    shared = _noise(rng, size, rng.uniform(0.7, 1.7), 1)
    own = _noise(rng, size, rng.uniform(0.9, 1.8), 3)
    mix = rng.uniform(0.5, 0.95)
    return rng.uniform(0.25, 0.75, 3) + rng.uniform(0.08, 0.25) * (mix * shared + (1 - mix) * own)


def layers(rng: np.random.Generator, size: int) -> Picture:
    """Regions of different textures behind one another, with hard and soft borders."""
    picture = spectra(rng, size)
    for _ in range(rng.integers(2, 6)):
        mask = _noise(rng, size, rng.uniform(1.4, 2.6), 1)
        mask = special.expit((mask - rng.normal()) * 10 ** rng.uniform(0.3, 2.2))
        shade = _colours(rng, 1)[0] + rng.uniform(0, 0.15) * _noise(rng, size, rng.uniform(0.2, 1.6), 1)
        picture = picture * (1 - mask) + shade * mask
    return picture


def gradient(rng: np.random.Generator, size: int) -> Picture:
    """Smooth light over a wall, with grain."""
    u, v = _grid(size)
    a, b, c = _colours(rng, 3)
    f = np.clip(u * rng.normal() + v * rng.normal() + rng.uniform(0, 1), 0, 1)[..., None]
    g = np.exp(-((u - rng.uniform()) ** 2 + (v - rng.uniform()) ** 2) * rng.uniform(1, 12))[..., None]
    return a * (1 - f) + b * f + 0.6 * (c - 0.5) * g + rng.uniform(0, 0.04) * rng.normal(size=(size, size, 3))


def lines(rng: np.random.Generator, size: int) -> Picture:
    """Stripes, checks, slats and bricks, seen at a slant."""
    u, v = _grid(size)
    t = rng.uniform(0, np.pi)
    p, q = u * np.cos(t) + v * np.sin(t), -u * np.sin(t) + v * np.cos(t)
    lean = 1.0 + rng.uniform(-0.6, 0.6) * q
    p, q = p / lean, q / lean
    f, g = 2 ** rng.uniform(1, 5), 2 ** rng.uniform(1, 4.5)
    a, b, c = _colours(rng, 3)
    first = ((p * f) % 1 < rng.uniform(0.1, 0.9))[..., None]
    picture = np.where(first, a, b)
    style = rng.integers(0, 3)
    if style > 0:
        shifted = q * g + (0.5 * np.floor(p * f) if style == 2 else 0.0)
        second = (shifted % 1 < rng.uniform(0.05, 0.9))[..., None]
        picture = np.where(second, picture, c)
    return picture + rng.uniform(0, 0.08) * _noise(rng, size, rng.uniform(0.3, 1.5), 1)


def strokes(rng: np.random.Generator, size: int) -> Picture:
    """Dark and light strokes in rows, like print or writing, on paper or a wall."""
    picture = np.ones((size, size, 3)) * rng.uniform(0.55, 1.0, 3) + rng.uniform(0, 0.05) * _noise(rng, size, 1.2, 1)
    ink = rng.uniform(0, 0.4, 3) if rng.uniform() < 0.8 else rng.uniform(0, 1, 3)
    tall = int(rng.integers(5, 18))
    y = int(rng.integers(0, tall))
    while y + tall < size:
        x = int(rng.integers(0, 12))
        while x + tall < size:
            if rng.uniform() < 0.84:
                for _ in range(rng.integers(2, 5)):
                    a, b = rng.uniform(0, tall * 0.7, 2), rng.uniform(0, tall * 0.7, 2)
                    for s in np.linspace(0, 1, tall * 2):
                        px, py = (a * (1 - s) + b * s).astype(int)
                        picture[y + py, x + px] = ink
            x += int(tall * 0.85)
        y += int(tall * rng.uniform(1.1, 1.8))
    return picture


def blobs(rng: np.random.Generator, size: int) -> Picture:
    """Shaded balls, boxes and shadows on a textured ground."""
    picture = spectra(rng, size) * 0.5 + 0.3
    u, v = _grid(size)
    for colour in _colours(rng, int(rng.integers(3, 14))):
        x, y, r = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.03, 0.3)
        squash, power = rng.uniform(0.5, 2.0), rng.choice([1.0, 2.0, 2.0, 8.0])
        q = np.abs((u - x) / r) ** power + np.abs((v - y) / (r * squash)) ** power
        shadow = np.exp(-(((u - x - r * 0.4) / r) ** 2 + ((v - y - r * squash * 0.7) / (r * 0.6)) ** 2))[..., None]
        picture = picture * (1 - 0.5 * shadow)
        light = np.clip(0.9 - 0.5 * (u - x) / r - 0.5 * (v - y) / (r * squash), 0.15, 1.5)[..., None]
        picture = np.where((q < 1)[..., None], colour * light, picture)
    return picture


def crowd(rng: np.random.Generator, size: int) -> Picture:
    """A room or a street full of things, often seen close."""
    seed = int(rng.integers(0, 1 << 30))
    d = Dice("crowd", seed)
    things = []
    for _ in range(d.whole(1, 6)):
        things.append(
            Clutter(
                d.pick(CLASSES), d.whole(0, 1 << 29), d.pick(COLOURS), d.pick(MATERIALS),
                d.between(-1.8, 1.8), d.between(0.2, 1.6), d.between(-180, 180),
            )
        )  # fmt: skip
    close = d.between(0.6, 1.1) if d.chance(0.5) else d.between(1.2, 2.6)
    scene = sample_scene(
        seed, clutter=tuple(things), fill=close, exposure=d.between(0.65, 1.25), warmth=d.between(-0.1, 0.12),
        light_azimuth=d.between(0, 360), azimuth=d.between(-180, 180), shift_x=d.between(-0.2, 0.2),
    )  # fmt: skip
    return render(scene, size, 2) / 255.0


def developed(rng: np.random.Generator, size: int) -> Picture:
    """A crowded scene printed as a photograph might be: another contrast, tint, and a texture laid over it."""
    picture = crowd(rng, size)
    picture = np.clip(picture, 0, 1) ** rng.uniform(0.6, 1.7)
    grey = picture.mean(-1, keepdims=True)
    picture = grey + (picture - grey) * rng.uniform(0.0, 1.3)
    picture = picture @ np.clip(np.eye(3) + 0.15 * rng.normal(size=(3, 3)), -0.3, 1.2)
    over = _noise(rng, size, rng.uniform(0.4, 1.3), 1)
    picture = picture * (1 + rng.uniform(0, 0.2) * over)
    if rng.uniform() < 0.4:
        picture = picture[:, ::-1] * 0.5 + layers(rng, size) * 0.5
    return picture


KINDS: tuple[tuple[Callable[[np.random.Generator, int], Picture], float], ...] = (
    (crowd, 0.26), (developed, 0.24), (spectra, 0.1), (layers, 0.16), (gradient, 0.05), (lines, 0.08), (strokes, 0.04),
    (blobs, 0.07),
)  # fmt: skip


def texture(seed: int, size: int) -> tuple[np.ndarray, str]:
    """One picture uint8 [size, size, 3] and the name of its kind."""
    rng = np.random.default_rng((0x7E87, seed))
    names, shares = [k for k, _ in KINDS], np.array([s for _, s in KINDS])
    kind = names[int(rng.choice(len(names), p=shares / shares.sum()))]
    picture = kind(rng, size)
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8), kind.__name__


def texture_chunk(first: int, last: int, size: int, seed: int, samples: int) -> Chunk:
    """Images and rows of the textures first ... last - 1, for `dataset.write`."""
    images: list[np.ndarray] = []
    rows: list[dict[str, Any]] = []
    for index in range(first, last):
        image, kind = texture(seed * STRIDE + index, size)
        images.append(image)
        rows.append({"index": index, "kind": kind})
    return np.stack(images), rows
