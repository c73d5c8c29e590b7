"""The registry: which version of the model is meant, and which names it takes. MLflow's own client does the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from personalize.cards import command

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

CHALLENGER = "challenger"
CHAMPION = "champion"


class RegistryError(ValueError):
    """The registry does not have what is asked, or would not take it; the message says which and the way out."""


@dataclass(frozen=True)
class ModelVersion:
    """One concrete version of a model: what an alias pointed to at the moment it was asked.

    A model that no registry knows (a folder, a logged model) has an address and no version.
    """

    name: str
    version: str
    uri: str
    run_id: str = ""

    def __str__(self) -> str:
        return f"{self.name} version {self.version}" if self.version else self.uri


def check_name(name: str) -> None:
    """Raises RegistryError when the registry in use would not take a model of this name.

    Unity Catalog wants `catalog.schema.model` and says so only after everything was uploaded.
    """
    import mlflow

    if not name.strip() or any(character in name for character in "/:%\"'"):
        raise RegistryError(f"MODEL_NAME {name!r} is no model name: it is empty or has one of / : % \" '.")
    registry = str(mlflow.get_registry_uri())
    if registry.startswith("databricks-uc"):
        levels = name.split(".")
        if len(levels) != 3 or not all(levels):
            raise RegistryError(
                f"MODEL_NAME {name!r} is not a Unity Catalog name: catalog.schema.model, three levels. Set it in the "
                f"profile, or -P MODEL_NAME=main.default.{levels[-1] or 'personalize'}."
            )


def version_of(name: str, which: str) -> RegisteredVersion:
    """The registered version with that alias or number. Raises RegistryError naming what there is."""
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        if which.isdigit():
            return client.get_model_version(name, which)
        return client.get_model_version_by_alias(name, which)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        kind = "version" if which.isdigit() else "alias"
        raise RegistryError(f"{name!r} has no {kind} {which!r}. {_what_there_is(name)}") from error


def alias_or_none(name: str, alias: str) -> RegisteredVersion | None:
    """The version that carries the alias, or has the number, if any does."""
    try:
        return version_of(name, alias)
    except RegistryError:
        return None


def resolve(address: str) -> ModelVersion:
    """The version that `models:/<name>@<alias>` or `models:/<name>/<number>` means now; other addresses are kept.

    Raises:
        RegistryError: there is no such model, alias or version; the message names what there is.
    """
    reference = address.removeprefix("models:/")
    name, at, which = reference.partition("@")
    if not at:
        name, _, which = reference.rpartition("/")
    if not address.startswith("models:/") or not name or not which:
        return ModelVersion(address.rstrip("/").rsplit("/", 1)[-1], "", address)
    return _concrete(version_of(name, which))


def register(model_uri: str, name: str, tags: Mapping[str, str]) -> RegisteredVersion:
    """A logged model becomes the newest version of `name`."""
    import mlflow

    return mlflow.register_model(model_uri, name, await_registration_for=1800, tags=dict(tags))


def challenge(version: RegisteredVersion, description: str) -> ModelVersion:
    """A registered version becomes the challenger. description: Markdown."""
    import mlflow

    client = mlflow.MlflowClient()
    client.update_model_version(version.name, version.version, description)
    client.set_registered_model_alias(version.name, CHALLENGER, version.version)
    return _concrete(version)


def model_id(version: RegisteredVersion) -> str:
    """The logged model that a version was registered from; empty where that is not known."""
    source = str(version.source or "").removeprefix("models:/")
    return str(version.model_id or "") or (source if source.startswith("m-") else "")


def with_tag(name: str, key: str, value: str, newest: int = 20) -> RegisteredVersion | None:
    """The newest version of a model, among so many, that is ready and has this tag; None where `value` is empty.

    Unity Catalog neither searches versions by tags nor lists their tags, so each is asked for.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    if not value:
        return None
    client = mlflow.MlflowClient()
    try:
        numbers = sorted((int(each.version) for each in client.search_model_versions(f"name='{name}'")), reverse=True)
        versions = [client.get_model_version(name, str(number)) for number in numbers[:newest]]
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            return None
        raise
    return next((each for each in versions if each.status == "READY" and each.tags.get(key) == value), None)


def logged_with_tag(key: str, value: str, status: str = "READY") -> LoggedModel | None:
    """The newest logged model of this run's experiment that is whole (or PENDING, say) and has this tag.

    None without one, and where a server does not search for tags.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    run = mlflow.active_run()
    if not value or run is None:
        return None
    try:
        found = mlflow.search_logged_models(
            [run.info.experiment_id],
            f"tags.`{key}` = '{value}'",
            order_by=[{"field_name": "creation_timestamp", "ascending": False}],
            output_format="list",
        )
    except MlflowException as error:
        if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST"):
            raise
        return None
    return next((each for each in found if each.status == status), None)


def best_version(name: str) -> ModelVersion:
    """The champion; while there is none, the challenger. Raises RegistryError that says what to type."""
    for alias in (CHAMPION, CHALLENGER):
        found = alias_or_none(name, alias)
        if found is not None:
            return _concrete(found)
    raise RegistryError(
        f"There is no tuned model yet: {name!r} has neither a champion nor a challenger. Train and register one with "
        f"`{command()}`, or draw with the base alone: `{command('generate', model='base', prompt='...')}`."
    )


def _concrete(version: RegisteredVersion) -> ModelVersion:
    return ModelVersion(
        version.name, str(version.version), f"models:/{version.name}/{version.version}", version.run_id or ""
    )


def _what_there_is(name: str) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    client = mlflow.MlflowClient()
    try:
        aliases: dict[str, Any] = dict(client.get_registered_model(name).aliases)
        versions = [version.version for version in client.search_model_versions(f"name='{name}'", max_results=20)]
    except MlflowException:
        return f"No model of that name is registered: `{command()}` registers one."
    known = ", ".join(f"{alias} = version {version}" for alias, version in sorted(aliases.items())) or "none"
    return f"Versions: {', '.join(map(str, versions)) or 'none'}; aliases: {known}."
