"""Fixtures shared by all tests."""

import atexit
import gc
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from personalize.evidence import keys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell that started us in the background has ignored


@event.listens_for(Engine, "connect")
def _nothing_waits_for_a_disk(connection: object, record: object) -> None:
    """A test's database need not outlive a power cut; that of a process that was killed is whole all the same."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


_KEYS = Path(tempfile.mkdtemp(prefix="personalize-keys-"))
atexit.register(shutil.rmtree, _KEYS, ignore_errors=True)
os.environ[keys.SETTING] = str(_KEYS / "own.pem")  # never the key of whoever runs the tests
keys.make(_KEYS / "own.pem")
os.environ["XDG_STATE_HOME"] = str(_KEYS / "state")  # nor does this machine remember what tests promote


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest story first, so that the other process has all the rest to do meanwhile."""
    items.sort(key=lambda item: item.path.name != "test_front_door.py")


@pytest.fixture(autouse=True)
def other_projects_are_forgotten(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a test's project put in sys.path and sys.modules (a `steps` of its own) does not reach the next test.

    What it put out of there comes back, the very modules: other tests have patched and imported them.
    """
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path_factory.getbasetemp())):
            del sys.modules[name]
    sys.modules.update(modules)


@pytest.fixture(scope="module", autouse=True)
def mlflow_forgets() -> Iterator[None]:
    """MLflow keeps store, registry and experiment in the process; what another module chose must not reach a test."""
    import mlflow

    def forget() -> None:
        mlflow.tracking.fluent._active_experiment_id = None
        mlflow.tracking._model_registry.utils._registry_uri = None
        for name in ("EXPERIMENT_ID", "EXPERIMENT_NAME", "TRACKING_URI", "REGISTRY_URI"):
            os.environ.pop(f"MLFLOW_{name}", None)

    forget()
    yield
    forget()


@pytest.fixture(scope="module", autouse=True)
def what_is_there_is_not_looked_through() -> None:
    """Collecting garbage would look through all that torch, MLflow and earlier tests have left: a second each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with sdxl/, clip/, dino/ and blip/: the miniature's architectures with random weights."""
    from miniature.pretrain import random_models

    path = tmp_path_factory.mktemp("models")
    random_models(path)
    return path


@pytest.fixture(scope="session")
def real_photographs() -> Path:
    """The folder with chairs/ and dreambooth/ beside the checkout, or wherever PERSONALIZE_SHARED says."""
    shared = Path(os.environ.get("PERSONALIZE_SHARED", Path(__file__).parents[2] / "shared"))
    if not (shared / "data" / "chairs").is_dir():
        pytest.skip(f"REAL PHOTOGRAPHS NOT TESTED: {shared / 'data' / 'chairs'} is not here; set PERSONALIZE_SHARED")
    return shared / "data"
