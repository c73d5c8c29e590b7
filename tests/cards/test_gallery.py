"""Galleries and comparisons: bounded whatever there is, filtered by a script that holds no data, whole without it."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from personalize.cards import Advice, Card, Shot
from personalize.cards.links import address, placed
from personalize.cards.pictures import Picture, encode_all

HOSTILE = '<script>alert("x")</script>\'"&'
RUN = "0123456789abcdef" * 2


def noise(seed: int, side: int = 128) -> Image.Image:
    """What compresses worst."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8))


def gallery(card: Card, facets: int = 2) -> None:
    card.gallery(
        "All",
        ["base", "tuned"],
        ["Subject", "Kind of prompt"][:facets],
        [
            Shot(
                f"{subject} {kind} {HOSTILE}",
                [noise(0, 32), noise(1, 32)],
                ["", address(RUN, "outputs/a%20b.png")],
                [subject, kind],
            )
            for subject in ("zwvchr", HOSTILE)
            for kind in ("place", "view")
        ],
    )


@pytest.mark.parametrize(("count", "budget"), [(40, 30_000), (40, 120_000), (3, 100_000)])
def test_pictures_together_stay_within_their_bounds_and_use_them(count: int, budget: int) -> None:
    sides = (128, 96, 64, 48, 32, 16)
    found = encode_all([noise(seed) for seed in range(count)], budget, sides)
    cost = sum(len(picture.uri) for picture in found)
    assert cost <= budget
    (side,) = {side_of(picture) for picture in found}
    if side < sides[0]:  # the next size up would not have fitted
        larger = sides[sides.index(side) - 1]
        assert sum(len(picture.uri) for picture in encode_all(noise_list(count), 10**9, (larger,))) > budget


def side_of(picture: Picture) -> int:
    return Image.open(io.BytesIO(base64.b64decode(picture.uri.partition(",")[2]))).width


def noise_list(count: int) -> list[Image.Image]:
    return [noise(seed) for seed in range(count)]


def test_bounds_hold_though_the_few_that_were_tried_compress_better_than_the_rest() -> None:
    plain = Image.new("RGB", (128, 128), "grey")
    tried = range(0, 48, 4)  # encode_all tries every fourth of 48
    pictures = [plain if index in tried else noise(index) for index in range(48)]
    assert sum(len(picture.uri) for picture in encode_all(pictures, 60_000, (128, 64, 32))) <= 60_000


def test_the_one_script_is_named_by_its_hash_and_holds_no_data() -> None:
    card, other = Card("x"), Card("x")
    gallery(card)
    other.gallery("Other", ["only"], [], [Shot("one", [noise(0, 32)])])
    scripts = [re.findall(r"<script>(.*?)</script>", each.html(), re.DOTALL) for each in (card, other)]
    assert scripts[0] == scripts[1]
    (script,) = scripts[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', card.html())
    assert f"script-src &#39;sha256-{digest}&#39;" in policy
    assert "default-src &#39;none&#39;" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_cards_that_need_no_script_allow_none() -> None:
    card = Card("x")
    card.text("words")
    assert "script" not in card.html()


def test_without_a_script_there_are_no_filters_and_nothing_is_hidden() -> None:
    card = Card("x")
    gallery(card)
    card.compare("Closely", ["photograph", "base", "tuned"], [Shot("one", [noise(i, 32) for i in range(3)])])
    hidden: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, given: hidden.append(tag) if "hidden" in dict(given) else None  # type: ignore[method-assign]
    parser.feed(card.html())
    assert set(hidden) == {"form", "p", "input"}
    assert card.html().count("<img") == 8 + 3


def test_what_a_gallery_says_is_escaped() -> None:
    card = Card("x")
    gallery(card)
    assert HOSTILE not in card.html()
    assert card.html().count("<script>") == 1


def test_a_shot_without_its_facets_is_refused() -> None:
    with pytest.raises(ValueError, match="2 facets, the gallery 1"):
        gallery(Card("x"), facets=1)


@pytest.mark.parametrize(
    ("uri", "link"),
    [
        ("http://tracking:5000/", f"http://tracking:5000/get-artifact?run_uuid={RUN}&amp;path=outputs/a%20b.png"),
        ("sqlite:///mlflow.db", f"../mlruns/1/{RUN}/artifacts/outputs/a%20b.png"),
    ],
)
def test_full_sizes_are_linked_from_where_the_card_lies(tmp_path, monkeypatch, uri, link) -> None:
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: uri)
    card = Card("x")
    gallery(card)
    html = placed(card.html(), tmp_path / "build" / "card.html", tmp_path / "mlruns" / "1")
    assert html.count(f'href="{link}"') == 4
    again = placed(html, tmp_path / "mlruns" / "1" / ("f" * 32) / "artifacts" / "card.html", tmp_path / "mlruns" / "1")
    if not uri.startswith("http"):  # a copy of a card that lay elsewhere
        assert again.count(f'href="../../{RUN}/artifacts/outputs/a%20b.png"') == 4


def test_where_nothing_can_be_followed_there_is_no_link(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("mlflow.get_tracking_uri", lambda: "databricks")
    card = Card("x")
    gallery(card)
    assert RUN not in placed(card.html(), tmp_path / "card.html", None)


def test_a_heat_map_has_the_number_in_every_cell() -> None:
    card = Card("x")
    card.heat("Where", ["a", "b"], [("beach", [0.25, None]), ("snow", [1.0, 0.5])], (0, 1), percent=True)
    html = card.html()
    assert 'style="--d: 0.25">25' in html
    assert "–" in html
    assert card.as_dict()["blocks"][0]["rows"][0]["cells"][0]["value"] == 0.25


def test_advice_has_its_command_in_full_view() -> None:
    card = Card("x")
    card.advice("Next", [Advice("because of <that>", "do this", "mlflow run . -P rank=8")])
    html = card.html()
    assert "because of &lt;that&gt;" in html
    assert '<pre tabindex="0">mlflow run . -P rank=8</pre>' in html


def test_a_stacked_table_names_its_columns_in_every_cell(tmp_path: Path) -> None:
    card = Card("x")
    card.table("Gates", ["verdict", "found"], [["passed", 1]], stacked=True, tones=["passed"])
    html = card.html()
    assert 'data-column="found"' in html
    assert '<tr role="row" class="passed">' in html
