"""Hub: where a model lies and which it is, what it runs on and in which precision. Imports torch only when asked to.

A model is a folder on this disk, or a repository of the Hugging Face hub at a commit. Nothing else is a name for one:
a branch or a tag can move, and a run that names it could not be made again.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from personalize.files import tree_digest

if TYPE_CHECKING:
    import torch

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["float32", "bfloat16", "float16"]

COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def identity(model: str | Path, revision: str | None = None) -> str:
    """Which model it is: a folder by its content (DVC's digest), a hub's repository by its commit."""
    return tree_digest(model) if Path(model).is_dir() else f"{model}@{revision}"


def label(model: str | Path, revision: str | None = None) -> str:
    """For reading: `facebook/dino-vits16@a7a4d161`, or the folder as it was given."""
    return f"{model}@{revision[:8]}" if revision else str(model)


def is_commit(revision: str | None) -> bool:
    return COMMIT.fullmatch(revision or "") is not None


def source(model: str | Path, revision: str | None, what: str, variable: str) -> dict[str, Any]:
    """The arguments that tell `from_pretrained` where the model is: a folder here, or a hub's repository at a commit.

    what, variable: for the message, what kind of model it is ("BLIP") and which variable of the profile has its commit.

    Raises:
        ValueError: it is neither; the message says how to get it or to pin it.
    """
    if Path(model).is_dir():
        return {"pretrained_model_name_or_path": str(model), "local_files_only": True}
    if Path(model).is_absolute() or not _REPOSITORY.fullmatch(str(model)):
        raise ValueError(f"there is no {what} model at {model}: fetch the models (`dvc pull`) or give a hub name")
    if not is_commit(revision):
        raise ValueError(
            f"{what} model {str(model)!r} is not a folder here, and not pinned: the project's own comes with `dvc pull "
            f"models.dvc`; for one of the Hugging Face hub give its 40-digit commit as {variable} (it is {revision!r})"
        )
    return {"pretrained_model_name_or_path": str(model), "revision": revision}


def resolve_device(device: str | torch.device) -> torch.device:
    """`auto` is CUDA where there is one, else Apple's mps, else the CPU. ValueError for one that is absent."""
    import torch

    has_mps = torch.backends.mps.is_available()
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            "device: cuda was asked for, but torch sees no CUDA device. Use `device: auto` or `cpu`, or a machine "
            "with a GPU and its driver."
        )
    if str(device).startswith("mps") and not has_mps:
        raise ValueError(
            "device: mps was asked for, but torch sees no Apple GPU. Use `device: auto` or `cpu`, or a Mac with Apple "
            "silicon and macOS 14 or later."
        )
    return torch.device(device)


def resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype of UNet and text encoders. ValueError for float16 on a CPU and bfloat16 on a GPU without it."""
    import torch

    if dtype not in ("float32", "bfloat16", "float16"):
        raise ValueError(f"dtype: {dtype!r} is not one of float32, bfloat16, float16.")
    if dtype == "float16" and device.type == "cpu":
        raise ValueError("dtype: float16 needs a GPU. On a CPU use float32 (or bfloat16).")
    if dtype == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError(f"dtype: {torch.cuda.get_device_name(device)} has no bfloat16. Use float16.")
    return getattr(torch, dtype)


@contextmanager
def quiet(*libraries: Literal["diffusers", "transformers"]) -> Iterator[None]:
    """Keeps the loaders' own progress bars and remarks (a bar per file, absent torchvision) off the user's terminal."""
    logs = [importlib.import_module(f"{library}.utils.logging") for library in libraries or ("transformers",)]
    levels = [(log, log.get_verbosity()) for log in logs]
    bars = [log for log in logs if log.is_progress_bar_enabled()]
    for log in logs:
        log.set_verbosity_error()
    for log in bars:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in bars:
            log.enable_progress_bar()
        for log, level in levels:
            log.set_verbosity(level)
