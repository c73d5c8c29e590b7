"""Unity Catalog: catalogs, schemas, volumes, and who may do what with them.

Rules (docs/data-governance/unity-catalog/manage-privileges/privileges): privileges are inherited from catalog to schema
to what is in it; USE CATALOG and USE SCHEMA are needed beside every other; an owner, and an owner of what is above, may
do everything. Names are lower-cased (cli). A catalog takes CREATE CATALOG on the metastore (`may_make_catalogs`). Where
a workspace has Default Storage, CREATE CATALOG over the API without a storage location is refused (the accelerator's
own fallback, commit 8ee55fc). Grants are read by who has any there and changed by an owner, there or above
(docs/api/workspace/grants). A quota is asked for by its parent; its name is that of the child with `-quota`, a model as
a parent is a function; only administrators may ask, one by one or for all
(docs/data-governance/unity-catalog/resource-quotas). It holds for everybody: one more than it allows is not made.
"""

from __future__ import annotations

from typing import Any

from tests.workspace.errors import Refused, denied, exists, invalid, missing
from tests.workspace.identity import GROUPS, ME

KINDS = {"catalogs": 1, "schemas": 2, "volumes": 3}


class Catalog:
    def __init__(self, default_storage: bool = False) -> None:
        self.default_storage = default_storage
        self.owners: dict[str, str] = {}
        self.grants: dict[str, dict[str, set[str]]] = {}
        self.volumes: set[str] = set()
        self.models: set[str] = set()
        self.quotas: dict[tuple[str, str, str], tuple[int, int]] = {}
        self.administrators: set[str] = set()
        self.may_make_catalogs = {ME}

    def add(self, full_name: str, owner: str) -> None:
        self.owners[full_name.lower()] = owner

    def grant(self, full_name: str, principal: str, *privileges: str) -> None:
        self.grants.setdefault(full_name.lower(), {}).setdefault(principal, set()).update(privileges)

    def privileges(self, full_name: str, principal: str) -> set[str]:
        """What a principal may do there, inherited privileges included."""
        who = {principal, *GROUPS.get(principal, ["users"])}
        found: set[str] = set()
        levels = full_name.lower().split(".")
        for depth in range(1, len(levels) + 1):
            name = ".".join(levels[:depth])
            if self.owners.get(name) in who:
                found.add("ALL_PRIVILEGES")
            for grantee, given in self.grants.get(name, {}).items():
                if grantee in who:
                    found |= given
        return found

    def assignments(self, full_name: str) -> list[dict[str, Any]]:
        """What was granted there and above, by whom it was granted to; ownership is no grant."""
        found: dict[str, set[str]] = {}
        levels = full_name.lower().split(".")
        for depth in range(1, len(levels) + 1):
            for grantee, given in self.grants.get(".".join(levels[:depth]), {}).items():
                found.setdefault(grantee, set()).update(given)
        return [
            {"principal": grantee, "privileges": [{"privilege": one} for one in sorted(given)]}
            for grantee, given in found.items()
        ]

    def need(self, full_name: str, principal: str, privilege: str) -> None:
        levels = full_name.lower().split(".")
        wanted = {privilege: full_name, "USE_CATALOG": levels[0], "USE_SCHEMA": ".".join(levels[:2])}
        for name, where in wanted.items():
            if where.count(".") == 0 and name == "USE_SCHEMA":
                continue
            given = self.privileges(where, principal)
            if not given & {name, "ALL_PRIVILEGES"}:
                words = name.replace("_", " ")
                kind = ("Catalog", "Schema", "Securable")[min(where.count("."), 2)]
                raise denied(f"User does not have {words} on {kind} '{where}'.")

    def own(self, full_name: str, principal: str) -> None:
        levels = full_name.lower().split(".")
        who = {principal, *GROUPS.get(principal, ["users"])}
        if not any(self.owners.get(".".join(levels[: depth + 1])) in who for depth in range(len(levels))):
            raise denied(f"User is not an owner of '{full_name}'.")

    def model(self, full_name: str, principal: str, reads: bool) -> None:
        """EXECUTE for who reads of a model; its ownership, or CREATE MODEL VERSION, for who adds to it."""
        if reads:
            return self.need(full_name, principal, "EXECUTE")
        if "CREATE_MODEL_VERSION" not in self.privileges(full_name, principal):
            self.own(full_name, principal)

    def room(self, parent: str, child: str) -> None:
        """One more child goes into a parent, as the quota that its parent has of such says."""
        for (_, full_name, quota), (count, limit) in self.quotas.items():
            if full_name == parent and child in quota and count >= limit:
                raise Refused(
                    400,
                    "QUOTA_EXCEEDED",
                    f"Cannot create 1 {child}(s) in {parent} (estimated count: {count}, limit: {limit}).",
                )

    def rest(self, method: str, rest: str, q: dict[str, Any], principal: str) -> dict[str, Any]:
        """/api/2.1/unity-catalog/..."""
        kind, _, name = rest.partition("/")
        if kind in ("effective-permissions", "permissions"):
            securable, _, full_name = name.partition("/")
            securable = securable.rpartition(".")[2].lower()  # the SDK writes SecurableType.SCHEMA
            if full_name.lower() not in self.owners:
                raise missing(f"{securable} '{full_name}' does not exist.")
            if not self.privileges(full_name, principal):
                raise denied(f"User does not have BROWSE on '{full_name}'.")
            if method == "PATCH":
                self.own(full_name, principal)
                for change in q["changes"]:
                    given = self.grants.setdefault(full_name.lower(), {}).setdefault(change["principal"], set())
                    given |= set(change.get("add") or [])
                    given -= set(change.get("remove") or [])
            if kind == "permissions":
                direct = self.grants.get(full_name.lower(), {})
                return {
                    "privilege_assignments": [{"principal": who, "privileges": sorted(direct[who])} for who in direct]
                }
            return {"privilege_assignments": self.assignments(full_name)}
        if kind == "resource-quotas":
            if principal not in self.administrators:
                raise denied("Only an account admin can read resource quotas.")
            if name == "all-resource-quotas":
                keys = ("parent_securable_type", "parent_full_name", "quota_name", "quota_count", "quota_limit")
                found = [(*where, *used) for where, used in self.quotas.items()]
                return {"quotas": [dict(zip(keys, one, strict=True)) for one in found]}
            parent, full_name, quota = name.split("/")
            if (parent.lower(), full_name, quota) not in self.quotas:
                raise missing(f"Quota '{quota}' of '{full_name}' does not exist.")
            count, limit = self.quotas[parent.lower(), full_name, quota]
            return {"quota_info": {"quota_name": quota, "quota_count": count, "quota_limit": limit}}
        if kind not in KINDS and kind != "models":
            raise missing(f"No API found for '{method} /unity-catalog/{rest}'")
        if method == "GET" and kind == "catalogs" and not name:
            found = [one for one in self.owners if one.count(".") == 0 and self.privileges(one, principal)]
            return {"catalogs": [self.describe(kind, one) for one in found]}
        if method == "GET":
            if name.lower() not in self.owners:
                raise missing(f"{kind[:-1].capitalize()} '{name}' does not exist.")
            if not self.privileges(name, principal):
                raise denied(f"User does not have BROWSE on '{name}'.")
            return self.describe(kind, name)
        if method == "POST" and kind in KINDS:
            return self.create(kind, q, principal)
        raise missing(f"No API found for '{method} /unity-catalog/{rest}'")

    def create(self, kind: str, q: dict[str, Any], principal: str) -> dict[str, Any]:
        parent = ".".join(q[level] for level in ("catalog_name", "schema_name") if level in q)
        full_name = f"{parent}.{q['name']}" if parent else q["name"]
        if full_name.count(".") + 1 != KINDS[kind] or not all(full_name.split(".")):
            raise invalid(f"'{full_name}' is not the name of a {kind[:-1]}")
        if full_name.lower() in self.owners:
            raise exists(f"{kind[:-1].capitalize()} '{full_name}' already exists")
        if kind == "catalogs":
            if principal not in self.may_make_catalogs:
                raise denied("User does not have CREATE CATALOG on Metastore 'main'.")
            if self.default_storage and not q.get("storage_root"):
                raise invalid(
                    "Metastore storage root URL does not exist. Default Storage is enabled in your account. "
                    "You can use the UI to create a new catalog using Default Storage"
                )
        else:
            if parent.lower() not in self.owners:
                raise missing(f"'{parent}' does not exist.")
            self.need(parent, principal, {"schemas": "CREATE_SCHEMA", "volumes": "CREATE_VOLUME"}[kind])
        if kind == "volumes":
            if q.get("volume_type") not in ("MANAGED", "EXTERNAL"):
                raise invalid("volume_type must be MANAGED or EXTERNAL")
            self.volumes.add(full_name.lower())
        self.add(full_name, principal)
        return self.describe(kind, full_name)

    def describe(self, kind: str, full_name: str) -> dict[str, Any]:
        levels = full_name.lower().split(".")
        described = {"name": levels[-1], "full_name": ".".join(levels), "owner": self.owners[full_name.lower()]}
        described |= dict(zip(("catalog_name", "schema_name"), levels[:-1], strict=False))
        return described
