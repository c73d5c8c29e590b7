"""Generate: a prompt in, a picture out, from the tuned model or from the base alone.   gives: pictures

    mlflow run . -e generate -P prompt="a photo of a bcnchr chair on the beach"
    mlflow run . -e generate -P prompt=@prompts.txt -P images=4 -P seed=7 -P model=base

The tuned model is the registry's champion, or its challenger while nothing has been promoted. Pictures land in the
folder `output` under a name made of prompt and seed; nothing that lies there is ever overwritten.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from personalize import hub
from personalize.files import free_path, read_handed, write_bytes, write_json
from personalize.recipe import Inputs, RecipeError, StepConfig
from personalize.recipe.errors import in_short

if TYPE_CHECKING:
    from PIL.Image import Image

    from personalize.dreambooth.sampling import Sampling
    from personalize.dreambooth.shapes import Size

NEEDS: tuple[str, ...] = ()
REUSE = False

FETCHED = Path("build/models")


class Config(StepConfig):
    prompt: str = Field("", description="What to draw; one prompt a line, or @file with one prompt a line")
    negative_prompt: str = Field("", description="What the pictures should keep away from")
    model: str = Field("tuned", min_length=1, description="tuned, base, or the address of a version: models:/<name>/3")
    name: str = Field("personalize", min_length=1, description="The registered model that `tuned` means")
    images: int = Field(1, ge=1, le=1000, description="Pictures for each prompt")
    seed: int | None = Field(None, ge=0, le=2**32 - 1, description="Seed of the first picture; none draws one")
    sampling_steps: int = Field(25, ge=1, le=1000, description="Denoising steps")
    guidance_scale: float = Field(5.0, ge=0, description="Classifier-free guidance; 1 turns it off")
    adapter_scale: float = Field(1.0, ge=0, le=2, description="Strength of what was learned; 1 is as trained")
    resolution: int = Field(1024, ge=64, multiple_of=8, description="Side in pixels where no width or height is given")
    aspect_ratio_buckets: bool = Field(
        True, description="Draw in all sizes of training's aspect-ratio buckets; otherwise in squares alone"
    )
    width: int | None = Field(None, ge=1, description="Width in pixels; with height one of these sizes")
    height: int | None = Field(None, ge=1, description="Height in pixels")
    format: Literal["png", "webp", "jpeg"] = Field("png", description="File format; each carries prompt and seed")
    output: str = Field("output", min_length=1, description="Folder for the pictures")
    base_model: str = Field("models/sdxl", description="Base model for model=base: a folder or a Hugging Face name")
    base_revision: str | None = Field(None, description="Commit of a Hugging Face base model (40 hexadecimal digits)")
    batch_size: int = Field(8, ge=1, description="Pictures drawn at a time")
    device: hub.Device = Field("auto", description="Where to draw")
    dtype: hub.Dtype = Field("float32", description="Precision of UNet and text encoders")


@dataclass(frozen=True)
class Model:
    """What draws: a base, an adapter where there is one, and what to call them."""

    label: str
    base: str
    revision: str | None = None
    adapter: Path | None = None


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from personalize.dreambooth.sampling import Sampling

    prompts = read_prompts(config.prompt)
    model = find_model(config)
    first = random.SystemRandom().randrange(2**32) if config.seed is None else config.seed
    rows = [(prompt, (first + i) % 2**32) for prompt in prompts for i in range(config.images)]
    size = find_size(config, model)
    sampling = Sampling(config.sampling_steps, config.guidance_scale, size.width, size.height, config.negative_prompt)
    begun = time.perf_counter()
    pictures = draw(config, model, rows, sampling)
    seconds = time.perf_counter() - begun
    files = save(config, model, rows, sampling, pictures, outputs)
    write_json(outputs / "diagnostics/speed.json", {"seconds": round(seconds, 1)})
    log(pictures, seconds)
    print(f"drawn by {model.label}:", *files, sep="\n", flush=True)


def read_prompts(text: str) -> list[str]:
    """The prompts of `text`, or of the file that `@path` names: a line each. Raises RecipeError where there is none."""
    if text.startswith("@"):
        try:
            text = read_handed(Path(text[1:]).expanduser())
        except (OSError, ValueError, RuntimeError) as error:
            raise RecipeError(f"generate.prompt: {in_short(text)} cannot be read as a text file ({error}).") from error
    prompts = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if not prompts:
        raise RecipeError('There is nothing to draw: add a prompt, -P prompt="a photo of a ... chair on the beach".')
    return prompts


def find_model(config: Config) -> Model:
    """The base as configured, or base and adapter out of a registered version.

    Raises RecipeError where nothing is registered yet, saying what to type.
    """
    from personalize.serving.base import base_of
    from personalize.serving.endpoint import fetch_files
    from personalize.serving.registry import RegistryError, best_version, resolve

    if config.model == "base":
        return Model(f"base ({config.base_model})", config.base_model, config.base_revision)
    if config.model != "tuned" and not config.model.startswith("models:/"):
        raise RecipeError(f"generate.model: {config.model!r} is none of tuned, base and models:/<name>/<version>.")
    version = best_version(config.name) if config.model == "tuned" else resolve(config.model)
    artifacts = fetch_files(version, FETCHED / version.name) / "artifacts"
    if not (artifacts / "adapter").is_dir():
        raise RegistryError(f"{version} was not registered by this recipe: it has no artifacts/adapter.")
    return Model(str(version), str(base_of(artifacts.parent, config.dtype)), None, artifacts / "adapter")


def find_size(config: Config, model: Model) -> Size:
    """What is asked for, where it is one of the sizes in which this base is trained. Raises RecipeError for another."""
    from personalize.dreambooth.backbone import shapes
    from personalize.dreambooth.shapes import Size, check_shape

    size = Size(config.height or config.resolution, config.width or config.resolution)
    try:
        check_shape(
            size, shapes(model.base, model.revision, config.dtype, config.resolution, config.aspect_ratio_buckets)
        )
    except ValueError as error:
        raise RecipeError(f"generate: {error}") from None
    return size


def draw(config: Config, model: Model, rows: list[tuple[str, int]], sampling: Sampling) -> list[Image]:
    from tqdm import tqdm

    from personalize.dreambooth.sampling import load_pipeline, merge_adapter, sample

    pipe = load_pipeline(
        model.base, revision=model.revision, device=config.device, dtype=config.dtype, lora=model.adapter
    )
    if model.adapter is not None:
        merge_adapter(pipe, config.adapter_scale)
    prompts, seeds = [prompt for prompt, _ in rows], [seed for _, seed in rows]
    with tqdm(total=len(rows), desc="pictures", unit="picture") as bar:
        return sample(pipe, prompts, seeds, sampling, config.batch_size, on_batch=bar.update)


def save(
    config: Config,
    model: Model,
    rows: list[tuple[str, int]],
    sampling: Sampling,
    pictures: list[Image],
    outputs: Path,
) -> list[Path]:
    """Each picture into the output folder and into the run; what it was made from into pictures.json."""
    from personalize.serving.encoding import SUFFIX, encode, file_stem

    files, made = [], []
    for (prompt, seed), picture in zip(rows, pictures, strict=True):
        facts = {
            "prompt": prompt,
            "negative_prompt": config.negative_prompt,
            "seed": seed,
            "num_inference_steps": sampling.steps,
            "guidance_scale": sampling.guidance_scale,
            "adapter_scale": config.adapter_scale,
            "model": model.label,
        }
        data, stem, suffix = encode(picture, config.format, facts), file_stem(prompt, seed), SUFFIX[config.format]
        files.append(free_path(config.output, stem, suffix))
        copy = free_path(outputs, stem, suffix)
        for path in (files[-1], copy):
            write_bytes(path, data)
        made.append({"file_name": copy.name, **facts})
    write_json(outputs / "pictures.json", made)
    return files


def log(pictures: list[Image], seconds: float) -> None:
    """The pictures in MLflow's image slider, and how fast they were drawn."""
    import mlflow

    mlflow.log_metrics({"pictures": len(pictures), "seconds": seconds, "seconds_per_picture": seconds / len(pictures)})
    for step, picture in enumerate(pictures[:50]):
        mlflow.log_image(picture, key="generated", step=step)
