"""The optional look at each picture before it is sent."""

import base64
import json
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from personalize.dreambooth.sampling import Sampling
from personalize.serving import package, safety
from personalize.serving.endpoint import EndpointError, predictions
from personalize.serving.request import Defaults, Limits
from tests.serving.conftest import EXAMPLE

ENTRY = "tests.serving.looks:look"
ASKED = ["a good chair", "a wicked chair"]


@pytest.fixture(scope="module")
def guarded(saved, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model that was logged with a check."""
    with mlflow.start_run():
        info = package.log(
            tiny_models / "sdxl",
            saved[1] / "artifacts" / "adapter",
            input_example=EXAMPLE,
            device="cpu",
            defaults=Defaults(Sampling(steps=2, width=64, height=64)),
            limits=Limits(rows=4, images=4, steps=4),
            safety=ENTRY,
        )
    return Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(tmp_path_factory.mktemp("guarded"))))


@pytest.fixture(scope="module")
def model(guarded: Path):
    return mlflow.pyfunc.load_model(str(guarded))


def test_the_projects_own_check_travels_with_the_model(guarded: Path):
    assert (guarded / "code/tests/serving/looks.py").is_file()
    assert "tests/serving/looks.py" not in package.modules()


def test_what_it_finds_is_withheld_and_said(model):
    answer = model.predict(pd.DataFrame({"prompt": ASKED}))
    assert answer["safety"].tolist() == ["", "withheld: wicked"]
    assert base64.b64decode(answer["image"][0])
    assert answer["image"][1] == ""
    assert predictions({"predictions": answer.head(1).to_dict("records")})
    with pytest.raises(EndpointError, match=r"does not send it \(withheld: wicked\)"):
        predictions({"predictions": json.loads(answer.to_json(orient="records"))})


def test_or_flagged_by_policy(guarded: Path):
    flagging = mlflow.pyfunc.load_model(str(guarded), model_config={"safety": {"entry": ENTRY, "policy": "flag"}})
    answer = flagging.predict(pd.DataFrame({"prompt": ASKED}))
    assert answer["safety"].tolist() == ["", "flagged: wicked"]
    assert all(map(base64.b64decode, answer["image"]))


@pytest.mark.parametrize(("prompt", "words"), [("a failing chair", "RuntimeError"), ("numbers", "TypeError")])
def test_nothing_is_sent_unseen(model, prompt: str, words: str):
    with pytest.raises(MlflowException, match=words) as failed:
        model.predict(pd.DataFrame({"prompt": [prompt]}))
    assert failed.value.get_http_status_code() == 500


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("looks", "neither none nor"),
        ("os.system('x'):y", "neither none nor"),
        ("no_such_module:look", "cannot be had"),
        ("tests.serving.looks:nothing", "cannot be had"),
        ("tests.serving.looks:NO_FUNCTION", "is no function"),
    ],
)
def test_a_check_that_is_none_is_named_before_anything_is_trained(entry: str, words: str):
    from steps import register

    with pytest.raises(ValueError, match=words):
        register.check(register.Config(safety=entry))


def test_none_is_none():
    assert safety.load("none") is None
