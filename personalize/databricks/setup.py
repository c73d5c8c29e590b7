"""An empty workspace made ready: catalog, schema, volume, photographs and models.

    mlflow run . -e setup -P profile=databricks                       catalog, schema and volume, and data/ uploaded
    mlflow run . -e setup -P profile=databricks -P data=photographs   a folder of yours, to where DATA says
    mlflow run . -e setup -P profile=databricks -P models=true        base models too, for clusters that reach no hub

Nothing that is there is made again or sent again, so an interrupted upload goes on where it was.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.databricks.volumes import check_volume, upload
from personalize.databricks.workspace import WorkspaceError, connect, explained

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

MODELS = {"BASE_MODEL": "BASE_REVISION"}
WHERE_ASKED = {
    ("CAPTIONER", "blip"): {"BLIP_MODEL": "BLIP_REVISION"},
    ("CAPTIONER", "chat"): {"CHAT_MODEL": "CHAT_REVISION"},
    ("MASKS", "model"): {"MASK_MODEL": "MASK_REVISION"},
}
"""Models that only a profile with this value of this variable uses."""
WEIGHTS = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]


def make_ready(client: WorkspaceClient, volume: str, model_name: str, report: Callable[[str], None]) -> None:
    """The catalog, schema and volume of a volume path, and the schema of a model, made where they are missing.

    Raises:
        WorkspaceError: something is missing and may not be made; the message says by whom and how.
    """
    catalog, schema, name = check_volume(volume).parts[2:5]
    ensure_catalog(client, catalog, report)
    ensure_schema(client, catalog, schema, report)
    model_levels = model_name.split(".")
    if len(model_levels) == 3 and model_levels[:2] != [catalog, schema]:
        ensure_catalog(client, model_levels[0], report)
        ensure_schema(client, model_levels[0], model_levels[1], report)
    ensure_volume(client, catalog, schema, name, report)


def ensure_catalog(client: WorkspaceClient, catalog: str, report: Callable[[str], None]) -> None:
    """Where Default Storage or want of CREATE CATALOG keeps us from making one, those that one could take are named."""
    from databricks.sdk.errors import (
        AlreadyExists,
        BadRequest,
        InvalidParameterValue,
        NotFound,
        PermissionDenied,
        ResourceAlreadyExists,
    )

    with explained(f"looking at catalog {catalog}"):
        try:
            client.catalogs.get(catalog)
            return report(f"catalog {catalog} is there")
        except NotFound:
            pass
    with explained(f"making catalog {catalog}"):
        try:
            client.catalogs.create(catalog)
        except (AlreadyExists, ResourceAlreadyExists):
            return
        except (BadRequest, InvalidParameterValue, PermissionDenied) as error:
            forbidden = isinstance(error, PermissionDenied)
            if not forbidden and "storage" not in str(error).lower():
                raise
            usable = sorted(str(one.name) for one in client.catalogs.list() if one.name not in ("system", "samples"))
            instead = usable[0] if usable else "<catalog>"
            why = (
                f"You may not make catalog {catalog}: that takes CREATE CATALOG on the metastore. Ask an administrator "
                "for it, or for the catalog, and run this command again. "
                if forbidden
                else "This workspace keeps catalogs in Default Storage, where only Catalog Explorer makes them (Create "
                "catalog, then this command again). "
            )
            raise WorkspaceError(
                f"{why}Or take one that is there ({', '.join(usable) or 'none'}): "
                f"-P VOLUME=/Volumes/{instead}/personalize/files -P MODEL_NAME={instead}.personalize.personalize"
            ) from error
    report(f"catalog {catalog} made")


def ensure_schema(client: WorkspaceClient, catalog: str, schema: str, report: Callable[[str], None]) -> None:
    """The schema, made where it is missing."""
    from databricks.sdk.errors import NotFound

    full_name = f"{catalog}.{schema}"
    with explained(f"making schema {full_name}"):
        try:
            client.schemas.get(full_name)
            return report(f"schema {full_name} is there")
        except NotFound:
            client.schemas.create(schema, catalog)
    report(f"schema {full_name} made")


def ensure_volume(client: WorkspaceClient, catalog: str, schema: str, name: str, report: Callable[[str], None]) -> None:
    """The managed volume, made where it is missing."""
    from databricks.sdk.errors import NotFound
    from databricks.sdk.service.catalog import VolumeType

    full_name = f"{catalog}.{schema}.{name}"
    with explained(f"making volume {full_name}"):
        try:
            client.volumes.read(full_name)
            return report(f"volume {full_name} is there")
        except NotFound:
            client.volumes.create(catalog, schema, name, VolumeType.MANAGED)
    report(f"volume {full_name} made")


def send(client: WorkspaceClient, folder: Path, remote: str, report: Callable[[str], None]) -> None:
    """A folder's files below a volume path; what is there already stays."""
    with explained(f"uploading {folder} to {remote}"):
        written = upload(client, folder, remote)
    report(f"{folder} → {remote}: {len(written)} files sent, the rest was there")


def send_models(
    client: WorkspaceClient, variables: Mapping[str, Any], volume: str, report: Callable[[str], None]
) -> dict[str, Any]:
    """The profile's models and judges below `<volume>/models`; returns the variables that name them there."""
    found: dict[str, Any] = {}
    wanted = dict(MODELS)
    for (variable, value), models in WHERE_ASKED.items():
        wanted |= models if str(variables.get(variable)) == value else {}
    for variable, revision in wanted.items():
        model = str(variables[variable])
        if model.startswith("/Volumes/"):
            continue
        remote = f"{check_volume(volume)}/models/{Path(model).name}"
        send(client, fetched(variable, model, str(variables.get(revision) or "")), remote, report)
        found |= {variable: remote, revision: ""}
    judges = [dict(judge) for judge in variables.get("JUDGES") or ()]
    for judge in judges:
        model = str(judge["model"])
        in_environment = "/" not in model and not Path(model).is_dir()  # a Python package that carries weights
        if in_environment or model.startswith("/Volumes/"):
            continue
        remote = f"{check_volume(volume)}/models/{Path(model).name}"
        send(client, fetched(f"judge {judge['name']}", model, str(judge.get("revision") or "")), remote, report)
        judge |= {"model": remote, "revision": None}
    return found | ({"JUDGES": judges} if judges else {})


def fetched(variable: str, model: str, revision: str) -> Path:
    """The model's folder on this disk, downloaded from the hub at its commit where it is none.

    Raises:
        WorkspaceError: it cannot be had here.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        if variable == "BASE_MODEL":
            from personalize.dreambooth.backbone import local_folder

            return local_folder(model, revision, "float32")
        return Path(snapshot_download(model, revision=revision, allow_patterns=WEIGHTS))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise WorkspaceError(f"{variable} {model} cannot be fetched from the hub: {error}") from error


def main(words: list[str] | None = None) -> int:
    """The command line of this module; returns the exit status."""
    from personalize.recipe.__main__ import parse
    from personalize.recipe.config import load_profile
    from personalize.recipe.document import scalar
    from personalize.recipe.errors import RecipeError

    try:
        asked = parse(sys.argv[1:] if words is None else words, ("profile", "data"), ("models",))
        profile = load_profile(Path.cwd(), asked.options.get("profile", "databricks"))
        for override in asked.overrides:
            if override.name not in profile.variables.values:
                raise RecipeError(f"{override.place}: profile '{profile.name}' has no variable {override.name}")
            profile.variables.set(override.name, scalar(override.text), override.text)
        variables = profile.variables.values
        if "VOLUME" not in variables:
            raise RecipeError(
                f"profile '{profile.name}' names no VOLUME; set up a workspace with -P profile=databricks"
            )
        _set_up(profile.name, variables, asked.options.get("data", ""), asked.flag("models"))
    except (RecipeError, WorkspaceError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def _set_up(profile: str, variables: Mapping[str, Any], data: str, models: bool) -> None:
    def report(line: str) -> None:
        print(line, flush=True)

    volume, target = str(variables["VOLUME"]), str(variables["DATA"])
    client = connect(timeout_s=600)
    report(f"workspace {client.config.host}")
    make_ready(client, volume, str(variables["MODEL_NAME"]), report)
    folder = Path(data or "data")
    if not data and not folder.is_dir():
        report(
            "no photographs sent: there is no data/ here (`make data` brings the samples), and -P data names no folder"
        )
    elif target.startswith("/Volumes/"):
        send(client, folder, target, report)
    if models:
        named = send_models(client, variables, volume, report)
        words = {name: value if isinstance(value, str) else json.dumps(value) for name, value in named.items()}
        report("to use them: " + " ".join(f"-P {name}={shlex.quote(value)}" for name, value in words.items()))
    report(f"ready: -P profile={profile} reads photographs from {target}")


if __name__ == "__main__":
    sys.exit(main())
