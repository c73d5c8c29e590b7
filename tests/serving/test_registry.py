"""The registry: which version an address means, and what is said where there is none."""

from pathlib import Path

import mlflow
import pytest

from personalize.cards.commands import under_profile
from personalize.serving import registry
from personalize.serving.registry import ModelVersion, RegistryError


@pytest.fixture
def chairs(tmp_path: Path):
    """A registry in which version 1 of `chairs` is the champion."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_registry_uri(f"sqlite:///{tmp_path}/mlflow.db")
    client = mlflow.MlflowClient()
    client.create_registered_model("chairs")
    client.create_model_version("chairs", source=str(tmp_path))
    client.set_registered_model_alias("chairs", "champion", "1")
    yield client
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


def test_an_alias_becomes_the_version_it_pointed_to(chairs):
    assert registry.resolve("models:/chairs@champion").uri == "models:/chairs/1"
    assert registry.resolve("models:/chairs/1").version == "1"
    assert registry.best_version("chairs").uri == "models:/chairs/1"


def test_a_version_that_is_not_there_is_named_with_what_there_is(chairs):
    there = r"Versions: 1; aliases: champion = version 1"
    with pytest.raises(RegistryError, match=rf"'chairs' has no alias 'challenger'\. {there}"):
        registry.resolve("models:/chairs@challenger")
    with pytest.raises(RegistryError, match=rf"'chairs' has no version '9'\. {there}"):
        registry.resolve("models:/chairs/9")


@pytest.mark.parametrize(
    ("address", "name"), [("models:/m-0123", "m-0123"), ("output/painter/", "painter"), ("runs:/ab12/model", "model")]
)
def test_a_model_that_no_registry_knows_is_itself(address, name):
    assert registry.resolve(address) == ModelVersion(name, "", address)


def test_what_to_type_keeps_the_profile(chairs):
    with under_profile("gpu"), pytest.raises(RegistryError) as refused:
        registry.best_version("tables")
    assert "`mlflow run . --env-manager local -P profile=gpu`" in str(refused.value)
    assert "-e generate -P profile=gpu -P model=base" in str(refused.value)
