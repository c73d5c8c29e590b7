"""A workspace on loopback, and models registered in it through MLflow's own `databricks-uc` client."""

from pathlib import Path

import pytest

from tests.databricks.emulator import TOKEN, emulated

MODEL = "main.personalize.painter"


@pytest.fixture(scope="package")
def workspace(tmp_path_factory):
    """The workspace that the environment's credentials lead to."""
    with pytest.MonkeyPatch.context() as patch, emulated(tmp_path_factory.mktemp("workspace")) as workspace:
        patch.setenv("DATABRICKS_HOST", workspace.url)
        patch.setenv("DATABRICKS_TOKEN", TOKEN)
        patch.setenv("DATABRICKS_CONFIG_FILE", "/dev/null")
        patch.setenv("NO_PROXY", "*")
        yield workspace


@pytest.fixture(scope="package")
def registry(workspace, tmp_path_factory):
    """Versions 1 and 2 of a good model, and version 3, which cannot load; version 1 is the champion."""
    import mlflow

    from tests.serving.test_local import SIGNATURE

    folder = tmp_path_factory.mktemp("tracking")
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_registry_uri("databricks-uc")
    (folder / "broken").write_text("x")
    painter = Path(__file__).parents[1] / "serving" / "painter.py"
    experiment = mlflow.create_experiment("painting", artifact_location=(folder / "artifacts").as_uri())
    with mlflow.start_run(experiment_id=experiment):
        for artifacts in (None, None, {"broken": str(folder / "broken")}):
            mlflow.pyfunc.log_model(
                name="painter",
                python_model=str(painter),
                artifacts=artifacts,
                signature=SIGNATURE,
                pip_requirements=["mlflow"],
                registered_model_name=MODEL,
            )
    mlflow.MlflowClient().set_registered_model_alias(MODEL, "champion", "1")
    yield workspace
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])
