"""The engine's command line, which MLproject's entry points call.

run        --until STEP --profile NAME [--plan] [--fresh] [--set step.key=value] [--step.key value] [--VARIABLE value]
inspect    --profile NAME [--step STEP | --run RUN_ID]   a step's latest card, a run's, or the whole recipe's
clean      --profile NAME [--step STEP]          forget a step's finished runs, so that it runs again
reproduce  --run RUN_ID [--tolerance 0.001]      run the same commit, data and parameters again, and compare
           --segments N [--seed S] [--tolerance] or only so many parts of its steps' work, from what they kept of it
bisect     --good RUN_ID --bad RUN_ID --metric NAME [--noise 0.01]   the commit between them that moved a metric
describe   --profile NAME                        every parameter: type, default, meaning
"""

import secrets
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from personalize.cards import command
from personalize.cards.commands import of_project
from personalize.egress import without_secrets
from personalize.recipe.config import Override
from personalize.recipe.errors import RecipeError, full_disk, nearest
from personalize.recipe.fetched import typed

if TYPE_CHECKING:
    from personalize.recipe.steps import Replay

COMMANDS = {
    "run": (("until", "step", "profile", "reproduces"), ("plan", "fresh")),
    "inspect": (("step", "run", "profile"), ("open",)),
    "clean": (("step", "profile"), ("everyone",)),
    "reproduce": (("run", "tolerance", "segments", "seed"), ()),
    "bisect": (("good", "bad", "metric", "noise"), ()),
    "replay": (
        ("run", "tolerance", "segments", "seed", "report", "step", "until", "profile"),
        (),
    ),  # reproduce calls it
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
        with of_project(typed(Path.cwd())):
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
        from personalize.recipe.reproduce import reproduce, reproduce_parts

        if "run" not in given:
            raise RecipeError(f"reproduce needs a run: {command('reproduce', run='RUN_ID')}")
        if "segments" in given:
            return reproduce_parts(Path.cwd(), given["run"], _parts(given), arguments.overrides)
        return reproduce(Path.cwd(), given["run"], _number(given.get("tolerance", "0.001")), arguments.overrides)
    if name == "bisect":
        from personalize.recipe.bisect import bisect

        for needed in ("good", "bad", "metric"):
            if needed not in given:
                ways = command("bisect", good="RUN_ID", bad="RUN_ID", metric="NAME")
                raise RecipeError(f"bisect needs {needed}: {ways}")
        noise = _number(given["noise"], "noise") if "noise" in given else None
        return bisect(Path.cwd(), given["good"], given["bad"], given["metric"], noise, arguments.overrides)
    if name == "replay":
        from personalize.recipe.replay import replay

        target = {key: text for key, text in given.items() if key in ("step", "until")}
        profile, report = given.get("profile", DEFAULT_PROFILE), Path(given["report"])
        replay(Path.cwd(), profile, arguments.overrides, target, given["run"], _parts(given), report)
        return 0

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


def _parts(given: Mapping[str, str]) -> "Replay":
    """What is asked of the parts of a run that are made again. A seed that is not given is drawn."""
    from personalize.recipe.steps import Replay

    try:
        segments, seed = int(given["segments"]), int(given.get("seed", secrets.randbelow(2**31)))
    except ValueError:
        raise RecipeError("segments and seed are whole numbers") from None
    if segments < 1 or seed < 0:
        raise RecipeError("segments is 1 or more, and seed 0 or more")
    return Replay(segments, seed, _number(given.get("tolerance", "0")))


def _number(text: str, name: str = "tolerance") -> float:
    try:
        number = float(text)
    except ValueError:
        raise RecipeError(f"{name} is a number, not '{text}'") from None
    if not 0 <= number < float("inf"):
        raise RecipeError(f"{name} is 0 or more, not {text}")
    return number


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
