"""recipe.yaml and a profile and the command line's overrides, merged and validated before anything runs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personalize.cards.commands import under_profile
from personalize.evidence.trust import Trust
from personalize.recipe.document import Document, Path_, Variables, read, scalar
from personalize.recipe.errors import Faults, RecipeError, nearest

RECIPE_KEYS = ("recipe", "description", "until", "card", "headline", "trust", "parameters", "steps", "next", "again")
PROFILE_KEYS = ("extends", "description", "experiment", "model_registry", "requires", "steps")
PROFILE_SECTIONS = {
    "experiment": ("name", "artifact_location"),
    "model_registry": ("registry_uri",),
    "requires": ("tracking_uri",),
}


@dataclass(frozen=True)
class Override:
    """One `-P name=text`: name is `step.key` (deeper keys with more dots) or a profile VARIABLE."""

    name: str
    text: str

    @property
    def place(self) -> str:
        return f"-P {self.name}={self.text}"


@dataclass
class Profile:
    """What differs between a laptop and a workspace: UPPER_CASE variables, where runs and models go, changed keys.

    documents: its file, after those of the profiles that it extends.
    """

    name: str
    documents: list[Document]
    variables: Variables = field(default_factory=Variables)
    experiment: dict[str, Any] = field(default_factory=dict)
    model_registry: dict[str, Any] = field(default_factory=dict)
    requires: dict[str, Any] = field(default_factory=dict)

    def place(self, path: Path_) -> str:
        """Where a key stands: in the last of the files that have it."""
        return next((each for each in reversed(self.documents) if path in each.lines), self.documents[-1]).place(path)


@dataclass
class Value:
    """A configured value before it has a type: what YAML makes of it, how it was written, and where."""

    value: Any
    place: str
    texts: dict[Path_, str]


@dataclass
class Merged:
    """The recipe after merging: for each step its keys, each with its place.

    card: the step whose card people judge; headline: its metrics that the project run repeats; trust: whose results and
    approvals count; short: what the short names of parameters stand for; again: of a step whose run may ask for more,
    the parameter that is raised by one then.
    """

    root: Path
    name: str
    profile: Profile
    steps: dict[str, dict[str, Value]]
    places: dict[str, str]
    overrides: tuple[Override, ...]
    until: str = ""
    card: str = ""
    headline: tuple[str, ...] = ()
    next: dict[str, str | dict[str, str]] = field(default_factory=dict)
    trust: Trust = field(default_factory=Trust)
    short: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)


def profiles(root: Path) -> list[str]:
    """The names of the profiles beside the recipe."""
    return sorted(path.stem for path in (root / "profiles").glob("*.yaml"))


def load(root: Path, profile: str, overrides: Sequence[Override] = (), faults: Faults | None = None) -> Merged:
    """Read, render and merge. Raises RecipeError naming file, line and the nearest known name.

    faults: keeps what is wrong with the overrides, to be said with what is found later; then they are left out.
    """
    wrong = Faults() if faults is None else faults
    chosen = load_profile(root, profile)
    given = [override for override in overrides if override.name.isupper()]
    _set_variables(chosen, given, wrong)
    document = _recipe(root, chosen)
    content = _mapping(document, (), "recipe.yaml must hold `recipe:` and `steps:`")
    for key in content:
        if key not in RECIPE_KEYS:
            raise RecipeError(f"{document.place((key,))}: unknown key '{key}'{nearest(str(key), RECIPE_KEYS)}")
    short = _mapping(document, ("parameters",), "maps short names to parameters") if content.get("parameters") else {}
    for name, meant in short.items():
        if not isinstance(meant, str):
            place = document.place(("parameters", name))
            raise RecipeError(f"{place}: parameters.{name} is a step.key or a VARIABLE, not {meant!r}")
    full = [Override(str(short.get(override.name, override.name)), override.text) for override in overrides]
    if len(late := [override for override in full if override.name.isupper()]) > len(given):
        _set_variables(chosen, late, wrong)
        document = _recipe(root, chosen)  # a short name stood for a variable
    blocks = _mapping(document, ("steps",), "`steps:` must name at least one step")
    if not blocks:
        raise RecipeError("recipe.yaml: `steps:` must name at least one step")
    steps = {str(name): _block(document, ("steps", name)) for name in blocks}
    for source in chosen.documents:
        for name in _mapping(source, ("steps",), "must map step names to keys") if "steps" in source.value else {}:
            if name not in steps:
                raise RecipeError(f"{source.place(('steps', name))}: unknown step '{name}'{nearest(str(name), steps)}")
            steps[str(name)].update(_block(source, ("steps", name)))
    for override in full:
        with wrong.noted():
            _apply(override, steps, lambda: [*short, *chosen.variables.values, *_project_parameters(root)])
    if faults is None:
        wrong.refuse()
    return Merged(
        root=root,
        name=str(content.get("recipe") or root.name),
        profile=chosen,
        steps=steps,
        places={name: document.place(("steps", name)) for name in steps},
        overrides=tuple(full),
        until=_known_step(document, "until", content.get("until"), steps) or list(steps)[-1],
        card=_known_step(document, "card", content.get("card"), steps),
        headline=_headline(document, content.get("headline")),
        next=_next(document, steps),
        trust=_trust(document, content.get("trust")),
        short={str(name): str(full) for name, full in short.items()},
        again=_again(document, steps),
    )


def with_overrides(merged: Merged, overrides: Sequence[Override]) -> Merged:
    """The same with a few more keys of its steps changed. A profile's VARIABLE is a matter for `load`."""
    full = [Override(merged.short.get(override.name, override.name), override.text) for override in overrides]
    steps = {name: dict(keys) for name, keys in merged.steps.items()}
    for override in full:
        _apply(override, steps, lambda: [*merged.short, *merged.profile.variables.values])
    return replace(merged, steps=steps, overrides=(*merged.overrides, *full))


def _recipe(root: Path, profile: Profile) -> Document:
    with under_profile(profile.name):  # commands in it name the profile
        return read(root / "recipe.yaml", root, profile.variables, f"profiles/{profile.name}.yaml")


def load_profile(root: Path, name: str) -> Profile:
    """Read profiles/<name>.yaml on top of those that it extends; its variables as they stand there."""
    profile = Profile(name, _inheritance(root, name))
    profile.variables.set("PROFILE", name, name)
    for document in profile.documents:
        for key, value in document.value.items():
            if str(key).isupper():
                profile.variables.set(str(key), value, document.texts.get((key,)))
            elif key not in PROFILE_KEYS:
                hint = nearest(str(key), PROFILE_KEYS)
                raise RecipeError(f"{document.place((key,))}: unknown key '{key}'{hint} (variables: UPPER_CASE)")
        for section, keys in PROFILE_SECTIONS.items():
            block = _mapping(document, (section,), f"holds {', '.join(keys)}") if document.value.get(section) else {}
            for key in block:
                if key not in keys:
                    place = document.place((section, key))
                    raise RecipeError(f"{place}: unknown key '{section}.{key}'{nearest(str(key), keys)}")
            getattr(profile, section).update(block)
    return profile


def _inheritance(root: Path, name: str) -> list[Document]:
    """The profile's file and those that it extends, what is extended first."""
    known, place = profiles(root), ""
    chain: list[str] = []
    documents: list[Document] = []
    while name:
        if name not in known:
            where = f"{place}: " if place else ""
            hint = f"{nearest(name, known)} (profiles are the files in {root / 'profiles'})"
            raise RecipeError(f"{where}unknown profile '{name}'{hint}")
        if name in chain:
            raise RecipeError(f"{place}: profile '{name}' extends itself ({' → '.join([*chain, name])})")
        chain.append(name)
        document = read(root / "profiles" / f"{name}.yaml", root)
        document.value = (
            _mapping(document, (), "a profile is a mapping of VARIABLES and sections") if document.value else {}
        )
        documents.insert(0, document)
        name, place = str(document.value.get("extends") or ""), document.place(("extends",))
    return documents


def _set_variables(profile: Profile, overrides: Sequence[Override], faults: Faults) -> None:
    for override in overrides:
        with faults.noted():
            if override.name not in profile.variables.values:
                hint = nearest(override.name, profile.variables.values)
                raise RecipeError(f"{override.place}: profile '{profile.name}' has no variable {override.name}{hint}")
            profile.variables.set(override.name, scalar(override.text), override.text)


def _apply(override: Override, steps: dict[str, dict[str, Value]], names: Callable[[], Sequence[str]]) -> None:
    if override.name.isupper():
        return
    step, dot, key = override.name.partition(".")
    if not dot:
        options = [f"{name}.{key}" for name, keys in steps.items() for key in keys] + [*names()]
        raise RecipeError(f"{override.place}: unknown parameter '{override.name}'{nearest(override.name, options)}")
    if step not in steps:
        raise RecipeError(f"{override.place}: unknown step '{step}'{nearest(step, steps)}")
    key, *deeper = key.split(".")
    value, texts = scalar(override.text), {tuple(deeper): override.text}
    if not deeper:
        steps[step][key] = Value(value, override.place, texts)
        return
    base = steps[step].get(key) or Value({}, override.place, {})
    tree = dict(base.value) if isinstance(base.value, Mapping) else {}
    inner = tree
    for name in deeper[:-1]:
        inner[name] = dict(inner.get(name) or {})
        inner = inner[name]
    inner[deeper[-1]] = value
    steps[step][key] = Value(tree, override.place, {**base.texts, **texts})


def _project_parameters(root: Path) -> list[str]:
    """The parameters that MLproject's entry points declare: the names a person may have meant."""
    try:
        points = read(root / "MLproject", root).value["entry_points"].values()
        return [str(name) for point in points for name in point.get("parameters") or {}]
    except (RecipeError, KeyError, TypeError, AttributeError):
        return []


def _block(source: Document, path: Path_) -> dict[str, Value]:
    block: Any = source.value
    for key in path:
        block = block[key]
    if block is None:
        return {}
    if not isinstance(block, dict):
        raise RecipeError(f"{source.place(path)}: step '{path[-1]}' must hold keys and values, not {block!r}")
    values = {}
    for key, value in block.items():
        inside = (*path, key)
        texts = {at[len(inside) :]: text for at, text in source.texts.items() if at[: len(inside)] == inside}
        values[str(key)] = Value(value, source.place(inside), texts)
    return values


def _mapping(source: Document, path: Path_, expected: str) -> dict[Any, Any]:
    value = source.value
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, dict):
        raise RecipeError(f"{source.place(path)}: {'.'.join(map(str, path)) or source.name}: {expected}")
    return value


def _known_step(source: Document, key: str, step: Any, steps: Mapping[str, Any]) -> str:
    if step is not None and (not isinstance(step, str) or step not in steps):
        raise RecipeError(f"{source.place((key,))}: {key}: unknown step '{step}'{nearest(str(step), steps)}")
    return str(step or "")


def _headline(source: Document, value: Any) -> tuple[str, ...]:
    if not isinstance(value or [], list):
        raise RecipeError(f"{source.place(('headline',))}: headline is a list of metrics, not {value!r}")
    return tuple(map(str, value or ()))


def _trust(source: Document, value: Any) -> Trust:
    try:
        return Trust.model_validate(value or {})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, ("trust", *first["loc"])))
        said = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{source.place(('trust',))}: {name}: {said}") from error


def _next(source: Document, steps: Mapping[str, Any]) -> dict[str, str | dict[str, str]]:
    """What to type after each step: a text, or a text for each outcome of the step."""
    said: dict[str, str | dict[str, str]] = {}
    named = _mapping(source, ("next",), "maps steps to what to type after them") if source.value.get("next") else {}
    for step, text in named.items():
        if step not in steps:
            raise RecipeError(f"{source.place(('next', step))}: unknown step '{step}'{nearest(str(step), steps)}")
        outcomes = {str(outcome): str(words) for outcome, words in text.items()} if isinstance(text, dict) else {}
        said[str(step)] = outcomes or str(text or "")
    return said


def _again(source: Document, steps: Mapping[str, Any]) -> dict[str, str]:
    """The parameter that is raised when a run of a step asks for more."""
    named = _mapping(source, ("again",), "maps steps to a parameter") if source.value.get("again") else {}
    for step, parameter in named.items():
        place = source.place(("again", step))
        if step not in steps:
            raise RecipeError(f"{place}: unknown step '{step}'{nearest(step, steps)}")
        above, dot, _ = str(parameter).partition(".")
        if not dot or above not in steps:
            raise RecipeError(f"{place}: again.{step} is a step.key, not {parameter!r}{nearest(above, steps)}")
    return {str(step): str(parameter) for step, parameter in named.items()}


def overrides_from(values: Mapping[str, Any]) -> list[Override]:
    """Overrides from Python values, as a notebook gives them: text as it is, the rest through JSON (which is YAML)."""
    return [Override(name, value if isinstance(value, str) else json.dumps(value)) for name, value in values.items()]
