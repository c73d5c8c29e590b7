"""A setting that several steps have is bounded alike, so that no step refuses at night what the plan took."""

from importlib import import_module

import pytest

from personalize.recipe import StepConfig

STEPS = ("prior", "train", "baseline", "draw", "register", "generate")


def config(step: str) -> type[StepConfig]:
    return import_module(f"steps.{step}").Config


@pytest.mark.parametrize("name", ["resolution"])
def test_a_side_in_pixels_is_a_multiple_of_what_the_vae_divides_by(name: str) -> None:
    for step in STEPS:
        kind = config(step)
        bounds = {type(bound).__name__: bound for bound in kind.model_fields[name].metadata}
        assert bounds["MultipleOf"].multiple_of == 8, step
