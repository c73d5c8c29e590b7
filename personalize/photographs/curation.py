"""Curation: candidates in, the photographs worth learning from out, and for every file a verdict with its reason."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from personalize.files import write_json, write_rows
from personalize.photographs.layout import Candidate
from personalize.photographs.masks import ALPHA, mask_file, mask_of, share_of
from personalize.photographs.prompts import Subject
from personalize.photographs.quality import difference_hash, is_blank, near_duplicates, sharpness
from personalize.photographs.reading import Photograph, Unusable, read_photograph, reduced, safe_stem, write_png

Verdict = Literal["kept", "warned", "rejected", "left out"]
THUMBNAIL = 320
_GIST = re.compile(r"nearly the same|[^:;(,]+")
"""What a reason begins with; the rest is of one file alone."""
SHOWN = (
    *("source", "token", "class_noun", "verdict", "reasons", "notes", "width", "height", "sharpness", "file_name"),
    *("mask", "subject_share"),
)
"""What qa.json says of each file, and besides where its `picture` lies."""
LEAST_FOUND: Final = 0.01
"""Share of a picture below which a model has found nothing on it."""
FOUND: Final = "found by the model"
"""Where a mask came from that no one gave."""
Segment = Callable[[Image.Image, str], Image.Image]
"""(photograph, class noun) -> its mask, L in the photograph's size."""


@dataclass(frozen=True)
class Rules:
    """Thresholds; the ingest step's configuration describes each."""

    resolution: int
    min_side: int
    short_side: int
    blur_reject: float = 20.0
    blur_warn: float = 100.0
    duplicate: float = 0.08
    max_megapixels: float = 100.0
    max_megabytes: float = 200.0


@dataclass(frozen=True)
class File:
    """One file of the user's and what became of it. `width`, `height`: as it was given, turned upright.

    mask: where its mask came from, empty without one; subject_share: how much of the picture that calls subject.
    """

    source: str
    token: str = ""
    class_noun: str = ""
    verdict: Verdict = "kept"
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    width: int = 0
    height: int = 0
    sharpness: float | None = None
    soft: bool = False
    file_name: str = ""
    written: tuple[int, int] = (0, 0)
    sha256: str = ""
    caption: str | None = None
    thumbnail: Image.Image | None = None
    bits: npt.NDArray[np.bool_] | None = None
    mask: str = ""
    subject_share: float | None = None

    @property
    def kept(self) -> bool:
        return self.verdict in ("kept", "warned")

    def rejected(self, reason: str) -> File:
        return replace(self, verdict="rejected", reasons=(reason, *self.reasons), file_name="", sha256="")

    def warned(self, reason: str) -> File:
        return replace(self, verdict="warned", reasons=(*self.reasons, reason))


def curate(candidates: Iterable[Candidate], images: Path, rules: Rules, segment: Segment | None = None) -> list[File]:
    """Writes the usable photographs to `images`/<class noun>/<token>/<stem>.png; returns all files with verdicts.

    Masks go where `masks.mask_file` says: those that were given, and for the others what `segment` finds.
    """
    taken: set[str] = set()
    files = [_taken_in(candidate, images, taken, rules, segment) for candidate in candidates]
    hashes = {index: file.bits for index, file in enumerate(files) if file.bits is not None}
    # The sharp and large come first, so that of two copies the better one stays.
    order = sorted(hashes, key=lambda index: (files[index].soft, -files[index].width * files[index].height, index))
    for near in near_duplicates([hashes[index] for index in order], rules.duplicate):
        index, like = order[near.index], files[order[near.like]]
        repeated = _repeated(files[index], like, near.distance)
        if not repeated.kept:
            (images / files[index].file_name).unlink()
            mask_file(images, files[index].file_name).unlink(missing_ok=True)
        files[index] = repeated
    return files


def _taken_in(candidate: Candidate, images: Path, taken: set[str], rules: Rules, segment: Segment | None) -> File:
    """One file read, judged by itself and, if it is good, written."""
    subject = candidate.subject
    file = File(candidate.name, subject.token, subject.class_noun, caption=candidate.caption)
    try:
        photograph = read_photograph(
            candidate.path, max_megapixels=rules.max_megapixels, max_megabytes=rules.max_megabytes
        )
    except Unusable as reason:
        return file.rejected(str(reason))
    image = reduced(photograph.image, rules.short_side)
    width, height = photograph.image.size
    read = replace(file, notes=photograph.notes, width=width, height=height, thumbnail=_thumbnail(image))
    judged = _judged(read, photograph.image, rules)
    if not judged.kept:
        return judged
    name = _free_name(f"{subject.class_noun}/{subject.token}/{safe_stem(candidate.path.name)}", taken)
    sha256 = write_png(image, images / name)
    written = replace(judged, file_name=name, sha256=sha256, written=image.size, bits=difference_hash(image))
    return _masked(written, candidate, photograph, image, images, segment)


def _masked(
    file: File, candidate: Candidate, photograph: Photograph, image: Image.Image, images: Path, segment: Segment | None
) -> File:
    """Its mask written in the size of `image`, which is the photograph as it was written."""
    where = candidate.mask.name if candidate.mask else ALPHA
    try:
        mask = mask_of(photograph, candidate.mask)
    except Unusable as reason:
        return file.warned(f"its mask ({where}) is not used: {reason}")
    if mask is not None:
        mask = mask.resize(image.size, Image.Resampling.BOX)
    elif segment is not None and candidate.mask is None and photograph.alpha is None:
        where, mask = FOUND, segment(image, file.class_noun)
        if share_of(mask) < LEAST_FOUND:
            return file.warned(f"no mask: the model saw no {file.class_noun} on it")
    if mask is None:
        return file
    write_png(mask, mask_file(images, file.file_name))
    return replace(file, mask=where, subject_share=round(share_of(mask), 3))


def _judged(file: File, image: Image.Image, rules: Rules) -> File:
    """Rejected or warned of by what is to be seen: emptiness, size, sharpness."""
    width, height = image.size
    sharp = round(sharpness(image), 1)
    file = replace(file, sharpness=sharp)
    if is_blank(image):
        return file.rejected("nothing is to be seen on it: all of it has one colour")
    if min(image.size) < rules.min_side:
        return file.rejected(
            f"too small: {width} x {height} pixels, the shorter side needs {rules.min_side} (min_side)"
        )
    if sharp < rules.blur_reject:
        return file.rejected(f"blurred: sharpness {sharp:g}, at least {rules.blur_reject:g} is needed (blur_reject)")
    if sharp < rules.blur_warn:
        file = replace(file, soft=True).warned(f"soft: sharpness {sharp:g}, below {rules.blur_warn:g}")
    if min(image.size) < rules.resolution:
        file = file.warned(f"{width} x {height} pixels, enlarged to {rules.resolution} for training")
    return file


def _repeated(file: File, like: File, distance: float) -> File:
    if (file.token, file.class_noun) != (like.token, like.class_noun):
        return file.warned(
            f"nearly the same as {like.source}: one photograph cannot show two subjects, remove it from one"
        )
    return file.rejected(f"nearly the same as {like.source} ({distance:.1%} of the hash bits differ)")


def _free_name(stem: str, taken: set[str]) -> str:
    """`stem`.png, numbered where two of the user's names become one; compared as case-blind file systems do."""
    name, number = f"{stem}.png", 2
    while name.lower() in taken:
        name, number = f"{stem}-{number}.png", number + 1
    taken.add(name.lower())
    return name


def _thumbnail(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    return small


def write_tables(files: Sequence[File], outputs: Path, digest: str) -> None:
    """`images/metadata.jsonl`, which `datasets.load_dataset("imagefolder")` reads, and `qa.json` with every file.

    What was not kept is kept small, in `thumbnails/`, so that a person can see what was wrong with it.
    """
    kept = [
        {
            "file_name": file.file_name,
            "token": file.token,
            "class_noun": file.class_noun,
            "width": file.written[0],
            "height": file.written[1],
            "source": file.source,
            "sha256": file.sha256,
            "caption": file.caption,
        }
        for file in files
        if file.kept
    ]
    write_rows(outputs / "images" / "metadata.jsonl", kept)
    rows: list[dict[str, Any]] = []
    for number, file in enumerate(files):
        picture = f"images/{file.file_name}" if file.kept else f"thumbnails/{number:04}.png" if file.thumbnail else ""
        if file.thumbnail and not file.kept:
            write_png(file.thumbnail, outputs / picture)
        rows.append({**{key: getattr(file, key) for key in SHOWN}, "picture": picture})
    counts = Counter(file.verdict for file in files)
    write_json(outputs / "qa.json", {"digest": digest, "counts": counts, "files": rows})


def unused(files: Sequence[Mapping[str, Any]]) -> str:
    """One line: how many of the files of qa.json were not used, and why, by how the reason begins; empty where none."""
    lost = [file["reasons"][0] for file in files if file["verdict"] in ("rejected", "left out")]
    if not lost:
        return ""
    reasons = Counter(begun[0].strip() if (begun := _GIST.match(reason)) else reason for reason in lost)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{len(lost)} of {len(files)} files were not used: {why}; the table on the card says which."


def files_of(subject: Subject, files: Sequence[File]) -> list[File]:
    return [file for file in files if (file.token, file.class_noun) == (subject.token, subject.class_noun)]


def lacking(files: Sequence[File], subjects: Sequence[Subject], least: int) -> str:
    """A line for each subject with fewer than `least` usable photographs, and why the others are not; else empty."""
    lines: list[str] = []
    for subject in subjects:
        own = files_of(subject, files)
        usable = sum(file.kept for file in own)
        if usable < least:
            lines.append(f"  {subject.name}: {usable} usable of {len(own)} found")
            lines += [f"      {file.source}: {'; '.join(file.reasons)}" for file in own if not file.kept][:5]
    return "\n".join(lines)


def contact_sheet(files: Sequence[File], columns: int = 5, cell: int = 200) -> Image.Image:
    """The kept photographs side by side on white, in the order given."""
    kept = [file.thumbnail for file in files if file.kept and file.thumbnail]
    rows = max(1, -(-len(kept) // columns))
    sheet = Image.new("RGB", (cell * min(columns, max(1, len(kept))), cell * rows), "white")
    for index, picture in enumerate(kept):
        small = picture.copy()
        small.thumbnail((cell - 8, cell - 8))
        left = index % columns * cell + (cell - small.width) // 2
        sheet.paste(small, (left, index // columns * cell + (cell - small.height) // 2))
    return sheet
