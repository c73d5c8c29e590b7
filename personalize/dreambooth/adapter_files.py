"""Adapter files: what a training leaves, and which program reads which. Imports nothing: cards tell of it."""

from __future__ import annotations

DIFFUSERS = "pytorch_lora_weights.safetensors"
"""diffusers' own name, which `load_lora_weights(folder)` looks for."""

KOHYA = "for-comfyui-a1111-forge.safetensors"

READERS = {
    DIFFUSERS: "diffusers 0.35.2 and peft 0.17.0 or later, and this project",
    KOHYA: "ComfyUI, A1111, Forge and kohya's sd-scripts",
}
"""Who reads which file. ComfyUI takes the diffusers one without an error, and applies a third of its layers."""

DORA_ELSEWHERE = (
    "ComfyUI computes DoRA otherwise than it was trained: it divides by the norm of the base's weight instead of the "
    "adapted weight's (ComfyUI pull request 15458), which leaves layers 15 to 21 % off. For ComfyUI train with "
    "use_dora: false, or compare with a picture drawn here."
)
