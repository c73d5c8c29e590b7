"""A chain of evidence: what holds and what does not, link by link."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """name: of what it speaks; words: what was found, for a person."""

    name: str
    holds: bool
    words: str


def broken(links: Iterable[Link]) -> list[str]:
    """The words of those that do not hold."""
    return [link.words for link in links if not link.holds]
