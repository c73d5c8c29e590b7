"""Ingest: photographs in, clean images and a quality table out.   needs: -   gives: images/ (ImageFolder), qa.json

Reads `<data>/<class noun>/<token>/*.jpg`, or a flat folder of one subject with `token` and `class_noun`, or a zip or
tar of either. Every file is decoded, turned upright, converted to sRGB, judged and written anew as PNG, so that
nothing of its metadata (the place where it was taken, for one) goes any further. Nothing in the user's folder is
changed.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from personalize.cards import Card
from personalize.files import dvc_digest, tree_digest
from personalize.recipe import Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from personalize.photographs.curation import File, Rules
    from personalize.photographs.prompts import Subject

NEEDS = ()


class Config(StepConfig):
    data: str = Field(
        "data",
        min_length=1,
        description="Folder, zip or tar of photographs, or an https archive where allow_urls is true",
        json_schema_extra={"affects_result": False},  # its content does: see sources
    )
    token: str = Field("", description="Invented word for the one subject of a flat folder")
    class_noun: str = Field("", description="Everyday word for the one subject of a flat folder")
    rights: str = Field("", description="Who allowed this use of the photographs; cards and registered model say it")
    min_photographs: int = Field(3, ge=1, description="Usable photographs that each subject must have")
    resolution: int = Field(1024, ge=16, description="Side in pixels at which training will see the photographs")
    min_side: int = Field(0, ge=0, description="Pixels that the short side needs (0: half the resolution)")
    short_side: int = Field(
        0, ge=0, description="Pixels to which a longer short side is reduced (0: twice the resolution)"
    )
    blur_reject: float = Field(20.0, ge=0, description="Sharpness below which a photograph is rejected (0: never)")
    blur_warn: float = Field(100.0, ge=0, description="Sharpness below which a photograph is kept with a warning")
    duplicate: float = Field(0.08, ge=0, lt=1, description="Share of hash bits up to which two photographs are one")
    max_megapixels: float = Field(100, gt=0, description="A photograph with more pixels is rejected undecoded")
    max_megabytes: float = Field(200, gt=0, description="A file with more bytes is rejected unread")
    max_files: int = Field(10_000, ge=1, description="Files that an archive may hold")
    max_archive_megabytes: float = Field(4_000, gt=0, description="Megabytes that an archive may hold unpacked")
    allow_urls: bool = Field(False, description="Whether data may be the https address of an archive")
    download_seconds: float = Field(600, gt=0, description="Time that a download may take")
    data_sha256: str = Field("", pattern="^([0-9a-f]{64})?$", description="What a downloaded archive must hash to")


def sources(config: Config) -> Mapping[str, str]:
    """The photographs' digest: what `dvc add` would pin, so an unchanged `data/` counts as what data.dvc says."""
    if _is_url(config.data):
        return {"data": config.data_sha256 or hashlib.sha256(config.data.encode()).hexdigest()}
    return {"data": tree_digest(_located(config.data))}


def run(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    from tqdm import tqdm

    from personalize.photographs.curation import File, curate, write_tables
    from personalize.photographs.layout import WrongLayout, find_photographs, subjects_of
    from personalize.photographs.unpacking import Refused

    try:
        with _folder(config) as (folder, digest):
            layout = find_photographs(folder, config.token, config.class_noun)
            progress = tqdm(layout.candidates, desc="photographs", unit="photo", disable=None)
            files = curate(progress, outputs / "images", _rules(config))
    except Refused as error:
        raise RecipeError(f"data: {error}") from error
    except WrongLayout as error:  # an archive was unpacked to a place that means nothing to the user
        raise RecipeError(str(error).replace(str(folder), _shown_source(config))) from error
    files += [File(name, verdict="left out", reasons=[reason]) for name, reason in layout.left_out.items()]

    subjects = subjects_of(layout.candidates)
    write_tables(files, outputs, {"data": _shown_source(config), "digest": digest, "rights": config.rights.strip()})
    _log(files, subjects, config, digest)
    _show(card, files, subjects, config, digest)
    _require_enough(files, subjects, config)


@contextmanager
def _folder(config: Config) -> Iterator[tuple[Path, str]]:
    """The photographs as a folder (an archive unpacked for as long as needed), and the digest of what was given."""
    from personalize.photographs.unpacking import Limits, Refused, download, is_archive, unpack

    limits = Limits(
        files=config.max_files,
        member_bytes=int(config.max_megabytes * 1e6),
        total_bytes=int(config.max_archive_megabytes * 1e6),
        seconds=config.download_seconds,
    )
    with tempfile.TemporaryDirectory(prefix="ingest-") as scratch:
        if _is_url(config.data):
            if not config.allow_urls:
                raise RecipeError(
                    "data is an address, and this profile does not fetch from the network (allow_urls: false). "
                    "Download the archive yourself and give the file, or set ingest.allow_urls to true."
                )
            archive = Path(scratch, "download")
            digest = download(config.data, archive, limits)
            if config.data_sha256 and digest != config.data_sha256:
                raise Refused(
                    f"the downloaded archive has sha256 {digest}, not the {config.data_sha256} of "
                    "ingest.data_sha256: it was changed since. Check where it comes from before you change the key."
                )
        else:
            archive = _located(config.data)
            digest = tree_digest(archive)
        if archive.is_dir():
            yield archive, digest
            return
        if not _is_url(config.data) and not is_archive(archive):
            raise RecipeError(
                f"data: {archive} is a single file and neither zip nor tar. Give the folder in which the "
                f"photographs lie, or an archive of it."
            )
        unpack(archive, Path(scratch, "unpacked"), limits)
        yield Path(scratch, "unpacked"), digest


def _located(data: str) -> Path:
    """The path that `data` names. RecipeError where there is nothing."""
    path = Path(data).expanduser()
    if path.exists():
        return path
    pin = Path(f"{data.rstrip('/')}.dvc")
    if pin.is_file():
        raise RecipeError(f"data: {data} is not here yet; {pin} pins it. Fetch it with: dvc pull {pin}")
    raise RecipeError(
        f"data: {data} does not exist (looked for {path.absolute()}). Give the folder, zip or tar with your "
        f"photographs, e.g. -P data=photographs"
    )


def _is_url(data: str) -> bool:
    return "://" in data


def _rules(config: Config) -> Rules:
    from dataclasses import fields

    from personalize.photographs.curation import Rules

    given = {rule.name: getattr(config, rule.name) for rule in fields(Rules)}
    derived = {"min_side": config.resolution // 2, "short_side": config.resolution * 2}
    return Rules(**{name: value or derived.get(name, value) for name, value in given.items()})


def _log(files: Sequence[File], subjects: Sequence[Subject], config: Config, digest: str) -> None:
    """The dataset with its digest, the counts, and a contact sheet of each subject, in MLflow."""
    import mlflow
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset

    from personalize.photographs.curation import contact_sheet

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "can be interpreted in multiple ways": all of them name the same path
        source = resolve_dataset_source(_shown_source(config))
    name = Path(config.data).name or "photographs"
    mlflow.log_input(MetaDataset(source, name=name, digest=digest[:36]), context="training")
    counts = Counter(file.verdict for file in files)
    mlflow.log_metrics(
        {
            "subjects": len(subjects),
            "photographs_kept": counts["kept"] + counts["warned"],
            "photographs_warned": counts["warned"],
            "photographs_rejected": counts["rejected"] + counts["left out"],
        }
    )
    for subject in subjects:
        mlflow.log_image(contact_sheet(_of(subject, files)), artifact_file=f"contact_sheets/{subject.token}.png")


def _show(card: Card, files: Sequence[File], subjects: Sequence[Subject], config: Config, digest: str) -> None:
    kept = sum(file.kept for file in files)
    card.facts(
        {
            "photographs kept": f"{kept} of {len(files)}",
            "subjects": ", ".join(subject.name for subject in subjects),
            "data": _shown_source(config),
            "digest": digest + (" (pinned by DVC)" if _pinned(config) == digest else ""),
            **({"rights": config.rights.strip()} if config.rights.strip() else {}),
        }
    )
    for warning in _warnings(files, config, digest):
        card.warning(warning)
    for subject in subjects:
        own = _of(subject, files)
        pictures = [(file.thumbnail, Path(file.source).name) for file in own if file.kept]
        card.images(f"{subject.name}: {len(pictures)} of {len(own)} photographs", pictures, columns=5, width=160)
    rows = [
        [
            file.thumbnail or "",
            file.source,
            file.verdict,
            "; ".join(file.reasons + file.notes),
            f"{file.width} x {file.height}" if file.width else None,
            None if file.sharpness is None else round(file.sharpness),
        ]
        for file in sorted(files, key=lambda file: ("rejected", "left out", "warned", "kept").index(file.verdict))
    ]
    card.table("Every file", ["", "file", "verdict", "why, and what was done", "pixels", "sharpness"], rows)
    card.text(
        f"Kept photographs are written as PNG: upright, sRGB, no metadata, short side at most "
        f"{_rules(config).short_side} pixels. Sharpness is the variance of the Laplacian in the sharpest part of the "
        f"picture, at a short side of 512 pixels with the contrast evened out: below {config.blur_reject:g} a "
        f"photograph is rejected, below {config.blur_warn:g} it is kept with a warning; a sharp one has 800 and more. "
        f"Nothing in your folder was changed."
    )


def _warnings(files: Sequence[File], config: Config, digest: str) -> list[str]:
    counts = Counter(file.verdict for file in files)
    found = []
    if unused := counts["rejected"] + counts["left out"]:
        found.append(f"{unused} file(s) were not used; the table below says why of each.")
    if counts["warned"]:
        found.append(f"{counts['warned']} photograph(s) were kept with a warning; see the table.")
    if _is_url(config.data) and not config.data_sha256:
        found.append(
            f"What lies at the address may change and the result would still count as up to date. To hold it fast set "
            f"ingest.data_sha256 to {digest}"
        )
    if (pinned := _pinned(config)) and pinned != digest:
        found.append(
            f"{config.data} is not what its .dvc file pins ({pinned}): pin it with `dvc add {config.data}`, or get the "
            f"pinned photographs back with `dvc checkout {config.data}`."
        )
    return found


def _pinned(config: Config) -> str | None:
    """The digest that `<data>.dvc` pins, where there is one."""
    return None if _is_url(config.data) else dvc_digest(f"{config.data.rstrip('/')}.dvc")


def _require_enough(files: Sequence[File], subjects: Sequence[Subject], config: Config) -> None:
    short = [subject for subject in subjects if sum(file.kept for file in _of(subject, files)) < config.min_photographs]
    if not short:
        return
    lines = []
    for subject in short:
        own = _of(subject, files)
        lines.append(f"  {subject.name}: {sum(file.kept for file in own)} usable of {len(own)} found")
        lines += [f"      {file.source}: {'; '.join(file.reasons)}" for file in own if not file.kept][:5]
    raise RecipeError(
        f"data: {_shown_source(config)} has too few usable photographs, {config.min_photographs} of each subject are "
        "needed (4 to 10 are best):\n" + "\n".join(lines) + "\nAdd photographs of it from other sides and before "
        "other backgrounds, remove its folder, or set ingest.min_photographs."
    )


def _of(subject: Subject, files: Sequence[File]) -> list[File]:
    return [file for file in files if (file.token, file.class_noun) == (subject.token, subject.class_noun)]


def _shown_source(config: Config) -> str:
    from personalize.photographs.unpacking import without_query

    return without_query(config.data) if _is_url(config.data) else config.data
