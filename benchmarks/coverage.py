"""How often the intervals of an evaluation hold what they say: simulated scores, the truth known.

    python -m benchmarks.coverage [--repeats 2000] [--only share]     20 minutes on one core

For each kind of score and number of prompts: the share of 95 % intervals that held the true value, and how often each
side missed it. Writes benchmarks/results/coverage.json, where kinds that were not asked for stay as they were.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from personalize.evaluation import statistics
from personalize.evaluation.scores import Photographs, Pictures, Scores
from personalize.evaluation.statistics import Estimate
from personalize.files import read_json, write_json

Array = NDArray[np.floating]
Trial = Callable[[np.random.Generator], tuple[Estimate | None, float]]

PROMPTS = (8, 16, 24, 48)
SEEDS, SUBJECTS = 2, (1, 5)


def means(
    draw: Callable[[np.random.Generator, int], Array], truth: float, within: float
) -> Callable[[int, int], Trial]:
    """A score of which `draw` gives each prompt's mean; a picture adds normal noise of standard deviation `within`."""

    def of(prompts: int, subjects: int) -> Trial:
        def trial(rng: np.random.Generator) -> tuple[Estimate, float]:
            by_prompt = draw(rng, prompts)[None, :, None]
            return statistics.estimate(by_prompt + within * rng.normal(size=(subjects, prompts, SEEDS))), truth

        return trial

    return of


def shares(truth: float, together: float) -> Callable[[int, int], Trial]:
    """Hits of which a share is true; `together` is the intraclass correlation within a prompt, 1 is all or nothing."""

    def of(prompts: int, subjects: int) -> Trial:
        def trial(rng: np.random.Generator) -> tuple[Estimate, float]:
            return statistics.share(_hits(rng, truth, together, subjects, prompts)), truth

        return trial

    return of


def differences(tuned: float, base: float, together: float) -> Callable[[int, int], Trial]:
    """Two models' hits in the same prompts, of which the same are hard for both."""

    def of(prompts: int, subjects: int) -> Trial:
        def trial(rng: np.random.Generator) -> tuple[Estimate, float]:
            hard = rng.random(prompts)
            ours, theirs = (_hits_at(rng, share, together, hard, subjects) for share in (tuned, base))
            return statistics.difference_of_shares(ours, theirs), tuned - base

        return trial

    return of


def kept(unheard: float) -> Callable[[int, int], Trial]:
    """What is left of the base's contrast between prompts, 0.95 of it in most and nothing in the share `unheard`."""

    def of(prompts: int, subjects: int) -> Trial:
        def trial(rng: np.random.Generator) -> tuple[Estimate, float]:
            of_prompts = 0.3 * rng.lognormal(0, 0.3, prompts)
            share = np.where(rng.random(prompts) < unheard, 0.0, rng.normal(0.95, 0.1, prompts))
            base, tuned = (
                each[None, :, None] + 0.05 * rng.normal(size=(subjects, prompts, SEEDS))
                for each in (of_prompts, of_prompts * share)
            )
            return statistics.ratio(tuned, base), 0.95 * (1 - unheard)

        return trial

    return of


def ways(photographs: int, skew: bool) -> Callable[[int, int], Trial]:
    """The way from base to photographs, of which there are a few, in a world of 64 dimensions."""

    def of(prompts: int, subjects: int) -> Trial:
        truth = _true_way(subjects, skew)

        def trial(rng: np.random.Generator) -> tuple[Estimate | None, float]:
            return _world(rng, photographs, prompts, subjects, skew).estimate("gap_closed"), truth

        return trial

    return of


@functools.cache
def _true_way(subjects: int, skew: bool) -> float:
    """What evaluations with many photographs and prompts come to: one alone is 0.006 beside it."""
    worlds = (_world(np.random.default_rng(i), 40, 1000, subjects, skew) for i in range(50))
    return float(np.mean([found.value for world in worlds if (found := world.estimate("gap_closed"))]))


def _world(rng: np.random.Generator, m: int, p: int, s: int, skew: bool) -> Scores:
    likeness, axes = 0.7, np.eye(64)
    noun, who = axes[0], axes[1 : 1 + s]

    def drawn(amount: Any, shape: tuple[int, ...]) -> Array:
        vectors = noun + np.asarray(amount)[..., None] * np.broadcast_to(
            who.reshape(s, *(1,) * (len(shape) - 1), 64), (*shape, 64)
        )
        vectors = vectors + 0.08 * rng.normal(size=(*shape, 64))
        return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))

    of_prompts = rng.exponential(0.15, p) if skew else np.abs(rng.normal(0.15, 0.1, p))
    tuned = drawn(np.broadcast_to((likeness - of_prompts)[None, :, None], (s, p, SEEDS)), (s, p, SEEDS))
    base = drawn(np.zeros((s, p, SEEDS)), (s, p, SEEDS))
    plain = drawn(np.zeros((s, p, SEEDS)), (s, p, SEEDS))[:1]
    photos = drawn(rng.normal(0.9, 0.1, (s, m)), (s, m))
    texts = np.broadcast_to(noun, (1, p, 64))
    sides = {"base": np.concatenate([base, plain]), "tuned": np.concatenate([tuned, plain])}
    return Scores(
        [Photographs(f"t{i}", "chair", {"dino": photos[i], "clip": photos[i]}) for i in range(s)],
        {
            name: Pictures({"dino": each, "clip": each}, {"displaced": np.zeros(each.shape[:3])})
            for name, each in sides.items()
        },
        texts,
        "clip",
        ["dino"],
    )


def _hits(rng: np.random.Generator, truth: float, together: float, subjects: int, prompts: int) -> Array:
    return _hits_at(rng, truth, together, rng.random(prompts), subjects)


def _hits_at(rng: np.random.Generator, truth: float, together: float, hard: Array, subjects: int) -> Array:
    from scipy import stats

    if together >= 1:
        chances = (hard < truth).astype(float)
    elif together <= 0:
        chances = np.full(len(hard), truth)
    else:
        chances = stats.beta.ppf(hard, truth * (1 / together - 1), (1 - truth) * (1 / together - 1))
    return (rng.random((subjects, len(hard), SEEDS)) < chances[None, :, None]).astype(float)


KINDS: dict[str, Callable[[int, int], Trial]] = {
    "mean, normal": means(lambda rng, p: rng.normal(size=p), 0.0, 0.5),
    "mean, skewed (log-normal 0.5)": means(lambda rng, p: rng.lognormal(0, 0.5, p), float(np.exp(0.125)), 0.2),
    "mean, skewed the other way (exponential)": means(lambda rng, p: -rng.exponential(1, p), -1.0, 0.2),
    "mean, heavy tails (t, 4)": means(lambda rng, p: rng.standard_t(4, p), 0.0, 0.2),
    "mean, two kinds of prompts": means(lambda rng, p: np.where(rng.random(p) < 1 / 6, -1.0, 0.2), 0.0, 0.2),
    "share 0.83, all or nothing": shares(5 / 6, 1.0),
    "share 0.9, clustered": shares(0.9, 0.3),
    "share 0.9, independent": shares(0.9, 0.0),
    "share 0.97, clustered": shares(0.97, 0.3),
    "share 0.6, clustered": shares(0.6, 0.5),
    "difference of shares 0.85 - 0.95": differences(0.85, 0.95, 0.4),
    "difference of shares, all or nothing": differences(0.75, 0.9, 1.0),
    "difference of shares, the same model twice": differences(0.9, 0.9, 0.4),
    "kept of the base's": kept(0.0),
    "kept of the base's, one prompt in six unheard": kept(1 / 6),
    "way to 5 photographs": ways(5, False),
    "way to 5 photographs, skewed": ways(5, True),
    "way to 12 photographs": ways(12, False),
}


def rows(repeats: int, only: str) -> Iterator[dict[str, Any]]:
    for kind, make in ((kind, make) for kind, make in KINDS.items() if only in kind):
        for prompts in PROMPTS:
            for subjects in SUBJECTS:
                rng = np.random.default_rng([prompts, subjects, len(kind)])
                trial = make(prompts, subjects)
                below = above = 0
                for _ in range(repeats):
                    found, truth = trial(rng)
                    assert found is not None
                    below += truth < found.low
                    above += truth > found.high
                yield {
                    "scores": kind,
                    "prompts": prompts,
                    "subjects": subjects,
                    "coverage": round(1 - (below + above) / repeats, 4),
                    "truth below": round(below / repeats, 4),
                    "truth above": round(above / repeats, 4),
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--only", default="", help="kinds of scores with this in their name")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/coverage.json"))
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for row in rows(arguments.repeats, arguments.only):
        if not found:
            print(f"| {' | '.join(row)} |\n|{'---|' * len(row)}")
        print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
        found.append(row)
    before = read_json(arguments.out) if arguments.out.is_file() else {}
    if before.get("repeats") == arguments.repeats:
        found = [row for row in before["rows"] if arguments.only not in row["scores"]] + found
    found.sort(key=lambda row: list(KINDS).index(row["scores"]))
    write_json(arguments.out, {"repeats": arguments.repeats, "level": 0.95, "rows": found})


if __name__ == "__main__":
    main()
