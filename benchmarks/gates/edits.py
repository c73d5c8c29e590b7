"""What can be wrong with pictures: each takes the tuned model's answers and what is at hand to spoil them with.

Answers are lists `[names][prompts][seeds]` of pictures: subjects first, then class nouns. A model whose pictures look
like that is broken, whatever made it so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageFilter, ImageOps
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter

from benchmarks.gates.pictures import (
    Picture,
    apart,
    bent,
    blur,
    burnt,
    chequered,
    cropped,
    dark,
    edges,
    flat,
    framed,
    grey,
    half_black,
    halves,
    holed,
    hue,
    in_middle,
    jpeg,
    marked,
    noisy,
    overturned,
    peppered,
    pixels,
    posterised,
    rough,
    scanned,
    shaded,
    shuffled,
    slanted,
    small,
    smeared,
    static,
    stretched,
    tiled,
    tilted,
    tinted,
    twice,
    washed,
    wavy,
    with_thing,
)
from personalize.evaluation import colours, silhouettes
from personalize.evaluation.silhouettes import Subject

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

    @cached_property
    def known(self) -> list[Subject]:
        """What the photographs show, told from the base's plain pictures."""
        shown = [[colours.colours(one) for one in of] for of in self.photographs]
        plain = [colours.colours(one) for one in listed(self.base[self.subjects :])]
        return silhouettes.subjects(shown, np.stack(plain))


Edit = Callable[[Given], Answers]


def listed(answers: Answers) -> list[Picture]:
    return [picture for prompts in answers for seeds in prompts for picture in seeds]


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


def of_subjects(given: Given, instead: Callable[[int, int, int], Picture], share: float = 1.0) -> Answers:
    """Every subject's pictures replaced, all or each with a chance; `instead` takes subject, prompt and seed."""
    own = [of_subject(given, s, functools.partial(instead, s), share)[s] for s in range(given.subjects)]
    return own + given.tuned[given.subjects :]


def first(change: Callable[[Picture], Picture]) -> Edit:
    """The same done to the first subject's pictures alone."""
    return lambda given: of_subject(given, 0, lambda p, k: change(given.tuned[0][p][k]))


def first_of(edit: Edit) -> Edit:
    """The edit's first subject, and the others as they were."""
    return lambda given: [edit(given)[0], *given.tuned[1:]]


def one_in_five(change: Callable[[Picture], Picture]) -> Edit:
    """The same done to one picture in five of every subject."""
    return lambda given: of_subjects(given, lambda s, p, k: change(given.tuned[s][p][k]), 0.2)


def in_one_of_five(edit: Edit) -> Edit:
    """Of every subject one picture in five as another edit has it."""

    def spoil(given: Given) -> Answers:
        instead = edit(given)
        return of_subjects(given, lambda s, p, k: instead[s][p][k], 0.2)

    return spoil


def blended(other: Callable[[Given, int, int, int], Picture]) -> Edit:
    """Half of each subject's picture is another: `other` takes subject, prompt and seed."""
    return lambda given: of_subjects(
        given, lambda s, p, k: Image.blend(given.tuned[s][p][k], other(given, s, p, k), 0.5)
    )


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


def any_of_class(given: Given) -> Answers:
    """Every subject comes out as any of its class."""
    return of_subjects(given, lambda s, p, k: given.tuned[given.subjects][p][k])


def neighbour(given: Given) -> Answers:
    """The first subject comes out as the second."""
    return of_subject(given, 0, lambda p, k: given.tuned[1][p][k])


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


def copies_in_one_of_three(given: Given) -> Answers:
    """Every third picture of a subject is one of its photographs."""
    copied = copies(given)
    return of_subjects(given, lambda s, p, k: (given.tuned if (p + k) % 3 else copied)[s][p][k])


def plain(change: Callable[[Given, int, int, int], Picture]) -> Edit:
    """The plain class pictures replaced: `change` takes class noun, prompt and seed."""

    def edit(given: Given) -> Answers:
        return given.tuned[: given.subjects] + [
            [[change(given, n, p, k) for k in range(len(seeds))] for p, seeds in enumerate(prompts)]
            for n, prompts in enumerate(given.tuned[given.subjects :])
        ]

    return edit


def of_its_own(change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Edit:
    """What only the subjects suffer, where they are: `change` takes values `[h, w, 3]` and the silhouette `[h, w]`.

    Silhouettes, 0 to 1, are those of `personalize.evaluation.silhouettes`.
    """

    def edit(given: Given) -> Answers:
        def spoil(subject: int, p: int, k: int) -> Picture:
            picture = given.tuned[subject][p][k]
            where = given.known[subject].silhouette(colours.colours(picture))
            mask = Image.fromarray(where).convert("L").resize(picture.size, Image.Resampling.BICUBIC)
            return pixels(lambda values: change(values, np.asarray(mask, float) / 255))(picture)

        return of_subjects(given, spoil)

    return edit


def where_it_is(change: Callable[[Picture], Picture]) -> Edit:
    """Every subject changed, and nothing else of its pictures."""

    def mixed(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        changed = np.asarray(change(Image.fromarray(values.astype(np.uint8))), float)
        return values + (changed - values) * where[..., None]

    return of_its_own(mixed)


def behind(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """What may be behind a subject: the nearest of its surroundings, blurred."""
    covered = binary_dilation(where > 0.25, iterations=2)
    nearest = distance_transform_edt(covered, return_distances=False, return_indices=True)
    filled = gaussian_filter(values[*nearest], (3, 3, 0))
    return np.where(covered[..., None], filled, values)


def faint(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Half of it is what is behind it."""
    return values + (behind(values, where) - values) * where[..., None] / 2


def without(start: float, end: float, axis: int = 0) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A part of it gone, from one share of its height (or width, axis 1) to another."""

    def cut(values: np.ndarray, where: np.ndarray) -> np.ndarray:
        own = np.flatnonzero((where > 0.5).any(axis=1 - axis))
        if not len(own):
            return values
        first, size = own[0], np.ptp(own) + 1
        at = np.indices(where.shape)[axis]
        gone = binary_dilation(where > 0.3, iterations=2) & (at >= first + start * size) & (at < first + end * size + 2)
        return np.where(gone[..., None], behind(values, where), values)

    return cut


SEEN_ONCE: dict[str, Callable[[Picture], Picture]] = {
    "static": static,
    "black": lambda p: Image.new("RGB", p.size),
    "blurred": blur(3),
    "blurred a little": blur(1.5),
    "smeared": pixels(smeared),
    "jpeg 10": jpeg,
    "noisy": noisy,
    "salt and pepper": pixels(peppered),
    "pixelated": lambda p: rough(p, 32, Image.Resampling.NEAREST),
    "chequered": pixels(chequered),
    "posterised": posterised,
    "marked": marked,
    "framed": framed,
    "holed": pixels(holed),
    "half black": pixels(half_black),
    "dark": dark,
    "washed out": washed,
    "burnt": burnt,
    "grey": grey,
    "yellow": tinted(1, 0.95, 0.6),
    "of other colours": hue,
    "inverted": ImageOps.invert,
    "edges": edges,
    "of colours apart": apart,
    "upside down": overturned,
    "turned a quarter": lambda p: p.rotate(90),
    "tilted": tilted,
    "a mirror image": ImageOps.mirror,
    "mirrored halves": halves,
    "twice": twice,
    "tiled": tiled,
    "shuffled": pixels(shuffled),
    "stretched": lambda p: stretched(p, 1.5, 1),
    "stretched down": lambda p: stretched(p, 1, 1.5),
    "zoomed": lambda p: stretched(p, 2, 2),
    "small": small,
    "wavy": pixels(wavy),
}
"""What one picture in five can have, while the others are as they should be."""

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
    "upside down": every(overturned),
    "dark": every(dark),
    "washed out": every(washed),
    "burnt": every(burnt),
    "grey": every(grey),
    "other colours": every(hue),
    "other colours of the subjects alone": every(hue, plain=False),
    "inverted": every(ImageOps.invert),
    "posterised": every(posterised),
    "static": every(static),
    "one picture for all seeds": one_seed,
    "one prompt's pictures for all prompts": one_prompt,
    "other prompts' places": other_prompts,
    "every third prompt unheard": lambda given: other_prompts(given, every=3),
    "nothing learnt": no_learning,
    "first subject is any of its class": class_instead,
    "one in five is any of its class": in_one_of_five(any_of_class),
    "first subject is the second": neighbour,
    "one in five is another subject": in_one_of_five(rolled),
    "all subjects interchanged": rolled,
    "photographs copied": copies,
    "photographs copied, mirrored": lambda given: copies(given, ImageOps.mirror),
    "photographs copied, cropped": lambda given: copies(given, cropped),
    "every third picture is a photograph": copies_in_one_of_three,
    "one in five is a photograph": in_one_of_five(copies),
    "one in five is a photograph, cropped": in_one_of_five(lambda given: copies(given, cropped)),
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
    "plain pictures blurred": every(blur(1.5), own=False),
    "plain pictures in other colours": every(hue, own=False),
    "plain pictures upside down": every(overturned, own=False),
    "plain pictures half black": every(pixels(half_black), own=False),
    "first subject blurred": first(blur(1.5)),
    "first subject blurred much": first(blur(3)),
    "first subject as jpeg 10": first(jpeg),
    "first subject noisy": first(noisy),
    "first subject with a watermark": first(marked),
    "first subject in a frame": first(framed),
    "first subject dark": first(dark),
    "first subject washed out": first(washed),
    "first subject grey": first(grey),
    "first subject in other colours": first(hue),
    "first subject stretched": first(lambda p: stretched(p, 1.5, 1)),
    "first subject upside down": first(overturned),
    "first subject posterised": first(posterised),
    "first subject tiled": first(tiled),
    "first subject half black": first(pixels(half_black)),
    "first subject one picture for all seeds": first_of(one_seed),
    "first subject one prompt's pictures": first_of(one_prompt),
    "first subject other prompts' places": first_of(other_prompts),
    "first subject not learnt": first_of(no_learning),
    "first subject's photographs copied": first_of(copies),
    "first subject's photographs copied, cropped": first_of(lambda given: copies(given, cropped)),
    "every third picture of the first subject is a photograph": first_of(copies_in_one_of_three),
    "first subject's colours apart": first(apart),
    "first subject in mirrored halves": first(halves),
    **{f"one in five is {name}": one_in_five(change) for name, change in SEEN_ONCE.items()},
    "colours apart": every(apart),
    "colours apart, the subjects alone": every(apart, plain=False),
    "mirrored halves": every(halves),
    "smeared": every(pixels(smeared)),
    "chequered": every(pixels(chequered)),
    "chequered, the subjects alone": every(pixels(chequered), plain=False),
    "half black": every(pixels(half_black)),
    "a hole in every picture": every(pixels(holed)),
    "a hole in every subject": every(pixels(holed), plain=False),
    "pixelated": every(lambda p: rough(p, 32, Image.Resampling.NEAREST)),
    "drawn at 40 px": every(lambda p: rough(p, 40, Image.Resampling.BICUBIC)),
    "wavy": every(pixels(wavy)),
    "shuffled": every(pixels(shuffled)),
    "salt and pepper": every(pixels(peppered)),
    "scan lines": every(pixels(scanned)),
    "yellow cast": every(tinted(1, 0.95, 0.6)),
    "yellow cast of the subjects alone": every(tinted(1, 0.95, 0.6), plain=False),
    "blue cast": every(tinted(0.7, 0.9, 1.1)),
    "twice": every(twice),
    "small": every(small),
    "tilted": every(tilted),
    "a quarter turn": every(lambda p: p.rotate(90)),
    "dark corners": every(pixels(shaded)),
    "edges": every(edges),
    "embossed": every(lambda p: p.filter(ImageFilter.EMBOSS)),
    "sharpened": every(lambda p: p.filter(ImageFilter.UnsharpMask(2, 300, 0))),
    "subjects half the base's": blended(lambda given, s, p, k: given.base[s][p][k]),
    "subjects exposed twice": blended(lambda given, s, p, k: given.tuned[s][(p + 11) % len(given.tuned[s])][k]),
    "subjects of another hue": where_it_is(hue),
    "subjects of a hue turned by 40 degrees": where_it_is(lambda p: hue(p, 28)),
    "subjects dark where they are": where_it_is(lambda p: p.point(lambda value: value * 0.55)),
    "subjects grey where they are": where_it_is(grey),
    "subjects faint": of_its_own(faint),
    "subjects without their lower third": of_its_own(without(0.67, 1)),
    "subjects without their upper third": of_its_own(without(0, 0.33)),
    "subjects without their middle": of_its_own(without(0.35, 0.6)),
    "subjects without their right half": of_its_own(without(0.5, 1, axis=1)),
    "bent": every(pixels(bent), plain=False),
    "flat": every(flat, plain=False),
    "brighter": every(lambda p: p.point(lambda value: value + 45), plain=False),
    "a thing beside the subject": every(pixels(with_thing), plain=False),
    "middle blurred": every(in_middle(blur(2)), plain=False),
    "seen in perspective": every(slanted, plain=False),
}
"""By name. Those that interchange subjects need two."""

NEED_TWO = (
    "first subject is the second",
    "one in five is another subject",
    "all subjects interchanged",
)
