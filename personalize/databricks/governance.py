"""Unity Catalog's permissions, asked before a training whose model nobody could register.

CREATE MODEL on the schema makes a model; a version and an alias of one that is there need its ownership
(docs.databricks.com, manage-model-lifecycle). What may be done is asked of the effective privileges; where one may not
even ask, the registry itself will say. Quotas are told to administrators only (resource-quotas): who may read that one
is used up is told before the training, all others by the registry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from personalize.databricks.workspace import WorkspaceError, explained

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

LONGEST_NAME = 255


def check_model(client: WorkspaceClient, full_name: str) -> None:
    """Whether a version of this model can be registered here, and given an alias.

    Raises:
        WorkspaceError: it cannot: the name has not three levels, its schema is missing, or a privilege is.
    """
    from databricks.sdk.errors import NotFound

    levels = full_name.split(".")
    if len(levels) != 3 or not all(levels) or any(len(level) > LONGEST_NAME for level in levels):
        raise WorkspaceError(
            f"MODEL_NAME {full_name!r} is not a Unity Catalog name: catalog.schema.model, three levels. Set it in the "
            "profile, or -P MODEL_NAME=main.default.personalize."
        )
    schema = ".".join(levels[:2])
    with explained(f"looking at {full_name}"):
        me = client.current_user.me()
        names = {str(me.user_name), *(str(group.display) for group in me.groups or [])}
        try:
            owner = client.registered_models.get(full_name).owner
        except NotFound:
            owner = None
        if owner is not None:
            if owner not in names and not owns(client, schema, names):
                raise WorkspaceError(
                    f"{full_name} belongs to {owner}; a new version and its alias need its ownership. Ask {owner} to "
                    f"make a group of yours its owner, or register under another name: -P MODEL_NAME={schema}.<name>."
                )
            check_quota(client, "function", full_name, "model-version-quota")  # a model is asked for as a function
            return
        check_quota(client, "schema", schema, "registered-model-quota")
        missing = lacking(client, schema, names)
    if missing:
        grants = "; ".join(f"GRANT {words} TO `{me.user_name}`" for words in missing)
        raise WorkspaceError(f"No model can be registered as {full_name}. Somebody who owns {schema} runs: {grants}.")


def check_quota(client: WorkspaceClient, kind: str, parent: str, quota: str) -> None:
    """Raises WorkspaceError where nothing more goes into `parent`, as far as one may know.

    The documentation names few of the quotas: where there is none of this name, the list is asked for the parent's one
    that is about models.
    """
    from databricks.sdk.errors import DatabricksError, InvalidParameterValue, NotFound

    try:
        try:
            used = client.resource_quotas.get_quota(kind, parent, quota).quota_info
        except (InvalidParameterValue, NotFound):
            listed = client.resource_quotas.list_quotas(max_results=500)
            used = next(
                (one for one in listed if one.parent_full_name == parent and "model" in str(one.quota_name)), None
            )
    except DatabricksError:
        return
    if used is not None and used.quota_limit and (used.quota_count or 0) >= used.quota_limit:
        raise WorkspaceError(
            f"{parent} is full: {used.quota_count} of {used.quota_limit} ({used.quota_name}). Delete what nobody "
            "needs, or take another name: -P MODEL_NAME=<catalog>.<schema>.<model>."
        )


def lacking(client: WorkspaceClient, schema: str, names: set[str]) -> list[str]:
    """What stands between these principals and a new model in the schema, as SQL grants it."""
    from databricks.sdk.errors import NotFound, PermissionDenied

    if owns(client, schema, names):
        return []
    catalog = schema.partition(".")[0]
    wanted = (
        ("CATALOG", catalog, "USE_CATALOG"),
        ("SCHEMA", schema, "USE_SCHEMA"),
        ("SCHEMA", schema, "CREATE_MODEL"),
    )
    found = []
    for kind, name, privilege in wanted:
        try:
            answer = client.grants.get_effective(kind.lower(), name)
        except NotFound:
            raise WorkspaceError(
                f"There is no {kind.lower()} {name} in this workspace: `mlflow run . -e setup` makes it."
            ) from None
        except PermissionDenied:
            continue
        held = {
            str(one.privilege.value)
            for assignment in answer.privilege_assignments or []
            if assignment.principal in names
            for one in assignment.privileges or []
            if one.privilege is not None
        }
        if not held & {privilege, "ALL_PRIVILEGES", "ALL PRIVILEGES"}:
            found.append(f"{privilege.replace('_', ' ')} ON {kind} {name}")
    return found


def owns(client: WorkspaceClient, schema: str, names: set[str]) -> bool:
    """Whether one of these principals owns the schema or its catalog."""
    from databricks.sdk.errors import NotFound, PermissionDenied

    catalog = schema.partition(".")[0]
    for read, name in ((client.catalogs.get, catalog), (client.schemas.get, schema)):
        try:
            if read(name).owner in names:
                return True
        except NotFound:
            raise WorkspaceError(f"There is no {name} in this workspace: `mlflow run . -e setup` makes it.") from None
        except PermissionDenied:
            continue
    return False
