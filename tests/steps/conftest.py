"""What tests of the later steps start from: a real tracking store and registry, and a trained model in it."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import mlflow
import pytest

from personalize.cards import Card
from personalize.photographs.prompts import Subject, save_subjects
from personalize.recipe import Input, Inputs, StepConfig
from tests.dreambooth.training import picture
from tests.random_adapter import random_adapter
from tests.review.world import gate

METRICS = {"dino": 0.5, "dino_base": 0.25, "dino.bcnchr": 0.5, "system/cpu_utilization_percentage": 90.0}
SUBJECTS = [Subject("bcnchr", "chair", 5), Subject("zwvchr", "chair", 5)]


def perform(name: str, config: StepConfig, inputs: Inputs, outputs: Path) -> Card:
    """Run a step and draw its card, as the engine does."""
    outputs.mkdir(parents=True, exist_ok=True)
    import_module(f"steps.{name}").run(config, inputs, outputs)
    card = Card(name)
    import_module(f"steps.cards.{name}").show(config, inputs, outputs, card)
    return card


def judges_in(models: Path) -> list[dict[str, str]]:
    """The judges of a recipe whose models lie in a folder."""
    return [{"name": name, "model": str(models / name)} for name in ("dino", "clip")]


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite store as MLflow makes it: dozens of migrations, so made once and copied."""
    place = tmp_path_factory.mktemp("database")
    mlflow.MlflowClient(f"sqlite:///{place}/mlflow.db").search_experiments()
    return place / "mlflow.db"


@contextmanager
def active(database: Path, place: Path) -> Iterator[None]:
    """An empty tracking store and registry in the folder `place`, in use."""
    shutil.copyfile(database, place / "mlflow.db")
    before = mlflow.get_tracking_uri()
    _use(f"sqlite:///{place}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("steps", artifact_location=str(place / "artifacts")))
    yield
    _use(before)


def _use(uri: str) -> None:
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)


@pytest.fixture
def store(new_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty sqlite tracking store and registry; the working directory is its folder."""
    monkeypatch.chdir(tmp_path)
    with active(new_database, tmp_path):
        yield tmp_path


@pytest.fixture(scope="session")
def trained(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Inputs]:
    """What train and evaluate hand on, with the verdict asked for. Call it while a store is active."""
    train = tmp_path_factory.mktemp("train")
    random_adapter(tiny_models / "sdxl", train / "lora")
    save_subjects(train, SUBJECTS)

    def trained(verdict: str = "passed") -> Inputs:
        evaluate = tmp_path_factory.mktemp("evaluate")
        gates = [gate(verdict) | {"name": "dino"}]
        (evaluate / "scores.json").write_text(json.dumps({"verdict": verdict, "gates": gates, "pictures": []}))
        with mlflow.start_run(run_name="evaluate", nested=True) as run:
            mlflow.log_text("<html>the card</html>", "card.html")
        return Inputs(
            {
                "train": Input("a-train-run", "f1" * 32, lambda: train),
                "evaluate": Input(run.info.run_id, "f2" * 32, lambda: evaluate, lambda: METRICS),
            }
        )

    return trained


@pytest.fixture(scope="session")
def registered(
    new_database: Path,
    tiny_models: Path,
    trained: Callable[[str], Inputs],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, Card]:
    """The register step, run once: (folder of its store, where `mlflow.db` is; the step's outputs; its card)."""
    from steps import register

    place = tmp_path_factory.mktemp("registered")
    outputs = place / "outputs"
    with active(new_database, place):
        config = register.Config(
            name="chairs",
            base_model=str(tiny_models / "sdxl"),
            resolution=64,
            sampling_steps=2,
            device="cpu",
        )
        with mlflow.start_run(tags={"lineage.commit": "c0ffee", "lineage.dirty": "false"}):
            card = perform("register", config, trained("passed"), outputs)
    return place, outputs, card


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Inputs:
    """Five photographs of one chair with captions, and three class images, as the steps before leave them."""
    root, one = tmp_path_factory.mktemp("inputs"), {"token": "bcnchr", "class_noun": "chair"}
    (root / "caption").mkdir()
    names = [f"chair/bcnchr/{i}.png" for i in range(5)]
    for i, name in enumerate(names):
        picture(root / "ingest" / "images" / name, i)
    captions = [{"file_name": n, **one, "context": "", "text": "a photo of a bcnchr chair"} for n in names]
    _rows(root / "caption" / "metadata.jsonl", captions)
    prompts = {"instance_prompt": "a photo of a bcnchr chair", "class_prompt": "a photo of a chair", "images": 5}
    (root / "caption" / "subjects.json").write_text(json.dumps([one | prompts]))
    priors = [f"chair/{i:04d}.png" for i in range(3)]
    for i, name in enumerate(priors):
        picture(root / "prior" / name, 50 + i)
    _rows(
        root / "prior" / "metadata.jsonl",
        [{"file_name": n, "class_noun": "chair", "text": "a photo of a chair", "seed": 0} for n in priors],
    )
    return Inputs.from_paths({name: root / name for name in ("ingest", "caption", "prior")})


def _rows(file: Path, values: list[dict]) -> None:
    file.write_text("".join(json.dumps(value) + "\n" for value in values))
