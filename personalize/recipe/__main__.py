"""The engine's command line, which MLproject's entry points call.

run        --until STEP --profile NAME [--plan] [--fresh] [--set step.key=value] [--step.key value] [--VARIABLE value]
inspect    --profile NAME [--step STEP | --run RUN_ID]   a step's latest card, a run's, or the whole recipe's
clean      --profile NAME [--step STEP]          forget a step's finished runs, so that it runs again
reproduce  --run RUN_ID [--tolerance 0.001]      run the same commit, data and parameters again, and compare
describe   --profile NAME                        every parameter: type, default, meaning
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from personalize.cards import command
from personalize.egress import without_secrets
from personalize.recipe.config import Override
from personalize.recipe.errors import RecipeError, full_disk, nearest

COMMANDS = {
    "run": (("until", "step", "profile", "reproduces"), ("plan", "fresh")),
    "inspect": (("step", "run", "profile"), ("open",)),
    "clean": (("step", "profile"), ("everyone",)),
    "reproduce": (("run", "tolerance"), ()),
    "describe": (("profile",), ()),
}
DEFAULT_PROFILE = "local"


def main(words: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 a step failed, 2 something to put right first, 130 stopped."""
    words = sys.argv[1:] if words is None else words
    name = words[0] if words else "--help"
    if name in ("-h", "--help", "help") or "--help" in words[1:2]:
        print(__doc__.strip())
        return 0
    try:
        if name not in COMMANDS:
            raise RecipeError(f"unknown command '{name}'{nearest(name, COMMANDS)}")
        options, flags = COMMANDS[name]
        return _dispatch(name, parse(words[1:], options, flags))
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if card := getattr(error, "card", None):
            print(f"  card  {card}", file=sys.stderr, flush=True)
        return int(getattr(error, "code", 2))
    except KeyboardInterrupt as error:
        print("stopped; finished steps are kept and not run again", file=sys.stderr, flush=True)
        return 143 if type(error).__name__ == "Terminated" else 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        full = full_disk(error)
        if not full and not type(error).__module__.startswith("mlflow."):
            raise
        said = f"{full}. Free some space there" if full else f"MLflow: {without_secrets(str(error)).rstrip('.')}"
        print(f"error: {said}. Finished steps are kept and not run again.", file=sys.stderr, flush=True)
        return 1


def _dispatch(name: str, arguments: "Arguments") -> int:
    given = arguments.options
    if name == "reproduce":
        from personalize.recipe.reproduce import reproduce

        if "run" not in given:
            raise RecipeError(f"reproduce needs a run: {command('reproduce', run='RUN_ID')}")
        return reproduce(Path.cwd(), given["run"], _number(given.get("tolerance", "0.001")), arguments.overrides)

    from personalize.recipe.api import Recipe

    recipe = Recipe(given.get("profile", DEFAULT_PROFILE), overrides=arguments.overrides)
    step, until = given.get("step"), given.get("until")
    if name == "describe":
        print(recipe.describe())
    elif name == "clean":
        print(recipe.clean(step, everyone=arguments.flag("everyone")))
    elif name == "inspect":
        card = recipe.inspect(step, given.get("run"))
        print(card)
        if arguments.flag("open"):
            import webbrowser

            webbrowser.open(card.path.as_uri())
    elif arguments.flag("plan"):
        print(recipe.plan(step, until, arguments.flag("fresh")), flush=True)
    else:
        tags = {"reproduces": given["reproduces"]} if "reproduces" in given else None
        recipe.run(step, arguments.flag("fresh"), until, tags)
    return 0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RecipeError(f"tolerance is a number, not '{text}'") from None


# Every `--name` takes the next word whole: a value may begin with dashes or be empty, which argparse does not allow.


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
        elif "." in name or name.isupper() or value != "":
            arguments.overrides.append(Override(name, value))
    return arguments


if __name__ == "__main__":
    sys.exit(main())
