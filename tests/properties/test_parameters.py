# ruff: noqa: PT017  (a refusal is one of two good ends)
"""Requests, parameters and statements: what holds of them whatever is typed or sent."""

from __future__ import annotations

import json
import math
import shutil
import string
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from personalize.evidence.statement import EvidenceError, read, write
from personalize.photographs.prompts import Subject
from personalize.recipe.__main__ import parse
from personalize.recipe.config import Override, load
from personalize.recipe.document import scalar
from personalize.recipe.errors import RecipeError
from personalize.serving.request import INPUTS, MAX_SEED, Defaults, Limits, RequestError, all_of, orders, unknown_names
from personalize.serving.versions import Version, Versions

WORDS = Path(__file__).parents[1] / "recipe" / "words"
LIMITS = Limits()

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
rows = st.lists(
    st.fixed_dictionaries(
        {"prompt": st.text(max_size=60) | values},
        optional=dict.fromkeys([*INPUTS][1:], values) | {"seed": st.integers(-5, 2**33) | st.floats()},
    ),
    max_size=4,
)


class Tokenizer:
    """A token for each word."""

    def __call__(self, text: str, **options: Any) -> Any:
        return SimpleNamespace(input_ids=[0, *range(len(text.split())), 1])

    def decode(self, ids: Any, **options: Any) -> str:
        return " ".join(map(str, ids))


def ordered(asked: list[dict[str, Any]]) -> list[Any]:
    served = Versions(Version([Subject("zwvchr", "chair")]), {})
    found, faults = orders(asked, Defaults(), LIMITS, served.find, [Tokenizer()], lambda: 7)
    if faults:
        raise RequestError(all_of(faults))
    return found


@given(rows)
@example([{"prompt": "a", "seed": float("nan")}])
@example([{"prompt": "a" * 3999, "width": 2**60}])
def test_a_request_is_honoured_within_the_limits_or_refused_by_its_rows(asked: list[dict[str, Any]]) -> None:
    try:
        found = ordered(asked)
    except RequestError as error:
        assert "row" in str(error) or "request" in str(error) or "answer" in str(error)
        assert len(str(error)) < 3000
        return
    assert 1 <= len(found) <= LIMITS.images
    for order in found:
        assert 0 <= order.seed <= MAX_SEED
        usual = Defaults().sampling
        assert (order.sampling.width, order.sampling.height) in {(usual.width, usual.height), *LIMITS.sizes}
        assert 1 <= order.sampling.steps <= LIMITS.steps
        assert 0 <= order.adapter_scale <= LIMITS.adapter_scale
        assert order.prompt
        assert order.prompt == " ".join(order.prompt.split())


@given(st.integers(0, MAX_SEED), st.integers(1, LIMITS.images), st.floats(0, LIMITS.guidance_scale))
def test_what_is_within_the_limits_is_drawn_as_asked(seed: int, images: int, scale: float) -> None:
    asked = {"prompt": "a zwvchr chair", "seed": float(seed), "num_images": images, "guidance_scale": scale}
    asked |= {"width": 128, "height": 128}
    found = ordered([asked])
    assert [order.seed for order in found] == [(seed + i) % (MAX_SEED + 1) for i in range(images)]
    assert {order.sampling.guidance_scale for order in found} == {scale}


@given(st.lists(st.text(max_size=80), max_size=5))
def test_an_unknown_name_is_always_said_and_a_known_one_never(names: list[str]) -> None:
    assert bool(unknown_names(names)) == any(name not in INPUTS for name in names)
    assert unknown_names(INPUTS) == ""


@given(st.text(max_size=100))
@example("!!python/object/apply:os.getcwd []")
@example("&a [*a]")
@example("2026-99-99")
@example("{{ 7 * 7 }}")
def test_a_value_on_the_command_line_is_plain_data_or_the_text_as_it_was_typed(text: str) -> None:
    found = scalar(text)
    if isinstance(found, str):
        assert found == text
    else:
        assert "python" not in type(found).__module__
        assert same(found, yaml.safe_load(text))


def same(one: Any, other: Any) -> bool:
    return one == other or (isinstance(one, float) and math.isnan(one)) or repr(one) == repr(other)


@given(st.integers() | st.booleans() | st.text(string.ascii_letters, min_size=1, max_size=20))
def test_a_value_that_json_writes_is_read_as_itself(value: Any) -> None:
    assert scalar(value if isinstance(value, str) else json.dumps(value)) == (
        yaml.safe_load(value) if isinstance(value, str) and not isinstance(yaml.safe_load(value), str) else value
    )


@given(st.lists(st.text(max_size=30), max_size=6))
def test_a_command_line_is_understood_or_refused_in_words(words: list[str]) -> None:
    try:
        found = parse(words, ("profile", "step"), ("plan",))
    except RecipeError as error:
        assert str(error)
    else:
        assert all(isinstance(override.text, str) for override in found.overrides)


@given(st.text(max_size=40).filter(lambda text: text.strip()))
@example("{{ 7 * 7 }}")
@example("{% include '/etc/passwd' %}")
@example("a: b\n  - c")
@example("}}{{")
def test_a_variable_reaches_its_step_as_what_was_typed_whatever_is_in_it(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        shutil.copytree(WORDS, root)
        merged = load(root, "local", [Override("FOLDER", text), Override("count.top", text)])
        folder_value, top = merged.steps["read"]["folder"], merged.steps["count"]["top"]
        assert folder_value.value == scalar(text) or same(folder_value.value, scalar(text))
        assert top.texts[()] == text


@given(st.dictionaries(st.text(max_size=12), values, max_size=5))
def test_whatever_a_profile_says_is_taken_or_refused_with_its_file(content: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        shutil.copytree(WORDS, root)
        file = root / "profiles" / "local.yaml"
        file.write_text(json.dumps(content) + "\n", encoding="utf-8")
        try:
            load(root, "local")
        except RecipeError as error:
            assert "local.yaml" in str(error) or "recipe.yaml" in str(error)


@given(st.sampled_from(["recipe", "until", "card", "headline", "trust", "parameters", "steps", "next"]), values)
def test_whatever_a_recipe_says_is_taken_or_refused_with_its_file(key: str, value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "project"
        shutil.copytree(WORDS, root)
        content = {"recipe": "words", "steps": {"read": {}, "report": {}}, key: value}
        (root / "recipe.yaml").write_text(json.dumps(content) + "\n", encoding="utf-8")
        try:
            load(root, "local")
        except RecipeError as error:
            assert "recipe.yaml" in str(error) or "local.yaml" in str(error)


@given(st.dictionaries(st.text(max_size=20), st.from_regex(r"[0-9a-f]{64}", fullmatch=True), max_size=4))
def test_a_statement_comes_out_as_it_went_in(subjects: dict[str, str]) -> None:
    said = read(write(subjects, "urn:x", {"a": 1}, None), "urn:x")
    assert (dict(said.subjects), said.predicate, said.key) == (subjects, {"a": 1}, "")


@given(st.text(max_size=200) | values.map(json.dumps))
@example("[" * 100_000)
def test_whatever_is_called_a_statement_is_read_or_refused_in_words(text: str) -> None:
    try:
        read(text)
    except EvidenceError as error:
        assert str(error).startswith("a ")
