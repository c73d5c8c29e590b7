"""Two processes at half the batch each give what one process gives at the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from personalize.dreambooth import lora
from tests.dreambooth import training, two_processes

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_give_the_loss_curve_and_weights_of_one(tiny_models, tmp_path):
    training.photographs(tmp_path / "pictures")
    training.class_images(tmp_path / "pictures")
    base = str(tiny_models / "sdxl")
    two_processes.main(tmp_path, base, 4)
    alone = json.loads((tmp_path / "losses-4-0.json").read_text())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local_addr", "127.0.0.1"]
    command += ["--nproc_per_node", "2"]
    finished = subprocess.run(
        [*command, "--module", "tests.dreambooth.two_processes", str(tmp_path), base, "2"],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-3000:]
    curves = [json.loads((tmp_path / f"losses-2-{rank}.json").read_text()) for rank in (0, 1)]
    assert curves[0] == curves[1] == pytest.approx(alone, rel=1e-4)
    one, two = (training.read_adapter(tmp_path / f"outputs-{size}" / "lora" / lora.WEIGHTS)[0] for size in (4, 2))
    moved = max(t.abs().max() for name, t in one.items() if "lora_B" in name)
    assert max((one[key] - two[key]).abs().max() for key in one) < 0.05 * moved
