"""What a run keeps in memory: an int8 base gives the same method a smaller room."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from personalize.dreambooth import hardware, lora
from personalize.dreambooth.setup import Base
from personalize.dreambooth.train import train
from tests.dreambooth import training

pytest.importorskip("torchao", reason="memory: low needs `pip install torchao==0.17.0`, which is not installed")

INPUTS = {
    "sample": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
    "timestep": torch.tensor([10, 700]),
    "encoder_hidden_states": torch.randn(2, 77, 320, generator=torch.Generator().manual_seed(2)),
    "added_cond_kwargs": {"text_embeds": torch.zeros(2, 192), "time_ids": torch.full((2, 6), 64.0)},
}


@torch.no_grad()
def test_an_int8_base_computes_nearly_the_same_with_a_quarter_of_the_bytes(tiny_models: Path) -> None:
    unet = UNet2DConditionModel.from_pretrained(tiny_models / "sdxl" / "unet", use_safetensors=True)
    before = unet(**INPUTS).sample
    hardware.quantise(unet)
    after = unet(**INPUTS).sample
    layers = [m.weight for m in unet.modules() if isinstance(m, torch.nn.Linear)]
    assert {weight.qdata.dtype for weight in layers} == {torch.int8}
    assert 0 < (after - before).norm() / before.norm() < 0.03


def test_low_memory_trains_the_adapter_of_a_full_precision_run(tiny_models: Path, tmp_path: Path) -> None:
    photographs = training.photographs(tmp_path / "pictures")
    losses, adapters = {}, {}
    for memory in ("fast", "balanced", "low"):
        result = train(
            training.settings(memory=memory, max_train_steps=3, prior_loss_weight=0),
            Base(str(tiny_models / "sdxl"), device="cpu"),
            photographs,
            [],
            tmp_path / memory,
            work=tmp_path / "work",
        )
        losses[memory] = [row["loss"] for row in result.history["steps"]]
        adapters[memory] = training.read_adapter(tmp_path / memory / "lora" / lora.WEIGHTS)[0]
    assert losses["balanced"] == pytest.approx(losses["fast"], rel=1e-4)
    assert losses["low"] == pytest.approx(losses["fast"], rel=0.02)
    assert losses["low"] != losses["fast"]
    assert set(adapters["low"]) == set(adapters["fast"])
    assert {tensor.dtype for tensor in adapters["low"].values()} == {torch.float32}
