"""A whole evaluation in a folder, without any model: drawn photographs, what base and tuned model "drew", scores.json.

Pictures and features are made from the same truth: a picture shows a subject (its colour and shape) in surroundings
(the prompt's colours), and its features are the directions of both. What the tuned model gets wrong is chosen.
"""

from __future__ import annotations

import colorsys
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from personalize.evaluation import drawings, quality
from personalize.evaluation.drawings import Photograph
from personalize.evaluation.examination import examine
from personalize.evaluation.faults import FAULTS
from personalize.evaluation.gates import Gate
from personalize.evaluation.judges import JudgeConfig
from personalize.evaluation.prompt_sets import OBJECTS
from personalize.evaluation.questions import Questions, as_prompts, by_look
from personalize.evaluation.scorecard import scorecard
from personalize.evaluation.scores import PLAIN_QUALITIES, Photographs, Pictures, Scores
from personalize.files import write_json, write_rows
from personalize.recipe import Input, Inputs
from steps.evaluate import examined_on

GATES = (
    Gate(metric="likeness", kind="superiority", margin=0.02, each=True, why="the smallest gain that anybody would see"),
    Gate(metric="gap_closed", kind="threshold", threshold=0.5, why="half of the way"),
    Gate(metric="recognised", kind="threshold", threshold=0.6, each=True, why="what real photographs reach"),
    Gate(metric="clip_t", kind="non-inferiority", margin=0.2, why="twice the base's own spread"),
    Gate(metric="r_precision", kind="non-inferiority", margin=0.2, why="one prompt in five"),
    Gate(metric="sharpness", kind="equivalence", margin=0.5, why="a blur of one pixel"),
    Gate(metric="variety", kind="threshold", threshold=0.2, why="a fifth of the photographs'"),
    Gate(metric="copied", kind="threshold", threshold=0.25, why="what chance gives"),
    Gate(metric="leakage", kind="threshold", threshold=0.5, why="half of the way"),
    Gate(metric="likeness", kind="non-inferiority", margin=0.02, against="champion", why="no step back"),
)
_ASKED = by_look(as_prompts(OBJECTS), [27])[0]
FIRST_LOOK = {category: {p.name: p.text for p in _ASKED if p.category == category} for category in OBJECTS}
"""What the gpu profile asks at first."""
RUNS = {name: f"{number:032x}" for number, name in enumerate(("ingest", "caption", "train", "baseline", "draw"), 1)}
KNEE = {"step": 210, "verdict": "knee", "reason": "step 210 is the most faithful checkpoint that keeps the prompt."}
SETTINGS = {"learning_rate": 2e-3, "max_train_steps": 420, "rank": 16, "prior_loss_weight": 1.0}


@dataclass(frozen=True)
class Folder:
    """Where it lies, as the engine hands it to a card."""

    root: Path
    outputs: Path
    inputs: Inputs
    scores: Mapping[str, Any]
    drawn: Mapping[str, drawings.Drawings]
    photographs: Sequence[Sequence[Photograph]]


def make(
    root: Path,
    tokens: Sequence[str] = ("zwvchr", "brkchr", "orbchr"),
    prompts: Mapping[str, Mapping[str, str]] = FIRST_LOOK,
    seeds: int = 2,
    side: int = 96,
    likeness: float = 0.8,
    following: float = 1.0,
    mixed_up: Sequence[int] = (),
    at_fault: Mapping[str, Sequence[int]] = {},
    champion: bool = False,
    distinct: int = 0,
    chosen: Mapping[str, Any] = KNEE,
    gates: Sequence[Gate] = GATES,
    earlier: Sequence[Mapping[str, Any]] = (),
) -> Folder:
    """likeness, following: how much of subject and prompt the tuned model draws; mixed_up: subjects drawn as the next.
    at_fault: by metric, the subjects all of whose pictures are (`FAULTS`), too narrow
    (`proportions`) or of another colour (`colour_difference`).

    distinct: draws only so many different files and links the others to them, where there are many.
    """
    questions = Questions([(token, "chair") for token in tokens], as_prompts(prompts), seeds, 0)
    made = root / "runs"
    folders = {name: made / RUNS[name] / "artifacts" / "outputs" for name in RUNS}
    photographs = _photographs(folders, tokens, side, chosen)
    sides = {"base": (0.0, 1.0), "tuned": (likeness, following)} | (
        {"champion": (likeness * 0.9, 0.9)} if champion else {}
    )
    at = {
        "base": folders["baseline"],
        "tuned": folders["draw"],
        "champion": folders["draw"] / "champion",
    }
    drawn = {}
    for name, (amount, heard) in sides.items():
        drawn[name] = drawings.Drawings(at[name], questions, _conditions(side), plain=name == "base")
        _draw(drawn[name], amount, heard, mixed_up, side, distinct)
        write_json(at[name] / "questions.json", drawn[name].as_json())
        speed = {"pictures": len(drawn[name].files), "drawn_now": len(drawn[name].files), "seconds": 61.5}
        step, file = (folders["draw"], "champion") if name == "champion" else (at[name], "speed")
        write_json(step / "diagnostics" / f"{file}.json", speed)
    scores = _scores(questions, sides, mixed_up, at_fault)
    result = scorecard(scores, questions, gates, [[photo.name for photo in of] for of in photographs])
    if champion:
        write_json(at["champion"] / "version.json", {"name": "chairs", "version": "3"})
    settings = {"level": 0.95, "adapter_md5": "d" * 32, "questions_seed": 0, "prompts": len(questions.prompts)}
    settings |= {"looks": []}
    settings |= {"champion": {"name": "chairs", "version": "3"}} if champion else {}
    shown, of_class = examined_on(photographs, drawn["base"])
    examined = examine([Onlooker("dino"), Onlooker("clip")], shown, of_class)
    judged = {"judges": {"dino": "facebook/dino-vits16@a7a4d161", "clip": "openai/clip-vit-base-patch32@3d74acf9"}}
    outputs = root / "runs" / f"{6:032x}" / "artifacts" / "outputs"
    result = json.loads(json.dumps({**result, "examination": examined, "settings": settings | judged}))
    write_json(outputs / "scores.json", result)
    write_json(outputs / "diagnostics" / "earlier.json", list(earlier))
    metrics = {"system/system_memory_usage_megabytes": 2150.0}
    inputs = Inputs(
        {
            name: Input(RUNS[name], fetch_outputs=lambda path=path: path, fetch_metrics=lambda: metrics)  # type: ignore[misc]
            for name, path in folders.items()
        }
    )
    return Folder(root, outputs, inputs, result, drawn, photographs)


@dataclass(frozen=True)
class Onlooker:
    """A judge that sees where which colours are, coarsely."""

    name: str

    @property
    def config(self) -> JudgeConfig:
        return JudgeConfig(name=self.name, model="nowhere")

    def images(self, images: Sequence[Image.Image]) -> Any:
        seen = np.stack([np.asarray(image.convert("RGB").resize((4, 4)), float).ravel() for image in images])
        seen -= seen.mean(axis=1, keepdims=True)
        return seen / np.maximum(np.linalg.norm(seen, axis=1, keepdims=True), 1e-9)


def _conditions(side: int) -> dict[str, Any]:
    return {
        "base_model": "models/sdxl",
        "base_identity": "0" * 32,
        "sampling_steps": 25,
        "guidance_scale": 5.0,
        "negative_prompt": "",
        "resolution": side,
        "dtype": "float32",
        "batch_size": 8,
        "computed_on": "cpu, 2 threads",
    }


# Pictures.


def _photographs(
    folders: Mapping[str, Path], tokens: Sequence[str], side: int, chosen: Mapping[str, Any]
) -> list[list[Photograph]]:
    rows, found = [], []
    images = folders["ingest"] / "images"
    for s, token in enumerate(tokens):
        of = []
        for number in range(4):
            name = f"chair/{token}/{number}.png"
            file = images / name
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(s, len(tokens), 100 + number, 1.0, side, number).save(file)
            rows.append({"file_name": name, "token": token, "class_noun": "chair"})
            of.append(Photograph(file, "a photo of a chair", number == 3))
        found.append(of)
    write_rows(images / "metadata.jsonl", rows)
    write_rows(
        folders["caption"] / "metadata.jsonl", [{**row, "text": f"a photo of a {row['token']} chair"} for row in rows]
    )
    history = {
        "chosen": dict(chosen),
        "steps": [{}] * 420,
        "held_out": [f"chair/{token}/3.png" for token in tokens],
        "settings": SETTINGS,
    }
    write_json(folders["train"] / "history.json", history)
    return found


def _draw(
    made: drawings.Drawings, amount: float, heard: float, mixed_up: Sequence[int], side: int, distinct: int
) -> None:
    drawn: list[Path] = []
    questions = made.questions
    names, subjects = questions.names, len(questions.subjects)
    for row, target in enumerate(made.paths.flat):
        n, rest = divmod(row, len(questions.prompts) * questions.seeds_per_prompt)
        if made.plain and n < subjects:
            continue
        p, k = divmod(rest, questions.seeds_per_prompt)
        target.parent.mkdir(parents=True, exist_ok=True)
        if distinct and len(drawn) >= distinct:
            target.unlink(missing_ok=True)
            os.link(drawn[row % distinct], target)
            continue
        shown = (n + 1) % subjects if n in mixed_up and amount else n
        image = picture(shown if n < subjects else -1, len(names), p, amount, side, row + k, heard)
        if distinct:  # what compresses worst
            grain = np.random.default_rng(row).integers(0, 120, (side // 4, side // 4, 3), dtype=np.uint8)
            image = Image.blend(image, Image.fromarray(grain).resize((side, side)), 0.5)
        image.save(target, compress_level=1)
        drawn.append(target)


def picture(subject: int, of: int, place: int, amount: float, side: int, seed: int, heard: float = 1.0) -> Image.Image:
    """A chair in its subject's colour, or grey as far as `amount` is small, in surroundings of a place's colours."""
    rng = np.random.default_rng(seed)
    ground = colorsys.hsv_to_rgb((place * 0.381966) % 1, 0.35 * heard, 0.85)
    sky = colorsys.hsv_to_rgb((place * 0.381966 + 0.1) % 1, 0.15 * heard, 0.95)
    own = colorsys.hsv_to_rgb(subject / of, 0.8, 0.75) if subject >= 0 else (0.5, 0.5, 0.5)
    colour = tuple(int(255 * (amount * value + (1 - amount) * 0.5)) for value in own)
    image = Image.new("RGB", (256, 256), tuple(int(255 * value) for value in sky))
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 170, 256, 256), fill=tuple(int(255 * value) for value in ground))
    x = int(rng.integers(60, 110))
    pen.rectangle((x, 50, x + 18, 220), fill=colour)
    pen.rectangle((x, 120, x + 90, 140), fill=colour)
    pen.rectangle((x + 75, 140, x + 90, 220), fill=colour)
    if subject % 2:
        pen.ellipse((x - 6, 40, x + 40, 120), fill=colour)
    return image.resize((side, side))


# Scores.


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _scores(
    questions: Questions,
    sides: Mapping[str, tuple[float, float]],
    mixed_up: Sequence[int],
    at_fault: Mapping[str, Sequence[int]],
) -> Scores:
    rng = np.random.default_rng(0)
    subjects, prompts, seeds = len(questions.subjects), len(questions.prompts), questions.seeds_per_prompt
    width = 1 + subjects + prompts + 8
    axes = np.linalg.qr(rng.normal(size=(width, width)))[0]
    noun, who, where = axes[0], axes[1 : 1 + subjects], axes[1 + subjects : 1 + subjects + prompts]

    def noisy(vectors: np.ndarray, scale: float) -> np.ndarray:
        return _unit(vectors + scale * rng.normal(size=vectors.shape))

    def seen(amount: float, heard: float) -> Pictures:
        shown = np.concatenate([amount * who, np.zeros((1, width))])
        for s in mixed_up if amount else ():
            shown[s] = amount * who[(s + 1) % subjects]
        clean = np.broadcast_to(
            noun + shown[:, None, None] + heard * where[None, :, None], (subjects + 1, prompts, seeds, width)
        )
        shape = (subjects + 1, prompts, seeds)
        qualities = {name: rng.normal(0, 0.05, shape) for name in quality.MEASURED}
        assert set(PLAIN_QUALITIES) <= set(qualities)
        for metric in FAULTS:
            qualities[metric] = np.zeros(shape)
            qualities[metric][list(at_fault.get(metric, ())) if amount else []] = 1
        qualities["register"] = np.full(shape, 0.6)
        for metric, wrong in (("proportions", -0.4), ("colour_difference", 20)):
            qualities[metric] = np.zeros(shape)
            qualities[metric][list(at_fault.get(metric, ())) if amount else []] = wrong
        return Pictures({"dino": noisy(clean, 0.05), "clip": noisy(clean, 0.05)}, qualities)

    photographs = [
        Photographs(
            token,
            "chair",
            {judge: noisy(np.broadcast_to(noun + who[s], (4, width)), 0.08) for judge in ("dino", "clip")},
            np.array([False, False, False, True]),
            noisy(np.broadcast_to(noun, (4, width)), 0.02),
        )
        for s, (token, _) in enumerate(questions.subjects)
    ]
    texts = _unit(noun + where)[None]
    drawn = {name: seen(*given) for name, given in sides.items()}
    return Scores(photographs, drawn, texts, "clip", ["dino"])
