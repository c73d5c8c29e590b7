"""Models in Unity Catalog, as MLflow's `databricks-uc` client asks for them.

Rules (docs/machine-learning/manage-model-lifecycle): a name has three levels; a version needs a signature with inputs
and outputs; CREATE MODEL on the schema makes a model; a version needs ownership of the model or CREATE MODEL VERSION;
**aliases need ownership**, as a description does; a tag needs it or APPLY TAG; EXECUTE reads and loads; an alias that
is not there is RESOURCE_DOES_NOT_EXIST. A tag's key has at most 256 characters and none of . , - = / : and its value at
most 1000 (docs/database-objects/tags). Every new version starts the model's deployment job with `model_name` and
`model_version` (docs/mlflow/deployment-job). A version is PENDING_REGISTRATION until its files are said to be all there
(MLflow's rest_store.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.workspace.catalog import Catalog
from tests.workspace.errors import Refused, invalid, missing
from tests.workspace.files import Files

UC = "/api/2.0/mlflow/unity-catalog"
READS = ("registered-models/get", "model-versions/get", "model-versions/get-download-uri")
TAGS = ("registered-models/set-tag", "model-versions/set-tag")


class Registry:
    def __init__(
        self,
        catalog: Catalog,
        files: Files,
        on_version: Callable[[str, str, str], None],
        on_alias: Callable[[str, str], None],
    ) -> None:
        self.catalog, self.files, self.on_version, self.on_alias = catalog, files, on_version, on_alias
        self.models: dict[str, dict[str, Any]] = {}

    def rest(self, method: str, call: str, q: dict[str, Any], principal: str) -> dict[str, Any]:
        if call == "registered-models:is-databricks-sdk-models-artifact-repository-enabled":
            return {"is_databricks_sdk_models_artifact_repository_enabled": True}
        if call == "model-versions/search":
            return self.search(q.get("filter", ""), principal)
        name = q.get("name") or q.get("full_name") or ""
        if call == "registered-models/create":
            return self.create(name, principal, q.get("deployment_job_id", ""))
        model = self.models.get(name)
        if model is None:
            raise missing(f"Model '{name}' does not exist")
        if call in READS:
            self.catalog.need(name, principal, "EXECUTE")
        if call in TAGS and "APPLY_TAG" not in self.catalog.privileges(name, principal):
            self.catalog.own(name, principal)
        if call == "registered-models/get":
            return {"registered_model": self.describe_model(name)}
        if call == "registered-models/update":
            self.catalog.own(name, principal)
            model["deployment_job_id"] = q.get("deployment_job_id", model.get("deployment_job_id", ""))
            return {"registered_model": self.describe_model(name)}
        if call == "registered-models/set-tag":
            self.check_tag(q)
            model["tags"][q["key"]] = q["value"]
            return {}
        if call == "registered-models/alias":
            return self.alias(method, name, model, q, principal)
        if call == "model-versions/create":
            self.catalog.model(name, principal, reads=False)
            self.catalog.room(name, "model-version")
            version = str(len(model["versions"]) + 1)
            made = {"name": name, "version": version, "status": "PENDING_REGISTRATION", "source": q.get("source", "")}
            model["versions"][version] = {**made, "run_id": q.get("run_id", ""), "tags": q.get("tags", [])}
            for tag in q.get("tags", []):
                self.check_tag(tag)
            return {"model_version": model["versions"][version]}
        version = model["versions"].get(str(q.get("version")))
        if version is None:
            raise missing(f"Version '{q.get('version')}' of '{name}' does not exist")
        if call == "model-versions/finalize":
            if version["status"] != "PENDING_REGISTRATION":
                raise invalid(f"Version {version['version']} of '{name}' is {version['status']}")
            self.check_signature(name, version["version"])
            version["status"] = "READY"
            if model.get("deployment_job_id"):
                self.on_version(model["deployment_job_id"], name, version["version"])
        elif call == "model-versions/set-tag":
            self.check_tag(q)
            others = [tag for tag in version["tags"] if tag["key"] != q["key"]]
            version["tags"] = [*others, {"key": q["key"], "value": q["value"]}]
        elif call == "model-versions/get-download-uri":
            return {"artifact_uri": f"dbfs:/Models/{name}/{version['version']}"}
        elif call == "model-versions/update":
            self.catalog.own(name, principal)
            version["description"] = q.get("description", "")
        return {"model_version": {**version, "aliases": self.aliases(name, version["version"])}}

    def create(self, name: str, principal: str, deployment_job_id: str = "") -> dict[str, Any]:
        if name.count(".") != 2 or not all(name.split(".")):
            raise invalid(f"'{name}' is not a valid name: it must have three levels, catalog.schema.model")
        if name in self.models:
            raise Refused(400, "RESOURCE_ALREADY_EXISTS", f"Model '{name}' already exists")
        schema = name.rpartition(".")[0]
        if schema.lower() not in self.catalog.owners:
            raise missing(f"Schema '{schema}' does not exist.")
        self.catalog.need(schema, principal, "CREATE_MODEL")
        self.catalog.room(schema, "registered-model")
        self.catalog.add(name, principal)
        self.catalog.models.add(name.lower())
        self.models[name] = {"versions": {}, "aliases": {}, "tags": {}, "deployment_job_id": deployment_job_id}
        return {"registered_model": self.describe_model(name)}

    def search(self, asked: str, principal: str) -> dict[str, Any]:
        """By name or by run alone, without tags and aliases; versions that are not READY are among them (MLflow's
        rest_store.py, search_model_versions; docs/api/workspace/modelversions/list)."""
        found = re.fullmatch(r"\s*(name|run_id)\s*=\s*'([^']*)'\s*", asked)
        if found is None:
            raise invalid(f"'{asked}' is not a filter: name='...' or run_id='...'")
        if found[1] == "name" and found[2] not in self.models:
            raise missing(f"Model '{found[2]}' does not exist")
        versions = [one for model in self.models.values() for one in model["versions"].values()]
        wanted = [one for one in versions if one[found[1]] == found[2]]
        return {"model_versions": [{k: v for k, v in one.items() if k not in ("tags", "aliases")} for one in wanted]}

    def alias(self, method: str, name: str, model: dict[str, Any], q: dict[str, Any], principal: str) -> dict[str, Any]:
        if method in ("POST", "DELETE"):
            self.catalog.own(name, principal)
        if method == "POST":
            if str(q["version"]) not in model["versions"]:
                raise missing(f"Version '{q['version']}' of '{name}' does not exist")
            model["aliases"][q["alias"]] = str(q["version"])
            self.on_alias(name, q["alias"])
            return {}
        if q["alias"] not in model["aliases"]:
            raise missing(f"Alias '{q['alias']}' of '{name}' does not exist")
        if method == "DELETE":
            del model["aliases"][q["alias"]]
            return {}
        return {"model_version": model["versions"][model["aliases"][q["alias"]]]}

    def aliases(self, name: str, version: str) -> list[dict[str, str]]:
        return [{"alias": alias} for alias, at in self.models[name]["aliases"].items() if at == version]

    def describe_model(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        aliases = [{"alias": alias, "version": version} for alias, version in model["aliases"].items()]
        tags = [{"key": key, "value": value} for key, value in model["tags"].items()]
        return {"name": name, "aliases": aliases, "tags": tags, "deployment_job_id": model.get("deployment_job_id", "")}

    def check_tag(self, tag: dict[str, str]) -> None:
        if not re.fullmatch(r"[^.,\-=/:]{1,256}", tag["key"]):
            raise invalid(f"'{tag['key']}' is not a tag key: it has one of . , - = / : or is too long")
        if len(tag.get("value", "")) > 1000:
            raise invalid(f"The value of tag '{tag['key']}' is longer than 1000 characters")

    def folder(self, name: str, version: str) -> Path:
        return self.files.folder.joinpath("fs", "Models", *name.split("."), version)

    def check_signature(self, name: str, version: str) -> None:
        description = self.folder(name, version) / "MLmodel"
        if not description.is_file():
            raise invalid(f"Version {version} of '{name}' has no MLmodel file")
        signature = yaml.safe_load(description.read_text()).get("signature") or {}
        if not signature.get("inputs") or not signature.get("outputs"):
            raise invalid("A model in Unity Catalog must have a signature with inputs and outputs")
