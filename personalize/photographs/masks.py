"""Masks: where on a photograph its subject is, as people and their tools write it down.

For `photo.jpg` that is the photograph's own alpha channel, or a file in which the subject is white:

    photo.mask.png, photo-masklabel.png (OneTrainer), photo-mask.png, photo_mask.png
    mask/photo.png or masks/photo.png in its folder
    <its folder>_mask/photo.png beside its folder (what sd-scripts calls conditioning_data_dir)

Grey is in between. A mask that meets no photograph is named, with the reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageOps

from personalize.photographs.reading import ORIENTATION, Photograph, Unusable, read_photograph
from personalize.photographs.sidecars import Names

ALPHA: Final = "alpha channel"
_SURE: Final = (".mask", "-masklabel")
"""Endings of a file's name that nothing but a mask has."""
_LIKELY: Final = ("-mask", "_mask")
"""Endings that are a mask's where there is a photograph of the name before: a mask can be the subject, too."""
_FOLDERS: Final = ("mask", "masks")
_LEAST, _MOST = 0.001, 0.999


def mask_file(images: Path, name: str) -> Path:
    """Where ingest keeps the mask of `images`/`name`, where it has one."""
    return images.parent / "masks" / name


def masks_of(pictures: Collection[Path]) -> tuple[dict[Path, Path], dict[Path, str]]:
    """Among `pictures`: (the mask of each photograph that has one, masks that are not used and why)."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in pictures:
        folders[path.parent].append(path)
    masks: dict[Path, Path] = {}
    unused: dict[Path, str] = {}
    for path in pictures:
        meant, sure = _meant(path, folders)
        if meant is not None and meant not in masks:
            masks[meant] = path
        elif meant is not None:
            unused[path] = f"a second mask of {meant.name}"
        elif sure:
            unused[path] = "a mask for which there is no photograph of that name"
    return masks, unused


def _meant(path: Path, folders: Mapping[Path, list[Path]]) -> tuple[Path | None, bool]:
    """The photograph that `path` would be the mask of, and whether it can be nothing but a mask."""
    for ending in (*_SURE, *_LIKELY):
        if path.stem.lower().endswith(ending):
            meant = Names(folders[path.parent], path.parent).meant(path.stem[: -len(ending)])
            if meant is not None or ending in _SURE:
                return meant, ending in _SURE
    folder = path.parent
    beside = folder.parent
    for ending in _FOLDERS:
        if folder.name.lower() == ending:
            others = folders.get(beside, [])
        elif folder.name.lower().endswith(f"_{ending}"):
            others = folders.get(beside / folder.name[: -len(ending) - 1], [])
        else:
            continue
        if others:
            return Names(others, others[0].parent).meant(path.stem), True
    return None, False


def mask_of(photograph: Photograph, file: Path | None) -> Image.Image | None:
    """The photograph's mask, L in its size, 255 where the subject is: from `file`, else its alpha channel, else None.

    Raises Unusable for a file that is no mask of this photograph.
    """
    mask = photograph.alpha if file is None else _read(file, photograph)
    if mask is None:
        return None
    share = share_of(mask)
    if share < _LEAST:
        raise Unusable("it shows no subject: all of it is black")
    return mask if share < _MOST else None  # all is subject: there are no surroundings to tell apart


def share_of(mask: Image.Image) -> float:
    """How much of the picture is subject, 0 to 1."""
    return float(np.asarray(mask).mean()) / 255


def _read(file: Path, photograph: Photograph) -> Image.Image:
    """In the photograph's size. One drawn on the photograph as it was stored, not turned upright, is turned with it."""
    read = read_photograph(file)
    mask = read.image.convert("L") if read.alpha is None else read.alpha
    if not _alike(mask.size, photograph.image.size) and _alike(mask.size[::-1], photograph.image.size):
        mask.getexif()[ORIENTATION] = photograph.orientation
        mask = ImageOps.exif_transpose(mask)
    if not _alike(mask.size, photograph.image.size):
        width, height = photograph.image.size
        raise Unusable(f"it has {mask.width} x {mask.height} pixels and its photograph {width} x {height}")
    return mask.resize(photograph.image.size, Image.Resampling.BILINEAR)


def _alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes have one aspect ratio, but for the rounding of a reduced copy."""
    return abs(size[0] * other[1] / (size[1] * other[0]) - 1) < 0.02
