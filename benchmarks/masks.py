"""Does a mask keep the surroundings out of what is learnt? On the drawn world, where the mask is known.

    python -m benchmarks.masks

Two of the sample chairs are photographed five times each, always in one and the same place, and the captions say
nothing of it: whatever is learnt with the token may as well be the place. The same training is run without masks
(mask_weight 1) and with them, and each result draws the chairs in places where they were not photographed. For each:

    likeness        to the chair itself in those places (drawn by the world), as the judges that look see it
    R-precision     share of pictures that fit their own place better than all others, to the judge that reads
    leak            share of pictures that fit the place of the photographs best

Results are numbers, in benchmarks/results/masks.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from benchmarks.judges import ROOT
from miniature.scenes import Scene, objects, render
from miniature.scenes.drawn import DESIGNS
from miniature.scenes.photographs import photograph_scene
from miniature.scenes.vocabulary import PLACES
from personalize.dreambooth.examples import Example
from personalize.dreambooth.settings import TrainSettings
from personalize.dreambooth.setup import Base
from personalize.dreambooth.shapes import Size
from personalize.dreambooth.train import train
from personalize.evaluation import judges
from personalize.evaluation.judges import JudgeConfigs
from personalize.evaluation.metrics import similarity
from personalize.files import scratch, write_json
from personalize.recipe.config import load_profile

RESULTS = ROOT / "benchmarks" / "results" / "masks.json"
SIZE, SAMPLES = 128, 2
TAKEN_IN = {0: "red rug", 3: "kitchen"}
"""Which of the sample chairs, and where all its photographs are taken."""
ASKED = ("beach", "snow", "grass", "living room", "city", "desert", "forest", "studio")
WEIGHTS = (1.0, 0.1, 0.0)
SETTINGS: dict[str, Any] = {
    "resolution": SIZE,
    "rank": 32,
    "targets": "all",
    "learning_rate": 1.2e-3,
    "batch_size": 4,
    "prior_batch_size": 2,
    "size_conditioning": "as sampled",
    "validation_every": 0,
    "resume_every": 0,
}
NEUTRAL = "a photo of a chair"


@dataclass(frozen=True)
class Asked:
    """A picture to draw: which chair, where, from which seed."""

    design: int
    place: str
    seed: int

    @property
    def prompt(self) -> str:
        return f"a photo of a {DESIGNS[self.design].token} chair {PLACES[self.place][0]}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masks", description=__doc__.split("\n\n")[0])
    parser.add_argument("--profile", default="local")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=2, help="pictures of each chair in each place")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    variables = load_profile(ROOT, given.profile).variables.values
    base = Base(variables["BASE_MODEL"], device="cpu")
    wanted = [
        Asked(design, place, 1000 + seed) for design in TAKEN_IN for place in ASKED for seed in range(given.seeds)
    ]
    found: dict[str, Any] = {"steps": given.steps, "pictures": len(wanted), "trainings": {}}
    with scratch("masks") as place:
        photographs = [photographed(place / "photographs", design, view) for design in TAKEN_IN for view in range(5)]
        classes = class_images(base, place / "class", 12)
        scored = Scores([judge for judge in judges.load(_judges(variables), "cpu") if judge.config.decides], wanted)
        for weight in WEIGHTS:
            began = time.perf_counter()
            settings = TrainSettings(**SETTINGS, max_train_steps=given.steps, mask_weight=weight)
            outputs = place / f"{weight:g}"
            train(settings, base, photographs, classes, outputs, work=place / "work")
            row = scored.of(drawn(base, outputs / "lora", wanted)) | {"seconds": round(time.perf_counter() - began)}
            found["trainings"][f"{weight:g}"] = row
            write_json(given.out, found)
            print(f"mask_weight {weight:g}: {row}", flush=True)
    print(table(found["trainings"]))


def _judges(variables: dict[str, Any]) -> JudgeConfigs:
    return TypeAdapter(JudgeConfigs).validate_python(variables["JUDGES"])


def scene(design: int, view: int, place: str) -> Scene:
    """The sample photograph's view of a chair, in another place."""
    from dataclasses import replace

    return replace(photograph_scene(design, view), surroundings=place)


def photographed(folder: Path, design: int, view: int) -> Example:
    """A photograph and its true mask."""
    token, shown = DESIGNS[design].token, scene(design, view, TAKEN_IN[design])
    file, mask = folder / "chair" / token / f"{view}.png", folder / "masks" / token / f"{view}.png"
    for path in (file, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render(shown, SIZE, SAMPLES)).save(file)
    Image.fromarray((objects(shown, SIZE) == 1).astype(np.uint8) * 255).save(mask)
    return Example(file, Size(SIZE, SIZE), f"a photo of a {token} chair", "chair", token, mask)


def class_images(base: Base, folder: Path, count: int) -> list[Example]:
    """What the base draws for the plain class prompt."""
    folder.mkdir(parents=True)
    examples = []
    for number, picture in enumerate(_sampled(base, None, [NEUTRAL] * count, list(range(count)))):
        picture.save(folder / f"{number}.png")
        examples.append(Example(folder / f"{number}.png", Size(SIZE, SIZE), NEUTRAL, "chair"))
    return examples


def drawn(base: Base, lora: Path, wanted: Sequence[Asked]) -> list[Image.Image]:
    return _sampled(base, lora, [one.prompt for one in wanted], [one.seed for one in wanted])


def _sampled(base: Base, lora: Path | None, prompts: list[str], seeds: list[int]) -> list[Image.Image]:
    from personalize.dreambooth.sampling import Sampling, load_pipeline, merge_adapter, sample

    pipe = load_pipeline(base.path, device=base.device, lora=lora)
    if lora is not None:
        merge_adapter(pipe)
    return sample(pipe, prompts, seeds, Sampling(steps=15, width=SIZE, height=SIZE))


class Scores:
    """The judges on pictures of `wanted`."""

    def __init__(self, loaded: Sequence[judges.Judge], wanted: Sequence[Asked]) -> None:
        self.wanted, self.reader, self.lookers = wanted, judges.reader(loaded), judges.lookers(loaded)
        self.places = [*ASKED, *TAKEN_IN.values()]
        self.texts = self.reader.texts([f"{NEUTRAL} {PLACES[place][0]}" for place in self.places])
        truth = {
            design: [Image.fromarray(render(scene(design, view % 5, p), SIZE, SAMPLES)) for view, p in enumerate(ASKED)]
            for design in TAKEN_IN
        }
        self.truth = [{design: judge.images(shown) for design, shown in truth.items()} for judge in self.lookers]

    def of(self, pictures: Sequence[Image.Image]) -> dict[str, float]:
        alike = []
        for judge, truth in zip(self.lookers, self.truth, strict=True):
            features = judge.images(pictures)
            alike += [similarity(f, truth[one.design]) for f, one in zip(features, self.wanted, strict=True)]
        best = (self.reader.images(pictures) @ self.texts.T).argmax(1)
        seen = [self.places[index] for index in best]
        own = [place == one.place for place, one in zip(seen, self.wanted, strict=True)]
        leaked = [place == TAKEN_IN[one.design] for place, one in zip(seen, self.wanted, strict=True)]
        return {
            "likeness": round(float(np.mean(alike)), 4),
            "r_precision": round(float(np.mean(own)), 4),
            "leak": round(float(np.mean(leaked)), 4),
        }


def table(trainings: dict[str, dict[str, float]]) -> str:
    rows = [
        f"| {weight} | {row['likeness']:.3f} | {row['r_precision']:.0%} | {row['leak']:.0%} |"
        for weight, row in trainings.items()
    ]
    return "\n".join(["| mask_weight | likeness | R-precision | leak |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    main()
