"""What a step came to, kept as tags of its run, so that what to type next is true of a reused step as well."""

from collections.abc import Mapping

from personalize.cards.card import Card

TAG = "recipe.outcome"
LONGEST = 500
"""Characters of a word that are kept."""


def outcome_tags(card: Card) -> dict[str, str]:
    """`recipe.outcome` and `recipe.outcome.<word>`; empty where the card says neither verdict nor outcome."""
    said = {TAG: card.came_to, **{f"{TAG}.{name}": word for name, word in card.words.items()}}
    return {tag: value[:LONGEST] for tag, value in said.items() if value}


def next_words(said: str | Mapping[str, str], tags: Mapping[str, str]) -> str:
    """The text of `next:` for the outcome in a run's tags, its `{words}` filled in; empty where there is none."""
    text = said if isinstance(said, str) else said.get(tags.get(TAG, ""), "")
    for tag, word in tags.items():
        if tag.startswith(f"{TAG}."):
            text = text.replace("{" + tag.removeprefix(f"{TAG}.") + "}", word)
    return text.strip()
