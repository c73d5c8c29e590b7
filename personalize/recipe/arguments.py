"""The command line. Every `--name` takes the next word whole: a value may begin with dashes or be empty."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from personalize.recipe.config import Override
from personalize.recipe.errors import RecipeError


@dataclass
class Arguments:
    """Options by name, and overrides in the order given."""

    options: dict[str, str] = field(default_factory=dict)
    overrides: list[Override] = field(default_factory=list)

    def flag(self, name: str) -> bool:
        """A yes-or-no option. Raises RecipeError for anything else."""
        text = self.options.get(name, "").strip().lower()
        if text in ("", "false", "no", "0", "off"):
            return False
        if text in ("true", "yes", "1", "on"):
            return True
        raise RecipeError(f"{name} is true or false, not '{self.options[name]}'")


def parse(words: Sequence[str], options: Iterable[str], flags: Iterable[str]) -> Arguments:
    """Read `--option value`, `--flag [true|false]`, `--set step.key=value` and `--step.key value`.

    An empty value of --set or of an option means "not given" (MLproject passes its empty defaults so); an empty
    value of `--step.key` is an empty value. Raises RecipeError for a name that is none, naming the nearest.
    """
    known, switches = set(options), set(flags)
    arguments = Arguments()
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("--") or word == "--":
            raise RecipeError(
                f"'{word}' is not a parameter; parameters are given as --name value (with mlflow run: -P name=value)"
            )
        name, equals, value = word[2:].partition("=")
        if name in switches:
            bare = not equals and (not waiting or waiting[0].startswith("--"))
            arguments.options[name] = "true" if bare else value if equals else waiting.pop(0)
            continue
        if not equals:
            if not waiting:
                raise RecipeError(f"--{name} needs a value")
            value = waiting.pop(0)
        if name == "set":
            target, equals, value = value.partition("=")
            if not equals:
                raise RecipeError(f"--set takes step.key=value, not '{target}'")
            if value != "":
                arguments.overrides.append(Override(target, value))
        elif name in known:
            if value != "":
                arguments.options[name] = value
        elif "." in name or name.isupper():
            arguments.overrides.append(Override(name, value))
        else:
            arguments.options.setdefault("unknown", name)
            arguments.overrides.append(
                Override(name, value)
            )  # named in full, with the nearest key, once keys are known
    return arguments
