"""What can be wrong with pictures: each takes the tuned model's answers and what is at hand to spoil them with.

Answers are lists `[names][prompts][seeds]` of pictures: subjects first, then class nouns. A model whose pictures look
like that is broken, whatever made it so.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Picture = Image.Image
Answers = list[list[list[Picture]]]


@dataclass(frozen=True)
class Given:
    """`tuned` and `base` `[names][prompts][seeds]`, `photographs[s]`; the first `subjects` names are subjects."""

    tuned: Answers
    base: Answers
    photographs: Sequence[Sequence[Picture]]

    @property
    def subjects(self) -> int:
        return len(self.photographs)


Edit = Callable[[Given], Answers]


def every(change: Callable[[Picture], Picture], plain: bool = True, own: bool = True) -> Edit:
    """The same done to every picture, of the subjects, of the plain class word or of both."""

    def edit(given: Given) -> Answers:
        return [
            [[change(p) if (own if n < given.subjects else plain) else p for p in seeds] for seeds in prompts]
            for n, prompts in enumerate(given.tuned)
        ]

    return edit


def of_subject(given: Given, subject: int, instead: Callable[[int, int], Picture], share: float = 1.0) -> Answers:
    """One subject's pictures replaced, all or each with a chance; `instead` takes prompt and seed."""
    rng = np.random.default_rng(0)
    answers = list(given.tuned)
    answers[subject] = [
        [instead(p, k) if rng.random() < share else picture for k, picture in enumerate(seeds)]
        for p, seeds in enumerate(given.tuned[subject])
    ]
    return answers


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


def blur(radius: float) -> Callable[[Picture], Picture]:
    return lambda picture: picture.filter(ImageFilter.GaussianBlur(radius))


def one_seed(given: Given) -> Answers:
    return [[[seeds[0]] * len(seeds) for seeds in prompts] for prompts in given.tuned]


def one_prompt(given: Given) -> Answers:
    """Whatever is asked, the first prompt's pictures."""
    return [[prompts[0] for _ in prompts] if n < given.subjects else prompts for n, prompts in enumerate(given.tuned)]


def other_prompts(given: Given, every: int = 1) -> Answers:
    """Pictures of a prompt far away in the list, in place of every one or every few."""
    return [
        [prompts[(p + len(prompts) // 2) % len(prompts)] if p % every == 0 else of for p, of in enumerate(prompts)]
        if n < given.subjects
        else prompts
        for n, prompts in enumerate(given.tuned)
    ]


def no_learning(given: Given) -> Answers:
    return given.base


def class_instead(given: Given) -> Answers:
    """The first subject comes out as any of its class."""
    return of_subject(given, 0, lambda p, k: given.tuned[given.subjects][p][k])


def class_in_one_of_five(given: Given) -> Answers:
    return _each_now_and_then(given, lambda s: given.subjects)


def neighbour(given: Given) -> Answers:
    """The first subject comes out as the second."""
    return of_subject(given, 0, lambda p, k: given.tuned[1][p][k])


def neighbour_in_one_of_five(given: Given) -> Answers:
    return _each_now_and_then(given, lambda s: (s + 1) % given.subjects)


def _each_now_and_then(given: Given, whose: Callable[[int], int]) -> Answers:
    """Every subject comes out as another name in one picture of five."""
    own = []
    for s in range(given.subjects):
        other = given.tuned[whose(s)]
        own.append(of_subject(given, s, lambda p, k, other=other: other[p][k], 0.2)[s])
    return own + given.tuned[given.subjects :]


def rolled(given: Given) -> Answers:
    own = given.tuned[: given.subjects]
    return [*own[1:], own[0], *given.tuned[given.subjects :]]


def copies(given: Given, change: Callable[[Picture], Picture] = lambda picture: picture) -> Answers:
    """Photographs, whatever is asked."""
    answers = list(given.tuned)
    for s, photos in enumerate(given.photographs):
        size = given.tuned[s][0][0].size
        small = [change(photo.resize(size, Image.Resampling.LANCZOS)) for photo in photos]
        answers[s] = [
            [small[(p * len(seeds) + k) % len(small)] for k in range(len(seeds))]
            for p, seeds in enumerate(given.tuned[s])
        ]
    return answers


def cropped(photo: Picture) -> Picture:
    """Four fifths of it, enlarged."""
    width, height = photo.size
    box = width // 10, height // 5, width - width // 10, height
    return photo.resize(photo.size, Image.Resampling.LANCZOS, box=box)


def copies_in_one_of_three(given: Given) -> Answers:
    """Every third picture of a subject is one of its photographs."""
    copied = copies(given)
    own = [
        of_subject(given, s, lambda p, k, s=s: (given.tuned if (p + k) % 3 else copied)[s][p][k])[s]
        for s in range(given.subjects)
    ]
    return own + given.tuned[given.subjects :]


def plain(change: Callable[[Given, int, int, int], Picture]) -> Edit:
    """The plain class pictures replaced: `change` takes class noun, prompt and seed."""

    def edit(given: Given) -> Answers:
        return given.tuned[: given.subjects] + [
            [[change(given, n, p, k) for k in range(len(seeds))] for p, seeds in enumerate(prompts)]
            for n, prompts in enumerate(given.tuned[given.subjects :])
        ]

    return edit


def washed(picture: Picture) -> Picture:
    return picture.point(lambda value: 110 + value * 0.35)


EDITS: dict[str, Edit] = {
    "blur 1 px": every(blur(1)),
    "blur 1.5 px": every(blur(1.5)),
    "blur 3 px": every(blur(3)),
    "blur of the subjects alone": every(blur(1.5), plain=False),
    "jpeg 10": every(jpeg),
    "noise": every(noisy),
    "watermark": every(marked),
    "watermark on the subjects alone": every(marked, plain=False),
    "frame": every(framed),
    "stretched across": every(lambda p: stretched(p, 1.5, 1)),
    "stretched down": every(lambda p: stretched(p, 1, 1.5)),
    "stretched across, the subjects alone": every(lambda p: stretched(p, 1.5, 1), plain=False),
    "stretched down, the subjects alone": every(lambda p: stretched(p, 1, 1.5), plain=False),
    "zoomed": every(lambda p: stretched(p, 2, 2)),
    "tiled": every(tiled),
    "upside down": every(lambda p: p.rotate(180)),
    "dark": every(lambda p: p.point(lambda v: v * 0.45)),
    "washed out": every(washed),
    "burnt": every(lambda p: ImageEnhance.Color(ImageEnhance.Contrast(p).enhance(2)).enhance(2.5)),
    "grey": every(lambda p: p.convert("L").convert("RGB")),
    "other colours": every(hue),
    "other colours of the subjects alone": every(hue, plain=False),
    "inverted": every(ImageOps.invert),
    "posterised": every(lambda p: ImageOps.posterize(p, 2)),
    "static": every(static),
    "one picture for all seeds": one_seed,
    "one prompt's pictures for all prompts": one_prompt,
    "other prompts' places": other_prompts,
    "every third prompt unheard": lambda given: other_prompts(given, every=3),
    "nothing learnt": no_learning,
    "first subject is any of its class": class_instead,
    "one in five is any of its class": class_in_one_of_five,
    "first subject is the second": neighbour,
    "one in five is another subject": neighbour_in_one_of_five,
    "all subjects interchanged": rolled,
    "photographs copied": copies,
    "photographs copied, mirrored": lambda given: copies(given, ImageOps.mirror),
    "photographs copied, cropped": lambda given: copies(given, cropped),
    "every third picture is a photograph": copies_in_one_of_three,
    "plain pictures are static": plain(lambda given, n, p, k: static(given.base[0][0][0])),
    "plain pictures are black": plain(lambda given, n, p, k: Image.new("RGB", given.base[0][0][0].size)),
    "plain pictures are the first subject": plain(lambda given, n, p, k: given.tuned[0][p][k]),
    "every second plain picture is a subject": plain(
        lambda given, n, p, k: (given.tuned[0] if (p + k) % 2 else given.tuned[given.subjects + n])[p][k]
    ),
    "plain pictures do not hear the prompt": plain(
        lambda given, n, p, k: given.tuned[given.subjects + n][(p + 12) % len(given.tuned[0])][k]
    ),
    "plain pictures of one prompt": plain(lambda given, n, p, k: given.tuned[given.subjects + n][0][k]),
}
"""By name. Those that interchange subjects need two."""

NEED_TWO = (
    "first subject is the second",
    "one in five is another subject",
    "all subjects interchanged",
)
