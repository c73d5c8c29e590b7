"""Every score of an evaluation, from the features of what base and tuned model drew for the same prompts and seeds.

Axes: `s` subjects, `p` prompts, `k` seeds, `m` photographs, `c` class nouns, `d` features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalize.evaluation import metrics, statistics
from personalize.evaluation.gates import PAIRED
from personalize.evaluation.statistics import Estimate

Array = NDArray[Any]

SHARES = ("r_precision", "recognised", "copied")
"""Metrics that are yes or no for each picture."""


@dataclass(frozen=True)
class Photographs:
    """The real photographs of one subject as unit vectors: `dino [m, d]`, `clip [m, d]`.

    `held_out [m]` marks those that training never saw; None means that it saw all. `captions [m, d]` are their captions
    in CLIP, with class noun in place of the token; None where they have none.
    """

    token: str
    class_noun: str
    dino: Array
    clip: Array
    held_out: Array | None = None
    captions: Array | None = None

    @property
    def clip_t(self) -> float:
        """CLIP-T of the photographs and their own captions: what the subject's very look makes of prompt following."""
        return (
            float("nan") if self.captions is None else float(metrics.prompt_following(self.clip, self.captions).mean())
        )

    @property
    def unseen(self) -> Array:
        """DINO of the photographs that training never saw: `[0..m, d]`."""
        return self.dino[:0] if self.held_out is None else self.dino[np.asarray(self.held_out, bool)]

    @property
    def learnt(self) -> NDArray[np.intp]:
        """Indices of the photographs that training saw, and could have copied."""
        return np.flatnonzero(np.ones(len(self.dino), bool) if self.held_out is None else ~np.asarray(self.held_out))


@dataclass(frozen=True)
class Pictures:
    """What one model drew, as unit vectors.

    `dino` and `clip` `[s, p, k, d]`: each subject in each prompt. `plain` `[c, p, j, d]`: DINO features of the same
    prompts with the class noun alone, nouns in the order in which subjects first name them.
    """

    dino: Array
    clip: Array
    plain: Array


@dataclass(frozen=True)
class Scores:
    """Base and tuned model side by side. `texts [s, p, d]` are the prompts with token replaced by class noun, in CLIP.

    Raises ValueError when the two models did not answer the same questions.
    """

    photographs: Sequence[Photographs]
    texts: Array
    base: Pictures
    tuned: Pictures

    def __post_init__(self) -> None:
        for name in ("dino", "clip", "plain"):
            base, tuned = getattr(self.base, name), getattr(self.tuned, name)
            if base.shape != tuned.shape:
                raise ValueError(f"base and tuned must answer the same prompts and seeds: {name} differs in shape")
        if len(self.photographs) != len(self.base.dino) or len(self.nouns) != len(self.base.plain):
            raise ValueError("each subject needs its photographs and its pictures, each class noun its plain pictures")

    @property
    def tokens(self) -> list[str]:
        return [each.token for each in self.photographs]

    @property
    def nouns(self) -> list[str]:
        return list(dict.fromkeys(each.class_noun for each in self.photographs))

    @cached_property
    def ceilings(self) -> Array:
        """DINO of a real photograph against the others of its subject: `[s]`."""
        return np.array([metrics.ceiling(each.dino).mean() for each in self.photographs])

    @cached_property
    def clip_ceilings(self) -> Array:
        return np.array([metrics.ceiling(each.clip).mean() for each in self.photographs])

    @cached_property
    def closest_pairs(self) -> Array:
        """How alike the two most alike photographs of a subject are, in DINO: `[s]`."""
        return np.array([metrics.closest_pair(each.dino) for each in self.photographs])

    @cached_property
    def closest_clip_pairs(self) -> Array:
        return np.array([metrics.closest_pair(each.clip) for each in self.photographs])

    @cached_property
    def of_base(self) -> dict[str, Array]:
        return self._score(self.base)

    @cached_property
    def of_tuned(self) -> dict[str, Array]:
        return self._score(self.tuned)

    @cached_property
    def confusion(self) -> Array:
        """Share of the tuned model's pictures asked for as (row) and recognised as (column): `[s, s]`."""
        recognised = self.of_tuned["recognised_as"]
        asked = np.broadcast_to(np.arange(len(recognised))[:, None, None], recognised.shape)
        return metrics.confusion(asked, recognised, len(self.photographs))

    def _score(self, pictures: Pictures) -> dict[str, Array]:
        """`[s, p, k]` (`variety` `[s, p, 1]`, `retention` and `near_subject` `[c, p, j]`).

        A picture looks copied when it is nearer to a photograph than any two photographs of the subject are to each
        other, to DINO and to CLIP both: DINO overlooks the surroundings, so that to it alone the very subject in a new
        place would be a copy.
        """
        own = list(zip(pictures.dino, pictures.clip, self.photographs, strict=True))
        nearest = [metrics.nearest(dino, photos.dino[photos.learnt]) for dino, _, photos in own]
        nearest_clip = [metrics.nearest(clip, photos.clip[photos.learnt]) for _, clip, photos in own]
        likeness = np.stack([cosine for _, cosine in nearest])
        likeness_clip = np.stack([cosine for _, cosine in nearest_clip])
        recognised = metrics.recognised_as(pictures.dino, [photos.dino for photos in self.photographs])
        return {
            "dino": np.stack([metrics.similarity(dino, photos.dino) for dino, _, photos in own]),
            "held_out": np.stack([metrics.similarity(dino, photos.unseen) for dino, _, photos in own])
            if not self.missing("held_out")
            else np.full(pictures.dino.shape[:3], np.nan),
            "clip_i": np.stack([metrics.similarity(clip, photos.clip) for _, clip, photos in own]),
            "clip_t": metrics.prompt_following(pictures.clip, self.texts[:, :, None]),
            "r_precision": np.stack(list(map(metrics.r_precision, pictures.clip, self.texts))).astype(float),
            "variety": metrics.variety(pictures.dino)[..., None],
            "nearest_photograph": np.stack(
                [photos.learnt[index] for (index, _), (_, _, photos) in zip(nearest, own, strict=True)]
            ),
            "nearest": likeness,
            "nearest_clip": likeness_clip,
            "copied": (likeness > self.closest_pairs[:, None, None])
            & (likeness_clip > self.closest_clip_pairs[:, None, None]),
            "recognised_as": recognised,
            "recognised": recognised == np.arange(len(self.photographs))[:, None, None],
            "retention": np.stack(
                [metrics.retention(tuned, base) for tuned, base in zip(pictures.plain, self.base.plain, strict=True)]
            ),
            "near_subject": np.stack(
                [self._nearest_subject(plain, noun) for plain, noun in zip(pictures.plain, self.nouns, strict=True)]
            ),
        }

    def _nearest_subject(self, plain: Array, noun: str) -> Array:
        """DINO of plain class pictures to the photographs of whichever subject of that noun they resemble most."""
        return np.max([metrics.similarity(plain, p.dino) for p in self.photographs if p.class_noun == noun], axis=0)

    def estimate(
        self, metric: str, against_base: bool = False, level: float = 0.95, subject: int | None = None
    ) -> Estimate | None:
        """A metric of the tuned model, or its paired difference from base, over all subjects or one.

        None where the metric has no meaning; `missing` says why.
        """
        if self.missing(metric, subject):
            return None
        if metric == "leakage":
            limit = float(np.mean([self.ceilings[self._subjects_of(noun)].mean() for noun in self.nouns]))
            arrays = self.of_tuned["near_subject"], self.of_base["near_subject"]
            return statistics.estimate(*arrays, statistic=metrics.gap_closed(limit), level=level)
        chosen = slice(None) if subject is None or metric == "retention" else slice(subject, subject + 1)
        if metric == "gap_closed":
            arrays = self.of_tuned["dino"][chosen], self.of_base["dino"][chosen]
            return statistics.estimate(
                *arrays, statistic=metrics.gap_closed(float(self.ceilings[chosen].mean())), level=level
            )
        tuned, base = self.of_tuned[metric][chosen], self.of_base[metric][chosen]
        if metric in SHARES and not against_base:
            return statistics.share(tuned, level=level)
        return statistics.estimate(tuned - base if against_base else tuned, level=level)

    def missing(self, metric: str, subject: int | None = None) -> str:
        """Why a metric has no meaning here, in words; empty when it has."""
        chosen = slice(None) if subject is None else slice(subject, subject + 1)
        if metric == "recognised" and len(self.photographs) < 2:
            return "there is one subject and none to confuse it with"
        if metric == "held_out" and not all(len(each.unseen) for each in self.photographs[chosen]):
            return "training held no photograph of every subject back"
        if metric in ("copied", "gap_closed", "leakage") and not np.isfinite(self.ceilings[chosen]).all():
            return "a subject has a single photograph, so that photographs cannot be compared among themselves"
        if metric == "gap_closed" and self.ceilings[chosen].mean() <= self.of_base["dino"][chosen].mean():
            return "the photographs resemble each other no more than the base model's pictures resemble them"
        if metric == "leakage" and self.ceilings.mean() <= self.of_base["near_subject"].mean():
            return "the photographs resemble each other no more than the base model's pictures resemble them"
        if metric == "r_precision" and len(self.texts[0]) < 2:
            return "there is one prompt, and no other to take it for"
        if metric == "variety" and self.base.dino.shape[2] < 2:
            return "there is one seed for each prompt"
        if metric == "retention" and self.base.plain.shape[2] < 2:
            return "there is one plain class picture for each prompt"
        return ""

    def _subjects_of(self, noun: str) -> list[int]:
        return [i for i, each in enumerate(self.photographs) if each.class_noun == noun]

    def summary(self, level: float = 0.95) -> dict[str, Any]:
        """All of it as plain numbers for JSON, NaN as None."""
        paired = [name for name in PAIRED if name != "retention" and not self.missing(name)]
        subjects = []
        adjusted = statistics.holm([statistics.p_value(self._difference("dino", s)) for s in range(len(self.tokens))])
        for s, photos in enumerate(self.photographs):
            row: dict[str, Any] = {
                "token": photos.token,
                "class_noun": photos.class_noun,
                "photographs": len(photos.dino),
                "pictures": int(self.of_tuned["dino"][s].size),
                "ceiling": {
                    "dino": number(self.ceilings[s]),
                    "clip_i": number(self.clip_ceilings[s]),
                    "clip_t": number(photos.clip_t),
                },
                "closest_photographs": number(self.closest_pairs[s]),
                "improved_p_holm": number(adjusted[s]),
            }
            row |= {name: self._compare(name, level, s) for name in paired}
            row |= {
                name: as_json(self.estimate(name, level=level, subject=s))
                for name in ("gap_closed", "recognised", "copied")
            }
            subjects.append(row)
        overall: dict[str, Any] = {name: self._compare(name, level, None) for name in paired}
        if not self.missing("retention"):
            overall["retention"] = self._compare("retention", level, None)
        overall |= {
            name: as_json(self.estimate(name, level=level))
            for name in ("gap_closed", "recognised", "copied", "leakage")
        }
        return {
            "overall": overall,
            "subjects": subjects,
            "confusion": {"tokens": self.tokens, "shares": self.confusion.round(4).tolist()},
        }

    def _difference(self, metric: str, subject: int | None) -> Array:
        chosen = slice(None) if subject is None else slice(subject, subject + 1)
        return self.of_tuned[metric][chosen] - self.of_base[metric][chosen]

    def _compare(self, metric: str, level: float, subject: int | None) -> dict[str, Any]:
        chosen = slice(None) if subject is None else slice(subject, subject + 1)
        return {
            "base": number(self.of_base[metric][chosen].mean()),
            "tuned": number(self.of_tuned[metric][chosen].mean()),
            "difference": as_json(self.estimate(metric, True, level, subject)),
            "detectable": number(statistics.minimum_detectable_effect(self._difference(metric, subject), level)),
        }


def number(value: float) -> float | None:
    """A float for JSON, which has no NaN."""
    return round(float(value), 6) if np.isfinite(value) else None


def as_json(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {
        "value": number(estimate.value),
        "ci": [number(estimate.low), number(estimate.high)] if estimate.known else None,
        "level": estimate.level,
    }
