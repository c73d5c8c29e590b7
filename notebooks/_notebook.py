"""What the notebooks share: the project's root as the working directory, widgets, the recipe under their profile."""

import json
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
os.chdir(ROOT)
sys.path.insert(0, str(ROOT))


def widget(name: str, default: str) -> str:
    """The value of a notebook's widget, or of a job's parameter; elsewhere of the environment (PERSONALIZE_<NAME>)."""
    import __main__

    widgets = getattr(getattr(__main__, "dbutils", None), "widgets", None)
    if widgets is None:
        return os.environ.get(f"PERSONALIZE_{name.upper()}", default)
    widgets.text(name, default)
    return str(widgets.get(name))


def recipe(overrides: dict[str, Any] | None = None) -> Any:
    """The recipe under the widget `profile`, with what the widget `overrides` (JSON) and the caller change."""
    from personalize.recipe import Recipe

    changed = {**json.loads(widget("overrides", "{}")), **(overrides or {})}
    return Recipe(profile=widget("profile", "databricks"), root=ROOT, overrides=changed)
