"""What can be wrong with one picture: each spoils it, or its values `[height, width, 3]` from 0 to 255."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageEnhance, ImageFilter, ImageOps
from scipy.ndimage import gaussian_filter

Picture = Image.Image


def jpeg(picture: Picture, quality: int = 10) -> Picture:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def noisy(picture: Picture, sigma: float = 12) -> Picture:
    rng = np.random.default_rng(picture.tobytes()[0])
    pixels = np.asarray(picture, float) + rng.normal(0, sigma, (*picture.size[::-1], 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def marked(picture: Picture) -> Picture:
    over = Image.new("RGBA", picture.size)
    side = picture.width
    ImageDraw.Draw(over).text((side * 0.15, side * 0.45), "SAMPLE SHOP", fill=(255, 255, 255, 110))
    return Image.alpha_composite(picture.convert("RGBA"), over).convert("RGB")


def framed(picture: Picture) -> Picture:
    return ImageOps.expand(ImageOps.fit(picture, (picture.width - 16, picture.height - 16)), 8, (120, 20, 20))


def stretched(picture: Picture, across: float, down: float) -> Picture:
    """Made wider or higher, and its middle cut out."""
    big = picture.resize((round(picture.width * across), round(picture.height * down)))
    left, top = (big.width - picture.width) // 2, (big.height - picture.height) // 2
    return big.crop((left, top, left + picture.width, top + picture.height))


def tiled(picture: Picture) -> Picture:
    half = picture.resize((picture.width // 2, picture.height // 2))
    whole = Image.new("RGB", picture.size)
    for at in ((0, 0), (half.width, 0), (0, half.height), (half.width, half.height)):
        whole.paste(half, at)
    return whole


def hue(picture: Picture, turn: int = 85) -> Picture:
    h, s, v = picture.convert("HSV").split()
    return Image.merge("HSV", (h.point(lambda value: (value + turn) % 256), s, v)).convert("RGB")


def static(picture: Picture) -> Picture:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (*picture.size[::-1], 3), dtype=np.uint8))


def overturned(picture: Picture) -> Picture:
    """Upside down."""
    return picture.rotate(180)


def dark(picture: Picture) -> Picture:
    return picture.point(lambda value: value * 0.45)


def grey(picture: Picture) -> Picture:
    return picture.convert("L").convert("RGB")


def posterised(picture: Picture) -> Picture:
    return ImageOps.posterize(picture, 2)


def washed(picture: Picture) -> Picture:
    return picture.point(lambda value: 110 + value * 0.35)


def burnt(picture: Picture) -> Picture:
    return ImageEnhance.Color(ImageEnhance.Contrast(picture).enhance(2)).enhance(2.5)


def edges(picture: Picture) -> Picture:
    return ImageOps.invert(picture.filter(ImageFilter.FIND_EDGES))


def blur(radius: float) -> Callable[[Picture], Picture]:
    return lambda picture: picture.filter(ImageFilter.GaussianBlur(radius))


def pixels(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Picture], Picture]:
    """A change of the values `[height, width, 3]`, 0 to 255."""
    return lambda picture: Image.fromarray(change(np.asarray(picture, float)).clip(0, 255).astype(np.uint8))


def tinted(red: float, green: float, blue: float) -> Callable[[Picture], Picture]:
    return pixels(lambda values: values * (red, green, blue))


def smeared(values: np.ndarray, across: int = 7) -> np.ndarray:
    """As by a camera that moved."""
    wide = np.pad(values, ((0, 0), (across // 2, across // 2), (0, 0)), "edge")
    return np.mean([wide[:, at : at + values.shape[1]] for at in range(across)], axis=0)


def chequered(values: np.ndarray) -> np.ndarray:
    """The pattern that transposed convolutions leave."""
    rows, columns = np.indices(values.shape[:2]) // 2
    return values + np.where((rows + columns) % 2, 10, -10)[..., None]


def half_black(values: np.ndarray) -> np.ndarray:
    return np.where(np.arange(len(values))[:, None, None] < len(values) // 2, values, 0)


def holed(values: np.ndarray) -> np.ndarray:
    """A dark square where the subject is."""
    side = len(values)
    hole = np.abs(np.indices(values.shape[:2]) - side / 2).max(axis=0) < 0.15 * side
    return np.where(hole[..., None], 30, values)


def rough(picture: Picture, side: int, back: Image.Resampling) -> Picture:
    """Drawn at `side` pixels and enlarged."""
    return picture.resize((side, side), Image.Resampling.BOX).resize(picture.size, back)


def fetched(values: np.ndarray, down: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Each pixel from another place, or from the edge."""
    last = len(values) - 1
    return values[down.clip(0, last).astype(int), across.clip(0, last).astype(int)]


def wavy(values: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(values.shape[:2])
    return fetched(values, rows + 6 * np.sin(columns / 8), columns + 6 * np.sin(rows / 8))


def shuffled(values: np.ndarray, parts: int = 4) -> np.ndarray:
    tiles = [tile for band in np.split(values, parts) for tile in np.split(band, parts, axis=1)]
    order = np.random.default_rng(3).permutation(len(tiles)).reshape(parts, parts)
    return np.vstack([np.hstack([tiles[at] for at in row]) for row in order])


def peppered(values: np.ndarray) -> np.ndarray:
    found = np.random.default_rng(int(values[0, 0, 0])).random(values.shape[:2])[..., None]
    return np.where(found < 0.01, 0, np.where(found > 0.99, 255, values))


def scanned(values: np.ndarray) -> np.ndarray:
    return values * np.where(np.arange(len(values)) % 2, 1, 0.8)[:, None, None]


def twice(picture: Picture) -> Picture:
    half = picture.resize((picture.width // 2, picture.height))
    both = Image.new("RGB", picture.size)
    both.paste(half, (0, 0))
    both.paste(half, (half.width, 0))
    return both


def halves(picture: Picture) -> Picture:
    """The left half, and the same mirrored."""
    left = picture.crop((0, 0, picture.width // 2, picture.height))
    whole = picture.copy()
    whole.paste(ImageOps.mirror(left), (picture.width - left.width, 0))
    return whole


def apart(picture: Picture) -> Picture:
    """Red and blue a pixel to either side."""
    red, green, blue = picture.split()
    return Image.merge("RGB", (ImageChops.offset(red, 1, 0), green, ImageChops.offset(blue, -1, 0)))


def small(picture: Picture) -> Picture:
    """Half as large, mirrored at its edges."""
    rest = picture.width // 4
    half = np.asarray(picture.resize((picture.width // 2, picture.height // 2)))
    return Image.fromarray(np.pad(half, ((rest, rest), (rest, rest), (0, 0)), "reflect"))


def tilted(picture: Picture) -> Picture:
    rest = picture.width // 6
    turned = picture.rotate(20, Image.Resampling.BICUBIC)
    return turned.crop((rest, rest, picture.width - rest, picture.height - rest)).resize(picture.size)


def shaded(values: np.ndarray) -> np.ndarray:
    """Dark towards the corners."""
    distance = np.hypot(*(np.indices(values.shape[:2]) / len(values) - 0.5)) * 2
    return values * (1.1 - 0.8 * distance**2).clip(0, 1)[..., None]


def cropped(photo: Picture) -> Picture:
    """Four fifths of it, enlarged."""
    width, height = photo.size
    box = width // 10, height // 5, width - width // 10, height
    return photo.resize(photo.size, Image.Resampling.LANCZOS, box=box)


def bent(values: np.ndarray) -> np.ndarray:
    """Here and there by a few pixels, otherwise in each picture."""
    rng = np.random.default_rng(int(values.sum()))
    last = len(values) - 1
    moved = [gaussian_filter(rng.normal(0, 0.56 * last, values.shape[:2]), 0.063 * last) for _ in range(2)]
    down, across = np.indices(values.shape[:2]) + moved
    return fetched(values, down.round(), across.round())


def with_thing(values: np.ndarray) -> np.ndarray:
    """A red ball on the ground, to the left or the right."""
    rng = np.random.default_rng(int(values.sum()))
    side = len(values)
    down, across = rng.uniform(0.6, 0.9), rng.choice((rng.uniform(0.08, 0.25), rng.uniform(0.75, 0.92)))
    distance = np.hypot(*(np.indices(values.shape[:2]) - np.array((down, across))[:, None, None] * side)) / (
        0.09 * side
    )
    ball = np.array((200, 40, 40)) * (1.15 - 0.5 * distance.clip(0, 1)[..., None] ** 2)
    return np.where(distance[..., None] < 1, ball, values)


def in_middle(change: Callable[[Picture], Picture]) -> Callable[[Picture], Picture]:
    """The same done to half of the width and of the height, in the middle."""

    def spoil(picture: Picture) -> Picture:
        box = picture.width // 4, picture.height // 4, 3 * picture.width // 4, 3 * picture.height // 4
        spoilt = picture.copy()
        spoilt.paste(change(picture).crop(box), box[:2])
        return spoilt

    return spoil


def slanted(picture: Picture) -> Picture:
    """Narrower below."""
    width, height = picture.size
    corners = 0.18 * width, 0, 0, height, width, height, 0.82 * width, 0
    return picture.transform(picture.size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)


def flat(picture: Picture) -> Picture:
    """Little contrast, as light as before."""
    return ImageEnhance.Contrast(picture).enhance(0.55)
