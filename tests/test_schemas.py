"""The published schemas (docs/schemas) describe what is written: not less, and nothing that is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from personalize.evaluation.gates import METRICS
from personalize.evaluation.scorecard import SCHEMA
from tests.cards.test_cards import full, picture  # noqa: F401  the card that has every kind of block
from tests.evaluation_folder import make

SCHEMAS = Path(__file__).parents[1] / "docs" / "schemas"


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def kinds(blocks: list[dict[str, Any]]) -> set[str]:
    return {block["kind"] for block in blocks}.union(*(kinds(block.get("blocks", [])) for block in blocks))


def test_a_card_of_every_kind_of_block_is_as_its_schema_says(full):  # noqa: F811
    facts = json.loads(json.dumps({**full.as_dict(), "made": {"run_id": "x"}}))
    schema = validator("card")
    schema.validate(facts)
    described = {name for name, of in schema.schema["$defs"].items() if "kind" in of.get("properties", {})}
    assert kinds(facts["blocks"]) == described
    facts["blocks"][0]["surprise"] = 1
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(facts)


@pytest.mark.parametrize("given", [{}, {"champion": True}, {"tokens": ("zwvchr",), "seeds": 1}, {"mixed_up": (0,)}])
def test_scores_are_as_their_schema_says(tmp_path, given):
    schema = validator("scores")
    schema.validate(make(tmp_path, side=16, **given).scores)
    assert schema.schema["properties"]["schema"]["const"] == SCHEMA
    assert set(schema.schema["properties"]["overall"]["properties"]) == set(METRICS)
