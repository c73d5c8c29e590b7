"""Cards are single files that load nothing, run nothing of a step's and escape everything."""

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from personalize.cards import Advice, Card, Line, Shot
from personalize.cards.charts import thin, ticks
from personalize.cards.pictures import encode

HOSTILE = '<script>alert("x")</script><img src=http://example.org/x onerror=alert(1)>\'"&'


def tags(html: str) -> list[tuple[str, dict[str, str]]]:
    """Every tag as a browser would read it, with its attributes."""
    found: list[tuple[str, dict[str, str]]] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda name, given: found.append((name, {k: v or "" for k, v in given}))  # type: ignore[method-assign]
    parser.feed(html)
    return found


def picture(width: int = 300, height: int = 200) -> Image.Image:
    return Image.radial_gradient("L").resize((width, height)).convert("RGB")


@pytest.fixture
def full() -> Card:
    """Every kind of block, with text that would do harm if it were not escaped."""
    card = Card("evaluate", HOSTILE, HOSTILE)
    card.verdict("passed", HOSTILE, [HOSTILE])
    card.facts({HOSTILE: HOSTILE, "number": 0.123456})
    card.warning(HOSTILE)
    with card.section(HOSTILE):
        card.text(HOSTILE)
        card.table(HOSTILE, [HOSTILE, "picture", "none"], [[HOSTILE, picture(), None]])
        with card.section("inner"):
            card.images(HOSTILE, [(picture(), HOSTILE)])
    with card.section("second"):
        card.grid(HOSTILE, [HOSTILE], [(HOSTILE, [picture(), None])])
        card.chart(HOSTILE, {HOSTILE: ([0, 1, 2], [1.0, float("nan"), 3.0])}, x=HOSTILE, y=HOSTILE, marks={HOSTILE: 1})
        card.code(HOSTILE, HOSTILE)
        card.heat(HOSTILE, [HOSTILE], [(HOSTILE, [0.5]), ("none", [None])], (0, 1), note=HOSTILE)
        card.advice(HOSTILE, [Advice(HOSTILE, HOSTILE, HOSTILE)])
        card.compare(HOSTILE, [HOSTILE, "b"], [Shot(HOSTILE, [picture(), picture()], note=HOSTILE)])
        card.gallery(HOSTILE, [HOSTILE], [HOSTILE], [Shot(HOSTILE, [picture()], facets=[HOSTILE], note=HOSTILE)] * 2)
        lines = [
            Line([HOSTILE, 0.5, None], [HOSTILE], "", "failed", encode(picture(), 36)),
            Line([HOSTILE, 1, True], ["b"]),
        ]
        card.roster(HOSTILE, [HOSTILE, "number", "none"], [HOSTILE], lines, HOSTILE)
        card.histogram(HOSTILE, {HOSTILE: [0.1, 0.2, float("nan")], "b": [0.9]}, x=HOSTILE)
    return card


def test_nothing_that_a_step_says_becomes_markup(full: Card) -> None:
    html = full.html({"recipe": HOSTILE, "run_id": HOSTILE, "config": {HOSTILE: HOSTILE}})
    assert [given for name, given in tags(html) if name == "script"] == [{}]  # our own, which the policy names by hash
    assert not [key for _, attributes in tags(html) for key in attributes if key.startswith("on")]
    assert html.count("&lt;script&gt;") > 10


def test_a_card_is_self_contained_under_a_strict_policy(full: Card) -> None:
    html = full.html()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in html.replace("&#39;", "'")
    addresses = [given[key] for _, given in tags(html) for key in ("src", "href") if key in given]
    assert len(addresses) == 12  # eight pictures, two sections in the contents, the way past a gallery and a roster
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert "@import" not in html
    assert "url(" not in html


def test_every_picture_has_an_alternative_text(full: Card) -> None:
    images = [attributes for name, attributes in tags(full.html()) if name == "img"]
    assert len(images) == 8
    assert all(image["alt"] for image in images)


def test_the_verdict_stands_first_and_the_last_one_counts() -> None:
    card = Card("x")
    card.text("before")
    card.verdict("undecided", "first")
    card.verdict("failed", "second", ["why"])
    assert [block["kind"] for block in card.blocks] == ["verdict", "text"]
    assert card.blocks[0]["headline"] == "second"
    with pytest.raises(ValueError, match="passed, failed, undecided"):
        card.verdict("maybe", "?")  # type: ignore[arg-type]


def test_the_json_twin_has_the_facts_without_the_pixels(full: Card) -> None:
    facts = json.loads(json.dumps(full.as_dict()))
    kinds = [block["kind"] for block in facts["blocks"]]
    assert kinds == ["verdict", "facts", "warning", "section", "section"]
    assert facts["blocks"][3]["blocks"][1]["rows"][0][1] == {"picture": [300, 200]}
    assert len(json.dumps(facts)) < 12_000


def test_pictures_are_bounded_whatever_comes_in(tmp_path: Path) -> None:
    card = Card("x")
    picture(4000, 3000).save(tmp_path / "large.png")
    card.images("large", [(tmp_path / "large.png", "large")])
    assert len(card.html()) < 60_000
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"broken\.png"):
        card.images("broken", [(tmp_path / "broken.png", "")])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_pictures_of_every_mode_can_be_shown(mode: str) -> None:
    image = (
        Image.new("RGB", (8, 8)).convert("L").convert("I").convert("I;16")
        if mode == "I;16"
        else Image.new(mode, (8, 8))
    )
    card = Card("x")
    card.images("modes", [(image, mode)])
    assert "data:image/webp" in card.html()


def test_a_chart_without_a_finite_value_says_so() -> None:
    card = Card("x")
    card.chart("empty", {"loss": ([1, 2], [float("nan"), float("inf")])})
    card.chart("none", {"loss": ([], [])})
    assert card.html().count("no finite value was recorded") == 2


@pytest.mark.parametrize("values", [[0.0], [1e-9, 1.1e-9], [-5, 5], [3, 3, 3], [1e12, 2e12]])
def test_a_chart_draws_any_range(values: list[float]) -> None:
    card = Card("x")
    card.chart("range", {"y": (list(range(len(values))), values)}, marks={"at": 0})
    assert "<svg" in card.html()
    assert "nan" not in card.blocks[0]["svg"]


def test_ticks_are_round_and_enclose() -> None:
    assert ticks(0.03, 0.97) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_thinning_keeps_the_spikes() -> None:
    points = [(float(x), 0.0) for x in range(10_000)]
    points[5001] = (5001.0, 99.0)
    assert (5001.0, 99.0) in thin(points)
    assert len(thin(points)) <= 400


def test_a_row_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 columns but a row of 1"):
        Card("x").table("t", ["a", "b"], [[1]])
