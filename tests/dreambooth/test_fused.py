"""The fused LoRA product: the function and the gradients that peft's own layers give."""

import pytest
import torch

from personalize.dreambooth import lora
from personalize.dreambooth.backbone import load_pipeline


def unet_with_adapter(base, spec, dtype="float32"):
    unet = load_pipeline(base, device="cpu", dtype=dtype).unet
    params = lora.add({"unet": unet}, spec, seed=0)
    g = torch.Generator().manual_seed(2)
    for name, parameter in params.items():
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=g)
    return unet.train(), params


def gradients(unet, params):
    """Output [2, 4, 8, 8] and the gradient of each trained parameter, for a fixed batch."""
    dtype = unet.dtype
    g = torch.Generator().manual_seed(1)
    noisy, hidden, pooled = (torch.randn(shape, generator=g) for shape in ((2, 4, 8, 8), (2, 77, 320), (2, 192)))
    added = {"text_embeds": pooled, "time_ids": torch.full((2, 6), 64.0)}
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        out = unet(
            noisy.to(dtype), torch.tensor([500, 20]), encoder_hidden_states=hidden.to(dtype), added_cond_kwargs=added
        ).sample
    out.float().square().mean().backward()
    found = {name: parameter.grad.clone() for name, parameter in params.items()}
    for parameter in params.values():
        parameter.grad = None
    return out.detach().float(), found


@pytest.mark.parametrize("recomputing", [False, True])
def test_output_and_gradients_are_those_of_peft(tiny_models, recomputing):
    unet, params = unet_with_adapter(tiny_models / "sdxl", lora.LoraSpec(rank=4, alpha=2.0))
    if recomputing:
        unet.enable_gradient_checkpointing()
    out, wanted = gradients(unet, params)
    assert lora.fuse({"unet": unet}) == len(lora.layers(unet))
    fast, found = gradients(unet, params)
    assert torch.allclose(fast, out, atol=1e-5)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def test_half_precision_loses_no_more_than_peft_does(tiny_models):
    spec = lora.LoraSpec(rank=4, alpha=2.0)
    _, exact = gradients(*unet_with_adapter(tiny_models / "sdxl", spec))
    unet, params = unet_with_adapter(tiny_models / "sdxl", spec, "bfloat16")

    def error():
        _, found = gradients(unet, params)
        assert {gradient.dtype for gradient in found.values()} == {torch.float32}
        return sum(float((found[name] - exact[name]).norm() / exact[name].norm()) for name in exact) / len(exact)

    of_peft = error()
    assert lora.fuse({"unet": unet})
    assert 0 < error() <= 1.1 * of_peft


@pytest.mark.parametrize("change", [{"use_dora": True}, {"dropout": 0.1}])
def test_what_it_does_not_know_is_left_to_peft(tiny_models, change):
    unet, _ = unet_with_adapter(tiny_models / "sdxl", lora.LoraSpec(rank=4, **change))
    assert lora.fuse({"unet": unet}) == 0


def test_a_switched_off_adapter_adds_nothing(tiny_models):
    unet, params = unet_with_adapter(tiny_models / "sdxl", lora.LoraSpec(rank=4))
    lora.fuse({"unet": unet})
    with_it = answer(unet)
    unet.disable_adapters()
    without = answer(unet)
    for name, parameter in params.items():
        if "lora_B" in name:
            parameter.data.zero_()
    unet.enable_adapters()
    assert torch.allclose(answer(unet), without, atol=1e-5)
    assert not torch.allclose(with_it, without, atol=1e-3)


@torch.no_grad()
def answer(unet):
    """What the UNet says to a fixed input, [1, 4, 8, 8]."""
    added = {"text_embeds": torch.zeros(1, 192), "time_ids": torch.zeros(1, 6)}
    text = torch.ones(1, 77, 320)
    return unet(torch.ones(1, 4, 8, 8), torch.tensor([500]), encoder_hidden_states=text, added_cond_kwargs=added).sample
