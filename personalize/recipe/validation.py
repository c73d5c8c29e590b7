"""From merged values to each step's typed Config, or to messages that say which key, where, and what would be right."""

import copy
from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic_core import ErrorDetails

from personalize.recipe.config import Merged, Value
from personalize.recipe.errors import Faults, in_short, nearest
from personalize.recipe.steps import StepConfig

# Kinds of error that the text as it was written may put right: a revision 1234567, an answer `yes`, a date.
_WANTS_TEXT = {"string_type", "literal_error", "enum", "path_type"}


def validate(
    merged: Merged, kinds: Mapping[str, type[StepConfig]], needed: set[str], faults: Faults | None = None
) -> dict[str, StepConfig]:
    """Every step's config. A value may be missing only in steps that are not `needed`; those are then left out.

    A step whose Config extends another step's takes from that step's block what its own does not say.
    faults: keeps what is wrong, to be said with what is found later; without it RecipeError is raised, one line for
    each. A step with a fault is left out as well.
    """
    configs: dict[str, StepConfig] = {}
    wrong = Faults() if faults is None else faults
    for step, kind in kinds.items():
        own, parent = merged.steps[step], extended(kind, kinds)
        values = {**(merged.steps[parent] if parent else {}), **own}
        try:
            configs[step] = typed(kind, values)
        except pydantic.ValidationError as error:
            for detail in error.errors(include_url=False):
                if parent and parent not in configs and (detail["loc"] or ("",))[0] not in own:
                    continue  # said already, of the step whose value it is
                if detail["type"] != "missing" or step in needed:
                    wrong.said.append(_say(step, kind, values, detail, merged))
    if faults is None:
        wrong.refuse()
    return configs


def extended(kind: type[StepConfig], kinds: Mapping[str, type[StepConfig]]) -> str:
    """The step whose Config this one extends, or nothing."""
    return next((step for base in kind.__mro__[1:] for step, other in kinds.items() if base is other), "")


def typed(kind: type[StepConfig], values: Mapping[str, Value]) -> StepConfig:
    """Validate; where text is wanted and YAML made something else of it, again with the text as written."""
    tree = {key: copy.deepcopy(value.value) for key, value in values.items()}
    try:
        return kind.model_validate(tree)
    except pydantic.ValidationError as error:
        changed = False
        for detail in error.errors(include_url=False):
            if detail["type"] in _WANTS_TEXT:
                changed |= _put_text(tree, values, detail["loc"])
        if not changed:
            raise
    return kind.model_validate(tree)


def _put_text(tree: dict[str, Any], values: Mapping[str, Value], loc: tuple[int | str, ...]) -> bool:
    """Replace the value at `loc` (whose tail may name a branch of a union) by its text; True where that changed it."""
    inner: Any = tree
    parent: Any = None
    depth = 0
    for part in loc:
        if not isinstance(inner, dict | list) or (isinstance(inner, dict) and part not in inner):
            break
        parent, inner, depth = inner, inner[part], depth + 1  # type: ignore[index]
    if parent is None or isinstance(inner, str):
        return False
    text = values[str(loc[0])].texts.get(tuple(loc[1:depth]))
    if text is None:
        return False
    parent[loc[depth - 1]] = text
    return True


def _say(step: str, kind: type[StepConfig], values: Mapping[str, Value], detail: ErrorDetails, merged: Merged) -> str:
    loc = [str(part) for part in detail["loc"]]
    key = loc[0] if loc else ""
    name = ".".join([step, *loc])
    place = values[key].place if key in values else merged.places[step]
    if detail["type"] == "missing":
        field = kind.model_fields.get(key)
        about = f" ({field.description})" if field is not None and field.description else ""
        return f"{place}: {name} has no value{about}; set it in recipe.yaml under steps.{step}, or pass -P {name}=…"
    if detail["type"] == "extra_forbidden":
        if len(loc) > 1:
            return f"{place}: {name} is not a known key"
        return f"{place}: step '{step}' has no key '{key}'{nearest(key, kind.model_fields)}"
    message = detail["msg"].removeprefix("Value error, ")
    field = kind.model_fields.get(key)
    about = f" ({field.description})" if field is not None and field.description else ""
    whole = len(loc) == 0 or isinstance(detail["input"], dict)
    given = "" if detail["type"] == "value_error" and whole else f", not {in_short(repr(detail['input']))}"
    return f"{place}: {name}: {message[:1].lower()}{message[1:]}{given}{about}"
