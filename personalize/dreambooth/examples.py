"""Examples: the pictures a run learns from, with what the UNet is told of each, and those kept back for scoring."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from personalize.dreambooth.randomness import permutation
from personalize.dreambooth.shapes import Size
from personalize.files import read_rows
from personalize.photographs.masks import mask_file

ENOUGH_TO_SPARE_ONE = 4
"""Photographs a subject needs before some are kept from training for scoring."""


@dataclass(frozen=True)
class Example:
    """A picture and what the UNet is told about it. `token` is empty for a class image.

    mask: a picture of the same size that is white where the subject is.
    """

    path: Path
    size: Size
    caption: str
    class_noun: str = ""
    token: str = ""
    mask: Path | None = None

    @property
    def name(self) -> str:
        return "/".join(self.path.parts[-3:])


def read_photographs(images: Path, captions: Path) -> list[Example]:
    """The photographs of `captions` (metadata.jsonl: file_name, token, class_noun, text) below `images`, by name.

    With their masks, where ingest left any.
    Raises ValueError naming a photograph that has a caption and no file.
    """
    rows = sorted(read_rows(captions), key=lambda row: row["file_name"])
    for row in rows:
        if not (images / row["file_name"]).is_file():
            raise ValueError(f"{captions}: {row['file_name']} has a caption but is not in {images}.")
    paths = [images / row["file_name"] for row in rows]
    masks = [mask_file(images, row["file_name"]) for row in rows]
    return [
        Example(
            path, picture_size(path), row["text"], row["class_noun"], row["token"], mask if mask.is_file() else None
        )
        for path, row, mask in zip(paths, rows, masks, strict=True)
    ]


def read_class_images(folder: Path) -> list[Example]:
    """The class images of `folder`/metadata.jsonl (file_name, class_noun, text); none when it has none."""
    if not (folder / "metadata.jsonl").is_file():
        return []
    rows = sorted(read_rows(folder / "metadata.jsonl"), key=lambda row: row["file_name"])
    paths = [folder / row["file_name"] for row in rows]
    return [
        Example(path, picture_size(path), row["text"], row["class_noun"]) for path, row in zip(paths, rows, strict=True)
    ]


def about_subjects(class_images: Sequence[Example], photographs: Sequence[Example]) -> dict[str, list[str]]:
    """Of the captions of class images that name their class: the same about each of its subjects, by token.

    "a photo of a chair in the snow" becomes "a photo of a bcnchr chair in the snow".
    """
    found = {}
    for image in class_images:
        noun = re.compile(rf"\b{re.escape(image.class_noun)}\b")
        tokens = sorted({photo.token for photo in photographs if photo.class_noun == image.class_noun})
        if tokens and noun.search(image.caption):
            found[image.caption] = [noun.sub(f"{token} {image.class_noun}", image.caption, count=1) for token in tokens]
    return found


def picture_size(path: Path) -> Size:
    """From the file's header."""
    from PIL import Image

    with Image.open(path) as image:
        return Size(image.height, image.width)


def hold_out(photographs: Sequence[Example], count: int, seed: int) -> tuple[list[Example], list[Example]]:
    """(to train on, to score against): `count` photographs of each subject that has enough of them are kept back.

    Chosen by the seed; at least three are always left to train on.
    """
    kept: set[Path] = set()
    for token, class_noun in sorted({(p.token, p.class_noun) for p in photographs}):
        own = [p for p in photographs if (p.token, p.class_noun) == (token, class_noun)]
        if len(own) >= ENOUGH_TO_SPARE_ONE:
            order = permutation(len(own), seed, "held out", token, class_noun)
            kept |= {own[i].path for i in order[: min(count, len(own) - ENOUGH_TO_SPARE_ONE + 1)]}
    return [p for p in photographs if p.path not in kept], [p for p in photographs if p.path in kept]
