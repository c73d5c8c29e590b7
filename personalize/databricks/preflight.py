"""What a job needs and would not find, said before compute is started.

The entry point's own command line is read as the job will read it; every path in a volume that its steps name must be
there, photographs and models must be somewhere that the job reaches, the model must be one that may be registered, and
the endpoint, where the job goes on to it, one that may be made.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.databricks.governance import check_model
from personalize.databricks.setup import WHERE_ASKED
from personalize.databricks.snapshot import git
from personalize.databricks.workspace import WorkspaceError, explained

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

    from personalize.recipe.config import Merged
    from personalize.recipe.steps import StepConfig

REGISTERS = ("register", "promote")


def check_needs(client: WorkspaceClient, project: Path, entry_point: str, params: Mapping[str, str]) -> None:
    """Raises WorkspaceError where the entry point would fail for want of data, models or permissions."""
    if not (project / "recipe.yaml").is_file():
        return
    found = asked_for(project, entry_point, params)
    if found is None:
        return
    merged, steps = found
    values = {f"{step}.{key}": value.value for step in steps for key, value in merged.steps[step].items()}
    for path, name in {path: name for name, path in reversed([*volume_paths(values)])}.items():  # each once
        if not there(client, path):
            setup = f"`mlflow run . -e setup -P profile={merged.profile.name}`"
            raise WorkspaceError(
                f"{name} is {path}, and there is nothing there. {setup} makes the volume and uploads photographs and "
                "models to it."
            )
    configs = checked(project, merged, steps)
    for name, path in of_this_machine(merged, configs):
        check_reach(project, name, path, merged.profile.name)
    if (
        any(step in steps for step in REGISTERS)
        and merged.profile.model_registry.get("registry_uri") == "databricks-uc"
    ):
        check_model(client, str(values.get("register.name", "")))


def checked(project: Path, merged: Merged, steps: Sequence[str]) -> dict[str, StepConfig]:
    """Every value of these steps as its step takes it; an endpoint, where there is one among them, may be made.

    Raises:
        WorkspaceError: a key or a value is wrong, or the endpoint would be refused.
    """
    from personalize.recipe.errors import RecipeError
    from personalize.recipe.steps import load_steps
    from personalize.recipe.validation import validate

    try:
        known = load_steps(project, merged.places)
        configs = validate(merged, {name: step.kind for name, step in known.items()}, set(steps))
        if "deploy" in steps:
            known["deploy"].check(configs["deploy"])
    except (RecipeError, ValueError) as error:
        raise WorkspaceError(str(error)) from error
    return {name: configs[name] for name in steps}


def of_this_machine(merged: Merged, configs: Mapping[str, StepConfig]) -> Iterator[tuple[str, str]]:
    """Names and values of what the steps read as data or as a model, by a path of this machine and not of a volume."""
    for step, config in configs.items():
        data, said = config.outside_data(), config.model_dump()
        for (choice, value), models in WHERE_ASKED.items():
            if said.get(choice.lower()) != value:
                said = {key: each for key, each in said.items() if key.upper() not in models}
        for name, value in leaves({f"{step}.{key}": value for key, value in said.items()}):
            model = name.rpartition(".")[2].endswith("model") and Path(merged.root, value).is_dir()
            if (model or value in data) and "://" not in value and not value.startswith("/Volumes/"):
                yield name, value


def asked_for(project: Path, entry_point: str, params: Mapping[str, str]) -> tuple[Merged, list[str]] | None:
    """The configuration that the entry point's command gives, and its steps; None for one that runs no steps.

    Raises:
        WorkspaceError: the configuration is wrong; the message says where.
    """
    from mlflow.projects._project_spec import load_project

    from personalize.recipe.__main__ import COMMANDS, DEFAULT_PROFILE, parse
    from personalize.recipe.config import load
    from personalize.recipe.errors import RecipeError

    command = load_project(str(project)).get_entry_point(entry_point).compute_command(dict(params), None)
    words = shlex.split(command)
    if words[1:4] != ["-m", "personalize.recipe", "run"]:
        return None
    try:
        arguments = parse(words[4:], *COMMANDS["run"])
        merged = load(project, arguments.options.get("profile", DEFAULT_PROFILE), arguments.overrides)
    except RecipeError as error:
        raise WorkspaceError(str(error)) from error
    order, step, until = list(merged.steps), arguments.options.get("step"), arguments.options.get("until")
    last = step or until or merged.until
    if last not in order:
        raise WorkspaceError(f"recipe.yaml has no step {last!r}; it has {', '.join(order)}")
    alone = step is not None and order.index(step) > order.index(merged.until)
    return merged, [last] if alone else order[: order.index(last) + 1]


def volume_paths(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every value that is a path in a volume, however deep, with the name of its key."""
    return ((name, value) for name, value in leaves(values) if value.startswith("/Volumes/"))


def leaves(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text, however deep, with the name of its key."""
    for name, value in values.items():
        if isinstance(value, str) and value:
            yield name, value
        elif isinstance(value, Mapping):
            yield from leaves({f"{name}.{key}": inner for key, inner in value.items()})
        elif isinstance(value, list | tuple):
            yield from leaves({f"{name}.{place}": inner for place, inner in enumerate(value)})


def there(client: WorkspaceClient, path: str) -> bool:
    """Whether a volume has a file or a folder of that path."""
    from databricks.sdk.errors import NotFound

    with explained(f"looking at {path}"):
        for look in (client.files.get_directory_metadata, client.files.get_metadata):
            try:
                look(path)
                return True
            except NotFound:
                continue
    return False


def check_reach(project: Path, name: str, path: str, profile: str) -> None:
    """Raises WorkspaceError where photographs, captions or a model lie on this machine only."""
    try:
        listed = git(project, "ls-files", "--", path) if not Path(path).is_absolute() else ""
    except WorkspaceError:
        listed = ""
    if listed:
        return
    setup, place = f"`mlflow run . -e setup -P profile={profile}", "a path in a volume, /Volumes/..."
    if name == "ingest.data":
        way_out = f"{setup} -P data={shlex.quote(path)}` uploads it; or give {place}, or an https address."
    elif Path(project, path).is_dir():
        way_out = f"{setup} -P models=true` uploads it; or give {place}."
    else:
        way_out = f"Commit it, or upload it with `python -m personalize.databricks.volumes upload` and give {place}."
    raise WorkspaceError(f"{name} is {path}, which lies on this machine: a job does not have it. {way_out}")
