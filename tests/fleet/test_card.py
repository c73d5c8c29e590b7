"""The card of four thousand subjects: bounded, quick, filtered in a browser and whole without scripts."""

from __future__ import annotations

import base64
import io
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from personalize.cards import Card
from personalize.files import write_json, write_rows
from personalize.fleet import record
from personalize.fleet.catalogue import Entry, Fault
from personalize.fleet.work import Work
from personalize.recipe import Inputs
from steps import fleet as step
from steps.cards import fleet as card_of
from tests.browser import browser

COUNT = 4000
HOSTILE = '<script>alert("x")</script>'


def made_up(count: int) -> list[dict[str, Any]]:
    chance, rows = random.Random(0), []
    pictures = [picture(seed) for seed in range(50)]
    for number in range(count):
        noun = ("chair", "coffee table", "lamp", "sofa")[number % 4]
        verdict = chance.choices(["passed", "undecided", "failed", ""], [80, 8, 9, 3])[0]
        work = Work((Entry(number + 2, f"tok{number}", noun, "x"),), ())
        row = record.blank(work) | {
            "state": "done" if verdict else "failed",
            "verdict": verdict,
            "seconds": round(chance.gauss(70, 9), 2),
            "metrics": {"gap_closed": chance.random(), "clip_t": chance.random()} if verdict else {},
            "reasons": [f"Pictures of tok{number} are too often some other one. Found: {chance.random():.2f}."]
            if verdict in ("failed", "undecided")
            else [],
            "why": "" if verdict else f"train: {HOSTILE} loss is nan at step {number}",
            "run": f"{number:032x}",
            "card": f"runs:/{number:032x}/card.html",
            "picture": pictures[number % 50],
        }
        rows.append(row)
    return rows


def picture(seed: int) -> str:
    """As a step's picture comes out, and no easier to compress."""
    noise = np.random.default_rng(seed).normal(0, 25, (record.SIDE, record.SIDE, 3))
    ramp = np.linspace(0, 255, record.SIDE)[:, None, None]
    image = Image.fromarray((ramp + noise).clip(0, 255).astype("uint8"))
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=record.QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def drawn(place: Path, rows: list[dict[str, Any]], **config: Any) -> Card:
    place.mkdir(exist_ok=True)
    write_rows(place / "subjects.jsonl", rows)
    write_rows(place / "invalid.jsonl", [vars(Fault(7, HOSTILE, f"{HOSTILE} cannot be a token"))])
    about = {"planned": False, "workers": 8, "waiting": 0, "done": 0, "invalid": 1, "left_out": 0, "seconds": 70.0}
    write_json(place / "fleet.json", about)
    card = Card("fleet")
    card.run_id = "ab" * 16
    card_of.show(step.Config(catalogue="products.csv", **config), Inputs({}), place, card)
    return card


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fleet")
    began = time.process_time()
    html = drawn(place / "outputs", made_up(COUNT)).html({"run_id": "ab" * 16})
    assert time.process_time() - began < 20
    (place / "card.html").write_text(html)
    return place / "card.html"


def test_it_is_bounded_and_escaped(page: Path) -> None:
    assert page.stat().st_size < 10_000_000
    html = page.read_text()
    assert HOSTILE not in html
    assert html.count("<tr data-facets") == COUNT
    assert html.count('href="runs:/') == COUNT


def test_more_rows_take_no_larger_page(tmp_path: Path) -> None:
    rows = made_up(60)
    many = [row | {"subject": f"{row['subject']}-{copy}"} for copy in range(250) for row in rows]
    card = drawn(tmp_path, many)
    html = card.html()
    assert html.count("<tr data-facets") == card_of.MOST_ROWS
    assert "5000 better ones are in subjects.jsonl" in html
    assert len(html) < 16_000_000


def test_the_worst_are_first_and_what_they_have_in_common_is_said(tmp_path: Path) -> None:
    facts = drawn(tmp_path, made_up(400)).as_dict()
    blocks = {block["title"]: block for block in facts["blocks"] if "title" in block}
    order = [row["cells"][1] for row in blocks["Every subject"]["rows"]]
    assert order == sorted(order, key=card_of.ORDER.index)
    passed = [row["cells"][2] for row in blocks["Every subject"]["rows"] if row["cells"][1] == "passed"]
    assert passed == sorted(passed)
    (cause, count, *_), second, *_ = blocks["What the failures have in common"]["rows"]
    assert cause == "Pictures of … are too often some other one. Found: #."
    assert count > 20
    assert second[0] == f"train: {HOSTILE} loss is nan at step #"
    assert sum(map(sum, blocks["Likeness"]["counts"].values())) == sum(
        row["cells"][2] is not None for row in blocks["Every subject"]["rows"]
    )
    assert blocks["Cannot be done"]["rows"][0][0] == 7


def test_a_browser_shows_and_filters_it_quickly(page: Path) -> None:
    with browser("FLEET CARD") as chromium:
        tab = chromium.new_page()
        problems: list[str] = []
        tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        tab.on("request", lambda ask: None if ask.url.startswith(("file:", "data:")) else problems.append(ask.url))
        tab.goto(page.as_uri())
        loaded = tab.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart")
        assert loaded < 15_000, f"loaded in {loaded} ms"
        visible = "document.querySelectorAll('.roster tbody tr:not([hidden])').length"
        assert tab.evaluate(visible) == COUNT
        assert tab.locator(".roster output").inner_text() == f"all {COUNT}"
        took = tab.evaluate(
            """() => { const began = performance.now();
            const one = document.querySelector('.roster select'); one.value = '0';
            one.dispatchEvent(new Event('change', {bubbles: true}));
            document.body.offsetHeight; return performance.now() - began; }"""
        )
        assert took < 2000, f"filtered in {took} ms"
        assert 0 < tab.evaluate(visible) < COUNT // 10
        tab.locator(".roster select").nth(1).select_option(label="lamp")
        assert "lamp/" in tab.locator(".roster tbody tr:not([hidden]) a").first.inner_text()
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
        assert problems == []
        plain = chromium.new_context(java_script_enabled=False).new_page()
        plain.goto(page.as_uri())
        assert plain.locator(".roster .filters").is_hidden()
        assert plain.locator(".roster tbody tr").count() == COUNT
