"""The model in Spark: `spark_udf` and `mapInPandas` on a local Spark with its own default of 10,000 rows a batch.

pyspark is no dependency of the project: it is installed into a folder of its own for the test (a few minutes, 430 MB),
or PERSONALIZE_PYSPARK names a folder that has it (`uv pip install --no-deps --target <folder> pyspark py4j`).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PYSPARK = ("pyspark==4.3.0", "py4j==0.10.9.9")
ROWS = 40
SCRIPT = """
import json, sys
import mlflow
from pyspark.sql import SparkSession
from pyspark.sql.functions import struct

uri, rows = sys.argv[1], int(sys.argv[2])
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
asked = spark.createDataFrame([(f"chair {i}", float(i)) for i in range(rows)], "prompt string, seed double").coalesce(1)

draw = mlflow.pyfunc.spark_udf(spark, uri, env_manager="local")
by_udf = asked.select("prompt", draw(struct("prompt", "seed")).alias("answer")).collect()

def parts(frames):
    model = mlflow.pyfunc.load_model(uri)
    for frame in frames:
        for start in range(0, len(frame), 16):
            yield model.predict(frame[start : start + 16])[["prompt", "seed", "image"]]

by_map = asked.mapInPandas(parts, "prompt string, seed long, image string").collect()
print(json.dumps({
    "udf": [[row.prompt, row.answer.seed, len(row.answer.image)] for row in by_udf],
    "map": [[row.prompt, row.seed, len(row.image)] for row in by_map],
}))
"""


@pytest.fixture(scope="module")
def pyspark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("java"):
        pytest.skip("SPARK NOT TESTED: there is no java on this machine")
    if named := os.environ.get("PERSONALIZE_PYSPARK"):
        return Path(named)
    folder = tmp_path_factory.mktemp("pyspark")
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PYSPARK]
    done = subprocess.run(install, capture_output=True, text=True, timeout=1200)
    if done.returncode:
        pytest.skip(f"SPARK NOT TESTED: pyspark cannot be installed here: {done.stderr[-300:]}")
    return folder


def test_a_table_of_any_length_is_drawn_in_spark(saved, pyspark: Path, tmp_path: Path):
    """Each row gets its own picture; a request may have 4 rows, and the batch that Spark hands over has 40."""
    (tmp_path / "draw.py").write_text(SCRIPT)
    environment = {
        **os.environ,
        "PYTHONPATH": str(pyspark),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    environment.pop("SPARK_HOME", None)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "draw.py"), str(saved[1]), str(ROWS)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    for way in ("udf", "map"):
        assert [(prompt, seed) for prompt, seed, _ in told[way]] == [(f"chair {i}", i) for i in range(ROWS)]
        assert all(size > 500 for *_, size in told[way])
