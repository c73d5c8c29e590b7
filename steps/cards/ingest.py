"""The card of ingest: each subject's photographs, and of every file what became of it and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.cards import Card
from personalize.files import read_json
from personalize.photographs.curation import FOUND, unused
from personalize.photographs.masks import ALPHA, mask_file
from personalize.photographs.source import is_address, shown
from personalize.recipe import Inputs
from steps.ingest import Config, rules

if TYPE_CHECKING:
    from PIL import Image

KEPT = ("kept", "warned")
WORST_FIRST = ("rejected", "left out", "warned", "kept")


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    table = read_json(outputs / "qa.json")
    files, digest = table["files"], table["digest"]
    pinned = read_json(outputs / "diagnostics" / "pin.json")["dvc"]
    subjects: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for file in files:
        if file["token"]:
            subjects.setdefault((file["token"], file["class_noun"]), []).append(file)

    rights = config.rights.strip()
    card.facts(
        {
            "photographs kept": f"{sum(file['verdict'] in KEPT for file in files)} of {len(files)}",
            "subjects": ", ".join(f"{token} {noun}" for token, noun in subjects),
            "data": shown(config.data),
            "digest": digest + (" (pinned by DVC)" if pinned == digest else ""),
            **masks_of(files),
            **({"rights": rights} if rights else {}),
        }
    )
    for warning in _warnings(files, config, digest, pinned):
        card.warning(warning)
    for (token, noun), own in subjects.items():
        kept = [(outputs / file["picture"], Path(file["source"]).name) for file in own if file["verdict"] in KEPT]
        card.images(f"{token} {noun}: {len(kept)} of {len(own)} photographs", kept, columns=5, width=160)
        if masked := [file for file in own if file["verdict"] in KEPT and file.get("mask")]:
            cut_out = [(subject_alone(outputs, file), Path(file["source"]).name) for file in masked]
            card.images(f"{token} {noun}: the subject by its mask", cut_out, columns=5, width=160)
    rows = [
        [
            outputs / file["picture"] if file["picture"] else "",
            file["source"],
            file["verdict"],
            "; ".join(file["reasons"] + file["notes"]),
            f"{file['width']} x {file['height']}" if file["width"] else None,
            None if file["sharpness"] is None else round(file["sharpness"]),
        ]
        for file in sorted(files, key=lambda file: WORST_FIRST.index(file["verdict"]))
    ]
    card.table("Every file", ["", "file", "verdict", "why, and what was done", "pixels", "sharpness"], rows)
    card.text(
        f"Kept photographs are written as PNG: upright, sRGB, no metadata, short side at most "
        f"{rules(config).short_side} pixels. Sharpness is the variance of the Laplacian in the sharpest part of the "
        f"picture, at a short side of 512 pixels with the contrast evened out: below {config.blur_reject:g} a "
        f"photograph is rejected, below {config.blur_warn:g} it is kept with a warning; a sharp one has 800 and more. "
        f"Nothing in your folder was changed."
    )


def masks_of(files: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How many photographs have a mask and where those came from, for the facts; nothing where none has."""
    kept = [file for file in files if file["verdict"] in KEPT]
    sources = Counter(
        mask if mask in (ALPHA, FOUND) else "file beside it" for file in kept if (mask := file.get("mask"))
    )
    if not sources:
        return {}
    return {"masks": f"{sources.total()} of {len(kept)}: " + ", ".join(f"{n} {name}" for name, n in sources.items())}


def subject_alone(outputs: Path, file: Mapping[str, Any]) -> Image.Image:
    """A photograph with its surroundings paled, so that a wrong mask is seen."""
    from PIL import Image

    with Image.open(outputs / file["picture"]) as photograph:
        picture = photograph.convert("RGB")
    with Image.open(mask_file(outputs / "images", file["file_name"])) as mask:
        pale = Image.blend(picture, Image.new("RGB", picture.size, "white"), 0.8)
        return Image.composite(picture, pale, mask.convert("L"))


def _warnings(files: Sequence[Mapping[str, Any]], config: Config, digest: str, pinned: str | None) -> list[str]:
    counts = Counter(file["verdict"] for file in files)
    found = []
    if lost := unused(files):  # first: it is what the terminal says of this card
        found.append(lost)
    if counts["warned"]:
        found.append(f"{counts['warned']} photograph(s) were kept with a warning; see the table.")
    if is_address(config.data) and not config.data_sha256:
        found.append(
            f"What lies at the address may change and the result would still count as up to date. To hold it fast set "
            f"ingest.data_sha256 to {digest}"
        )
    if pinned and pinned != digest:
        found.append(
            f"{config.data} is not what its .dvc file pins ({pinned}): pin it with `dvc add {config.data}`, or get the "
            f"pinned photographs back with `dvc checkout {config.data}`."
        )
    return found
