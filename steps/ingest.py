"""Ingest: photographs in, clean images and a quality table out.   needs: -   gives: images/, masks/, qa.json

Reads `<data>/<class noun>/<token>/*.jpg`, or a flat folder of one subject with `token` and `class_noun`, or a zip or
tar of either. Every file is decoded, turned upright, converted to sRGB, judged and written anew as PNG, so that
nothing of its metadata (the place where it was taken, for one) goes any further. Nothing in the user's folder is
changed. A photograph's mask, from its alpha channel or a file beside it, is kept in `masks/` under the same name.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from personalize import hub
from personalize.files import write_json
from personalize.recipe import HOW_NOT_WHAT, OUTSIDE_DATA, Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from personalize.photographs.curation import File, Rules, Segment
    from personalize.photographs.prompts import Subject

NEEDS = ()


class Config(StepConfig):
    data: str = Field(
        "data",
        min_length=1,
        description="Folder, zip or tar of photographs, or the https address of an archive",
        json_schema_extra=OUTSIDE_DATA,
    )
    data_sha256: str = Field("", pattern="^([0-9a-f]{64})?$", description="What a downloaded archive must hash to")
    token: str = Field("", description="Invented word for the one subject of a flat folder")
    class_noun: str = Field("", description="Everyday word for the one subject of a flat folder")
    rights: str = Field("", description="Who allowed this use of the photographs", json_schema_extra=HOW_NOT_WHAT)
    min_photographs: int = Field(3, ge=1, description="Usable photographs that each subject must have")
    resolution: int = Field(
        1024, ge=32, multiple_of=8, description="Side in pixels at which training will see the photographs"
    )
    min_side: int = Field(0, ge=0, description="Pixels that the short side needs (0: half the resolution)")
    short_side: int = Field(
        0, ge=0, description="Pixels to which a longer short side is reduced (0: twice the resolution)"
    )
    blur_reject: float = Field(20.0, ge=0, description="Sharpness below which a photograph is rejected (0: never)")
    blur_warn: float = Field(100.0, ge=0, description="Sharpness below which a photograph is kept with a warning")
    duplicate: float = Field(0.08, ge=0, lt=1, description="Share of hash bits up to which two photographs are one")
    max_megapixels: float = Field(100, gt=0, description="A photograph with more pixels is rejected undecoded")
    max_megabytes: float = Field(200, gt=0, description="A file with more bytes is rejected unread")
    masks: Literal["given", "model"] = Field(
        "given",
        description="Where masks of the subject come from: those given with the photographs, or for the others a model",
    )
    mask_model: str = Field("", description="For masks model: a CLIPSeg that finds the class noun, folder or hub name")
    mask_revision: str = Field("", description="Commit of a Hugging Face mask model (40 hexadecimal digits)")
    device: hub.Device = Field("auto", description="Where the mask model runs", json_schema_extra=HOW_NOT_WHAT)


def sources(config: Config) -> Mapping[str, str]:
    """The photographs' digest: what `dvc add` would pin, so an unchanged `data/` counts as what data.dvc says.

    And the mask model, where one is asked.
    """
    from personalize.photographs.source import identity
    from personalize.photographs.unpacking import Refused

    try:
        found = {"data": identity(located(config.data), config.data_sha256)}
    except Refused as error:
        raise RecipeError(f"data: {error}") from None
    if config.masks == "model":
        found["mask model"] = hub.identity(config.mask_model, config.mask_revision)
    return found


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from tqdm import tqdm

    from personalize.photographs.curation import File, curate, lacking, write_tables
    from personalize.photographs.layout import WrongLayout, find_photographs, subjects_of
    from personalize.photographs.source import opened, pinned, shown
    from personalize.photographs.unpacking import ArchiveLimits, Refused

    segment = segmenter(config)
    limits = ArchiveLimits(member_bytes=int(config.max_megabytes * 1e6))
    try:
        with opened(located(config.data), config.data_sha256, limits) as (folder, digest):
            layout = find_photographs(folder, config.token, config.class_noun)
            progress = tqdm(layout.candidates, desc="photographs", unit="photo", disable=None)
            files = curate(progress, outputs / "images", rules(config), segment)
    except Refused as error:
        raise RecipeError(f"data: {error}") from None
    except WrongLayout as error:  # an archive was unpacked to a place that means nothing to the user
        raise RecipeError(str(error).replace(str(folder), shown(config.data))) from error
    files += [File(name, verdict="left out", reasons=(reason,)) for name, reason in layout.left_out.items()]

    subjects = subjects_of(layout.candidates)
    write_tables(files, outputs, digest)
    write_json(outputs / "diagnostics" / "pin.json", {"dvc": pinned(config.data)})  # the checkout's, not the result's
    _log(files, subjects, config, digest)
    if few := lacking(files, subjects, config.min_photographs):
        raise RecipeError(
            f"data: {shown(config.data)} has too few usable photographs, {config.min_photographs} of each subject are "
            f"needed (4 to 10 are best):\n{few}\nAdd photographs of it from other sides and before other backgrounds, "
            f"remove its folder, or set ingest.min_photographs."
        )


def located(data: str) -> str:
    """`data`, and where that is in a volume which this machine does not see, a copy of it.

    Raises:
        RecipeError: the workspace does not let us, or there is nothing there.
    """
    if not data.startswith("/Volumes/"):
        return data
    from personalize.databricks.volumes import here
    from personalize.databricks.workspace import WorkspaceError

    try:
        return str(here(data))
    except WorkspaceError as error:
        raise RecipeError(f"data: {error}") from None


def segmenter(config: Config) -> Segment | None:
    """What finds masks, where one is asked for. Raises RecipeError where it cannot be loaded."""
    from personalize.photographs.segmentation import Segmenter

    if config.masks == "given":
        return None
    try:
        return Segmenter(config.mask_model, config.mask_revision or None, config.device)
    except ValueError as error:
        raise RecipeError(f"ingest.mask_model: {error}") from error


def rules(config: Config) -> Rules:
    """The thresholds of `config`, those that are 0 taken from the resolution."""
    from personalize.photographs.curation import Rules

    given = {rule.name: getattr(config, rule.name) for rule in fields(Rules)}
    derived = {"min_side": config.resolution // 2, "short_side": config.resolution * 2}
    return Rules(**{name: value or derived.get(name, value) for name, value in given.items()})


def _log(files: Sequence[File], subjects: Sequence[Subject], config: Config, digest: str) -> None:
    """The dataset with its digest, the counts, and a contact sheet of each subject, in MLflow."""
    import mlflow
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset

    from personalize.photographs.curation import contact_sheet, files_of
    from personalize.photographs.source import shown

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "can be interpreted in multiple ways": all of them name the same path
        source = resolve_dataset_source(shown(config.data))
    name = Path(shown(config.data)).name or "photographs"
    dataset = MetaDataset(source, name=name, digest=digest[:36])  # type: ignore[abstract]
    mlflow.log_input(dataset, context="training")
    counts = Counter(file.verdict for file in files)
    mlflow.log_metrics(
        {
            "subjects": len(subjects),
            "photographs_kept": counts["kept"] + counts["warned"],
            "photographs_warned": counts["warned"],
            "photographs_rejected": counts["rejected"] + counts["left out"],
            "photographs_masked": sum(file.kept and bool(file.mask) for file in files),
        }
    )
    for subject in subjects:
        mlflow.log_image(contact_sheet(files_of(subject, files)), artifact_file=f"contact_sheets/{subject.token}.png")
