"""Prior: what the base model itself takes a class to be, for prior preservation.   needs: caption   gives: class images

Training on five photographs of one chair teaches a model that all chairs look like it. Class images, drawn by the base
model before it learns, are shown to it all along so that "a photo of a chair" keeps its meaning (Sec. 3.3, Ruiz et al.
2023). Prompts that name surroundings keep the meaning of these as well. `{caption}` stands for what the photographs'
own captions say, with the token left out: where one subject alone was photographed in a forest, "forest" would come to
mean that subject.

Pictures are kept in `build/prior` by what decides them (base model, prompts drawn together, settings, seed). So another
subject of a known class, new captions or a larger `images_per_class` draw only what is not there yet.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from personalize import hub
from personalize.files import read_json, whole, write_json, write_rows, write_text
from personalize.photographs.prompts import Words
from personalize.recipe import HOW_NOT_WHAT, Inputs, StepConfig

NEEDS = ("caption",)
CAPTIONS = "class_captions.json"

KEPT = Path("build/prior")

CAPTION = "{caption}"
ClassPrompt = Annotated[Words, Field(pattern=r"\{class_noun\}|^\{caption\}$")]


class Config(StepConfig):
    base_model: str = Field("models/sdxl", description="Folder of the base model, or its Hugging Face name")
    base_revision: str | None = Field(None, description="Commit of a Hugging Face base model (40 hexadecimal digits)")
    images_per_class: int = Field(20, ge=0, description="Class images for each class noun; 0 leaves them all out")
    prompts: tuple[ClassPrompt, ...] = Field(
        ("a photo of a {class_noun}",),
        min_length=1,
        description="Class prompts, taken in turn; {caption} is the photographs' captions without the token, in turn",
    )
    negative_prompt: Words = Field("", description="What class images should keep away from")
    sampling_steps: int = Field(25, ge=1, le=1000, description="Denoising steps")
    guidance_scale: float = Field(5.0, ge=0, description="Classifier-free guidance; 1 turns it off")
    resolution: int = Field(1024, ge=32, multiple_of=8, description="Side of the pictures in pixels")
    seed: int = Field(0, ge=0, description="Decides the pictures, together with class noun and number")
    batch_size: int = Field(8, ge=1, description="Pictures drawn at a time", json_schema_extra=HOW_NOT_WHAT)
    device: hub.Device = Field("auto", description="Where to draw", json_schema_extra=HOW_NOT_WHAT)
    dtype: hub.Dtype = Field("float32", description="Precision of UNet and text encoders")


def sources(config: Config) -> Mapping[str, str]:
    """The base model, by content or by commit."""
    return {"base model": hub.identity(config.base_model, config.base_revision)}


def reads(config: Config) -> Mapping[str, tuple[str, ...]]:
    """Class nouns, and what captions say where that is drawn: not whose class it is."""
    return {"caption": ("class_nouns.json", CAPTIONS) if CAPTION in config.prompts else ("class_nouns.json",)}


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    import mlflow

    from personalize.photographs.prompts import load_class_nouns

    batches: dict[Path, Batch] = {}
    images = []
    captioned = inputs["caption"].path
    told = read_json(captioned / CAPTIONS) if CAPTION in config.prompts else {}
    for noun in load_class_nouns(captioned):
        captions = told.get(noun, ())
        for start in range(0, config.images_per_class, config.batch_size):
            numbers = range(start, start + config.batch_size)
            batch = Batch([(_prompt(config, noun, captions, i), _seed(config, noun, i)) for i in numbers])
            folder = _kept_folder(config, batch)
            batches[folder] = batch
            here = zip(range(start, config.images_per_class), batch.rows, strict=False)
            images += [(noun, i, folder / f"{i - start:04}.png", row) for i, row in here]
    lacking = [file for _, _, file, _ in images if not _usable(file)]
    begun = time.perf_counter()
    if lacking:
        _draw(config, {folder: batches[folder] for folder in dict.fromkeys(file.parent for file in lacking)})
    seconds = time.perf_counter() - begun

    rows = []
    for noun, i, file, (prompt, seed) in images:
        (outputs / noun).mkdir(parents=True, exist_ok=True)
        name = f"{noun}/{i:04}.png"
        shutil.copyfile(file, outputs / name)
        rows.append({"file_name": name, "class_noun": noun, "text": prompt, "seed": seed})
    write_rows(outputs / "metadata.jsonl", rows)
    write_json(outputs / "diagnostics" / "drawing.json", {"drawn": len(lacking), "seconds": round(seconds, 1)})
    mlflow.log_metrics({"class_images": len(rows), "class_images_drawn": len(lacking), "drawing_seconds": seconds})


@dataclass(frozen=True)
class Batch:
    """Class images drawn together: prompt and seed of each.

    A batch is always drawn whole: what else is lacking must not change a picture, not even by the rounding of another
    batch's shape.
    """

    rows: Sequence[tuple[str, int]]


def _draw(config: Config, batches: Mapping[Path, Batch]) -> None:
    """Draws batch by batch and keeps each at once in its folder, so a run that is killed has lost one batch."""
    from tqdm import tqdm

    from personalize.dreambooth.sampling import Sampling, load_pipeline, sample

    pipe = load_pipeline(config.base_model, revision=config.base_revision, device=config.device, dtype=config.dtype)
    sampling = Sampling(
        config.sampling_steps, config.guidance_scale, config.resolution, config.resolution, config.negative_prompt
    )
    with tqdm(total=len(batches) * config.batch_size, desc="class images", unit="picture") as bar:
        for folder, batch in batches.items():
            prompts, seeds = zip(*batch.rows, strict=True)
            pictures = sample(pipe, prompts, seeds, sampling, batch_size=config.batch_size)
            for i, picture in enumerate(pictures):
                with whole(folder / f"{i:04}.png") as part:
                    picture.save(part, "png")
            bar.update(len(pictures))


def _usable(file: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError):  # absent or damaged: Pillow has all three words for it
        return False
    return True


def _kept_folder(config: Config, batch: Batch) -> Path:
    """Named after everything that decides the pictures; what that was is told in `about.json`."""
    about = {
        "base": hub.identity(config.base_model, config.base_revision),
        "rows": list(batch.rows),
        "negative_prompt": config.negative_prompt,
        "sampling_steps": config.sampling_steps,
        "guidance_scale": config.guidance_scale,
        "resolution": config.resolution,
        "dtype": config.dtype,
    }
    text = json.dumps(about, sort_keys=True, ensure_ascii=False, indent=1)
    folder = KEPT / hashlib.sha256(text.encode()).hexdigest()[:16]
    write_text(folder / "about.json", text)
    return folder


def _prompt(config: Config, noun: str, captions: Sequence[str], number: int) -> str:
    turn, place = divmod(number, len(config.prompts))
    if config.prompts[place] != CAPTION:
        return config.prompts[place].replace("{class_noun}", noun)
    return captions[(turn * config.prompts.count(CAPTION) + config.prompts[:place].count(CAPTION)) % len(captions)]


def _seed(config: Config, noun: str, number: int) -> int:
    """32 bits of the picture's own, far from those that validation and evaluation count up from."""
    return int.from_bytes(hashlib.sha256(f"{config.seed}/prior/{noun}/{number}".encode()).digest()[:4], "big")
