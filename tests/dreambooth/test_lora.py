"""Adapters: float32 over any base, and after a reload exactly the function that was trained."""

import struct

import pytest
import torch
from safetensors.torch import load_file

from personalize.dreambooth import kohya, lora, sampling, tensorfile
from personalize.dreambooth.backbone import load_pipeline
from personalize.dreambooth.conditioning import encode_tokens

SPECS = {
    "alpha a quarter of rank": lora.LoraSpec(rank=4, alpha=1.0, targets="all"),
    "rank-stabilised": lora.LoraSpec(rank=4, alpha=2.0, use_rslora=True),
    "dora": lora.LoraSpec(rank=4, alpha=2.0, targets="all", use_dora=True),
}
ABOUT = {"base": "sdxl", "title": "bcnchr chair", "trigger_words": ["bcnchr"], "resolution": 128,
         "prediction_type": "epsilon", "steps": 10, "images": {"bcnchr": 5}}  # fmt: skip


@torch.no_grad()
def answer(pipe) -> torch.Tensor:
    """What UNet and text encoders say to fixed inputs."""
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 50, (1, 2, 77), generator=g)
    hidden, pooled = encode_tokens((pipe.text_encoder, pipe.text_encoder_2), ids)
    noisy = torch.randn(1, 4, 8, 8, generator=g)
    added = {"text_embeds": pooled, "time_ids": torch.full((1, 6), 64.0)}
    return pipe.unet(noisy, torch.tensor([500]), encoder_hidden_states=hidden, added_cond_kwargs=added).sample


@pytest.fixture(scope="module")
def base(tiny_models):
    return tiny_models / "sdxl"


def trained(base, spec, text_encoders=False):
    """A pipeline whose adapter is no longer zero."""
    pipe = load_pipeline(base, device="cpu")
    parts = {"unet": pipe.unet}
    if text_encoders:
        parts |= {"text_encoder": pipe.text_encoder, "text_encoder_2": pipe.text_encoder_2}
    params = lora.add(parts, spec, seed=0)
    g = torch.Generator().manual_seed(2)
    for name, parameter in params.items():
        if "lora_B" in name:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=g)
    return pipe, parts


@pytest.mark.parametrize("kind", SPECS)
def test_a_saved_adapter_reloads_at_exactly_the_trained_scale(base, tmp_path, kind):
    spec = SPECS[kind]
    with_text = not spec.use_dora
    pipe, parts = trained(base, spec, with_text)
    want = answer(pipe)
    lora.save(tmp_path, parts)
    reloaded = load_pipeline(base, device="cpu")
    untrained = answer(reloaded)
    sampling.load_adapter(reloaded, tmp_path)
    (scale,) = {layer.scaling[sampling.ADAPTER] for layer in lora.layers(reloaded.unet).values()}
    assert scale == pytest.approx(spec.scale)
    torch.testing.assert_close(answer(reloaded), want, atol=1e-5, rtol=1e-5)
    assert (untrained - want).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["alpha a quarter of rank", "rank-stabilised"])
def test_the_kohya_file_is_the_same_function_in_diffusers_too(base, tmp_path, kind):
    spec = SPECS[kind]
    pipe, parts = trained(base, spec, text_encoders=True)
    want = answer(pipe)
    file = kohya.export(tmp_path / "kohya.safetensors", parts, spec, **ABOUT)
    reloaded = load_pipeline(base, device="cpu")
    sampling.load_adapter(reloaded, file)
    torch.testing.assert_close(answer(reloaded), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("ours", "kohyas"),
    [
        ("down_blocks.1.attentions.0.transformer_blocks.0.norm1", "input_blocks_4_1_transformer_blocks_0_norm1"),
        ("down_blocks.1.attentions.1.transformer_blocks.0.ff.net.2", "input_blocks_5_1_transformer_blocks_0_ff_net_2"),
        ("down_blocks.2.attentions.1.transformer_blocks.9.ff.net.2", "input_blocks_8_1_transformer_blocks_9_ff_net_2"),
        ("mid_block.attentions.0.proj_out", "middle_block_1_proj_out"),
        ("up_blocks.0.attentions.2.proj_in", "output_blocks_2_1_proj_in"),
        ("down_blocks.0.resnets.1.conv1", "input_blocks_2_0_in_layers_2"),
        ("down_blocks.1.downsamplers.0.conv", "input_blocks_6_0_op"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks_2_2_conv"),
        ("mid_block.resnets.1.conv2", "middle_block_2_out_layers_3"),
        ("up_blocks.2.resnets.0.conv_shortcut", "output_blocks_6_0_skip_connection"),
    ],
)  # fmt: skip
def test_names_are_those_of_the_original_sdxl_unet(ours, kohyas):
    assert kohya.unet_name(ours, layers_per_block=2, attention_in=[True, True, False]) == kohyas


def test_the_kohya_file_tells_what_it_is(base, tmp_path):
    spec = SPECS["rank-stabilised"]
    _, parts = trained(base, spec)
    file = kohya.export(tmp_path / "kohya.safetensors", parts, spec, **ABOUT)
    tensors, metadata = load_file(file), header(file)["__metadata__"]
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert metadata["modelspec.trigger_phrase"] == "bcnchr"
    assert metadata["modelspec.resolution"] == "128x128"
    assert metadata["modelspec.hash_sha256"] == "0x" + tensorfile.content_hash(tensors)
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "4")
    assert {float(t) for k, t in tensors.items() if k.endswith(".alpha")} == {4.0}


def header(file) -> dict:
    import json

    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length])


def test_equal_adapters_make_equal_files(base, tmp_path):
    _, parts = trained(base, SPECS["alpha a quarter of rank"])
    first = lora.save(tmp_path / "a", parts).read_bytes()
    assert all(lora.save(tmp_path / str(i), parts).read_bytes() == first for i in range(3))


def test_what_learns_is_float32_over_a_bfloat16_base(base):
    pipe = load_pipeline(base, device="cpu", dtype="bfloat16")
    params = lora.add({"unet": pipe.unet}, lora.LoraSpec(rank=4, alpha=4), seed=0)
    assert {p.dtype for p in params.values()} == {torch.float32}
    assert {p.dtype for name, p in pipe.unet.named_parameters() if "lora_" not in name} == {torch.bfloat16}
    assert {name for name, p in pipe.unet.named_parameters() if p.requires_grad} == {
        n.removeprefix("unet.") for n in params
    }


def test_the_start_depends_on_the_seed_and_leaves_other_generators_alone(base):
    starts = []
    for global_seed, seed in ((1, 0), (2, 0), (2, 1)):
        pipe = load_pipeline(base, device="cpu")
        torch.manual_seed(global_seed)
        params = lora.add({"unet": pipe.unet}, lora.LoraSpec(rank=2), seed)
        after = torch.rand(1)
        torch.manual_seed(global_seed)
        assert torch.equal(after, torch.rand(1))
        starts.append(next(p for name, p in params.items() if "lora_A" in name))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])


def test_a_file_that_does_not_say_its_scale_is_refused(base, tmp_path):
    _, parts = trained(base, lora.LoraSpec(rank=4, alpha=1.0))
    tensorfile.save(tmp_path / lora.WEIGHTS, lora.state(parts), {})
    with pytest.raises(ValueError, match="alpha"):
        sampling.load_adapter(load_pipeline(base, device="cpu"), tmp_path)
