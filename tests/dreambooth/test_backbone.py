"""How the base model comes in: complete, pinned, safetensors only, and with a sentence when it does not."""

import shutil
from pathlib import Path

import pytest
import torch

from personalize import hub
from personalize.dreambooth import backbone

COMMIT = "462165984030d82259a11f4367a4eed129e94a7b"


@pytest.fixture
def sdxl(tiny_models: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(tiny_models / "sdxl", tmp_path / "sdxl")


def test_a_missing_folder_says_how_to_get_it(tmp_path: Path):
    with pytest.raises(ValueError, match=r"models/sdxl' does not exist.*dvc pull.*BASE_REVISION"):
        backbone.load_pipeline(tmp_path / "models/sdxl")


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder_2/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer_config.json",
    ],
)
def test_a_missing_file_is_named(sdxl: Path, name: str):
    (sdxl / name).unlink()
    with pytest.raises(ValueError, match=f"incomplete, it lacks: {name}.*dvc pull"):
        backbone.local_folder(sdxl)


def test_all_missing_files_are_named_at_once(sdxl: Path):
    (sdxl / "unet/config.json").unlink()
    (sdxl / "vae/config.json").unlink()
    with pytest.raises(ValueError, match=r"lacks: unet/config.json, vae/config.json"):
        backbone.local_folder(sdxl)


def test_a_damaged_weight_file_is_a_sentence(sdxl: Path):
    weights = sdxl / "vae/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"could not be loaded.*dvc pull --force"):
        backbone.load_pipeline(sdxl, device="cpu")


def test_pickled_weights_are_not_an_alternative(sdxl: Path):
    (sdxl / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, sdxl / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"lacks: unet/diffusion_pytorch_model.safetensors"):
        backbone.load_pipeline(sdxl, device="cpu")


def test_sharded_weights_need_every_shard(sdxl: Path):
    unet = sdxl / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    (unet / "diffusion_pytorch_model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors", '
        '"b": "diffusion_pytorch_model-00002-of-00002.safetensors"}}'
    )
    (unet / "diffusion_pytorch_model-00001-of-00002.safetensors").touch()
    assert backbone.missing_files(sdxl) == ["unet/diffusion_pytorch_model-00002-of-00002.safetensors"]


@pytest.mark.parametrize("other", ["one file", "shards"])
def test_the_files_that_loading_needs_are_enough_where_weights_are_there_twice(sdxl: Path, tmp_path: Path, other: str):
    """In one file and in shards, one of which is broken: what the libraries read is what a model is packed with."""
    whole = backbone.load_pipeline(sdxl, device="cpu")
    whole.save_pretrained(tmp_path / "shards", max_shard_size="1MB")
    for shard in (tmp_path / "shards").glob("*/*-of-*.safetensors"):
        shutil.copyfile(shard, sdxl / shard.relative_to(tmp_path / "shards"))
        index = next(shard.parent.glob("*.index.json"))
        shutil.copyfile(index, sdxl / index.relative_to(tmp_path / "shards"))
    assert (sdxl / "unet/diffusion_pytorch_model.safetensors.index.json").is_file()
    broken = sdxl.glob("*/*-of-*.safetensors") if other == "shards" else sdxl.glob("*/*model.safetensors")
    part = "text_encoder_2" if other == "shards" else "unet"
    for weights in (path for path in broken if path.parent.name == part):
        weights.write_bytes(b"broken")
    for name in backbone.files(sdxl):
        (tmp_path / "packed" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sdxl / name, tmp_path / "packed" / name)
    packed = backbone.load_pipeline(tmp_path / "packed", device="cpu")
    for key, value in whole.unet.state_dict().items():
        assert torch.equal(value, packed.unet.state_dict()[key])


def test_a_folder_that_has_the_half_precision_files_only_loads(sdxl: Path):
    for weights in sdxl.glob("*/*.safetensors"):
        weights.rename(weights.with_suffix("").with_suffix(".fp16.safetensors"))
    assert backbone.load_pipeline(sdxl, device="cpu").unet.dtype == torch.float32


def test_the_files_that_loading_needs_leave_other_formats_out(sdxl: Path):
    for extra in ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.safetensors", "README.md"):
        (sdxl / extra).touch()
    needed = backbone.files(sdxl)
    assert "unet/diffusion_pytorch_model.safetensors" in needed
    assert "tokenizer/vocab.json" in needed
    assert not [name for name in needed if "fp16" in name or name.endswith((".bin", ".md"))]


def test_a_hub_model_is_pinned_by_commit_not_by_branch():
    with pytest.raises(ValueError, match=r"'main' of 'stabilityai/stable-diffusion-xl-base-1.0' is not a commit"):
        backbone.local_folder("stabilityai/stable-diffusion-xl-base-1.0", revision="main")


def test_a_hub_model_comes_from_the_cache_when_offline(sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cached = tmp_path / "cache/models--someone--sdxl/snapshots" / COMMIT
    shutil.copytree(sdxl, cached)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert backbone.local_folder("someone/sdxl", COMMIT) == cached
    assert backbone.local_folder("someone/sdxl", COMMIT, "bfloat16") == cached  # no fp16 files: the full ones serve


def test_a_hub_model_that_is_not_in_the_cache_says_why_it_was_not_fetched(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"'someone/sdxl' at 462165984030 could not be fetched.*HF_HUB_OFFLINE is set"):
        backbone.local_folder("someone/sdxl", COMMIT)


def test_parts_are_frozen_and_the_vae_stays_float32(tiny_models: Path):
    parts = backbone.load_pipeline(tiny_models / "sdxl", device="cpu", dtype="bfloat16")
    assert parts.unet.dtype == parts.text_encoder.dtype == parts.text_encoder_2.dtype == torch.bfloat16
    assert parts.vae.dtype == torch.float32
    for module in (parts.unet, parts.vae, parts.text_encoder, parts.text_encoder_2):
        assert not module.training
        assert not any(weight.requires_grad for weight in module.parameters())


def test_no_watermark_unless_asked_for(tiny_models: Path):
    assert backbone.load_pipeline(tiny_models / "sdxl", device="cpu").watermark is None


def test_float16_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match=r"dtype: float16 needs a GPU.*float32"):
        hub.resolve_dtype("float16", torch.device("cpu"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_where_there_is_none_is_refused_and_auto_is_the_cpu():
    with pytest.raises(ValueError, match="no CUDA device"):
        hub.resolve_device("cuda")
    assert hub.resolve_device("auto").type == "cpu"


def test_loading_writes_nothing_on_the_terminal(tiny_models: Path, capfd: pytest.CaptureFixture[str]):
    backbone.load_pipeline(tiny_models / "sdxl", device="cpu")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
