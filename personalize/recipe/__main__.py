"""The engine's command line, which MLproject's entry points call.

run        --until STEP --profile NAME [--plan] [--fresh] [--set step.key=value] [--step.key value] [--VARIABLE value]
inspect    --profile NAME [--step STEP]          the card of a step's latest run, or the whole recipe with its states
clean      --profile NAME [--step STEP]          forget a step's finished runs, so that it runs again
reproduce  --run RUN_ID [--tolerance 0.001]      run the same commit, data and parameters again, and compare
describe   --profile NAME                        every parameter: type, default, meaning
"""

import sys
import time
from pathlib import Path

from personalize.recipe.arguments import Arguments, parse
from personalize.recipe.errors import RecipeError, nearest

COMMANDS = {
    "run": (("until", "step", "profile", "reproduces"), ("plan", "fresh")),
    "inspect": (("step", "profile"), ("open",)),
    "clean": (("step", "profile"), ("everyone",)),
    "reproduce": (("run", "tolerance"), ()),
    "describe": (("profile",), ()),
}
DEFAULT_PROFILE = "local"


def main(words: list[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 a step failed, 2 something to put right first, 130 stopped."""
    words = sys.argv[1:] if words is None else words
    command = words[0] if words else "--help"
    if command in ("-h", "--help", "help") or "--help" in words[1:2]:
        print(__doc__.strip())
        return 0
    try:
        if command not in COMMANDS:
            raise RecipeError(f"unknown command '{command}'{nearest(command, COMMANDS)}")
        options, flags = COMMANDS[command]
        return _dispatch(command, parse(words[1:], options, flags))
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt as error:
        print("stopped; finished steps are kept and not run again", file=sys.stderr, flush=True)
        return 143 if type(error).__name__ == "Terminated" else 130
    except BrokenPipeError:
        return 1
    except Exception as error:
        if not type(error).__module__.startswith("mlflow."):
            raise
        print(f"error: MLflow: {error}", file=sys.stderr, flush=True)
        return 1


def _dispatch(command: str, arguments: Arguments) -> int:
    root, profile = Path.cwd(), arguments.options.get("profile", DEFAULT_PROFILE)
    if command == "describe":
        from personalize.recipe.describe import describe

        print(describe(root, profile, tuple(arguments.overrides)))
        return 0
    if command == "run":
        return _run(root, profile, arguments)
    if command == "reproduce":
        from personalize.recipe.reproduce import reproduce

        if "run" not in arguments.options:
            raise RecipeError("reproduce needs a run: mlflow run . --env-manager local -e reproduce -P run=RUN_ID")
        return reproduce(root, arguments.options["run"], _number(arguments.options.get("tolerance", "0.001")))
    from personalize.recipe.api import Recipe

    recipe = Recipe(profile, root=root, overrides=arguments.overrides)
    step = arguments.options.get("step") or None
    if command == "clean":
        print(recipe.clean(step, everyone=arguments.flag("everyone")))
        return 0
    path = recipe.card_path(step)
    print(f"card  {path}")
    if arguments.flag("open"):
        import webbrowser

        webbrowser.open(path.as_uri())
    return 0


def _run(root: Path, profile: str, arguments: Arguments) -> int:
    from personalize.recipe.plan import make_plan, prepare

    started = time.monotonic()
    only_plan, fresh = arguments.flag("plan"), arguments.flag("fresh")
    until, step = arguments.options.get("until", ""), arguments.options.get("step", "")
    prepared = prepare(root, profile, arguments.overrides, until, step)

    from personalize.recipe.report import end_text, plan_text
    from personalize.recipe.runner import Runner, StepFailed
    from personalize.recipe.tracking import connect

    store = connect(prepared.merged.profile, root, create=not only_plan)
    plan = make_plan(prepared, store, fresh)
    said = plan_text(prepared, plan)
    print(said, flush=True)
    if only_plan:
        store.name_plan(said)
        return 0
    tags = {"reproduces": arguments.options["reproduces"]} if "reproduces" in arguments.options else {}
    runner = Runner(prepared, store, plan, tags)
    try:
        runner.run()
    except StepFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        if failure.card is not None:
            print(f"  card  {failure.card}", file=sys.stderr, flush=True)
        return failure.code
    print(end_text(runner, time.monotonic() - started), flush=True)
    return 0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise RecipeError(f"tolerance is a number, not '{text}'") from None


if __name__ == "__main__":
    sys.exit(main())
