"""A version that refers to its base: found in one of several places, exactly that one, or not loaded."""

import base64
import io
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from PIL import Image

from personalize.dreambooth.sampling import Sampling
from personalize.evidence.package import base_files, reference, statement_of
from personalize.evidence.statement import EvidenceError
from personalize.photographs.prompts import Subject, save_subjects
from personalize.serving import base, package
from personalize.serving.checking import check_folder
from personalize.serving.request import Defaults, Limits
from tests.random_adapter import random_adapter
from tests.serving.conftest import EXAMPLE


@pytest.fixture(scope="module")
def sdxl(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base as a folder that a hub fills: with more in it than is read."""
    folder = Path(shutil.copytree(tiny_models / "sdxl", tmp_path_factory.mktemp("base") / "sdxl"))
    (folder / "README.md").write_text("a model")
    return folder


@pytest.fixture(scope="module")
def carrier(saved) -> str:
    """A registered version that carries the base."""
    database = next(folder for folder in saved[1].parents if (folder / "mlflow.db").is_file()) / "mlflow.db"
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    mlflow.set_registry_uri(f"sqlite:///{database}")
    return f"models:/carrier/{mlflow.register_model(saved[0], 'carrier').version}"


@pytest.fixture(scope="module")
def referring(sdxl: Path, carrier: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of some kilobytes, which refers to the base by a folder of that name and to the version that has it."""
    place = tmp_path_factory.mktemp("referring")
    adapter = random_adapter(sdxl, place / "lora", rank=4, alpha=1.0)
    save_subjects(adapter, [Subject("bcnchr", "chair", 5)])
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("referring", artifact_location=str(place / "runs")))
    with mlflow.start_run():
        info = package.log(
            sdxl,
            adapter,
            input_example=EXAMPLE,
            device="cpu",
            defaults=Defaults(Sampling(steps=2, width=64, height=64)),
            limits=Limits(rows=4, images=4, steps=4, sizes=((96, 64), (64, 96))),
            reference=base.refer(sdxl, "somewhere/sdxl", None, carrier),
        )
    return Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(place / "copy")))


def test_a_version_that_refers_to_its_base_is_small_and_says_which(referring, saved, sdxl):
    assert not (referring / "artifacts" / "base").exists()
    assert sum(file.stat().st_size for file in (referring / "artifacts").rglob("*") if file.is_file()) < 2_000_000
    statement = statement_of(referring)
    assert reference(statement)["model"] == "somewhere/sdxl"
    assert base_files(statement) == base_files(statement_of(saved[1])), "carried or not, it is the same base"
    assert check_folder(referring) == []


def test_it_draws_what_the_one_that_carries_its_base_draws(referring, saved, sdxl, monkeypatch):
    monkeypatch.setenv(base.SETTING, str(sdxl))
    ask = pd.DataFrame([{"prompt": "a red chair", "seed": 1.0, "format": "png"}])
    answers = [mlflow.pyfunc.load_model(str(place)).predict(ask)["image"][0] for place in (referring, saved[1])]
    pictures = [Image.open(io.BytesIO(base64.b64decode(answer))).tobytes() for answer in answers]
    assert pictures[0] == pictures[1]


def test_it_is_found_in_the_version_that_carries_it(referring, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = base.folder_of(referring, statement_of(referring), "float32")
    assert (folder / "unet" / "diffusion_pytorch_model.safetensors").is_file()


def test_of_a_folder_that_holds_more_only_what_is_named_is_loaded(referring, sdxl, monkeypatch, tmp_path):
    """A hub's folder may have the weights in two precisions, of which a loader would take one or the other."""
    more = Path(shutil.copytree(sdxl, tmp_path / "more"))
    weights = more / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copyfile(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    (more / "unet" / "extra.json").write_text("{}")
    monkeypatch.setenv(base.SETTING, str(more))
    folder = base.folder_of(referring, statement_of(referring), "float32")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == set(base_files(statement_of(referring)))


def changed(sdxl: Path, place: Path) -> Path:
    file = Path(shutil.copytree(sdxl, place / "other")) / "unet" / "diffusion_pytorch_model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    return place / "other"


def test_a_base_that_is_missing_or_another_is_one_sentence(referring, sdxl, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(base, "_registered", lambda version, name: (_ for _ in ()).throw(OSError("no route to host")))
    for setting, words in (
        ("", "somewhere/sdxl: not here. models:/carrier/.*: no route to host"),
        (str(tmp_path / "nowhere"), "PERSONALIZE_BASE .*nowhere: not here"),
        (str(changed(sdxl, tmp_path)), "is another: unet/diffusion_pytorch_model.safetensors was changed"),
    ):
        monkeypatch.setenv(base.SETTING, setting)
        with pytest.raises(EvidenceError, match=rf"This model is not loaded: it refers to base .*{words}"):
            mlflow.pyfunc.load_model(str(referring))


def test_a_model_cannot_be_made_to_forget_that_it_refers(referring, tmp_path):
    """What it carries is decided by its signed settings, not by MLmodel."""
    copy = Path(shutil.copytree(referring, tmp_path / "copy"))
    text = (copy / "MLmodel").read_text()
    (copy / "MLmodel").write_text(text.replace("somewhere/sdxl", "elsewhere/sdxl"))
    assert check_folder(copy) == ["MLmodel names another settings"]
    (copy / "artifacts" / "base").mkdir()
    (copy / "artifacts" / "base" / "model_index.json").write_text("{}")
    assert "artifacts/base/model_index.json was added" in check_folder(copy)
