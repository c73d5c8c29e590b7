"""From a card's blocks to one HTML file, through an autoescaped Jinja2 template."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
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

SCRIPTED = {"gallery", "compare", "roster"}
"""Kinds of blocks that the script adds to: filters, and a slider."""


def page(card: Any, footer: Mapping[str, Any]) -> str:
    """The card as a self-contained page.

    footer: run_id, recipe, profile, status ("finished" | "failed" | "stopped"), seconds, when, fingerprint, and the
    mappings config, inputs (step name -> run), lineage; all optional.
    """
    script = _script() if SCRIPTED & set(_kinds(card.blocks)) else ""
    policy = f"{POLICY}; script-src '{_hash(script)}'" if script else POLICY
    return _template("card.html.j2").render(card=card, footer=footer, policy=policy, script=Markup(script))


def frame(html: str, height: int = 720) -> str:
    """The page inside a notebook cell: an iframe of its own origin, so that neither side reaches the other."""
    style = f"width:100%;height:{height}px;border:0"
    return f'<iframe sandbox="allow-scripts" srcdoc="{escape(html, quote=True)}" style="{style}"></iframe>'


def _kinds(blocks: list[dict[str, Any]]) -> Iterator[str]:
    for block in blocks:
        yield block["kind"]
        yield from _kinds(block.get("blocks", []))


@cache
def _script() -> str:
    return (TEMPLATES / "card.js").read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """What a policy calls a script by: `sha256-...`."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


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
    """A cell for reading: numbers short, nothing as a dash, no line begins with a percent sign."""
    if cell is None or cell == "":
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return number(cell) if cell == cell else "nan"
    if isinstance(cell, int):
        return f"{cell:,}" if abs(cell) >= 10000 else str(cell)
    return str(cell).replace(" %", "\N{NO-BREAK SPACE}%")


def anchor(name: str) -> str:
    """A name for use in an address within the page."""
    return "s-" + "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower())
