"""The datasheet of the miniature models: the table of measured quality, the pictures, and the words around them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from miniature import scenes

PICTURES = {
    "samples.jpg": "The base model's own samples, with what it was asked for",
    "captions.jpg": "Held-out scenes and what BLIP says of them",
    "vae-own-scenes.jpg": "Held-out scenes (above) and their reconstructions (below)",
    "vae-real-photographs.jpg": "Real photographs (above) and their reconstructions (below)",
    "designs.jpg": "Held-out designs in three places each: what DINO must tell apart",
}


@dataclass(frozen=True)
class Row:
    """One line of the table: percentages, decibels or an area, with what must be reached (if anything) and the aim."""

    what: str
    measured: tuple[float, ...]
    least: tuple[float, ...]
    aim: str
    unit: str
    count: str

    @property
    def reached(self) -> bool:
        return all(value >= least for value, least in zip(self.measured, self.least, strict=bool(self.least)))

    def markdown(self) -> str:
        digits = 3 if self.unit == "AUC" else 1
        measured = " / ".join(f"{value:.{digits}f}" for value in self.measured)
        least = " / ".join(f"{value:g}" for value in self.least) or "–"
        verdict = "–" if not self.least else "yes" if self.reached else "**no**"
        return f"| {self.what} | {self.count} | {measured} {self.unit} | {least} | {self.aim} | {verdict} |"


def labelled_picture(image: Image.Image, label: str) -> Image.Image:
    """The image with its words beneath, on two lines."""
    words, lines = label.split(), ["", ""]
    for word in words:
        line = 0 if len(lines[0]) + len(word) < 24 and not lines[1] else 1
        lines[line] = f"{lines[line]} {word}".strip()
    sheet = Image.new("RGB", (image.width, image.height + 26), "white")
    sheet.paste(image)
    ImageDraw.Draw(sheet).multiline_text((2, image.height + 1), "\n".join(lines), fill="black", font_size=10, spacing=1)
    return sheet


def grid(images: Sequence[Image.Image], columns: int) -> Image.Image:
    width, height = images[0].size
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    for index, image in enumerate(images):
        sheet.paste(image, ((index % columns) * width, (index // columns) * height))
    return sheet


def table(rows: Sequence[Row]) -> list[str]:
    head = ["| what | measured on | measured | must reach | aim | reached |", "|---|---|---|---|---|---|"]
    return [*head, *(row.markdown() for row in rows)]


def write(models: Path, rows: Sequence[Row], work: Path, commit: str = "") -> None:
    """Write models/README.md, quality.json (the rows) and training.json: every sitting of training, older ones kept."""
    facts = [{**vars(row), "reached": row.reached} for row in rows]
    (models / "quality.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
    told = sittings(models / "training.json", work / "ledger.json", commit)
    (models / "training.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    text = TEXT.format(
        sizes="\n".join(
            f"| {path.relative_to(models)} | {path.stat().st_size / 1e6:.1f} MB |"
            for path in sorted(models.rglob("*.safetensors"))
        ),
        trained="\n".join(
            f"| {one['stage']} | {one['samples']:,} | {one['minutes']:.1f} | {one['device']} | {one['commit']} |"
            for one in told
        ),
        table="\n".join(table(rows)),
        pictures="\n".join(
            f"{words}:\n\n![{words}](pictures/{name})\n"
            for name, words in PICTURES.items()
            if (models / "pictures" / name).exists()
        ),
        classes=", ".join(scenes.CLASSES),
        colours=len(scenes.COLOURS),
        materials=len(scenes.MATERIALS),
        surroundings=len(scenes.SURROUNDINGS),
    )
    (models / "README.md").write_text(text, encoding="utf-8")


def sittings(published: Path, ledger: Path, commit: str) -> list[dict[str, Any]]:
    """What the published models say of their training, and what the ledger of a work folder adds to it."""
    told: list[dict[str, Any]] = json.loads(published.read_text()) if published.exists() else []
    entries: dict[str, Any] = json.loads(ledger.read_text()) if ledger.exists() else {}
    for stage, entry in entries.items():
        samples = entry.get("samples", entry.get("images", 0))
        minutes = round(entry.get("minutes", entry["seconds_here"] / 60), 1)
        one = {"stage": stage, "samples": samples, "minutes": minutes, "device": entry["device"]}
        if not any(one.items() <= before.items() for before in told):
            told.append({**one, "commit": commit})
    return told


def dreambooth_rows(what: str, scores: Path, least: Sequence[tuple[float, ...]], aims: Sequence[str]) -> Iterator[Row]:
    """Two rows from the scores.json of a recipe's evaluate step: likeness gained, and prompt following kept.

    The photographs' own CLIP-T, beside their captions, is what a perfectly faithful model would be left with.
    """
    found = json.loads(scores.read_text(encoding="utf-8"))
    followed, pictures = found["overall"]["clip_t"], str(len(found["pictures"]))
    own = [subject["ceiling"]["clip_t"] for subject in found["subjects"]]
    photographs = 100 * sum(own) / len(own) / followed["base"]
    closed, kept = 100 * found["overall"]["gap_closed"]["value"], 100 * followed["tuned"] / followed["base"]
    yield Row(f"DreamBooth, {what}: share of the DINO gap closed", (closed,), least[0], aims[0], "%", pictures)
    yield Row(f"the same: CLIP-T kept (the photographs: {photographs:.0f})", (kept,), least[1], aims[1], "%", pictures)


TEXT = """# The miniature models: datasheet

**They know only their own small world.** They rehearse and test the recipe, offline and on a CPU; one's own photographs
want the gpu profile with SDXL 1.0.

## What

Small models of the same classes, with the same files on disk, as the real ones: `sdxl/` loads with
`StableDiffusionXLPipeline`, `clip/` with `CLIPModel`, `dino/` with `ViTModel`, `blip/` with
`BlipForConditionalGeneration`. Pictures are 128 x 128. Weights are fp16 safetensors.

| file | size |
|---|---|
{sizes}

## How they were trained

From scratch on scenes drawn by `miniature/scenes`, by the stages of `python -m miniature.pretrain` below. A stage that
stands twice went on from the weights it had left (`--start models`), on scenes of another seed. No photograph was used.
The autoencoder, text encoders, UNet and BLIP learnt from one set of scenes (and the autoencoder from textures), the
judges CLIP and DINO from another, of other designs and seeds, so that the judge is not the judged. Held-out designs and
the sample photographs are in no training set. CLIP was told, beside its captions, which thing stands in each patch of a
picture, and so was BLIP, whose image tower began as CLIP's. DINO saw no label and no caption, only which two pictures
show one design.

## How long

Minutes are those of the clock, on a machine that may have had other work to do.

| stage | pictures seen (text, letters: captions) | minutes | device | commit |
|---|---|---|---|---|
{trained}

## Measured quality

On scenes and designs never trained on, by `python -m miniature.report`.

{table}

{pictures}
## Limits

Twelve kinds of furniture and household things ({classes}), {colours} colours, {materials} materials, {surroundings}
surroundings; nothing else has a meaning to them. Words outside the captions fall into pieces of no meaning. Numbers
measured with these judges compare runs of this recipe with one another; they are on no common scale with published CLIP
or DINO scores. Rows marked **no** are not yet good enough to rest a conclusion on; that of CLIP-T cannot be reached
by a model that draws the subjects as they are, since their own photographs with their own captions stay below it. Of
real chairs the miniature learns colours and little of the shapes.
"""
