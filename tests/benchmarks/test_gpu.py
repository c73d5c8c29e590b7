"""The measurement of a card runs anywhere, on what a card's machine has."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

ALONE = """
import importlib.util, runpy, sys
ABSENT = {"mlflow", "dvc", "optuna", "numba", "scipy", "pandas", "databricks", "wordfreq", "pathspec", "pillow_heif",
          "starlette", "uvicorn", "detect_secrets", "krippendorff"}
look = importlib.util.find_spec
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
importlib.util.find_spec = lambda name, package=None: None if name.split(".")[0] in ABSENT else look(name, package)
sys.meta_path.insert(0, Absent())
sys.argv = ["gpu", *sys.argv[1:]]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""


@pytest.mark.slow
def test_every_part_is_measured_with_the_libraries_it_names_alone(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--tiny", "--minutes", "60", "--out", str(out), "--profile"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *words], cwd=PROJECT, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert found["versions"]["torch"]
    assert len(found["commit"].removesuffix("-changed")) == 40
    parts = found["parts"]
    assert set(parts) == {"training", "beside", "drawing", "bytes"}
    missing = [row for rows in parts.values() for row in rows if "not measured" in row]
    assert [row["not measured"] for row in missing] in ([], ["torchao is not installed"]), missing
    assert {row.get("memory") for row in parts["training"]} >= {"fast", "balanced", "low"}
    assert all(row["images_per_second"] > 0 for row in parts["training"] if "peak_memory_gb" in row)
    assert max(row["milliseconds"] for row in parts["training"] if "milliseconds" in row)
    ours, other, compared = parts["beside"]
    assert compared["factor"] == ours["images_per_second"] / other["images_per_second"]
    hows = {row["how"] for row in parts["drawing"]}
    assert hows == {"adapter merged", "adapter beside", "adapters mixed by row", "adapter merged, compiled"}
    assert [row.get("same as once") for row in parts["bytes"]] == [None, True, True]  # a CPU's bytes are the same
    assert "| bytes | killed and resumed, steps 4 |" in done.stdout


def test_no_time_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    words = ["-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--minutes", "0.01", "--out", str(out)]
    subprocess.run([sys.executable, *words], cwd=PROJECT, capture_output=True, timeout=600, check=True)
    parts = json.loads(out.read_text())["parts"]
    assert {row["not measured"] for rows in parts.values() for row in rows} == {"no time left"}
