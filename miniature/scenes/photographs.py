"""The sample photographs: five chairs drawn by hand, five views of each, as on a designer's camera roll.

Each has its caption beside it (01.txt by 01.jpg), as one would write it: token, class noun, and where the chair stands.
What the caption says of the surroundings the token need not learn.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from tqdm import tqdm

from miniature.scenes.drawn import DESIGNS
from miniature.scenes.render import render
from miniature.scenes.scene import DRAWN, Scene, sample_scene
from miniature.scenes.vocabulary import PLACES as WORDS

VIEWS = 5
QUALITY = 92
# Where each chair is photographed, view by view: at home, in the studio, and once or twice outdoors.
PLACES: tuple[tuple[str, ...], ...] = (
    ("studio", "living room", "wooden floor", "grass", "city"),
    ("wooden floor", "studio", "kitchen", "city", "living room"),
    ("living room", "wooden floor", "studio", "dirt road", "red rug"),
    ("studio", "living room", "red rug", "wooden floor", "forest"),
    ("wooden floor", "studio", "living room", "grass", "kitchen"),
)
AZIMUTHS = (-28.0, 34.0, -52.0, 8.0, 58.0)
ELEVATIONS = (11.0, 15.0, 19.0, 9.0, 14.0)


def photograph_scene(design: int, view: int) -> Scene:
    """The scene of one sample photograph: chair `design` (0 to 4) seen in `view` (0 to 4)."""
    drawn = DESIGNS[design]
    return sample_scene(
        9_000 + 10 * design + view,
        "heldout",
        class_name="chair",
        design_seed=DRAWN + design,
        colour=drawn.colour,
        surroundings=PLACES[design][view],
        azimuth=AZIMUTHS[(view + design) % VIEWS],
        elevation=ELEVATIONS[(view + 2 * design) % VIEWS],
        field=34.0,
        fill=0.8,
        light_azimuth=-50.0 if (design + view) % 2 else 48.0,
        light_elevation=50.0,
        grain=0.004,
        clutter=(),
    )


def write_photographs(out: Path, size: int, samples: int) -> None:
    """Write `out`/chair/<token>/<nn>.jpg and its caption <nn>.txt for every chair and view."""
    with tqdm(total=len(DESIGNS) * VIEWS, unit="photograph") as bar:
        for design, drawn in enumerate(DESIGNS):
            folder = out / "chair" / drawn.token
            folder.mkdir(parents=True, exist_ok=True)
            for view in range(VIEWS):
                picture = Image.fromarray(render(photograph_scene(design, view), size, samples))
                picture.save(folder / f"{view + 1:02d}.jpg", quality=QUALITY, subsampling=0, optimize=True)
                caption = f"a photo of a {drawn.token} chair {WORDS[PLACES[design][view]][0]}\n"
                (folder / f"{view + 1:02d}.txt").write_text(caption, encoding="utf-8")
                bar.update()
