"""From a card's blocks to one HTML file, through an autoescaped Jinja2 template."""

from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from personalize.cards.charts import number
from personalize.cards.pictures import Picture

TEMPLATES = Path(__file__).with_name("templates")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(card: Any, footer: Mapping[str, Any]) -> str:
    """The card as a self-contained page.

    footer: run_id, recipe, profile, status ("finished" | "failed" | "stopped"), seconds, when, fingerprint, and the
    mappings config, inputs (step name -> run), lineage; all optional.
    """
    return _template("card.html.j2").render(card=card, footer=footer, policy=POLICY)


def frame(html: str, height: int = 720) -> str:
    """The page inside a notebook cell: an iframe of its own, so that neither side's styles reach the other."""
    return (
        f'<iframe sandbox srcdoc="{escape(html, quote=True)}" style="width:100%;height:{height}px;border:0"></iframe>'
    )


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["picture"] = lambda value: isinstance(value, Picture)
    environment.filters["value"] = value
    environment.filters["svg"] = Markup  # our own drawing, whose labels are escaped where they are made
    environment.filters["anchor"] = anchor
    return environment.get_template(name)


def value(cell: Any) -> str:
    """A cell for reading: numbers short, nothing as a dash."""
    if cell is None or cell == "":
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return number(cell) if cell == cell else "nan"
    if isinstance(cell, int):
        return f"{cell:,}" if abs(cell) >= 10000 else str(cell)
    return str(cell)


def anchor(name: str) -> str:
    """A name for use in an address within the page."""
    return "s-" + "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower())
