"""The evaluation card of a whole evaluation, as a reader and as a browser see it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from personalize.cards import Card
from personalize.cards.links import placed
from personalize.evaluation.gates import Gate
from steps import evaluate
from steps.cards import evaluate as card_of
from steps.cards import evaluate_figures as figures
from tests.browser import browser
from tests.evaluation_folder import GATES, Folder, make

SIZES = (390, 768, 1440)
EARLIER = [{"run": "ab" * 16, "at": 1_790_000_000_000, "verdict": "undecided", "other": ["questions", "gates"]}]
DEAF = {
    "step": 60,
    "verdict": "compromise",
    "reason": "no checkpoint kept the prompt. A lower learning rate should help.",
}
BIG = {"place": {f"place {i}": f"a photo of a {{token_noun}} in place {i}" for i in range(50)}}
MOST = 15_000_000
"""Bytes of a card with two thousand questions."""


def config() -> evaluate.Config:
    judges = [
        {"name": "dino", "model": "facebook/dino-vits16", "revision": "a" * 40},
        {"name": "clip", "model": "openai/clip-vit-base-patch32", "revision": "b" * 40},
    ]
    return evaluate.Config(judges=judges, gates=GATES, limits="Only a rehearsal.", rights="the studio, by letter")


def shown(made: Folder) -> Card:
    card = Card("evaluate")
    card.run_id = "6".zfill(32)
    card_of.show(config(), made.inputs, made.outputs, card)
    return card


@functools.cache
def _failed(root: Path) -> tuple[Folder, Card]:
    made = make(root, mixed_up=(1,), chosen=DEAF, earlier=EARLIER)
    return made, shown(made)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Card]:
    return _failed(tmp_path_factory.mktemp("failed"))


def blocks(card: Card, kind: str) -> list[dict[str, Any]]:
    def walk(of: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for block in of:
            yield block
            yield from walk(block.get("blocks", []))

    return [block for block in walk(card.blocks) if block["kind"] == kind]


def test_what_is_wrong_comes_first_with_pictures_then_what_to_do(failed):
    kinds = [block["kind"] for block in failed[1].blocks]
    assert kinds[0] == "verdict"
    assert kinds.index("compare") < kinds.index("advice") < kinds.index("table")
    (subject,) = blocks(failed[1], "compare")
    assert "worst subject: brkchr" in subject["title"]
    assert subject["sides"] == ["photograph", "base", "tuned"]


@pytest.mark.parametrize("following", [1.0, 0.0])
def test_the_worst_prompt_is_shown_where_there_is_one(tmp_path, following):
    made = make(tmp_path, following=following, side=32)
    subject, *prompt = blocks(shown(made), "compare")
    assert "worst subject" in subject["title"]
    assert ["worst prompt" in block["title"] for block in prompt] == ([] if following else [True])


@pytest.mark.parametrize(
    ("metric", "title", "said"),
    [
        ("upside_down", "On their heads", "Pictures of orbchr stand on their heads"),
        ("displaced", "Elsewhere than the base puts them", "Pictures of orbchr are turned, mirrored"),
        ("altered", "Of another light, colour or grain", "Pictures of orbchr are darker, paler"),
        ("repeats", "That repeat themselves", "Pictures of orbchr repeat themselves"),
        ("stamped", "With the same mark as others", "Pictures of orbchr carry the same mark"),
    ],
)
def test_pictures_at_fault_are_shown_and_said(tmp_path, metric, title, said):
    asked = Gate(metric=metric, kind="threshold", threshold=0.18, each=True)
    made = make(tmp_path, at_fault={metric: [2]}, gates=[asked])
    card = shown(made)
    *_, faults = blocks(card, "compare")
    rows = [row for row in made.scores["pictures"] if row[metric]]
    assert faults["title"].startswith(title)
    assert faults["title"].endswith(f": {len(rows)} of {3 * len(rows)} pictures")
    assert said in card.blocks[0]["reasons"][0]
    unasked = shown(make(tmp_path / "unasked", at_fault={metric: [2]}, gates=[]))
    assert all(title not in block["title"] for block in blocks(unasked, "compare"))


def test_a_subject_that_is_too_narrow_is_said(tmp_path):
    asked = Gate(metric="proportions", kind="equivalence", margin=0.33, each=True)
    card = shown(make(tmp_path, at_fault={"proportions": [2]}, gates=[asked]))
    assert card.blocks[0]["reasons"][0].startswith("Pictures of orbchr are narrower or broader than in the photographs")


def test_a_subject_of_another_colour_is_said(tmp_path):
    asked = Gate(metric="colour_difference", kind="threshold", threshold=8.5, each=True)
    (reason, *_) = shown(make(tmp_path, at_fault={"colour_difference": [2]}, gates=[asked])).blocks[0]["reasons"]
    assert reason.startswith("Pictures of orbchr are of other colours than the photographs. Found: 20.0 (")


def test_a_subject_of_whom_a_gate_cannot_be_told_is_named_beside_the_others(tmp_path):
    asked = Gate(metric="proportions", kind="equivalence", margin=0.33, each=True)
    made = make(tmp_path, gates=[asked])
    (gate,) = made.scores["gates"]
    gate["answers"][2] |= {"value": None, "ci": None, "verdict": "skipped"}
    (made.outputs / "scores.json").write_text(json.dumps(made.scores))
    (table,) = [block for block in blocks(shown(made), "table") if block["title"].startswith("Width over height")]
    assert [row[1] == "cannot be told" for row in table["rows"]] == [False, False, True]


def test_where_no_judge_sees_form_the_card_says_what_of_it_is_measured(tmp_path):
    asked = Gate(metric="proportions", kind="equivalence", margin=0.33, each=True)
    made = make(tmp_path, gates=[asked])

    def said(of: dict[str, Any]) -> str:
        return " ".join(figures.overlooked(of))

    seen = {kind: {"auc": 0.9} for kind in ("colour", "form", "part")}
    of_all = {**made.scores, "examination": {name: {"kinds": seen} for name in made.scores["judges"]["deciding"]}}
    assert said(of_all) == ""
    blind = {"kinds": {**seen, "form": {"auc": 0.6}}}
    of_all["examination"] = dict.fromkeys(of_all["examination"], blind)
    of_all["gates"][0]["answers"][2]["value"] = None
    assert "another form" in said(of_all)
    assert "(“proportions”: zwvchr, brkchr)" in said(of_all)
    of_all["gates"] = []
    assert "proportions" not in said(of_all)


def test_reasons_are_in_plain_words_with_what_was_found_and_required(failed):
    reasons = failed[1].blocks[0]["reasons"]
    assert any(reason.startswith("Pictures of brkchr are too often some other one. Found: 0 %") for reason in reasons)
    assert all("required: " in reason for reason in reasons[:-1])
    assert "1 could not be asked (likeness to the photographs: there is no champion)" in reasons[-1]


def test_advice_agrees_with_training_and_asking_again_leaves_a_trace(failed):
    (advice,) = blocks(failed[1], "advice")
    assert "lower rate" in advice["items"][0]["do"]
    assert "more steps" not in json.dumps(advice)
    (trace,) = [block["text"] for block in failed[1].blocks if block["kind"] == "warning" and "before" in block["text"]]
    assert "evaluated once before: undecided with other questions and gates" in trace


def test_every_picture_is_there_with_its_facets_and_its_full_size(failed):
    made, card = failed
    (gallery,) = blocks(card, "gallery")
    assert len(gallery["shots"]) == len(made.scores["pictures"])
    assert [facet["name"] for facet in gallery["facets"]] == ["Subject", "Kind of prompt", "Prompt", "Seed"]
    assert gallery["facets"][1]["values"] == ["place", "view", "colour", "material", "style"]
    at = made.root / "runs" / ("6".zfill(32)) / "artifacts" / "card.html"
    html = placed(card.html(), at, made.root / "runs")
    addresses = [part.split('"')[0] for part in html.split('<a href="')[1:] if part.startswith("../")]
    assert len(addresses) > 2 * len(gallery["shots"])
    assert all((at.parent / address).is_file() for address in addresses)


def test_the_missing_subject_is_seen_in_the_heat_map(failed):
    heat = next(block for block in blocks(failed[1], "heat") if block["title"] == "Recognised as that very one")
    assert heat["columns"] == ["zwvchr", "brkchr", "orbchr"]
    assert all(row["cells"][1]["text"] == "0 %" and row["cells"][0]["text"] == "100 %" for row in heat["rows"])


def test_rights_runs_seeds_cost_and_limits_are_said(failed):
    html = failed[1].html()
    for words in (
        "the studio, by letter",
        "Only a rehearsal.",
        "seed of the questions",
        "run of train",
        "2.1 GB",
        "0.38",
    ):
        assert words in html, words
    assert "-e inspect" in html


def test_a_model_that_passes_is_handed_to_a_person(tmp_path):
    made = make(tmp_path, side=32)
    card = shown(made)
    assert made.scores["verdict"] == "passed"
    assert "Look at the pictures yourself" in blocks(card, "advice")[0]["items"][0]["do"]


def test_where_there_is_a_champion_it_stands_between_base_and_tuned(tmp_path):
    made = make(tmp_path, side=32, champion=True)
    card = shown(made)
    (gallery,) = blocks(card, "gallery")
    assert gallery["sides"] == ["base", "champion", "tuned"]
    assert all(len(shot["pictures"]) == 3 for shot in gallery["shots"])
    assert blocks(card, "compare")[0]["sides"] == ["photograph", "base", "champion", "tuned"]
    tables = [block["columns"] for block in blocks(card, "table") if "base" in block["columns"]]
    assert tables
    assert all("champion" in columns for columns in tables)
    assert "chairs version 3" in card.html()
    assert card.html().count("/outputs/champion/images/") >= len(gallery["shots"])


def test_one_subject_one_seed_and_one_photograph_less_still_make_a_card(tmp_path):
    made = make(
        tmp_path, tokens=("zwvchr",), prompts={"place": {"beach": "a {token_noun} on the beach"}}, seeds=1, side=32
    )
    assert made.scores["verdict"] == "undecided"
    assert "nothing can be compared" in shown(made).html()


@pytest.mark.slow
def test_two_thousand_questions_at_full_size_stay_a_card_that_can_be_sent(tmp_path):
    tokens = tuple(f"tok{i}chr" for i in range(20))
    made = make(tmp_path, tokens=tokens, prompts=BIG, seeds=2, side=1024, distinct=24)
    html = shown(made).html()
    assert len(made.scores["pictures"]) == 2000
    assert len(html.encode()) <= MOST


# In a browser.


@pytest.fixture(scope="module")
def page_of(failed, tmp_path_factory):
    """The card as it lies beside the artifacts, opened at a size: `with page_of(width, **options) as page`."""
    made, card = failed
    at = made.root / "card.html"
    at.write_text(placed(card.html({"run_id": card.run_id}), at, made.root / "runs"), encoding="utf-8")
    with browser("EVALUATION CARD") as chromium:

        def opened(width: int, **options: Any) -> Any:
            page = chromium.new_page(viewport={"width": width, "height": 900}, **options)
            page.set_default_timeout(120_000)  # a busy machine
            page.goto(at.as_uri())
            return page

        yield opened


@pytest.mark.parametrize("width", SIZES)
def test_no_card_is_wider_than_the_screen_and_gates_become_cards_on_a_phone(page_of, width):
    page = page_of(width)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
    row = page.locator("table.stacked tbody tr").first
    assert row.evaluate("row => getComputedStyle(row).display") == ("block" if width < 640 else "table-row")


def test_filters_hide_what_was_not_asked_for(page_of):
    page = page_of(1440)
    assert page.inner_text(".filters output") == "all 162"
    page.select_option('.filters select[data-facet="0"]', label="brkchr")
    page.select_option('.filters select[data-facet="1"]', label="view")
    assert page.inner_text(".filters output") == "6 of 162"
    assert page.locator(".gallery li:visible").count() == 6


def test_what_is_clicked_in_the_navigation_is_on_the_screen_at_once(page_of):
    """Also past a long gallery: a height that is guessed until it is seen leaves the page beside the section."""
    page = page_of(390)
    for target in page.locator("nav a[href^='#']").evaluate_all("of => of.map(one => one.getAttribute('href'))"):
        page.click(f"nav a[href='{target}']")
        top = page.evaluate("at => document.querySelector(at).getBoundingClientRect().top", target)
        assert -1 < top < 900, target


def test_the_slider_lays_the_tuned_picture_over_another_and_the_keyboard_moves_it(page_of):
    page = page_of(1440)
    shot = page.locator(".shot").first
    shot.locator("select").select_option(label="base")
    assert [side.is_visible() for side in shot.locator(".sides > figure").all()] == [False, True, True]
    shot.locator("input[type=range]").focus()
    for _ in range(10):
        page.keyboard.press("ArrowLeft")
    assert shot.evaluate("shot => shot.style.getPropertyValue('--at')") == "40%"


def test_without_scripts_filters_are_absent_and_all_is_shown(page_of):
    page = page_of(1440, java_script_enabled=False)
    assert not page.locator(".filters").first.is_visible()
    assert not page.locator(".slide").first.is_visible()
    assert page.locator(".gallery li").count() == 162
    page.locator(".zoom").first.check()
    assert page.locator(".zoom").first.is_checked()


def test_on_paper_nothing_is_cut_off_and_every_section_is_there(page_of):
    page = page_of(740)  # a page of A4 less its margins
    page.emulate_media(media="print")
    wide = "of => of.filter(one => one.scrollWidth > one.clientWidth + 1).map(one => one.ariaLabel)"
    assert page.eval_on_selector_all(".scroll", wide) == []
    hidden = page.locator(".section > :not(summary)").evaluate_all("of => of.filter(one => !one.offsetHeight).length")
    assert hidden == 0


QUICK = [(390, "light"), (1440, "dark")]


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        pytest.param(width, scheme, marks=() if (width, scheme) in QUICK else pytest.mark.slow)
        for width in SIZES
        for scheme in ("light", "dark")
    ],
)
def test_axe_finds_nothing(page_of, width, scheme):
    found = Axe().run(page_of(width, color_scheme=scheme)).response
    assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found["violations"]] == []
    assert len(found["passes"]) > 20
