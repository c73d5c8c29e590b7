"""Backbone: the one border across which the parts of Stable Diffusion XL come in from diffusers and transformers.

safetensors only (`use_safetensors=True`, spelled out), no remote code, hub models pinned by commit and made a local
folder first, so that a missing file is one sentence instead of a traceback and everything after it works offline.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from personalize import hub
from personalize.dreambooth.shapes import Size, halvings, shape_step, shapes_at
from personalize.files import read_json

if TYPE_CHECKING:
    import torch
    from transformers import CLIPTokenizer

    from personalize.dreambooth.losses import PredictionType

NEEDED_FILES = {
    "unet": ("config.json", "diffusion_pytorch_model"),
    "vae": ("config.json", "diffusion_pytorch_model"),
    "text_encoder": ("config.json", "model"),
    "text_encoder_2": ("config.json", "model"),
    "tokenizer": ("tokenizer_config.json", "vocab.json", "merges.txt"),
    "tokenizer_2": ("tokenizer_config.json", "vocab.json", "merges.txt"),
    "scheduler": ("scheduler_config.json",),
}
"""Per component; a name without a suffix stands for weights: `<name>[.fp16].safetensors` or its sharded index."""


class Pipeline(Protocol):
    """What the project uses of diffusers' `StableDiffusionXLPipeline` (whose attributes its own types do not tell)."""

    unet: Any
    vae: Any
    text_encoder: Any
    text_encoder_2: Any
    tokenizer: Any
    tokenizer_2: Any
    scheduler: Any
    image_processor: Any
    watermark: Any
    vae_scale_factor: int
    device: Any
    config: Any
    encode_prompt: Any
    prepare_extra_step_kwargs: Any
    load_lora_weights: Any
    set_adapters: Any
    fuse_lora: Any
    unload_lora_weights: Any

    @property
    def _execution_device(self) -> Any:
        """Where it draws, also while its parts rest elsewhere."""
        ...

    def __call__(self, **options: Any) -> Any: ...


def card_bytes(device: torch.device) -> int | None:
    """The memory of a card; None for a CPU, and for Apple's mps, whose memory is the host's."""
    import torch

    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None


def takes_turns(device: torch.device) -> bool:
    """Whether a card has too little room to hold SDXL (7 GB) and to decode a picture (4 GB) beside it.

    Other processes may have taken of it; what this one has used and released counts as room.
    """
    import torch

    if device.type != "cuda":
        return False
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused < 14e9


def local_folder(base: str | Path, revision: str | None = None, dtype: str = "float32") -> Path:
    """Where the base model lies on this disk, complete. A hub model is fetched (or found in the cache) at its commit.

    A name with a `revision` that is no folder here is a Hugging Face model; `HF_HUB_OFFLINE=1` allows the cache alone.
    Half-precision dtypes fetch the fp16 weights where the model offers them, half the bytes.

    Raises ValueError naming the folder, the missing file and the way out.
    """
    folder = Path(base)
    if not folder.exists():
        folder = _snapshot(str(base), _commit(base, revision), dtype)
    check_files(folder)
    return folder


def shapes(base: str | Path, revision: str | None, dtype: str, resolution: int, buckets: bool) -> list[Size]:
    """The sizes in which this base learns and draws at a resolution, the square first. The base is fetched if need be.

    Raises ValueError as `local_folder` does, and for a resolution that the base cannot take.
    """
    folder = local_folder(base, revision, dtype)
    unet, vae = (read_json(folder / part / "config.json") for part in ("unet", "vae"))
    return shapes_at(resolution, shape_step(resolution, halvings(unet, vae)), buckets)


def _commit(base: str | Path, revision: str | None) -> str:
    """The commit of a hub model. Raises ValueError where there is none."""
    if not revision:
        raise ValueError(
            f"base model folder {str(base)!r} does not exist. The project's own miniature models come with `dvc pull "
            f"models.dvc`; for a Hugging Face model set BASE_REVISION beside BASE_MODEL in the profile (its commit, 40 "
            f"hexadecimal digits)."
        )
    if not hub.is_commit(revision):
        raise ValueError(
            f"BASE_REVISION {revision!r} of {str(base)!r} is not a commit (40 hexadecimal digits). A branch or a tag "
            f"can move; the commit is shown on the model's page under 'Files and versions'."
        )
    return revision


SMALL = ["model_index.json", *(f"{part}/*.{suffix}" for part in NEEDED_FILES for suffix in ("json", "txt"))]
HALF = [*SMALL, *(f"{part}/*.fp16.safetensors" for part in NEEDED_FILES)]
FULL = [*SMALL, *(f"{part}/*.safetensors" for part in NEEDED_FILES)]
TOKENIZERS = [pattern for pattern in SMALL if pattern.startswith("tokenizer")]
"""What of a hub model is fetched: safetensors, configs and tokenizers, in one precision, nothing else."""


def _snapshot(repo: str, revision: str, dtype: str) -> Path:
    """The hub model's folder in the Hugging Face cache, with its weights in the precision asked for if it has that."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if dtype != "float32":
        try:
            folder = _fetch(repo, revision, HALF)
        except ValueError as error:  # offline the cache may still have the other precision
            if not isinstance(error.__cause__, LocalEntryNotFoundError):
                raise
        else:
            if not missing_files(folder):
                return folder
    return _fetch(repo, revision, FULL, ["*.fp16.safetensors", "*.non_ema.safetensors"])


def _fetch(repo: str, revision: str, patterns: list[str], ignored: Sequence[str] = ()) -> Path:
    """Brings files of a hub model into the cache. Raises ValueError with the reason and the way out."""
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=list(ignored),
                local_files_only=_offline(),
            )
        )
    except Exception as error:  # OSError, HTTP and validation errors of several families
        raise ValueError(
            f"base model {repo!r} at {revision[:12]} could not be fetched: {_reason(error)}, or point BASE_MODEL in "
            f"the profile at a local folder."
        ) from error


def _offline() -> bool:
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _reason(error: BaseException) -> str:
    """Why the hub did not give it, and what to do."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    if _offline():
        return "HF_HUB_OFFLINE is set and the cache does not have all of it. Unset it once"
    for cause in reversed(chain):
        if isinstance(cause, GatedRepoError):
            return "it is gated. Accept its licence on its page and set HF_TOKEN to a token of that account"
        if isinstance(cause, RevisionNotFoundError):
            return "it has no such commit. Copy one from its page, 'Files and versions'"
        if isinstance(cause, RepositoryNotFoundError):
            return "there is no such model, or it is private. Check the name, and HF_TOKEN if it is yours"
        if isinstance(cause, HfHubHTTPError):
            status = cause.response.status_code
            if status in (401, 403):
                return f"the hub refuses it (HTTP {status}). Check HF_TOKEN"
            return f"the hub answers HTTP {status}. Try again later: files that came whole are kept"
    name = type(chain[-1]).__name__
    return f"{name}. Check the network and try again: files that came whole are kept"


def files(folder: Path) -> list[str]:
    """Relative names of what loading reads. A hub model's folder may hold each weight in other formats as well."""
    needed = ["model_index.json"]
    for part, names in NEEDED_FILES.items():
        found = [path.name for pattern in ("*.json", "*.txt") for path in (folder / part).glob(pattern)]
        for name in names:
            if "." not in name:
                found += _weights(folder, part, name)
            elif not _in_tokenizer_json(folder / part, name):
                found.append(name)
        needed += [f"{part}/{name}" for name in sorted(set(found))]
    return needed


def missing_files(folder: Path) -> list[str]:
    """Relative names of what an SDXL folder lacks; empty when it is complete. Looks at names, not into weights."""
    return [name for name in files(folder) if not (folder / name).is_file()]


def _in_tokenizer_json(folder: Path, name: str) -> bool:
    """Whether `tokenizer.json` holds what the older vocabulary file would."""
    return name in ("vocab.json", "merges.txt") and (folder / "tokenizer.json").is_file()


def _weights(folder: Path, part: str, stem: str) -> list[str]:
    """Names of a component's weight files in the precision that will be loaded: one, or an index and its shards.

    Where a folder has both, diffusers reads the shards and transformers the one file.
    """
    for suffix in (".fp16", "") if _variant(folder) else ("", ".fp16"):
        whole, index = f"{stem}{suffix}.safetensors", f"{stem}.safetensors.index{suffix}.json"
        for name in (index, whole) if part in ("unet", "vae") else (whole, index):
            if (folder / part / name).is_file():
                return [name] if name == whole else [name, *_shards(folder / part / name)]
    return [f"{stem}.safetensors"]


def _shards(index: Path) -> list[str]:
    return sorted(set(read_json(index)["weight_map"].values()))


def _variant(folder: Path) -> str | None:
    """`fp16` when that is the only form in which the folder has the UNet."""
    half = any(folder.glob("unet/diffusion_pytorch_model*fp16*"))
    return "fp16" if half and not any(folder.glob("unet/diffusion_pytorch_model.safetensors*")) else None


def check_files(folder: Path) -> None:
    """Raises ValueError that names every missing file of an SDXL folder."""
    if not folder.is_dir():
        raise ValueError(f"base model {str(folder)!r} is a file; a folder in diffusers' layout is needed.")
    missing = missing_files(folder)
    if missing:
        raise ValueError(
            f"base model folder {str(folder)!r} is incomplete, it lacks: {', '.join(missing)}. Fetch it again "
            f"(`dvc pull models.dvc` for the project's own), or set BASE_MODEL in the profile to a complete one."
        )


def load_tokenizers(base: str | Path, revision: str | None = None) -> tuple[CLIPTokenizer, CLIPTokenizer]:
    """Both tokenizers, without weights: what captioning needs."""
    from transformers import CLIPTokenizer

    folder = Path(base)
    if not folder.exists():  # captions come first, and do not know in which precision weights will be wanted
        folder = _fetch(str(base), _commit(base, revision), TOKENIZERS)
    else:
        check_files(folder)
    return (
        CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True),
        CLIPTokenizer.from_pretrained(str(folder / "tokenizer_2"), local_files_only=True),
    )


def load_pipeline(
    base: str | Path,
    revision: str | None = None,
    device: str | torch.device = "auto",
    dtype: str = "float32",
    watermark: bool = False,
    place: bool = True,
) -> Pipeline:
    """The base pipeline on its device, frozen. UNet and text encoders in `dtype`, the VAE in float32.

    SDXL's VAE overflows in float16 and bands in bfloat16. Attention is torch's scaled_dot_product_attention, the
    libraries' default. `watermark` adds diffusers' invisible watermark (package invisible-watermark); it is off unless
    asked for, never a matter of what happens to be installed. Where a card has less than 14 GB of room the parts take
    turns, which is slower; without `place` all stay in the host's memory, for a caller that brings each to the device
    in its turn.
    """
    on = hub.resolve_device(device)
    torch_dtype = hub.resolve_dtype(dtype, on)
    folder = local_folder(base, revision, dtype)
    try:
        with hub.quiet("diffusers", "transformers"):
            from diffusers import StableDiffusionXLPipeline

            pipe: Any = StableDiffusionXLPipeline.from_pretrained(
                str(folder),
                dtype=torch_dtype,
                variant=_variant(folder),
                use_safetensors=True,
                local_files_only=True,
                add_watermarker=watermark,
            )
    except Exception as error:  # SafetensorError, OSError, KeyError: whatever a broken file makes the loaders raise
        raise ValueError(
            f"base model folder {str(folder)!r} could not be loaded: {error}. A file may be damaged or of another "
            f"model: fetch the folder again (`dvc pull --force models.dvc` for the project's own)."
        ) from error
    pipe.vae.float()
    if place and takes_turns(on):
        pipe.enable_model_cpu_offload(device=on)  # SDXL's 7 GB and a picture's decoding: one part on the card at a time
    elif place:
        pipe.to(on)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        part.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise_schedule(config: Mapping[str, Any]) -> tuple[PredictionType, torch.Tensor]:
    """The base's prediction type and ᾱ_t [T] float32. ValueError for a scheduler this loss does not describe."""
    from diffusers import DDPMScheduler

    prediction_type = config.get("prediction_type", "epsilon")
    if prediction_type not in ("epsilon", "v_prediction", "sample") or "EDM" in str(config.get("_class_name", "")):
        raise ValueError(
            f"this base's scheduler ({config.get('_class_name')}, prediction_type {prediction_type}) is not one of "
            f"epsilon, v_prediction or sample; EDM models are not supported."
        )
    return prediction_type, DDPMScheduler.from_config(config).alphas_cumprod.float()
