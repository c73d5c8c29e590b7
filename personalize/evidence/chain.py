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


def listed(links: Iterable[Link]) -> list[str]:
    """A line for each, for the terminal."""
    links = list(links)
    width = max((len(link.name) for link in links), default=0)
    return [f"  {'holds' if link.holds else 'FAILS'}  {link.name:<{width}}  {link.words}" for link in links]
