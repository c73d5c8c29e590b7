"""Counting."""

from collections import Counter


def tally(text: str) -> Counter[str]:
    return Counter(text.lower().split())
