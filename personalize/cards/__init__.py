"""Cards: what people look at. One self-contained HTML file each, and how a command is written for them to type."""

from personalize.cards.card import Advice, Card, Line, Shot
from personalize.cards.commands import command

__all__ = ["Advice", "Card", "Line", "Shot", "command"]
