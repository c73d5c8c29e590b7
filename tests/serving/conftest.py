"""A packaged model of random weights, for the tests that serve one."""

from pathlib import Path

import mlflow
import pandas as pd
import pytest

from personalize.dreambooth.sampling import Sampling
from personalize.photographs.prompts import Subject, save_subjects
from personalize.serving import package
from personalize.serving.request import Defaults, Limits
from tests.random_adapter import random_adapter

EXAMPLE = pd.DataFrame([{"prompt": "a photo of a bcnchr chair", "seed": 1.0}])


@pytest.fixture(scope="session")
def saved(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory):
    """The model logged to a real sqlite store: (its uri, its folder on disk)."""
    place = tmp_path_factory.mktemp("mlflow")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{place}/mlflow.db")
    adapter = random_adapter(tiny_models / "sdxl", place / "lora", rank=4, alpha=1.0)
    save_subjects(adapter, [Subject("bcnchr", "chair", 5)])
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("serving", artifact_location=str(place / "artifacts")))
    with mlflow.start_run():
        info = package.log(
            tiny_models / "sdxl",
            adapter,
            input_example=EXAMPLE,
            fingerprint="ab12cd",
            device="cpu",
            defaults=Defaults(Sampling(steps=2, width=64, height=64)),
            limits=Limits(rows=4, images=4, steps=4, sizes=((96, 64), (64, 96))),
        )
    yield info.model_uri, Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(place / "copy")))
    mlflow.set_tracking_uri(before)
