"""Every score of an evaluation, from the features of what the models drew for the same prompts and seeds.

Axes: `n` names (`s` subjects, then `c` class nouns), `p` prompts, `k` seeds, `m` photographs, `d` features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalize.evaluation import metrics, statistics
from personalize.evaluation.gates import METRICS
from personalize.evaluation.statistics import Estimate

Array = NDArray[Any]

PLAIN_QUALITIES = ("aspect", "brightness", "contrast", "saturation")
"""Read from the plain class pictures alone: a subject has a shape and a colour of its own, and may change these."""
UNTOLD = {
    "proportions": "the colours of the photographs do not tell where a subject ends and what surrounds it begins",
    "colour_difference": "the photographs are too few, or differ too much, to tell another colour from a subject's own",
}
"""What is measured of subjects alone, and why photographs may not tell it."""


@dataclass(frozen=True)
class Photographs:
    """The real photographs of one subject: `features[judge]` are unit vectors `[m, d]`.

    `held_out [m]` marks those that training never saw; None means that it saw all. `captions [m, d]` are their captions
    to the judge of texts, with class noun in place of the token; None where they have none.
    """

    token: str
    class_noun: str
    features: Mapping[str, Array]
    held_out: Array | None = None
    captions: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.features.values())))

    @property
    def unseen(self) -> NDArray[np.bool_]:
        return np.zeros(len(self), bool) if self.held_out is None else np.asarray(self.held_out, bool)


@dataclass(frozen=True)
class Pictures:
    """What one model drew: `features[judge] [n, p, k, d]` unit vectors, `qualities[name] [n, p, k]`."""

    features: Mapping[str, Array]
    qualities: Mapping[str, Array]


@dataclass(frozen=True)
class Scores:
    """Models side by side: `drawn` holds base and tuned, and champion where there is one.

    `texts [c, p, d]` are the prompts about each class noun to `reader`, the judge of texts. `lookers` are the judges
    that decide about likeness; every other judge's opinion is kept beside theirs. `unfit` says of those that failed
    their examination why. `looks`: at how many prompts the verdict is asked, where it is asked several times; intervals
    are so wide that they hold at all looks.

    Raises ValueError when the models did not answer the same questions.
    """

    photographs: Sequence[Photographs]
    drawn: Mapping[str, Pictures]
    texts: Array
    reader: str
    lookers: Sequence[str]
    unfit: Mapping[str, str] = field(default_factory=dict)
    looks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        names = len(self.photographs) + len(self.nouns)
        for side, pictures in self.drawn.items():
            for name, values in {**pictures.features, **pictures.qualities}.items():
                if values.shape[:3] != (names, *self.shape):
                    raise ValueError(f"all models must answer the same prompts and seeds: {side}'s {name} differs")

    @property
    def tokens(self) -> list[str]:
        return [each.token for each in self.photographs]

    @property
    def nouns(self) -> list[str]:
        return list(dict.fromkeys(each.class_noun for each in self.photographs))

    @property
    def shape(self) -> tuple[int, int]:
        """Prompts and seeds."""
        _, prompts, seeds, _ = next(iter(self.drawn["base"].features.values())).shape
        return prompts, seeds

    @property
    def judges(self) -> list[str]:
        """All that look, those that decide about likeness first."""
        return [*self.lookers, *(name for name in self.photographs[0].features if name not in self.lookers)]

    @property
    def voting(self) -> list[str]:
        """The lookers and the reader, on whom a verdict rests: a second opinion stands beside it and sways nothing."""
        return list(dict.fromkeys([*self.lookers, self.reader]))

    @cached_property
    def left_out(self) -> list[dict[int, str]]:
        """Of each subject, the photographs that say nothing of it, and why.

        Those that every deciding judge finds to resemble something else more than the rest of their own subject, and
        the second of two that these and the reader find to be nearly the same. At least two are kept.
        """
        subjects = len(self.photographs)
        strange = [np.ones(len(photos), bool) for photos in self.photographs]
        for judge in self.lookers:
            plain = self._flat_plain("base", judge)
            found = metrics.strangers([photos.features[judge] for photos in self.photographs], plain)
            strange = [strange[s] & found[s] for s in range(subjects)]
        reasons: list[dict[int, str]] = []
        for s, photos in enumerate(self.photographs):
            twins = np.all([metrics.prints(photos.features[judge]) for judge in self.voting], axis=0)
            found_here = {int(i): "resembles something else more than this subject" for i in np.flatnonzero(strange[s])}
            found_here |= {
                int(i): "nearly the same picture as one before it"
                for i in range(len(photos))
                if i not in found_here and any(twins[i, j] for j in range(i) if j not in found_here)
            }
            reasons.append(found_here if len(photos) - len(found_here) >= 2 else {})
        return reasons

    def references(self, judge: str) -> list[Array]:
        """The photographs that pictures are compared with, of each subject: `[m, d]`."""
        return self._references[judge]

    def ceilings(self, judge: str) -> Array:
        """A real photograph against the others of its subject: `[s]`; NaN where there is one."""
        return self._ceilings[judge]

    def closest_pairs(self, judge: str) -> Array:
        """How alike the two most alike photographs of a subject are: `[s]`."""
        return np.array([metrics.closest_pair(each) for each in self.references(judge)])

    @cached_property
    def _references(self) -> dict[str, list[Array]]:
        kept = [
            np.delete(np.arange(len(photos)), list(out))
            for photos, out in zip(self.photographs, self.left_out, strict=True)
        ]
        return {
            judge: [photos.features[judge][rows] for photos, rows in zip(self.photographs, kept, strict=True)]
            for judge in self.judges
        }

    @cached_property
    def _ceilings(self) -> dict[str, Array]:
        return {
            judge: np.array([metrics.ceiling(each).mean() for each in references])
            for judge, references in self._references.items()
        }

    @cached_property
    def _copied_from(self) -> dict[str, list[NDArray[np.bool_]]]:
        """Of each model and subject: which photographs a picture is a copy of to all that vote, `[p, k, m]`.

        One and the same photograph: a judge that overlooks the surroundings calls the very subject in a new place a
        copy, one that sees little else does so in a place of its photographs; they name different ones then. And a
        copy brings its photograph's surroundings along: a subject on grass, as in a photograph, is none where the
        grass lies as in what the base draws from the same noise.
        """
        return {
            side: [
                np.logical_and.reduce(of) & (moved[..., None] > 0)
                for *of, moved in zip(
                    *(self._copies(side, judge) for judge in self.voting),
                    pictures.qualities["displaced"][: len(self.photographs)],
                    strict=True,
                )
            ]
            for side, pictures in self.drawn.items()
        }

    def _flat_plain(self, side: str, judge: str) -> list[Array]:
        plain = self.drawn[side].features[judge][len(self.photographs) :]
        return [of_noun.reshape(-1, of_noun.shape[-1]) for of_noun in plain]

    @cached_property
    def _scored(self) -> dict[tuple[str, str], dict[str, Array]]:
        return {}

    def of(self, side: str, judge: str = "") -> dict[str, Array]:
        """All scores of one model's pictures, in the eyes of one judge (the first of those that decide).

        `[s, p, k]`, those of plain class pictures `[c, p, k]`, qualities of both `[n, p, k]`.
        """
        key = side, judge or self.lookers[0]
        if key not in self._scored:
            self._scored[key] = self._score(*key)
        return self._scored[key]

    def _score(self, side: str, judge: str) -> dict[str, Array]:
        subjects = len(self.photographs)
        features = self.drawn[side].features[judge]
        own, plain = features[:subjects], features[subjects:]
        references = self.references(judge)
        galleries = [*references, *self._flat_plain("base", judge)]
        found = np.stack([metrics.nearest_gallery(pictures, galleries) for pictures in own])
        read = self.drawn[side].features[self.reader]
        texts = dict(zip(self.nouns, self.texts, strict=True))
        of_subjects = [texts[photos.class_noun] for photos in self.photographs]
        copied = self._copied_from[side]
        nearest = [
            metrics.nearest(pictures, photos.features[judge], of)
            for pictures, photos, of in zip(own, self.photographs, copied, strict=True)
        ]
        base_plain = self.drawn["base"].features[judge][subjects:]
        scores = {
            "likeness": np.stack([metrics.similarity(a, b) for a, b in zip(own, references, strict=True)]),
            "held_out": self._held_out(own, judge),
            "recognised_as": found,
            "recognised": found == np.arange(subjects)[:, None, None],
            "variety": metrics.variety(own)[..., None],
            "nearest_photograph": np.stack([index for index, _ in nearest]),
            "nearest": np.stack([cosine for _, cosine in nearest]),
            "clip_t": metrics.prompt_following(read[:subjects], np.stack(of_subjects)[:, :, None]),
            "prompt_contrast": _each(metrics.prompt_contrast, read[:subjects], of_subjects),
            "r_precision": _each(metrics.r_precision, read[:subjects], of_subjects),
            "retention": np.stack(list(map(metrics.retention, plain, base_plain))),
            "near_subject": np.stack(
                [
                    np.max([metrics.similarity(pictures, references[s]) for s in self._subjects_of(noun)], axis=0)
                    for pictures, noun in zip(plain, self.nouns, strict=True)
                ]
            ),
            "class_clip_t": metrics.prompt_following(read[subjects:], self.texts[:, :, None]),
            "class_r_precision": _each(metrics.r_precision, read[subjects:], self.texts),
            "copied": np.stack([of.any(axis=-1) for of in copied]),
        }
        for name, values in self.drawn[side].qualities.items():
            scores[name] = values[subjects:] if name in PLAIN_QUALITIES else values
        for name in UNTOLD:
            scores[name] = scores[name][:subjects]
        return scores

    def _held_out(self, own: Array, judge: str) -> Array:
        if self.missing("held_out"):
            return np.full(own.shape[:3], np.nan)
        pairs = zip(own, self.photographs, strict=True)
        return np.stack([metrics.similarity(pictures, of.features[judge][of.unseen]) for pictures, of in pairs])

    def _copies(self, side: str, judge: str) -> list[NDArray[np.bool_]]:
        """Of each subject, which photographs that training saw a picture is nearer to than any two are: `[p, k, m]`."""
        own = self.drawn[side].features[judge][: len(self.photographs)]
        return [
            (pictures @ photos.features[judge].T > closest) & ~photos.unseen
            for pictures, photos, closest in zip(own, self.photographs, self.closest_pairs(judge), strict=True)
        ]

    def confusion(self, judge: str = "") -> Array:
        """Share of the tuned model's pictures asked for as (row) and resembling most (column; then class nouns)."""
        found = self.of("tuned", judge)["recognised_as"]
        asked = np.broadcast_to(np.arange(len(found))[:, None, None], found.shape)
        return metrics.confusion(asked, found, (len(found), len(found) + len(self.nouns)))

    def estimate(
        self,
        metric: str,
        judge: str = "",
        against: str = "",
        level: float = 0.95,
        subject: int | None = None,
        side: str = "tuned",
    ) -> Estimate | None:
        """A metric of the tuned model, or its paired difference from another (`against`), over all subjects or one.

        None where the metric has no meaning; `missing` says why.
        """
        if self.missing(metric, subject, against, judge):
            return None
        found = self._estimate(metric, judge, against, self.at_this_look(level), subject, side)
        return replace(found, level=level)

    def at_this_look(self, level: float) -> float:
        """The level of each interval for which those of all looks hold together at `level`."""
        prompts, _ = self.shape
        return statistics.at_each_look(level, self.looks, prompts)

    def _estimate(
        self, metric: str, judge: str, against: str, level: float, subject: int | None, side: str
    ) -> Estimate:
        if metric in ("gap_closed", "leakage"):
            return self._way(metric, judge, level, subject, side)
        if metric == "prompt_kept":
            return statistics.ratio(self._contrast(side, subject), self._contrast("base", subject), level)
        ours = _chosen(self.of(side, judge), metric, subject)
        if metric == "variety":
            apart = 1 - self.ceilings(judge or self.lookers[0])
            return statistics.ratio(
                ours, np.full(ours.shape, apart.mean() if subject is None else apart[subject]), level
            )
        if METRICS[metric].share:
            if against:
                return statistics.difference_of_shares(ours, _chosen(self.of(against, judge), metric, subject), level)
            return statistics.share(ours, level)
        return statistics.estimate(ours - _chosen(self.of(against, judge), metric, subject) if against else ours, level)

    def _contrast(self, side: str, subject: int | None) -> Array:
        chosen = slice(None) if subject is None else slice(subject, subject + 1)
        return np.asarray(self.of(side)["prompt_contrast"][chosen])

    def _way(self, metric: str, judge: str, level: float, subject: int | None, side: str) -> Estimate:
        """Share of the way to the photographs, which are a sample too: their error is found by leaving each out.

        (Leakage is judged by a wide line, and the base's own class pictures are the greater uncertainty there.)
        """
        judge = judge or self.lookers[0]
        name = "likeness" if metric == "gap_closed" else "near_subject"
        chosen = [subject] if subject is not None else list(range(len(self.photographs)))
        ours, base = (_chosen(self.of(one, judge), name, subject) for one in (side, "base"))
        ceilings = self.ceilings(judge)
        goal = float(np.mean(ceilings[chosen])) if metric == "gap_closed" else self._goal_of_leakage(judge)
        above, below = metrics.way(ours, base, goal)
        if metric == "leakage":
            return statistics.ratio(above, below, level)
        errors = [self._error_of_photographs(side, judge, s) for s in chosen]
        return statistics.ratio(above, below, level, besides=float(np.linalg.norm(errors)) / len(chosen))

    def _error_of_photographs(self, side: str, judge: str, subject: int) -> float:
        """Standard error that a subject's share of the way has from its few photographs (jackknife)."""
        photos = self.references(judge)[subject]
        if len(photos) < 3:
            return 0.0
        ours, base = ((self.drawn[one].features[judge][subject] @ photos.T).mean(axis=(0, 1)) for one in (side, "base"))
        without = []
        for i in range(len(photos)):
            rest = np.delete(np.arange(len(photos)), i)
            goal, floor = metrics.ceiling(photos[rest]).mean(), base[rest].mean()
            without.append((ours[rest].mean() - floor) / (goal - floor))
        return statistics.jackknife_error(np.array(without))

    def _goal_of_leakage(self, judge: str) -> float:
        ceilings = self.ceilings(judge)
        return float(np.mean([ceilings[self._subjects_of(noun)].mean() for noun in self.nouns]))

    def missing(self, metric: str, subject: int | None = None, against: str = "", judge: str = "") -> str:
        """Why a metric has no meaning here, in words; empty when it has."""
        judge = judge or self.lookers[0]
        chosen = slice(None) if subject is None else slice(subject, subject + 1)
        prompts, seeds = self.shape
        if against and against not in self.drawn:
            return f"there is no {against}"
        if metric == "held_out" and not all(photos.unseen.any() for photos in self.photographs[chosen]):
            return "training held no photograph of every subject back"
        if (
            metric in ("copied", "gap_closed", "leakage", "variety")
            and not np.isfinite(self.ceilings(judge)[chosen]).all()
        ):
            return "a subject has a single photograph, so that photographs cannot be compared among themselves"
        if metric in ("gap_closed", "leakage"):
            name = "likeness" if metric == "gap_closed" else "near_subject"
            goal = self._goal_of_leakage(judge) if metric == "leakage" else self.ceilings(judge)[chosen].mean()
            if goal <= _chosen(self.of("base", judge), name, subject).mean():
                return "the photographs resemble each other no more than the base model's pictures resemble them"
        if metric in ("prompt_kept", "r_precision", "class_r_precision", "marks") and prompts < 2:
            return "there is one prompt, and no other to take it for"
        if metric in UNTOLD and not np.isfinite(self.of("tuned", judge)[metric][chosen]).all():
            return UNTOLD[metric]
        if metric == "prompt_kept":
            of_base = self._contrast("base", subject)
            if not np.isfinite(of_base).all():
                return "some prompt says the same as all others"
            if of_base.mean() <= 0:
                return "the base model's pictures fit their own prompt no better than the others"
        if metric in ("variety", "retention") and seeds < 2:
            return "there is one seed for each prompt"
        return ""

    def _subjects_of(self, noun: str) -> list[int]:
        return [i for i, each in enumerate(self.photographs) if each.class_noun == noun]


def _chosen(scores: Mapping[str, Array], metric: str, subject: int | None) -> Array:
    """One subject's part of a metric that subjects have; the whole of any other."""
    of_subjects = metric in METRICS and METRICS[metric].each
    return scores[metric][subject : subject + 1] if subject is not None and of_subjects else scores[metric]


def _each(metric: Any, pictures: Array, texts: Sequence[Array] | Array) -> Array:
    return np.stack([metric(*pair) for pair in zip(pictures, texts, strict=True)]).astype(float)
