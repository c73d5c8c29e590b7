"""The notebooks, each executed cell by cell in a process of its own, with the profile local; one story in order."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import checkout

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
SHORT = {
    "train.max_train_steps": 4,
    "train.validation_every": 2,
    "train.validation_sampling_steps": 2,
    "prior.images_per_class": 2,
    "prior.sampling_steps": 2,
    "baseline.seeds_per_prompt": 1,
    "baseline.sampling_steps": 2,
    "generate.sampling_steps": 2,
    "evaluate.gates": "[{metric: clip_t, kind: threshold, threshold: -1}]",
}
RUN = """
import ast, sys
cells = open(sys.argv[1]).read().split("\\n# COMMAND ----------\\n")
names = {"__name__": "__main__", "__file__": sys.argv[1]}
sys.path.insert(0, sys.argv[1].rpartition("/")[0])
for cell in cells:
    tree = ast.parse(cell)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, sys.argv[1], "exec"), names)
    if last is not None:
        shown = eval(compile(ast.Expression(last.value), sys.argv[1], "eval"), names)
        if hasattr(shown, "_repr_html_"):
            assert "<iframe" in shown._repr_html_(), "a card is shown in place"
            print("CARD", shown)
"""

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone with the sample photographs and the miniature models, and a store of its own."""
    root = checkout.clone(tmp_path_factory.mktemp("notebooks") / "personalize")
    pulled = subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet"], cwd=root, capture_output=True, text=True)
    assert pulled.returncode == 0, pulled.stderr
    return root


def execute(project, notebook, **widgets):
    """What the notebook prints, its cells executed in order."""
    variables = {f"PERSONALIZE_{name.upper()}": value for name, value in widgets.items()}
    environment = os.environ | variables | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(project / "notebooks" / notebook.name)],
        cwd=project / "notebooks", env=environment, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_notebook_runs_from_its_first_cell_to_its_last(project, notebook):
    widgets = {"profile": "local", "overrides": json.dumps(SHORT), "approved_by": "me", "reason": "the legs are right"}
    try:
        said = execute(project, notebook, prompt="a photo of a bcnchr chair on the beach", **widgets)
    finally:
        if notebook == NOTEBOOKS[-1]:
            stop = {"deploy.action": "stop", **SHORT}
            code = "import json, sys; from personalize.recipe import Recipe; "
            code += "Recipe(overrides=json.loads(sys.argv[1])).run('deploy')"
            environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{project}/mlflow.db"}
            subprocess.run([sys.executable, "-c", code, json.dumps(stop)], cwd=project, env=environment, check=True)
    assert "CARD" in said


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_a_databricks_source_file(notebook):
    text = notebook.read_text()
    assert text.startswith("# Databricks notebook source\n# MAGIC %md\n# MAGIC # ")
    assert not re.search(r"^%", text, flags=re.MULTILINE), "a magic is a comment elsewhere"
    assert "--require-hashes" in text
