"""What lies on the device when: a card that cannot hold the whole base must still hold each part that works."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from personalize.dreambooth import hardware
from personalize.dreambooth.setup import Base, set_up
from tests.dreambooth import training


def test_each_part_of_the_base_is_on_the_device_only_while_it_works(tiny_models: Path, tmp_path: Path, monkeypatch):
    """Seen by the order of moves: to the device and back, and the UNet last of all."""
    events: list[str] = []
    to = torch.nn.Module.to
    text, vae, unet = ["CLIPTextModel", "CLIPTextModelWithProjection"], "AutoencoderKL", "UNet2DConditionModel"

    def watched(module, *args, **kwargs):
        if type(module).__name__ in (*text, vae, unet):
            events.append(type(module).__name__)
        return to(module, *args, **kwargs)

    monkeypatch.setattr(torch.nn.Module, "to", watched)
    set_up(
        training.settings(memory="balanced", prior_loss_weight=0),
        Base(str(tiny_models / "sdxl"), device="cpu"),
        training.photographs(tmp_path / "pictures"),
        [],
        [],
        [],
        tmp_path / "work",
        events.append,
    )
    seen = [event for event in events if event != "loading the base model"]
    encoding = [event for event in events if event.startswith("encoding")]
    assert encoding
    assert seen == ["reading captions", *text, *text, vae, *encoding, vae, unet]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: what lies on a card was not seen")
def test_on_a_card_nothing_but_what_learns_is_left(tiny_models: Path, tmp_path: Path):
    run = set_up(
        training.settings(memory="balanced", prior_loss_weight=0),
        Base(str(tiny_models / "sdxl"), device="cuda"),
        training.photographs(tmp_path / "pictures"),
        [],
        [],
        [],
        tmp_path / "work",
        lambda phase: None,
    )
    assert run.model.pipe.unet.device.type == "cuda"
    assert run.model.pipe.vae.device.type == "cpu"
    assert run.model.pipe.text_encoder is None


@torch.no_grad()
def test_a_small_card_decodes_large_pictures_in_tiles():
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(block_out_channels=(8, 8, 8, 8), norm_num_groups=4, sample_size=1024, **blocks)
    sides: list[int] = []
    vae.decoder.register_forward_pre_hook(lambda module, inputs: sides.extend(inputs[0].shape[-2:]))
    hardware.decode_in_tiles(vae)
    assert vae.decode(torch.zeros(1, 4, 128, 128)).sample.shape == (1, 3, 1024, 1024)
    assert max(sides) == 64
