"""Sections of the evaluation card: each shows the pictures and the figures behind one question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.cards import Card
from personalize.evaluation.drawings import Drawings, Photograph
from personalize.evaluation.gates import METRICS
from personalize.evaluation.questions import Questions

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN = 3
"""Pictures each among the best, the middle and the worst."""


@dataclass(frozen=True)
class Evaluation:
    """What the card is drawn from. `result` is scores.json; `photographs[s]` are a subject's, as they were scored."""

    result: Mapping[str, Any]
    photographs: Sequence[Sequence[Photograph]]
    base: Drawings
    tuned: Drawings

    @property
    def questions(self) -> Questions:
        return self.base.questions

    @property
    def percent(self) -> str:
        level = self.result["overall"]["dino"]["difference"]["level"]
        return f"{100 * level:g} %"

    def trio(self, row: Mapping[str, Any]) -> list[Image]:
        """The nearest photograph, the base's answer and the tuned model's."""
        at = row["at"]
        return list(map(thumbnail, (self.nearest_photograph(row), self.base.paths.of(*at), self.tuned.paths.of(*at))))

    def nearest_photograph(self, row: Mapping[str, Any]) -> Path:
        """The one that a picture comes nearest to."""
        of_subject = self.photographs[row["at"][0]]
        return next(photo.path for photo in of_subject if photo.name == row["nearest_photograph"])


def subjects(evaluation: Evaluation, card: Card) -> None:
    """Does it look like each subject? All of its pictures, none left out."""
    rows = []
    for s, of in enumerate(evaluation.result["subjects"]):
        likeness = [f"{of['dino'][side]:.2f}" for side in ("base", "tuned")] + [number(of["ceiling"]["dino"])]
        rows.append(
            [
                thumbnail(evaluation.photographs[s][0].path),
                of["token"],
                *likeness,
                with_span(of["gap_closed"], "gap_closed"),
                with_span(of["recognised"], "recognised"),
                with_span(of["clip_t"]["difference"], "clip_t", sign=True),
                of["pictures"],
            ]
        )
    card.table(
        "Likeness of each subject to its photographs (DINO), and what became of the prompt",
        [
            "",
            "subject",
            "base",
            "tuned",
            "photographs",
            "way there",
            "recognised",
            "prompt following (CLIP-T)",
            "pictures",
        ],
        rows,
    )
    chance = {of["token"]: of["improved_p_holm"] for of in evaluation.result["subjects"]}
    unproven = [token for token, p in chance.items() if p is None or p >= 0.05]
    proven = (
        "Every subject's gain in likeness is real"
        if not unproven
        else f"Not proven to have gained: {', '.join(unproven)}"
    )
    card.text(
        f"Brackets are {evaluation.percent} intervals. {proven} (each tested, Holm-corrected for testing "
        f"{len(evaluation.result['subjects'])}, 5 %). “Photographs” is how much a subject's real photographs resemble "
        "one another, each left out in turn: more than that can hardly be asked."
    )
    reached = {of["token"]: of["ceiling"]["clip_t"] for of in evaluation.result["subjects"]}
    if all(value is not None for value in reached.values()):
        followed = evaluation.result["overall"]["clip_t"]
        card.text(
            f"CLIP-T went from {followed['base']:.3f} to {followed['tuned']:.3f}. The photographs themselves, beside "
            f"their own captions, reach {sum(reached.values()) / len(reached):.3f} "
            f"({', '.join(f'{token} {value:.2f}' for token, value in reached.items())}): a subject that hardly looks "
            "like its class cannot be drawn faithfully and please CLIP as an ordinary one does."
        )
    unseen = evaluation.result["overall"].get("held_out")
    if unseen:
        card.text(
            f"Against only those photographs that training never saw, likeness went from {unseen['base']:.3f} to "
            f"{unseen['tuned']:.3f}: {with_span(unseen['difference'], 'held_out', sign=True)}."
        )
    for s, (token, noun) in enumerate(evaluation.questions.subjects):
        with card.section(f"{token} {noun}", open=s == 0):
            photos = [(thumbnail(photograph.path), photograph.name) for photograph in evaluation.photographs[s]]
            card.images("Photographs", photos, columns=8, width=104)
            card.grid(
                "Every picture that was drawn, none left out",
                evaluation.questions.labels,
                [
                    (
                        f"{name}, seed {k + 1}",
                        [thumbnail(drawn.paths.of(s, p, k)) for p in range(len(evaluation.questions.prompts))],
                    )
                    for k in range(evaluation.questions.seeds_per_prompt)
                    for name, drawn in (("base", evaluation.base), ("tuned", evaluation.tuned))
                ],
                width=100,
            )


def ranked(evaluation: Evaluation, card: Card) -> None:
    """The best and the worst, by the share of the ceiling that a picture reaches, so that subjects can be compared."""
    ceilings = {of["token"]: of["ceiling"]["dino"] or 1.0 for of in evaluation.result["subjects"]}
    ranked = sorted(evaluation.result["pictures"], key=lambda row: -row["dino"] / ceilings[row["token"]])
    middle = max(0, len(ranked) // 2 - SHOWN // 2)
    chosen = [("best", row) for row in ranked[:SHOWN]]
    chosen += [("middle", row) for row in ranked[middle : middle + SHOWN]]
    chosen += [("worst", row) for row in ranked[-SHOWN:]]
    card.table(
        "By likeness, as a share of what the photographs reach among themselves",
        ["", "photograph", "base", "tuned", "prompt and seed", "likeness"],
        [
            [rank, *evaluation.trio(row), prompt_and_seed(row), f"{100 * row['dino'] / ceilings[row['token']]:.0f} %"]
            for rank, row in chosen
        ],
    )
    lost = sorted(evaluation.result["pictures"], key=lambda row: row["clip_t"] - row["clip_t_base"])[:SHOWN]
    card.table(
        "Where the prompt was lost most, against the base",
        ["photograph", "base", "tuned", "prompt and seed", "CLIP-T"],
        [
            [*evaluation.trio(row), prompt_and_seed(row), f"{row['clip_t_base']:.3f} → {row['clip_t']:.3f}"]
            for row in lost
        ],
    )


def copies(evaluation: Evaluation, card: Card) -> None:
    """Were photographs learnt by heart?"""
    rows = [row for row in evaluation.result["pictures"] if row["closest_photographs"] is not None]
    if not rows:
        card.text("No subject has two photographs, so there is no telling how alike is too alike.")
        return
    rows = sorted(rows, key=lambda row: (not row["copied"], row["closest_photographs"] - row["nearest"]))[:6]
    copied = [row["copied"] for row in evaluation.result["pictures"]]
    card.text(
        "A picture that resembles a photograph more than any two photographs of the subject resemble each other was "
        "probably learnt by heart. Both judges must find it so: DINO, which looks at the thing, and CLIP, which sees "
        f"the place as well. They do for {sum(copied)} of {len(copied)} pictures. Here are those that "
        "come nearest."
    )
    card.table(
        "Nearest training photograph",
        ["tuned", "photograph", "prompt and seed", "alike (DINO, CLIP)", "closest two photographs", ""],
        [
            [
                thumbnail(evaluation.tuned.paths.of(*row["at"])),
                thumbnail(evaluation.nearest_photograph(row)),
                prompt_and_seed(row),
                f"{row['nearest']:.3f}, {row['nearest_clip']:.3f}",
                f"{row['closest_photographs']:.3f}, {row['closest_photographs_clip']:.3f}",
                "looks copied" if row["copied"] else "no sign of it",
            ]
            for row in rows
        ],
    )


def drift(evaluation: Evaluation, card: Card) -> None:
    """What became of the class, asked for without any token?"""
    overall, questions = evaluation.result["overall"], evaluation.questions
    words = []
    if overall["leakage"]:
        words.append(
            f"Asked for a plain {' or '.join(questions.nouns)}, the tuned model has moved "
            f"{with_span(overall['leakage'], 'leakage')} of the way from the base model's to your subjects: "
            "0 % is untouched, at 100 % every one of them would be yours."
        )
    if overall.get("retention"):
        retention = overall["retention"]
        words.append(
            f"Its plain pictures resemble the base's by {retention['tuned']:.3f}, where the base's own resemble each "
            f"other by {retention['base']:.3f} (DINO, same prompt, other seeds)."
        )
    card.text(" ".join(words) or "There are too few photographs or seeds to measure it.")
    for n, noun in enumerate(questions.nouns):
        card.grid(
            f"“{questions.prompt(questions.prompts[0], noun)}” and so on, without any token",
            questions.labels,
            [
                (name, [thumbnail(drawn.paths.plain(n, p, 0)) for p in range(len(questions.prompts))])
                for name, drawn in (("base", evaluation.base), ("tuned", evaluation.tuned))
            ],
            width=100,
        )


def confusion(evaluation: Evaluation, card: Card) -> None:
    """Are subjects mixed up?"""
    tokens, shares = evaluation.result["confusion"]["tokens"], evaluation.result["confusion"]["shares"]
    if len(tokens) < 2:
        card.text("There is one subject, and none to mix it up with.")
        return
    card.table(
        "Asked for (rows), most like the photographs of (columns)",
        ["", "asked for", *tokens],
        [
            [
                thumbnail(evaluation.photographs[s][0].path),
                token,
                *(f"{100 * share:.0f} %" if share else "·" for share in shares[s]),
            ]
            for s, token in enumerate(tokens)
        ],
    )


def prompts(evaluation: Evaluation, card: Card) -> None:
    """Which prompts are hard?"""
    card.table(
        "Where it is easy and where it is hard",
        ["prompt", "likeness: base", "tuned", "prompt following: base", "tuned", "fits best: base", "tuned"],
        [
            [
                row["label"],
                *(f"{row[key]:.3f}" for key in ("dino_base", "dino_tuned", "clip_t_base", "clip_t_tuned")),
                *(f"{100 * row[key]:.0f} %" for key in ("r_precision_base", "r_precision_tuned")),
            ]
            for row in evaluation.result["prompts"]
        ],
    )


# How a number is written and a picture shown.


def with_span(estimate: Mapping[str, Any] | None, metric: str, sign: bool = False) -> str:
    """ "+0.210 (0.150 to 0.270)", or a dash."""
    if estimate is None or estimate["value"] is None:
        return "–"
    value = METRICS[metric].write(estimate["value"], sign=sign)
    return f"{value} ({span(estimate['ci'], metric, sign)})"


def span(interval: Sequence[float] | None, metric: str, sign: bool = False) -> str:
    if not interval:
        return "not known"
    low, high = interval
    return METRICS[metric].span(low, high, sign)


def prompt_and_seed(row: Mapping[str, Any]) -> str:
    return f"{row['prompt']}, seed {row['seed']}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def spread(count: int, most: int) -> list[int]:
    """Up to `most` indices, evenly over `count`."""
    most = min(count, most)
    return [round(i * (count - 1) / max(most - 1, 1)) for i in range(most)]


def thumbnail(file: Path, side: int = 256) -> Image:
    """The middle square, small enough to be carried many times over in a card."""
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        return ImageOps.fit(image.convert("RGB"), (min(side, *image.size),) * 2)
