"""Examples: the pictures of a run and the order in which they are shown, a pure function of the seed and the step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from personalize.dreambooth.randomness import permutation

ENOUGH_TO_SPARE_ONE = 4
"""Photographs a subject needs before some are kept from training for scoring."""


@dataclass(frozen=True)
class Example:
    """A picture and what the UNet is told about it. `token` is empty for a class image."""

    path: Path
    caption: str
    class_noun: str = ""
    token: str = ""

    @property
    def name(self) -> str:
        return "/".join(self.path.parts[-3:])


def read_photographs(images: Path, captions: Path) -> list[Example]:
    """The photographs of `captions` (metadata.jsonl: file_name, token, class_noun, text) below `images`, by name.

    Raises ValueError naming a photograph that has a caption and no file.
    """
    rows = _rows(captions)
    for row in rows:
        if not (images / row["file_name"]).is_file():
            raise ValueError(f"{captions}: {row['file_name']} has a caption but is not in {images}.")
    return [
        Example(images / row["file_name"], row["text"], row["class_noun"], row["token"])
        for row in sorted(rows, key=lambda row: row["file_name"])
    ]


def read_class_images(folder: Path) -> list[Example]:
    """The class images of `folder`/metadata.jsonl (file_name, class_noun, text); none when it has none."""
    if not (folder / "metadata.jsonl").is_file():
        return []
    rows = sorted(_rows(folder / "metadata.jsonl"), key=lambda row: row["file_name"])
    return [Example(folder / row["file_name"], row["text"], row["class_noun"]) for row in rows]


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def hold_out(photographs: Sequence[Example], count: int, seed: int) -> tuple[list[Example], list[Example]]:
    """(to train on, to score against): `count` photographs of each subject that has enough of them are kept back.

    Chosen by the seed; at least three are always left to train on.
    """
    kept: set[Path] = set()
    for token, class_noun in sorted({(p.token, p.class_noun) for p in photographs}):
        own = [p for p in photographs if (p.token, p.class_noun) == (token, class_noun)]
        if len(own) >= ENOUGH_TO_SPARE_ONE:
            order = permutation(len(own), seed, "held out", token, class_noun)
            kept |= {own[i].path for i in order[: min(count, len(own) - ENOUGH_TO_SPARE_ONE + 1)]}
    return [p for p in photographs if p.path not in kept], [p for p in photographs if p.path in kept]


@dataclass(frozen=True)
class Order:
    """Which pictures are shown at which step.

    `groups` holds, for each bucket, the indices of its pictures. A step takes all its samples from one bucket, so that
    every micro-batch of every process has one shape; buckets take turns in proportion to their size. In a bucket the
    pictures pass in shuffled rounds without end, so each is shown equally often to within one.
    """

    groups: tuple[tuple[int, ...], ...]
    samples_a_step: int
    steps: int
    seed: int
    name: str = "photographs"

    def buckets(self) -> list[int]:
        """The bucket of every step: always the one that lags furthest behind its share."""
        total = sum(len(group) for group in self.groups)
        served = [0.0] * len(self.groups)
        turns = []
        for step in range(self.steps):
            lag = [(step + 1) * len(group) / total - s for group, s in zip(self.groups, served, strict=True)]
            turn = max(range(len(lag)), key=lambda i: (round(lag[i], 9), -i))
            served[turn] += 1
            turns.append(turn)
        return turns

    def draws(self, bucket: int, first: int, count: int) -> list[int]:
        """Pictures number `first` to `first + count` of a bucket's endless stream."""
        group = self.groups[bucket]
        rounds: Mapping[int, list[int]] = {
            r: permutation(len(group), self.seed, self.name, bucket, r)
            for r in range(first // len(group), (first + count - 1) // len(group) + 1)
        }
        return [group[rounds[k // len(group)][k % len(group)]] for k in range(first, first + count)]

    def plan(self) -> list[tuple[int, list[int]]]:
        """(bucket, pictures) of every step."""
        visits = [0] * len(self.groups)
        steps = []
        for bucket in self.buckets():
            steps.append((bucket, self.draws(bucket, visits[bucket] * self.samples_a_step, self.samples_a_step)))
            visits[bucket] += 1
        return steps
