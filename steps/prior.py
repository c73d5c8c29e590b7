"""Prior: what the base model itself takes a class to be, for prior preservation.   needs: caption   gives: class images

Training on five photographs of one chair teaches a model that all chairs look like it. Class images, drawn by the base
model before it learns, are shown to it all along so that "a photo of a chair" keeps its meaning (Sec. 3.3, Ruiz et al.
2023). Prompts that name surroundings keep the meaning of these as well.

Pictures are kept in `build/prior` by what decides them (base model, class noun, prompts, settings, seed). So new
captions, another subject of a known class or a larger `images_per_class` draw only what is not there yet.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from personalize import hub
from personalize.files import whole, write_json, write_rows, write_text
from personalize.recipe import HOW_NOT_WHAT, Inputs, StepConfig

NEEDS = ("caption",)

KEPT = Path("build/prior")

ClassPrompt = Annotated[str, Field(pattern=r"\{class_noun\}")]


class Config(StepConfig):
    base_model: str = Field("models/sdxl", description="Folder of the base model, or its Hugging Face name")
    base_revision: str | None = Field(None, description="Commit of a Hugging Face base model (40 hexadecimal digits)")
    images_per_class: int = Field(20, ge=0, description="Class images for each class noun; 0 leaves them all out")
    prompts: tuple[ClassPrompt, ...] = Field(
        ("a photo of a {class_noun}",), min_length=1, description="Class prompts, taken in turn"
    )
    negative_prompt: str = Field("", description="What class images should keep away from")
    sampling_steps: int = Field(25, ge=1, le=1000, description="Denoising steps")
    guidance_scale: float = Field(5.0, ge=0, description="Classifier-free guidance; 1 turns it off")
    resolution: int = Field(1024, ge=64, multiple_of=8, description="Side of the pictures in pixels")
    seed: int = Field(0, ge=0, description="Decides the pictures, together with class noun and number")
    batch_size: int = Field(8, ge=1, description="Pictures drawn at a time", json_schema_extra=HOW_NOT_WHAT)
    device: hub.Device = Field("auto", description="Where to draw", json_schema_extra=HOW_NOT_WHAT)
    dtype: hub.Dtype = Field("float32", description="Precision of UNet and text encoders")


def sources(config: Config) -> Mapping[str, str]:
    """The base model, by content or by commit."""
    return {"base model": hub.identity(config.base_model, config.base_revision)}


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    import mlflow

    from personalize.photographs.prompts import load_subjects

    nouns = sorted({subject.class_noun for subject in load_subjects(inputs["caption"].path)})
    kept = {noun: _kept_folder(config, noun) for noun in nouns}
    lacking = [(noun, i) for noun in nouns for i in range(config.images_per_class) if not _usable(kept[noun], i)]
    begun = time.perf_counter()
    if lacking:
        _draw(config, kept, sorted({(noun, i // config.batch_size) for noun, i in lacking}))
    seconds = time.perf_counter() - begun

    rows = []
    for noun in nouns:
        (outputs / noun).mkdir(parents=True, exist_ok=True)
        for i in range(config.images_per_class):
            name = f"{noun}/{i:04}.png"
            shutil.copyfile(kept[noun] / f"{i:04}.png", outputs / name)
            prompt, seed = _prompt(config, noun, i), _seed(config, noun, i)
            rows.append({"file_name": name, "class_noun": noun, "text": prompt, "seed": seed})
    write_rows(outputs / "metadata.jsonl", rows)
    write_json(outputs / "diagnostics" / "drawing.json", {"drawn": len(lacking), "seconds": round(seconds, 1)})
    mlflow.log_metrics({"class_images": len(rows), "class_images_drawn": len(lacking), "drawing_seconds": seconds})


def _draw(config: Config, kept: Mapping[str, Path], batches: list[tuple[str, int]]) -> None:
    """Draws batch by batch and keeps each at once, so a run that is killed has lost one batch.

    A class's picture i always sits in batch i // batch_size, which is always drawn whole: what else is lacking must not
    change a picture, not even by the rounding of another batch's shape.
    """
    from tqdm import tqdm

    from personalize.dreambooth.sampling import Sampling, load_pipeline, sample

    pipe = load_pipeline(config.base_model, revision=config.base_revision, device=config.device, dtype=config.dtype)
    sampling = Sampling(
        config.sampling_steps, config.guidance_scale, config.resolution, config.resolution, config.negative_prompt
    )
    with tqdm(total=len(batches) * config.batch_size, desc="class images", unit="picture") as bar:
        for noun, batch in batches:
            numbers = range(batch * config.batch_size, (batch + 1) * config.batch_size)
            prompts, seeds = zip(*((_prompt(config, noun, i), _seed(config, noun, i)) for i in numbers), strict=True)
            pictures = sample(pipe, prompts, seeds, sampling, batch_size=config.batch_size)
            for i, picture in zip(numbers, pictures, strict=True):
                with whole(kept[noun] / f"{i:04}.png") as part:
                    picture.save(part, "png")
            bar.update(len(numbers))


def _usable(folder: Path, number: int) -> bool:
    from PIL import Image

    try:
        with Image.open(folder / f"{number:04}.png") as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError):  # absent or damaged: Pillow has all three words for it
        return False
    return True


def _kept_folder(config: Config, noun: str) -> Path:
    """Named after everything that decides the pictures but their number; what that was is told in `about.json`."""
    about = {
        "base": hub.identity(config.base_model, config.base_revision),
        "prompts": config.prompts,
        "negative_prompt": config.negative_prompt,
        "sampling_steps": config.sampling_steps,
        "guidance_scale": config.guidance_scale,
        "resolution": config.resolution,
        "dtype": config.dtype,
        "batch_size": config.batch_size,
        "seed": config.seed,
        "class_noun": noun,
    }
    text = json.dumps(about, sort_keys=True, ensure_ascii=False, indent=1)
    folder = KEPT / hashlib.sha256(text.encode()).hexdigest()[:16]
    write_text(folder / "about.json", text)
    return folder


def _prompt(config: Config, noun: str, number: int) -> str:
    return config.prompts[number % len(config.prompts)].replace("{class_noun}", noun)


def _seed(config: Config, noun: str, number: int) -> int:
    """32 bits of the picture's own, far from those that validation and evaluation count up from."""
    return int.from_bytes(hashlib.sha256(f"{config.seed}/prior/{noun}/{number}".encode()).digest()[:4], "big")
