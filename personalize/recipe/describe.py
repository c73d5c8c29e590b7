"""The manual of a recipe's parameters, made from the steps' own Config classes."""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic_core import PydanticUndefined

from personalize.recipe.config import Override, load
from personalize.recipe.steps import Step, StepConfig, load_steps
from personalize.recipe.validation import extended


def describe(root: Path, profile: str, overrides: tuple[Override, ...] = ()) -> str:
    """Every step with its keys: type, default, bounds, description; and the profile's variables."""
    merged = load(root, profile, overrides)
    steps = load_steps(root, merged.places)
    parts = [f"{merged.name}: give any key as -P step.key=value, any variable as -P VARIABLE=value"]
    kinds = {name: step.kind for name, step in steps.items()}
    parts += [_step(step, extended(step.kind, kinds), kinds) for step in steps.values()]
    variables = [
        f"  {name} = {json.dumps(value, ensure_ascii=False)}" for name, value in merged.profile.variables.values.items()
    ]
    parts.append("\n".join([f"variables of profile '{profile}'", *variables]))
    return "\n\n".join(parts)


def _step(step: Step, parent: str, kinds: Mapping[str, type[StepConfig]]) -> str:
    needs = f"   needs: {', '.join(step.needs)}" if step.needs else ""
    lines = [f"{step.name}{needs}"]
    lines += textwrap.wrap(step.about, 116, initial_indent="  ", subsequent_indent="  ") if step.about else []
    schema = step.kind.model_json_schema()
    if parent:
        lines.append(f"    every key of {parent}, with {parent}'s value unless given as {step.name}.key; and")
    told = kinds[parent].model_fields if parent else {}
    for key, field in step.kind.model_fields.items():
        if key in told:
            continue
        default = "required" if field.is_required() else f"= {_default(field.get_default(call_default_factory=True))}"
        lines.append(f"    {step.name}.{key}  ({_type(schema['properties'].get(key, {}), schema)}) {default}")
        if field.description:
            lines += textwrap.wrap(field.description, 112, initial_indent="        ", subsequent_indent="        ")
    return "\n".join(lines)


def _default(value: Any) -> str:
    return "" if value is PydanticUndefined else json.dumps(value, ensure_ascii=False, default=str)


def _type(schema: dict[str, Any], whole: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _type(whole["$defs"][schema["$ref"].rsplit("/", 1)[-1]], whole)
    if "anyOf" in schema:
        return " or ".join(_type(part, whole) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return "|".join(str(choice) for choice in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "any"))
    if kind == "array" and "items" in schema:
        kind = f"list of {_type(schema['items'], whole)}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[word]}" for word, sign in signs.items() if word in schema]
    return ", ".join([kind, *bounds])
