"""Examination: what a judge can see, found on pairs of pictures of which the truth is known.

The pairs come from the user's own photographs. A judge should find a photograph cropped, lit otherwise, blurred,
mirrored, and another photograph of the same subject, more alike than pictures of other things; and it should find a
photograph whose subject has another colour, another form or lost a part less alike than the harmless changes of that
same photograph.

For each photograph the AUC is the share of comparisons in which the pair that should be more alike is (ties count
half); a kind's AUC is their mean. A mean of n values within [0, 1] varies at most as the share of n throws does, so its
interval is Wilson's (1927) with n photographs, which is not narrow where there are few.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import sqrt
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

    from personalize.evaluation.judges import JudgeConfig

Array = NDArray[Any]
Pictures = Mapping[str, "Sequence[Image.Image]"]

HARMLESS = {"crop": "a crop", "light": "other light", "blur": "blur", "mirror": "the mirror image"}
HARMFUL = {"colour": "colour", "form": "form", "part": "a missing part"}
SAME = {**HARMLESS, "photograph": "another photograph"}
DIFFERENT = {"subject": "other subjects", "class_image": "other pictures of the class", **HARMFUL}
"""Kinds of pairs and what they are called: in `SAME` the second picture shows the same subject, in `DIFFERENT` not."""


@dataclass(frozen=True)
class AtMost:
    """How many photographs are compared, how many of them changed, and how many class images there are.

    The defaults come to 75 pictures for 25 photographs, which three small judges look at in seconds on one core.
    """

    photographs: int = 30
    changed: int = 6
    class_images: int = 8


SIDE = 384
"""Pixels of the short side at which photographs are changed; no judge in use looks at more than half again of them."""

OUTSTANDING, ACCEPTABLE = 0.9, 0.7
"""AUC that counts as outstanding and as acceptable (Hosmer, Lemeshow, Applied Logistic Regression, chapter 5)."""

FIT = 0.75
"""Share of the photographs that a judge must recognise before it may decide.

Half way between certainty and a guess between two, where psychophysics puts a two-alternative threshold; and the least
with which a perfect model's pictures, misread as often as photographs are, would still pass a gate of 60 % recognised
by the whole 95 % interval (48 pictures, 75 % recognised: from 61 %).
"""

WORST = 3
"""Pairs shown of those a judge is most wrong about."""


class Seeing(Protocol):
    """What is examined: a judge, or anything else with a config that turns pictures into unit vectors `[n, d]`."""

    @property
    def config(self) -> JudgeConfig: ...

    def images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Sample:
    """The pictures of an examination. An `edits[kind][e]` was made from `photographs[edited[e]]`."""

    at: list[tuple[str, int]]
    photographs: list[Image.Image]
    edited: list[int]
    edits: dict[str, list[Image.Image]]
    class_images: list[Image.Image]

    @property
    def tokens(self) -> list[str]:
        return list(dict.fromkeys(token for token, _ in self.at))


def examine(
    judges: Sequence[Seeing],
    photographs_by_subject: Pictures,
    class_images: Sequence[Image.Image],
    seed: int = 0,
    at_most: AtMost | None = None,
) -> dict[str, Any]:
    """What each judge sees, as plain JSON values.

    -> for each judge's name: `kinds` (see `SAME` and `DIFFERENT`), each with `auc`, `low`, `high` (95 %), `pairs`,
    `photographs` and `words`; `recognised` (`share`, `low`, `high`, `photographs`); `fit`, whether it tells these
    subjects apart well enough to decide (see `FIT`); `words`; `worst`, the pairs it is most wrong about (`kind`,
    `first`, `second`, their `similarity`, and `beside`, the mean of pairs that should be more alike), drawn again by
    `picture`. What there are no pictures for is None, with no pairs.

    Deterministic. Raises ValueError where there is no photograph at all.
    """
    sample = _sample(photographs_by_subject, class_images, seed, at_most or AtMost())
    return {judge.config.name: _examined(judge, sample, seed) for judge in judges}


def picture(
    reference: Sequence[Any], photographs_by_subject: Pictures, class_images: Sequence[Image.Image], seed: int = 0
) -> Image.Image:
    """The picture of a `worst` pair: [token, number], [token, number, change], or ["", number] for a class image."""
    token, number = reference[:2]
    if not token:
        return _shrunk(class_images[number])
    photograph = _shrunk(photographs_by_subject[token][number])
    return edit(photograph, reference[2], token, number, seed) if len(reference) > 2 else photograph


# The pairs.


def edit(image: Image.Image, kind: str, token: str = "", number: int = 0, seed: int = 0) -> Image.Image:
    """A changed photograph, the same whenever token, number and seed are. Raises KeyError for an unknown kind."""
    digest = sha256(f"{seed}:{token}:{number}:{kind}".encode()).digest()
    return EDITS[kind](image.convert("RGB"), np.random.default_rng(int.from_bytes(digest[:8], "big")))


def _crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """85 % of each side, from anywhere."""
    width, height = round(0.85 * image.width), round(0.85 * image.height)
    left, top = (int(rng.integers(0, most + 1)) for most in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height))


def _light(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A third darker and warmer, or lighter and cooler."""
    from PIL import Image

    gain = np.array((0.74, 0.7, 0.64)) if rng.random() < 0.5 else np.array((1.24, 1.28, 1.34))
    return Image.fromarray(np.clip(np.asarray(image) * gain, 0, 255).astype(np.uint8))


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gaussian, deviation 0.4 % of the short side: a slightly missed focus."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(0.004 * min(image.size)))


def _mirror(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.mirror(image)


def _colour(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The middle gets another hue and keeps its brightness: 45 of 255 in the plane of Cb and Cr, any direction."""
    from PIL import Image

    planes = np.asarray(image.convert("YCbCr")).astype(float)
    angle = rng.uniform(0, 2 * np.pi)
    weight = np.clip((1 - _from_middle(image.size)) * 4, 0, 1)
    planes[..., 1:] += 45 * weight[..., None] * np.array((np.cos(angle), np.sin(angle)))
    return Image.fromarray(np.clip(planes, 0, 255).astype(np.uint8), "YCbCr").convert("RGB")


def _form(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The middle is twirled, up to 75 degrees, so that straight parts bend; colours and surroundings stay."""
    from PIL import Image
    from scipy.ndimage import map_coordinates

    pixels = np.asarray(image).astype(float)
    rows, columns = np.mgrid[: image.height, : image.width].astype(float)
    y, x = rows - (image.height - 1) / 2, columns - (image.width - 1) / 2
    turn = np.radians(75) * (1 if rng.random() < 0.5 else -1) * np.clip(1 - _from_middle(image.size), 0, 1)
    where = [
        y * np.cos(turn) + x * np.sin(turn) + (image.height - 1) / 2,
        x * np.cos(turn) - y * np.sin(turn) + (image.width - 1) / 2,
    ]
    planes = [map_coordinates(pixels[..., c], where, order=1, mode="nearest") for c in range(3)]
    return Image.fromarray(np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8))


def _part(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A third of each side, in the middle, is painted over with what lies at the same height at the picture's edge."""
    from PIL import Image, ImageFilter

    width, height = image.width // 3, image.height // 3
    left = int(rng.integers(image.width // 4, image.width - image.width // 4 - width + 1))
    top = int(rng.integers(image.height // 4, image.height - image.height // 4 - height + 1))
    edge = 0 if rng.random() < 0.5 else image.width - width
    mask = Image.new("L", image.size, 0)
    mask.paste(255, (left, top, left + width, top + height))
    over = image.copy()
    over.paste(image.crop((edge, top, edge + width, top + height)), (left, top))
    return Image.composite(over, image, mask.filter(ImageFilter.GaussianBlur(0.01 * min(image.size))))


EDITS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "crop": _crop, "light": _light, "blur": _blur, "mirror": _mirror, "colour": _colour, "form": _form, "part": _part,
}  # fmt: skip


def _from_middle(size: tuple[int, int]) -> Array:
    """Distance from the middle `[height, width]`: 0 there, 1 on the circle of 0.42 short sides."""
    width, height = size
    rows, columns = np.mgrid[:height, :width].astype(float)
    return np.hypot(rows - (height - 1) / 2, columns - (width - 1) / 2) / (0.42 * min(size))


def _shrunk(image: Image.Image) -> Image.Image:
    from PIL import Image

    shrink = SIDE / min(image.size)
    if shrink >= 1:
        return image.convert("RGB")
    size = (round(image.width * shrink), round(image.height * shrink))
    return image.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _sample(
    photographs_by_subject: Pictures, class_images: Sequence[Image.Image], seed: int, at_most: AtMost
) -> Sample:
    """Photographs of all subjects in turn, so that each has its share where there are too many."""
    turns = sorted(
        (number, order, token)
        for order, (token, of) in enumerate(photographs_by_subject.items())
        for number in range(len(of))
    )
    if not turns:
        raise ValueError("there are no photographs to examine the judges on")
    chosen = sorted((order, number, token) for number, order, token in turns[: at_most.photographs])
    at = [(token, number) for _, number, token in chosen]
    photographs = [_shrunk(photographs_by_subject[token][number]) for token, number in at]
    changed = turns[: min(at_most.changed, at_most.photographs)]
    edited = sorted(at.index((token, number)) for number, _, token in changed)
    edits = {kind: [edit(photographs[i], kind, *at[i], seed) for i in edited] for kind in EDITS}
    return Sample(at, photographs, edited, edits, [_shrunk(image) for image in class_images[: at_most.class_images]])


# What a judge makes of them.


@dataclass(frozen=True)
class Compared:
    """One photograph's comparisons of one kind: pairs that should be more alike, and pairs that should be less."""

    more: Array
    less: Array

    @property
    def auc(self) -> float:
        gaps = self.more[:, None] - self.less[None, :]
        return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


def _examined(judge: Seeing, sample: Sample, seed: int) -> dict[str, Any]:
    count = len(sample.photographs)
    kinds = list(sample.edits)
    features = judge.images(
        [*sample.photographs, *(image for kind in kinds for image in sample.edits[kind]), *sample.class_images]
    ).astype(np.float64)
    photographs, rest = features[:count], features[count:]
    edits = {kind: rest[k * len(sample.edited) : (k + 1) * len(sample.edited)] for k, kind in enumerate(kinds)}
    seen = Seen(sample, photographs, edits, rest[len(kinds) * len(sample.edited) :])
    found = {kind: _kind(seen.compared(kind), kind) for kind in [*SAME, *DIFFERENT]}
    recognised = _recognised(seen)
    fit = recognised["share"] is not None and recognised["share"] >= FIT
    return {
        "decides": judge.config.decides,
        "kinds": found,
        "recognised": recognised,
        "fit": fit,
        "words": _words(found, recognised, fit),
        "worst": _worst(seen),
        "seed": seed,
    }


@dataclass(frozen=True)
class Seen:
    """A sample as unit vectors: `photographs [n, d]`, `edits[kind] [e, d]`, `class_images [c, d]`."""

    sample: Sample
    photographs: Array
    edits: Mapping[str, Array]
    class_images: Array

    def own(self, i: int) -> list[int]:
        """The other photographs of the subject of photograph `i`."""
        at = self.sample.at
        return [j for j in range(len(at)) if j != i and at[j][0] == at[i][0]]

    def others(self, i: int) -> list[int]:
        """The photographs of other subjects."""
        at = self.sample.at
        return [j for j in range(len(at)) if at[j][0] != at[i][0]]

    def alike(self, i: int, kind: str) -> Array:
        """Similarity of photograph `i` to all pictures of a kind. `[0..]`"""
        if kind == "photograph":
            return self.photographs[self.own(i)] @ self.photographs[i]
        if kind == "subject":
            return self.photographs[self.others(i)] @ self.photographs[i]
        if kind == "class_image":
            return self.class_images @ self.photographs[i]
        rows = [e for e, j in enumerate(self.sample.edited) if j == i]
        return self.edits[kind][rows] @ self.photographs[i]

    def compared(self, kind: str) -> list[Compared]:
        """The comparisons of each photograph that has any.

        A subject with one photograph is compared through that one's harmless changes.
        """
        found = []
        for i in range(len(self.photographs)):
            harmless = np.concatenate([self.alike(i, change) for change in HARMLESS])
            elsewhere = np.concatenate([self.alike(i, "subject"), self.alike(i, "class_image")])
            if kind in HARMFUL:
                pair = Compared(harmless, self.alike(i, kind))
            elif kind in SAME:
                pair = Compared(self.alike(i, kind), elsewhere)
            else:
                pair = Compared(self.alike(i, "photograph") if self.own(i) else harmless, self.alike(i, kind))
            if len(pair.more) and len(pair.less):
                found.append(pair)
        return found


def _kind(compared: Sequence[Compared], kind: str) -> dict[str, Any]:
    name = {**SAME, **DIFFERENT}[kind]
    if not compared:
        return {"auc": None, "low": None, "high": None, "pairs": 0, "photographs": 0, "words": f"{name}: not examined"}
    auc = float(np.mean([one.auc for one in compared]))
    low, high = wilson(auc, len(compared))
    pairs = sum(len(one.more if kind in SAME else one.less) for one in compared)
    words = f"{_verb(auc, kind)} {name}" + (
        ", on too few photographs to be sure" if auc >= ACCEPTABLE and low <= 0.5 else ""
    )
    return {"auc": auc, "low": low, "high": high, "pairs": pairs, "photographs": len(compared), "words": words}


def _verb(auc: float, kind: str) -> str:
    verbs = (
        ("keeps through", "partly keeps through", "loses through")
        if kind in SAME
        else ("sees", "partly sees", "hardly sees")
    )
    return verbs[0] if auc >= OUTSTANDING else verbs[1] if auc >= ACCEPTABLE else verbs[2]


def _recognised(seen: Seen) -> dict[str, Any]:
    """Photographs nearer, in the mean, to their subject's others than to any other subject's and to class images."""
    right = []
    for i, (token, _) in enumerate(seen.sample.at):
        own = seen.alike(i, "photograph")
        rivals = [
            seen.photographs[[j for j, at in enumerate(seen.sample.at) if at[0] == other]] @ seen.photographs[i]
            for other in seen.sample.tokens
            if other != token
        ]
        if len(seen.class_images):
            rivals.append(seen.alike(i, "class_image"))
        if len(own) and rivals:
            right.append(own.mean() > max(rival.mean() for rival in rivals))
    if not right:
        return {"share": None, "low": None, "high": None, "photographs": 0}
    low, high = wilson(float(np.mean(right)), len(right))
    return {"share": float(np.mean(right)), "low": low, "high": high, "photographs": len(right)}


def _words(kinds: Mapping[str, Mapping[str, Any]], recognised: Mapping[str, Any], fit: bool) -> str:
    """`recognises 25 of 25 photographs: fit to decide; sees colour, hardly sees form and a missing part; ...`"""
    if recognised["share"] is None:
        first = "not examined on recognising subjects (it takes two photographs of one, and pictures of anything else)"
    else:
        known, of = round(recognised["share"] * recognised["photographs"]), recognised["photographs"]
        judged = "fit to decide" if fit else f"not fit to decide, which takes {100 * FIT:.0f} %"
        first = f"recognises {known} of {of} photographs: {judged}"
    sentences = [first]
    for group in (DIFFERENT, SAME):
        said: dict[str, list[str]] = {}
        for kind, name in group.items():
            if kinds[kind]["auc"] is not None:
                said.setdefault(_verb(kinds[kind]["auc"], kind), []).append(name)
        if said:
            sentences.append(", ".join(f"{verb} {_listed(names)}" for verb, names in sorted(said.items(), key=_order)))
    return "; ".join(sentences)


def _order(said: tuple[str, list[str]]) -> int:
    return {"partly": 1, "hardly": 2, "loses": 2}.get(said[0].split()[0], 0)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _worst(seen: Seen) -> list[dict[str, Any]]:
    """The different things that look more alike than the same usually do, one of each kind, the most wrong first."""
    found = []
    for kind in DIFFERENT:
        wrong = []
        for i in range(len(seen.sample.at)):
            less = seen.alike(i, kind)
            more = np.concatenate(
                [seen.alike(i, other) for other in (HARMLESS if kind in HARMFUL else ("photograph",))]
            )
            if len(less) and len(more):
                worst = int(less.argmax())
                wrong.append((float(less[worst] - more.mean()), i, worst, float(less[worst]), float(more.mean())))
        if wrong and max(wrong)[0] > 0:
            gap, i, worst, alike, beside = max(wrong)
            at = seen.sample.at[i]
            second: list[Any] = (
                [*at, kind] if kind in HARMFUL
                else ["", worst] if kind == "class_image"
                else [*seen.sample.at[seen.others(i)[worst]]]
            )  # fmt: skip
            row = {"kind": kind, "first": [*at], "second": second, "similarity": alike, "beside": beside}
            found.append((gap, row))
    return [row for _, row in sorted(found, key=lambda one: -one[0])[:WORST]]


def wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a mean of `count` values within [0, 1], here for 95 %."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)
