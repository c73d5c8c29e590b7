"""A setting that several steps have is bounded alike, so that no step refuses at night what the plan took."""

from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest
from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import ValidationError

ROOT = Path(__file__).parents[2]
OF_A_PICTURE = ("generate", "deploy")
"""Steps whose `seed` is a picture's, as a request has it; elsewhere it is hashed and has no end."""
OTHER_THINGS = {"workers"}
"""Names of settings that are not the same in all steps that have them: a server's processes, a fleet's machines."""


def bounds() -> dict[str, dict[str, tuple[str, ...]]]:
    """What each number is held to, by its name and by the step that has it."""
    found: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for path in sorted((ROOT / "steps").glob("*.py")):
        kind = getattr(import_module(f"steps.{path.stem}"), "Config", None)
        for name, field in kind.model_fields.items() if kind else ():
            if "int" in str(field.annotation) or "float" in str(field.annotation):
                held = [bound for bound in field.metadata if isinstance(bound, Ge | Gt | Le | Lt | MultipleOf)]
                picture = " of a picture" if name == "seed" and path.stem in OF_A_PICTURE else ""
                found[name + picture][path.stem] = tuple(sorted(map(str, held)))
    return {name: by_step for name, by_step in found.items() if len(by_step) > 1 and name not in OTHER_THINGS}


@pytest.mark.parametrize("name", sorted(bounds()))
def test_a_number_that_several_steps_have_is_held_to_the_same(name: str) -> None:
    assert len(set(bounds()[name].values())) == 1, bounds()[name]


def test_a_side_in_pixels_is_a_multiple_of_what_the_vae_divides_by() -> None:
    for step, held in bounds()["resolution"].items():
        assert "MultipleOf(multiple_of=8)" in held, step


@pytest.mark.parametrize("name", ["sampling_steps", "validation_sampling_steps"])
def test_no_step_is_asked_for_more_steps_than_the_base_was_trained_with(name: str) -> None:
    from steps import train

    held = bounds()[name].values() if name in bounds() else [tuple(map(str, train.Config.model_fields[name].metadata))]
    assert all("Le(le=1000)" in each for each in held)


ASKED = {
    ("caption", "template"): "a (red:1.3) {token} {class_noun}",
    ("prior", "prompts"): ["a (red:1.3) {class_noun}"],
    ("prior", "negative_prompt"): "<lora:chair:0.8>",
    ("baseline", "prompts"): {"colour": {"red": "a (red:1.3) {token_noun}"}},
    ("baseline", "negative_prompt"): "<lora:chair:0.8>",
    ("draw", "prompts"): {"colour": {"red": "a (red:1.3) {token_noun}"}},
    ("draw", "negative_prompt"): "<lora:chair:0.8>",
    ("register", "negative_prompt"): "<lora:chair:0.8>",
}
BY_THE_REQUEST = {("generate", "prompt"), ("generate", "negative_prompt"), ("deploy", "prompt"), ("whence", "prompt")}
"""Looked at when they are asked, or not drawn at all."""


@pytest.mark.parametrize(("step", "name"), sorted(ASKED))
def test_what_text_encoders_would_hear_as_words_is_refused_in_every_setting(step: str, name: str) -> None:
    kind = import_module(f"steps.{step}").Config
    with pytest.raises(ValidationError, match="is how other programs write weights and adapters"):
        kind.__pydantic_validator__.validate_assignment(kind.model_construct(), name, ASKED[step, name])


def test_no_setting_with_a_prompt_in_it_is_forgotten() -> None:
    words = ("prompt", "prompts", "negative_prompt", "template")
    found = {
        (path.stem, name)
        for path in (ROOT / "steps").glob("*.py")
        if (kind := getattr(import_module(f"steps.{path.stem}"), "Config", None))
        for name in kind.model_fields
        if name in words
    }
    assert found == {*ASKED, *BY_THE_REQUEST}
