"""YAML that knows its lines, and Jinja variables that keep their types.

A variable is not passed through YAML as text: a whole scalar `{{ X }}` becomes X itself, whatever it holds; part of one
becomes its text. So a prompt with quotes, colons or braces in it cannot change the shape of the file.
"""

import contextlib
import itertools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import jinja2.exceptions
import jinja2.meta
import jinja2.sandbox
import yaml

from personalize.cards.commands import command
from personalize.files import TooDeep, check_depth, read_handed
from personalize.recipe.errors import RecipeError, nearest

Path_ = tuple[Any, ...]
_MARK = re.compile("\ue000(\\d+)\ue001")
DEEP = 1000
"""Brackets that a value typed on a command line may open."""
LONG = 100_000
"""Characters that a value typed on a command line may have to be anything but text."""
MOST = 100_000
"""Values that a file may have, aliases written out: a few lines of them can stand for millions."""


@dataclass
class Document:
    """A parsed file. lines: where each key path stands; texts: how each scalar was written, before YAML typed it."""

    name: str
    value: Any = None
    lines: dict[Path_, int] = field(default_factory=dict)
    texts: dict[Path_, str] = field(default_factory=dict)

    def place(self, path: Path_) -> str:
        """`recipe.yaml:12`, for the path or the nearest one above it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines[path]}" if path in self.lines else self.name


def read(path: Path, root: Path, variables: "Variables | None" = None, origin: str = "") -> Document:
    """Parse a YAML file, rendering it first where variables are given. Raises RecipeError with file and line."""
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    try:
        text = read_handed(path)
    except FileNotFoundError:
        raise RecipeError(f"{name} does not exist in {root}; run from the folder that holds it") from None
    except (OSError, ValueError) as error:
        raise RecipeError(f"{name} cannot be read: {error}") from error
    values: list[Any] = []
    if variables is not None:
        text = re.sub(r"(?m)^[ \t]*#.*$", "", text)  # what a comment mentions need not have a value
        text = render(text, name, variables, values, origin)
    return parse(text, name, values)


def render(text: str, name: str, variables: "Variables", values: list[Any], origin: str) -> str:
    """Render with sandboxed, strict Jinja; each printed value is put in `values` and stands in the text as a mark."""

    def keep(value: Any) -> Any:
        if isinstance(value, jinja2.Undefined):
            value._fail_with_undefined_error()
        values.append((value, variables.written(value)))
        return f"\ue000{len(values) - 1}\ue001"

    environment = _Template(undefined=jinja2.StrictUndefined, finalize=keep, keep_trailing_newline=True)
    environment.globals = {"command": command}
    try:
        return environment.from_string(text).render(variables.values)
    except jinja2.UndefinedError as error:
        missing = jinja2.meta.find_undeclared_variables(environment.parse(text)) - {*variables.values, "command"}
        for line, written in enumerate(text.splitlines(), start=1):
            for variable in sorted(missing):
                if re.search(rf"\{{[{{%][^}}]*\b{re.escape(variable)}\b", written):
                    hint = nearest(variable, variables.values)
                    message = f"{name}:{line}: variable {variable} has no value; add it to {origin}{hint}"
                    raise RecipeError(message) from error
        raise RecipeError(f"{name}: {error.message}") from error
    except jinja2.TemplateSyntaxError as error:
        raise RecipeError(f"{name}:{error.lineno}: {error.message}") from error
    except RecursionError:
        raise RecipeError(f"{name}: the template cannot be rendered: it is nested too deep, or calls itself") from None
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise RecipeError(f"{name}: the template cannot be rendered: {error}") from error


class _Template(jinja2.sandbox.SandboxedEnvironment):
    """Fills in values, chooses and calculates, and does nothing that takes the machine's time or memory."""

    intercepted_binops = frozenset(["*", "**", "%"])
    swells = ("center", "expandtabs", "format", "format_map", "indent", "ljust", "rjust", "wordwrap", "zfill")

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in self.swells:
            self.filters.pop(name, None)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise jinja2.exceptions.SecurityError(f"{operator} takes numbers")
        if operator == "**" and (abs(right) > 64 or abs(left) > 10**6):
            raise jinja2.exceptions.SecurityError("** takes an exponent of at most 64")
        return super().call_binop(context, operator, left, right)

    def is_safe_callable(self, obj: Any) -> bool:
        return super().is_safe_callable(obj) and getattr(obj, "__name__", "") not in self.swells


def parse(text: str, name: str, values: list[Any] | None = None) -> Document:
    """Parse YAML text whose marks stand for `values`. Raises RecipeError with file and line; so does a double key."""
    source = Document(name)
    loader = yaml.SafeLoader("")
    try:
        check_depth(text)
        node = _compose(text)
        if _count(node) > MOST:
            raise RecipeError(f"{name}: it holds more than {MOST:,} values; its aliases (*name) multiply them")
        source.value = None if node is None else _build(node, (), source, values or [], loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise RecipeError(f"{name}{line}: not valid YAML: {error.problem or error}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML: {error}") from error
    except (RecursionError, TooDeep):
        raise RecipeError(f"{name}: it is nested too deeply, or a value holds itself") from None
    return source


def _count(node: yaml.Node | None) -> int:
    """The values under a node, those behind an alias as often as they are meant; counting ends beyond MOST."""
    counted: dict[int, int] = {}

    def count(node: yaml.Node) -> int:
        if id(node) not in counted:
            below = node.value if isinstance(node, yaml.CollectionNode) else ()
            parts = itertools.chain.from_iterable(part if isinstance(part, tuple) else (part,) for part in below)
            counted[id(node)] = min(1 + sum(map(count, parts)), MOST + 1)
        return counted[id(node)]

    return 0 if node is None else count(node)


def _compose(text: str) -> yaml.Node | None:
    """libyaml is ten times as fast; PyYAML's own parser says better what is wrong."""
    with contextlib.suppress(AttributeError, yaml.YAMLError):
        return yaml.compose(text, Loader=yaml.CSafeLoader)
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _build(node: yaml.Node, path: Path_, source: Document, values: list[Any], loader: yaml.SafeLoader) -> Any:
    source.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        whole = _MARK.fullmatch(node.value)
        source.texts[path] = _MARK.sub(lambda mark: values[int(mark[1])][1], node.value)
        if whole:
            return values[int(whole[1])][0]
        if _MARK.search(node.value):
            return source.texts[path]
        try:
            return loader.construct_object(node)
        except ValueError as error:  # a date that is none
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from error
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, index), source, values, loader) for index, item in enumerate(node.value)]
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = _build(key_node, (*path, object()), source, values, loader)
        line = key_node.start_mark.line + 1
        if isinstance(key, dict | list):
            raise RecipeError(f"{source.name}:{line}: a key must be a word; quote a value that begins with {{ or [")
        if key in mapping:
            first = source.lines[(*path, key)]
            raise RecipeError(f"{source.name}:{line}: key '{key}' is given twice (first on line {first}); keep one")
        source.lines[(*path, key)] = line
        mapping[key] = _build(value_node, (*path, key), source, values, loader)
    return mapping


@dataclass
class Variables:
    """Values for a template, and how each was written: a revision `1234567` or a `yes` can still be a string."""

    values: dict[str, Any] = field(default_factory=dict)
    texts: dict[tuple[type, Any], str] = field(default_factory=dict)

    def set(self, name: str, value: Any, text: str | None) -> None:
        """text: as it stands in the file, where the value is a scalar."""
        self.values[name] = value
        if text is not None and not isinstance(value, str | list | dict):
            self.texts[type(value), value] = text

    def written(self, value: Any) -> str:
        if value is None or isinstance(value, bool | int | float):
            return self.texts.get((type(value), value), "" if value is None else str(value))
        return str(value)


def scalar(text: str) -> Any:
    """The value of text typed on a command line: YAML's types, but text that is a string stays exactly as typed."""
    if text.count("[") + text.count("{") > DEEP or len(text) > LONG:
        return text  # which PyYAML would look at for half a minute
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            return text  # nobody types an alias, and a line of them can stand for millions of values
        value = yaml.load(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    return text if isinstance(value, str) else value
