"""The adapter's files in other programs: the same function there, or it is said."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from personalize.dreambooth import adapter_files, kohya, lora
from personalize.environment import find_links
from tests.dreambooth.test_lora import ABOUT, SPECS, answer, trained
from tests.dreambooth.training import read_adapter

OLDEST = ("diffusers==0.35.2", "peft==0.17.0", "transformers==4.57.6")
"""What docs/training.md promises."""

FIELDS_OF_PEFT_0_17_0 = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "eva_config", "exclude_modules",
    "fan_in_fan_out", "inference_mode", "init_lora_weights", "layer_replication", "layers_pattern",
    "layers_to_transform", "loftq_config", "lora_alpha", "lora_bias", "lora_dropout", "megatron_config",
    "megatron_core", "modules_to_save", "peft_type", "qalora_group_size", "r", "rank_pattern", "revision",
    "target_modules", "target_parameters", "task_type", "trainable_token_indices", "use_dora", "use_qalora",
    "use_rslora",
}  # fmt: skip

OLD_CLIENT = """
import sys
from pathlib import Path
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file

base, *adapters = map(Path, sys.argv[1:])
for adapter in adapters:
    pipe = StableDiffusionXLPipeline.from_pretrained(base, use_safetensors=True, local_files_only=True)
    pipe.load_lora_weights(str(adapter), weight_name="pytorch_lora_weights.safetensors")
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 50, (1, 2, 77), generator=g)
    with torch.no_grad():
        read = [e(ids[:, i], output_hidden_states=True) for i, e in enumerate((pipe.text_encoder, pipe.text_encoder_2))]
        hidden = torch.cat([states.hidden_states[-2] for states in read], dim=-1)
        added = {"text_embeds": read[1].text_embeds, "time_ids": torch.full((1, 6), 64.0)}
        noisy = torch.randn(1, 4, 8, 8, generator=g)
        got = pipe.unet(noisy, torch.tensor([500]), encoder_hidden_states=hidden, added_cond_kwargs=added).sample
    torch.testing.assert_close(got, load_file(adapter / "answer.safetensors")["answer"], atol=1e-5, rtol=1e-5)
    print("the same:", adapter.name)
"""


@pytest.fixture(scope="module")
def base(tiny_models: Path) -> Path:
    return tiny_models / "sdxl"


@pytest.mark.parametrize("kind", SPECS)
def test_the_diffusers_file_holds_nothing_that_older_clients_do_not_know(base: Path, tmp_path: Path, kind: str) -> None:
    with_text = not SPECS[kind].use_dora
    tensors, metadata = read_adapter(lora.save(tmp_path, trained(base, SPECS[kind], with_text)[1]))
    fields = {name.partition(".")[2] for name in metadata}
    assert fields == set(lora.DECIDING) <= FIELDS_OF_PEFT_0_17_0
    assert metadata["unet.lora_alpha"] == SPECS[kind].alpha
    encoders = [name for name in tensors if name.startswith("text_encoder")]
    assert bool(encoders) == with_text
    assert all(name.split(".")[1] == "text_model" for name in encoders)


@pytest.mark.slow
def test_the_oldest_clients_promised_load_the_very_function(base: Path, tmp_path: Path) -> None:
    """In an environment of their own. The base's text encoder is named as in SDXL 1.0's files, which they expect."""
    python = old_environment(tmp_path / "environment")
    folders = []
    for number, (kind, spec) in enumerate(SPECS.items()):
        pipe, parts = trained(base, spec, text_encoders=not spec.use_dora)
        folders.append(tmp_path / f"adapter-{number}")
        lora.save(folders[-1], parts)
        save_file(
            {"answer": answer(pipe), "kind": torch.tensor(list(kind.encode()))}, folders[-1] / "answer.safetensors"
        )
    copy = tmp_path / "base"
    subprocess.run(["cp", "-r", str(base), str(copy)], check=True)
    file = copy / "text_encoder" / "model.safetensors"
    save_file({lora.clip_path(name): tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    (tmp_path / "client.py").write_text(OLD_CLIENT)
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(python), str(tmp_path / "client.py"), str(copy), *map(str, folders)],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("the same") == len(SPECS)


def old_environment(folder: Path) -> Path:
    """The oldest clients with this environment's torch and numpy -> its Python."""
    uv, python = str(Path(sys.executable).parent / "uv"), folder / "bin" / "python"
    same = [f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "numpy")]
    variables = {**os.environ, "UV_FIND_LINKS": find_links()}
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True, env=variables)
    install = [uv, "pip", "install", "--quiet", "--python", str(python), *OLDEST, *same]
    subprocess.run(install, check=True, env=variables)
    return python


@pytest.mark.parametrize("kind", ["alpha a quarter of rank", "rank-stabilised"])
def test_the_kohya_file_is_the_same_function_in_comfyui(base: Path, tmp_path: Path, kind: str) -> None:
    """ComfyUI adds alpha / rank · up · down, rank being what lora_down has rows (comfy/weight_adapter/lora.py)."""
    spec = SPECS[kind]
    _, parts = trained(base, spec, text_encoders=True)
    tensors = load_file(kohya.export(tmp_path / adapter_files.KOHYA, parts, spec, **ABOUT))
    names = kohya.layer_names(parts)
    assert {key.partition(".")[0] for key in tensors} == set(names.values())
    for name, part in parts.items():
        for path, layer in lora.layers(part).items():
            file = names[lora.file_name(name, path)]
            up, down = tensors[f"{file}.lora_up.weight"], tensors[f"{file}.lora_down.weight"]
            strength = float(tensors[f"{file}.alpha"]) / down.shape[0]
            change = strength * (up.flatten(1) @ down.flatten(1)).reshape(layer.get_base_layer().weight.shape)
            torch.testing.assert_close(change, layer.get_delta_weight(lora.ADAPTER))


def test_exporting_dora_warns_that_it_is_another_function_elsewhere(base: Path, tmp_path: Path) -> None:
    _, parts = trained(base, SPECS["dora"])
    with pytest.warns(UserWarning, match="ComfyUI computes DoRA otherwise"):
        tensors = load_file(kohya.export(tmp_path / adapter_files.KOHYA, parts, SPECS["dora"], **ABOUT))
    scales = {name: tensor for name, tensor in tensors.items() if name.endswith("dora_scale")}
    assert {tensor.dim() for tensor in scales.values()} == {2, 4}


def test_layers_that_no_target_reaches_have_no_name() -> None:
    with pytest.raises(ValueError, match=r"time_emb_proj has no name"):
        kohya.unet_name("down_blocks.1.resnets.0.time_emb_proj", 2, [True, True, False])
