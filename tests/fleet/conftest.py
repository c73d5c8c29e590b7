"""A small shop, its catalogue, and one Ray for all tests of the module."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.recipe.conftest import (  # noqa: F401
    REPOSITORY,
    Run,
    empty_store,
    git,
    outside,
    run,
    store,
)

SHOP = Path(__file__).with_name("shop")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout of the shop, with the real fleet steps."""
    root = tmp_path / "shop"
    shutil.copytree(SHOP, root, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("fleet", "fleet_review"):
        for place in (Path("steps"), Path("steps/cards")):
            if (REPOSITORY / place / f"{name}.py").is_file():
                shutil.copy(REPOSITORY / place / f"{name}.py", root / place)
    (root / ".gitignore").write_text("/build/\n__pycache__\n/tries/\n")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "shop")
    return root


Catalogue = Callable[[Sequence[str]], str]


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """Writes a catalogue of `noun/token` subjects with three photographs each; gives its path."""

    def write(names: Sequence[str]) -> str:
        with (tmp_path / "products.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["token", "class_noun", "photographs", "rights"])
            for name in names:
                noun, _, token = name.partition("/")
                photographs(tmp_path / "photographs" / name)
                table.writerow([token, noun, f"photographs/{name}", "the shop"])
        return str(tmp_path / "products.csv")

    return write


def photographs(folder: Path, count: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        colour = sum(map(ord, folder.name)) % 256
        Image.new("RGB", (8, 8), (colour, 40 * number, 9)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One small Ray for the tests of a module: starting one takes seconds."""
    ray = pytest.importorskip("ray", reason="FLEET NOT TESTED: Ray is not installed (requirements-dev.txt)")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.pop("RAY_ADDRESS", None)
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=80 * 2**20,
    )  # fmt: skip
    yield
    ray.shutdown()
