"""The recipe engine: typed config, plan, reuse through MLflow by content, runs. Knows nothing of images.

A step imports what it needs from here:

    from personalize.recipe import Inputs, RecipeError, StepConfig
"""

from personalize.recipe.errors import RecipeError
from personalize.recipe.steps import AGAIN, HOW_NOT_WHAT, OUTSIDE_DATA, Input, Inputs, Replay, StepConfig

__all__ = ["AGAIN", "HOW_NOT_WHAT", "OUTSIDE_DATA", "Input", "Inputs", "Recipe", "RecipeError", "Replay", "StepConfig"]


def __getattr__(name: str) -> object:
    if name == "Recipe":
        from personalize.recipe.api import Recipe

        return Recipe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
