"""databricks.yml, read by the types of the `databricks-bundles` package, and held to the rest of the project."""

import json
import re
import sys

import pytest
import yaml
from databricks.bundles.experiments import MlflowExperiment
from databricks.bundles.jobs import Job
from databricks.bundles.model_serving_endpoints import ModelServingEndpoint
from databricks.bundles.registered_models import RegisteredModel
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume

from personalize.databricks import driver
from personalize.databricks.entities import SERVED
from tests.databricks.conftest import ROOT

KINDS = {
    "experiments": MlflowExperiment,
    "jobs": Job,
    "model_serving_endpoints": ModelServingEndpoint,
    "registered_models": RegisteredModel,
    "schemas": Schema,
    "volumes": Volume,
}
TEXT = (ROOT / "databricks.yml").read_text()
BUNDLE = yaml.safe_load(TEXT)


def resources(target):
    """Every resource of a target as (kind, name, content)."""
    both = [BUNDLE["resources"], BUNDLE["targets"][target].get("resources", {})]
    return [(kind, name, found) for part in both for kind, named in part.items() for name, found in named.items()]


@pytest.mark.parametrize(
    ("kind", "name", "content"), resources("prod"), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_resource_is_of_the_bundles_own_type(kind, name, content):
    made = KINDS[kind].from_dict(content)
    assert set(made.as_dict()) == set(content), "no key is dropped without a word"


def test_there_is_a_target_to_try_and_one_to_serve():
    assert BUNDLE["targets"]["dev"]["mode"] == "development"
    assert BUNDLE["targets"]["prod"]["mode"] == "production"
    assert {kind for kind, _, _ in resources("prod")} == set(KINDS)
    assert "model_serving_endpoints" not in {kind for kind, _, _ in resources("dev")}, "a GPU waits for nobody there"


def test_every_variable_that_is_named_is_declared():
    assert set(re.findall(r"\$\{var\.(\w+)\}", TEXT)) == set(BUNDLE["variables"])


def test_the_driver_takes_the_jobs_parameters(monkeypatch):
    [task] = BUNDLE["resources"]["jobs"]["recipe"]["tasks"]
    python = task["spark_python_task"]
    assert (ROOT / python["python_file"]).is_file()
    asked = {}
    monkeypatch.setattr(sys, "argv", ["driver.py", *python["parameters"]])
    monkeypatch.setattr(driver, "copy", lambda root, home: asked.update(root=root) or root)
    monkeypatch.setattr(driver, "without_git", lambda root: (_ for _ in ()).throw(InterruptedError))
    with pytest.raises(InterruptedError):
        driver.main()
    assert asked["root"] == ROOT, "argparse knows every one of them"


def test_the_cluster_and_the_endpoint_are_what_the_backend_and_deploy_would_make():
    cluster = BUNDLE["resources"]["jobs"]["recipe"]["job_clusters"][0]["new_cluster"]
    ours = json.loads((ROOT / "profiles" / "databricks-cluster.json").read_text())["new_cluster"]
    assert {key: cluster[key] for key in ("num_workers", "data_security_mode", "spark_conf")} == {
        key: ours[key] for key in ("num_workers", "data_security_mode", "spark_conf")
    }
    endpoint = BUNDLE["targets"]["prod"]["resources"]["model_serving_endpoints"]["personalize"]
    [entity] = endpoint["config"]["served_entities"]
    assert entity["environment_vars"] == {**SERVED, "PERSONALIZE_DEVICE": "cuda"}
