"""What can the judges see? On the drawn world, whose truth is known, and on photographs of real things.

    python -m benchmarks.judges --photographs /data/chairs --photographs /data/dreambooth

Drawn: chairs that no model saw in training, each once as it is, and then from another side, in other light and in
another place. Under each of these conditions it is drawn again with another colour, one leg moved, another back, and
as another chair of the same colours and materials. A judge is right where the true chair is more alike to the first
picture than the false one under the same condition is; a guess is right in half.

Photographs: a folder whose innermost folders are subjects. Their examination is the one on the evaluation card
(`personalize.evaluation.examination`), on all photographs; and of how many subjects they tell proportions and
colours (`personalize.evaluation.silhouettes`).

The judges are those of a profile. Results are numbers, in benchmarks/results/judges.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from miniature.scenes import Scene, render, sample_scene
from miniature.scenes.render import draw
from miniature.scenes.scene import HELD_OUT, dress
from miniature.scenes.vocabulary import COLOURS
from personalize.evaluation import colours, examination, judges, silhouettes
from personalize.evaluation.examination import AtMost
from personalize.evaluation.images import open_rgb
from personalize.evaluation.judges import Judge, JudgeConfigs
from personalize.files import write_json
from personalize.recipe.config import load_profile

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "judges.json"
SIZE, SAMPLES, CHAIRS = 128, 2, 24
SEAT = 0.52
"""Metres above the ground from which on a chair is its back."""
CONDITIONS = ("view", "light", "place")
PICTURES = {".jpg", ".jpeg", ".png", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judges", description=__doc__.split("\n\n")[0])
    parser.add_argument("--profile", default="local")
    parser.add_argument("--photographs", type=Path, action="append", default=[], help="folder of subjects; repeatable")
    parser.add_argument("--chairs", type=int, default=CHAIRS, help="drawn designs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    configs = TypeAdapter(JudgeConfigs).validate_python(load_profile(ROOT, given.profile).variables.values["JUDGES"])
    loaded = judges.load(configs)
    found: dict[str, Any] = {
        "judges": {judge.name: judges.identity(judge.config) for judge in loaded},
        "drawn": drawn_world(loaded, given.chairs),
        "silhouettes": {},
    }
    for folder in given.photographs:
        subjects = subjects_in(folder)
        found[folder.name] = photographed(loaded, subjects)
        found["silhouettes"][folder.name] = told(subjects)
    write_json(given.out, found)
    print(table(found))


# The drawn world.


def drawn_world(loaded: Sequence[Judge], count: int) -> dict[str, Any]:
    """For each judge: AUC of the true chair against each false one, and against another design under each condition."""
    pictures = [versions(design) for design in designs(count)]
    kinds = list(pictures[0][CONDITIONS[0]])[1:]
    found: dict[str, Any] = {}
    for judge in loaded:
        seen = [{name: of(judge, shown) for name, shown in chair.items()} for chair in pictures]
        rows = {
            **{kind: [right(chair, CONDITIONS, kind) for chair in seen] for kind in kinds},
            **{f"design, {name} changed": [right(chair, (name,), "design") for chair in seen] for name in CONDITIONS},
        }
        found[judge.name] = {kind: summary(shares) for kind, shares in rows.items()}
    return found


def of(judge: Judge, shown: Mapping[str, Image.Image]) -> dict[str, np.ndarray]:
    return dict(zip(shown, judge.images(list(shown.values())), strict=True))


def right(chair: Mapping[str, Mapping[str, np.ndarray]], conditions: Sequence[str], kind: str) -> float:
    """Share of conditions in which the true chair is more alike to the first picture than a false one."""
    first = chair["first"]["true"]
    gaps = [first @ chair[name]["true"] - first @ chair[name][kind] for name in conditions]
    return float(np.mean([(gap > 0) + 0.5 * (gap == 0) for gap in gaps]))


def summary(shares: Sequence[float]) -> dict[str, float]:
    auc = float(np.mean(shares))
    low, high = examination.wilson(auc, len(shares))
    return {"auc": round(auc, 4), "low": round(low, 4), "high": round(high, 4), "subjects": len(shares)}


def designs(count: int) -> list[int]:
    """The first held-out chairs that stand on four legs and have a back."""
    found, seed = [], HELD_OUT
    while len(found) < count:
        shapes = draw("chair", seed)
        if len(legs(shapes)) == 4 and back(shapes).any():
            found.append(seed)
        seed += 1
    return found


def legs(shapes: np.ndarray) -> np.ndarray:
    """Rows of the shapes that stand under the corners of a seat and are taller than wide."""
    _, x, y, z = shapes[:, :4].T
    tall = shapes[:, 25] > 3 * np.maximum(shapes[:, 24], shapes[:, 26])
    return np.flatnonzero(tall & (y < 0.3) & (np.abs(x) > 0.1) & (np.abs(z) > 0.1))


def back(shapes: np.ndarray) -> np.ndarray:
    return shapes[:, 2] > SEAT


def versions(design: int) -> dict[str, dict[str, Image.Image]]:
    """`first`: the chair as it is; under each condition, it and its false versions."""
    shapes, other = draw("chair", design), draw("chair", design + 1)
    step = 1
    while not back(other).any() or len(legs(other)) == 4:  # something else to lean on and to stand on
        step += 1
        other = draw("chair", design + step)
    moved = shapes.copy()
    moved[legs(moved)[-1], 1] *= -0.3
    colour = dress("chair", design)["colour"]
    repainted = COLOURS[(COLOURS.index(colour) + len(COLOURS) // 2) % len(COLOURS)]
    scene = photographed_at(design)
    changed = {
        "view": replace(scene, azimuth=scene.azimuth + 38),
        "light": replace(scene, light_azimuth=-scene.light_azimuth, exposure=0.9, warmth=0.05),
        "place": replace(scene, surroundings="grass"),
    }
    return {
        "first": {"true": picture(scene, shapes)},
        **{
            name: {
                "true": picture(at, shapes),
                "colour": picture(replace(at, colour=repainted), shapes),
                "leg": picture(at, moved),
                "back": picture(at, np.concatenate([shapes[~back(shapes)], other[back(other)]])),
                "design": picture(at, other),
            }
            for name, at in changed.items()
        },
    }


def photographed_at(design: int) -> Scene:
    return sample_scene(
        design, "heldout", class_name="chair", design_seed=design, surroundings="studio", azimuth=-30.0, elevation=12.0,
        field=34.0, fill=0.75, shift_x=0.0, shift_y=0.0, light_azimuth=48.0, light_elevation=50.0, exposure=1.0,
        warmth=0.0, grain=0.004, vignette=0.0, clutter=(),
    )  # fmt: skip


def picture(scene: Scene, shapes: np.ndarray) -> Image.Image:
    return Image.fromarray(render(scene, SIZE, SAMPLES, shapes))


# Real things.


def subjects_in(folder: Path) -> dict[str, list[Image.Image]]:
    """Each innermost folder's pictures. Raises SystemExit where there are none."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURES)
    if not files:
        raise SystemExit(f"there are no pictures in {folder}")
    found: dict[str, list[Image.Image]] = {}
    for file in files:
        found.setdefault(file.parent.relative_to(folder).as_posix(), []).append(open_rgb(file))
    return found


def photographed(loaded: Sequence[Judge], subjects: Mapping[str, Sequence[Image.Image]]) -> dict[str, Any]:
    """The card's examination on all photographs: numbers alone, no subject's name."""
    count = sum(map(len, subjects.values()))
    found = examination.examine(loaded, subjects, [], at_most=AtMost(count, count, 0))

    def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}

    return {
        name: {
            "subjects": len(subjects),
            "recognised": rounded(of["recognised"]),
            "kinds": {kind: rounded(row) for kind, row in of["kinds"].items() if row["auc"] is not None},
            "fit": of["fit"],
            "words": of["words"],
        }
        for name, of in found.items()
    }


def told(subjects: Mapping[str, Sequence[Image.Image]]) -> dict[str, int]:
    """Of how many subjects the photographs tell proportions and colours, beside those of the others."""
    shown = [np.stack([colours.colours(image) for image in images]) for images in subjects.values()]
    elsewhere = [np.concatenate([*shown[:s], *shown[s + 1 :]]) for s in range(len(shown))]
    found = [silhouettes.subjects([list(own)], others) for own, others in zip(shown, elsewhere, strict=True)]
    measures = zip(silhouettes.MEASURES, ("aspect", "apart"), strict=True)
    counts = {name: sum(np.isfinite(getattr(one, own)) for (one,) in found) for name, own in measures}
    return {"subjects": len(found), **{name: int(count) for name, count in counts.items()}}


def table(found: Mapping[str, Any]) -> str:
    """Markdown: one row a question, one column a judge."""
    names = list(found["judges"])
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]

    def row(title: str, cells: Sequence[Mapping[str, float]], key: str = "auc") -> str:
        said = [f"{cell[key]:.2f} ({cell['low']:.2f} to {cell['high']:.2f})" for cell in cells]
        return f"| {title} | {' | '.join(said)} |"

    for kind in found["drawn"][names[0]]:
        lines.append(row(f"drawn: {kind}", [found["drawn"][name][kind] for name in names]))
    for folder in found["silhouettes"]:
        of = found[folder]
        lines.append(row(f"{folder}: recognised", [of[name]["recognised"] for name in names], "share"))
        lines += [
            row(f"{folder}: {kind}", [of[name]["kinds"][kind] for name in names]) for kind in of[names[0]]["kinds"]
        ]
    for name in silhouettes.MEASURES if found["silhouettes"] else ():
        told = [f"{of[name]} of {of['subjects']} in {folder}" for folder, of in found["silhouettes"].items()]
        lines.append(f"\nSubjects of which the photographs tell {name.replace('_', ' ')}: {', '.join(told)}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
