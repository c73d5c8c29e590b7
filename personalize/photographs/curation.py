"""Curation: candidates in, the photographs worth learning from out, and for every file a verdict with its reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image

from personalize.photographs.layout import Candidate
from personalize.photographs.quality import difference_hash, is_blank, near_duplicates, sharpness
from personalize.photographs.reading import Unusable, read_photograph, reduced, safe_stem, write_png

Verdict = Literal["kept", "warned", "rejected", "left out"]
THUMBNAIL = 320
SHOWN = (
    "source",
    "token",
    "class_noun",
    "verdict",
    "reasons",
    "notes",
    "width",
    "height",
    "sharpness",
    "file_name",
)
"""What qa.json says of each file."""


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


@dataclass
class File:
    """One file of the user's and what became of it. `width`, `height`: as it was given, turned upright."""

    source: str
    token: str = ""
    class_noun: str = ""
    verdict: Verdict = "kept"
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    width: int = 0
    height: int = 0
    sharpness: float | None = None
    soft: bool = False
    file_name: str = ""
    written: tuple[int, int] = (0, 0)
    sha256: str = ""
    caption: str | None = None
    thumbnail: Image.Image | None = None

    @property
    def kept(self) -> bool:
        return self.verdict in ("kept", "warned")

    def reject(self, reason: str) -> None:
        self.verdict, self.reasons = "rejected", [reason, *self.reasons]

    def warn(self, reason: str) -> None:
        self.verdict, self.reasons = "warned", [*self.reasons, reason]


def curate(candidates: Iterable[Candidate], images: Path, rules: Rules) -> list[File]:
    """Writes every usable photograph to `images`/<class noun>/<token>/<stem>.png; returns all files with their
    verdicts.
    """
    files: list[File] = []
    hashes = {}
    taken: set[str] = set()
    for candidate in candidates:
        subject = candidate.subject
        file = File(candidate.name, subject.token, subject.class_noun, caption=candidate.caption)
        files.append(file)
        try:
            photograph = read_photograph(
                candidate.path, max_megapixels=rules.max_megapixels, max_megabytes=rules.max_megabytes
            )
        except Unusable as reason:
            file.reject(str(reason))
            continue
        image = reduced(photograph.image, rules.short_side)
        file.notes = list(photograph.notes)
        file.width, file.height = photograph.image.size
        file.written = image.size
        file.thumbnail = _thumbnail(image)
        judge(file, photograph.image, rules)
        if file.kept:
            stem = f"{subject.class_noun}/{subject.token}/{safe_stem(candidate.path.name)}"
            file.file_name = _free_name(stem, taken)
            file.sha256 = write_png(image, images / file.file_name)
            hashes[len(files) - 1] = difference_hash(image)
    # The sharp and large come first, so that of two copies the better one stays.
    order = sorted(hashes, key=lambda index: (files[index].soft, -files[index].width * files[index].height, index))
    for near in near_duplicates([hashes[index] for index in order], rules.duplicate):
        _repeated(files[order[near.index]], files[order[near.like]], near.distance, images)
    return files


def write_tables(files: Sequence[File], outputs: Path, about: Mapping[str, str]) -> None:
    """`images/metadata.jsonl`, which `datasets.load_dataset("imagefolder")` reads, and `qa.json` with every file.

    about: what qa.json says of the whole, before counts and files.
    """
    lines = [
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
    (outputs / "images").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (outputs / "images" / "metadata.jsonl").write_text(text, encoding="utf-8")
    table = {
        **about,
        "counts": dict(Counter(file.verdict for file in files)),
        "files": [{key: getattr(file, key) for key in SHOWN} for file in files],
    }
    (outputs / "qa.json").write_text(json.dumps(table, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def judge(file: File, image: Image.Image, rules: Rules) -> None:
    """Rejects or warns by what is to be seen: emptiness, size, sharpness."""
    width, height = image.size
    file.sharpness = round(sharpness(image), 1)
    if is_blank(image):
        file.reject("nothing is to be seen on it: all of it has one colour")
    elif min(image.size) < rules.min_side:
        file.reject(f"too small: {width} x {height} pixels, the shorter side needs {rules.min_side} (min_side)")
    elif file.sharpness < rules.blur_reject:
        file.reject(f"blurred: sharpness {file.sharpness:g}, at least {rules.blur_reject:g} is needed (blur_reject)")
    else:
        if file.sharpness < rules.blur_warn:
            file.soft = True
            file.warn(f"soft: sharpness {file.sharpness:g}, below {rules.blur_warn:g}")
        if min(image.size) < rules.resolution:
            file.warn(f"{width} x {height} pixels, enlarged to {rules.resolution} for training")


def _repeated(file: File, like: File, distance: float, images: Path) -> None:
    if (file.token, file.class_noun) != (like.token, like.class_noun):
        file.warn(f"nearly the same as {like.source}: one photograph cannot show two subjects, remove it from one")
        return
    file.reject(f"nearly the same as {like.source} ({distance:.1%} of the hash bits differ)")
    (images / file.file_name).unlink()
    file.file_name = file.sha256 = ""


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
