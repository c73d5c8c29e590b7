"""Sections of the evaluation card that show pictures: what to look at first, all of them, and the telling ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from personalize.cards import Card
from personalize.evaluation.gates import METRICS
from steps.cards.evaluate_sections import Evaluation, prompt_and_seed, spread, thumbnail, with_span

SHOWN = 3
"""Pictures each among the best, the middle and the worst."""
TITLES = {
    "upside_down": "On their heads",
    "displaced": "Elsewhere than the base puts them",
    "altered": "Of another light, colour or grain than the base's",
    "stamped": "With the same mark as others",
    "repeats": "That repeat themselves",
}
"""Of pictures with each of `faults.FAULTS`."""
CLOSELY = 2
"""Questions of each kind that are shown in full size."""


def first(evaluation: Evaluation, card: Card) -> None:
    """The worst subject, the worst prompt and pictures at fault, in full size: what speaks against the model.

    Where all pictures of every prompt fit it best there is no worst.
    """
    s, p = worst_subject(evaluation), worst_prompt(evaluation)
    subject, prompt = evaluation.result["subjects"][s], evaluation.result["prompts"][p]
    of_subject = sorted((row for row in evaluation.rows if row["at"][0] == s), key=lambda row: row["likeness"])
    all_fit = prompt["r_precision_tuned"] == 1
    of_prompt = [] if all_fit else sorted((row for row in evaluation.rows if row["at"][1] == p), key=_lost)
    unmet = {gate["metric"] for gate in evaluation.result["gates"] if gate["verdict"] in ("failed", "undecided")}
    faults = {
        title: [row for row in evaluation.rows if row.get(fault)] for fault, title in TITLES.items() if fault in unmet
    }
    likeness = METRICS["likeness"].write(subject["likeness"]["tuned"])
    best = subject["ceiling"]["likeness"]
    among = f", its photographs {METRICS['likeness'].write(best)} among themselves" if best is not None else ""
    recognised = subject["recognised"]
    known = f", {METRICS['recognised'].write(recognised['value'])} of its pictures recognised" if recognised else ""
    for title, rows in (
        (
            f"The worst subject: {subject['token']} {subject['class_noun']} (likeness {likeness}{among}{known})",
            [of_subject[0], of_subject[len(of_subject) // 2]],
        ),
        (
            f"The worst prompt: “{prompt['label']}” ({100 * prompt['r_precision_tuned']:.0f} % of its pictures fit it "
            f"best, the base's {100 * prompt['r_precision_base']:.0f} %)",
            of_prompt,
        ),
        *((f"{title}: {len(rows)} of {len(evaluation.rows)} pictures", rows) for title, rows in faults.items()),
    ):
        unique = list({tuple(row["at"]): row for row in rows}.values())
        if not unique:
            continue
        card.compare(
            title,
            ["photograph", *evaluation.sides],
            [
                evaluation.shot(
                    row["at"],
                    prompt_and_seed(row),
                    f"likeness {row['likeness']:z.2f}"
                    + ("" if row["fits_own_prompt_best"] else ", taken for another prompt"),
                    first=evaluation.nearest_photograph(row),
                )
                for row in unique[:CLOSELY]
            ],
        )


def worst_subject(evaluation: Evaluation) -> int:
    """The one that a failed requirement names; else the one recognised least, or least like its photographs."""
    tokens = [of["token"] for of in evaluation.result["subjects"]]
    failed = [gate for gate in evaluation.result["gates"] if gate["verdict"] == "failed" and gate["subject"] in tokens]
    if failed:
        return tokens.index(min(failed, key=lambda gate: gate["metric"] != "recognised")["subject"])

    def rank(s: int) -> tuple[float, float]:
        of = evaluation.result["subjects"][s]
        recognised = of["recognised"]["value"] if of["recognised"] else 1.0
        return recognised, of["likeness"]["tuned"] / (of["ceiling"]["likeness"] or 1.0)

    return min(range(len(evaluation.result["subjects"])), key=rank)


def worst_prompt(evaluation: Evaluation) -> int:
    """The one whose pictures fit it best least often, and of several the one that lost most against the base."""

    def rank(p: int) -> tuple[float, float]:
        of = evaluation.result["prompts"][p]
        return of["r_precision_tuned"], of["clip_t_tuned"] - of["clip_t_base"]

    return min(range(len(evaluation.result["prompts"])), key=rank)


def _lost(row: Mapping[str, Any]) -> float:
    return float(row["clip_t"] - row["clip_t_base"])


def before_and_after(evaluation: Evaluation, card: Card) -> None:
    """What a design team looks at."""
    questions = evaluation.questions
    chosen = spread(len(questions.prompts), 3)
    columns = ["photograph", *(f"{side}: {questions.labels[p]}" for p in chosen for side in evaluation.sides)]
    rows = [
        (
            f"{token} {noun}",
            [
                thumbnail(evaluation.photographs[s][0].path),
                *(thumbnail(file) for p in chosen for file in evaluation.files((s, p, 0))),
            ],
        )
        for s, (token, noun) in enumerate(questions.subjects)
    ]
    card.grid("Same prompt, same seed, before and after (first seed, not selected)", columns, rows, width=108)


def everything(evaluation: Evaluation, card: Card) -> None:
    """Every picture of every subject, and the photographs: nothing was chosen."""
    for s, (token, noun) in enumerate(evaluation.questions.subjects):
        out = evaluation.result["subjects"][s]["left_out"]
        photos = [
            (
                thumbnail(photo.path),
                photo.name + (f": not compared with, {out[photo.name]}" if photo.name in out else ""),
            )
            for photo in evaluation.photographs[s]
        ]
        card.images(f"Photographs of {token} {noun}", photos, columns=8, width=104)
    seeds = evaluation.questions.seeds_per_prompt
    card.gallery(
        f"Every picture that was drawn, none left out: {', '.join(evaluation.sides)} with the same seed",
        evaluation.sides,
        ["Subject", "Kind of prompt", "Prompt", "Seed"],
        [
            evaluation.shot(
                row["at"],
                f"{row['token']}, {row['label']}, seed {row['seed']}",
                f"likeness {row['likeness']:z.2f}",
                [row["token"], row["category"], row["label"], f"{row['at'][2] + 1} of {seeds}"],
            )
            for row in evaluation.rows
        ],
    )


def ranked(evaluation: Evaluation, card: Card) -> None:
    """The best and the worst, by the share of the ceiling that a picture reaches, so that subjects can be compared."""
    rows = sorted(evaluation.rows, key=lambda row: -row["likeness"] / evaluation.ceiling(row))
    middle = max(0, len(rows) // 2 - SHOWN // 2)
    chosen = [("best", row) for row in rows[:SHOWN]]
    chosen += [("middle", row) for row in rows[middle : middle + SHOWN]]
    chosen += [("worst", row) for row in rows[-SHOWN:]]
    card.table(
        "By likeness, as a share of what the photographs reach among themselves",
        ["", "photograph", *evaluation.sides, "prompt and seed", "likeness"],
        [
            [
                rank,
                *evaluation.strip(row),
                prompt_and_seed(row),
                f"{100 * row['likeness'] / evaluation.ceiling(row):.0f} %",
            ]
            for rank, row in chosen
        ],
    )
    card.table(
        "Where the prompt was lost most, against the base",
        ["photograph", *evaluation.sides, "prompt and seed", "CLIP-T"],
        [
            [*evaluation.strip(row), prompt_and_seed(row), f"{row['clip_t_base']:.3f} → {row['clip_t']:.3f}"]
            for row in sorted(evaluation.rows, key=_lost)[:SHOWN]
        ],
    )


def copies(evaluation: Evaluation, card: Card) -> None:
    """Were photographs learnt by heart?"""
    rows = [row for row in evaluation.rows if row["closest_photographs"] is not None]
    if not rows:
        card.text("No subject has two photographs, so there is no telling how alike is too alike.")
        return
    rows = sorted(rows, key=lambda row: (not row["copied"], row["closest_photographs"] - row["nearest"]))[: 2 * SHOWN]
    copied = [row["copied"] for row in evaluation.rows]
    card.text(
        "A picture that resembles a photograph more than any two photographs of the subject resemble each other was "
        "probably learnt by heart. Every judge that decides must find it so of the same photograph: one that overlooks "
        "the surroundings would call the very subject in a new place a copy. They do for "
        f"{sum(copied)} of {len(copied)} pictures. Here are those that come nearest."
    )
    card.table(
        "Nearest photograph",
        ["tuned", "photograph", "prompt and seed", "alike", "closest two photographs", ""],
        [
            [
                thumbnail(evaluation.tuned.paths.of(*row["at"])),
                thumbnail(evaluation.nearest_photograph(row)),
                prompt_and_seed(row),
                f"{row['nearest']:.3f}",
                f"{row['closest_photographs']:.3f}",
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
            "0 % is untouched, at 100 % every one of them would be yours, and below 0 % it moved away from them."
        )
    if retention := overall.get("retention"):
        words.append(
            f"Its plain pictures resemble the base's by {retention['tuned']:.3f}, where the base's own resemble each "
            f"other by {retention['base']:.3f} (same prompt, other seeds)."
        )
    if fits := overall.get("class_r_precision"):
        words.append(
            f"{100 * fits['tuned']:.0f} % of them fit their own prompt best, of the base's {100 * fits['base']:.0f} %."
        )
    card.text(" ".join(words) or "There are too few photographs or seeds to measure it.")
    shown = spread(len(questions.prompts), 12)
    for n, noun in enumerate(questions.nouns):
        card.grid(
            f"“{questions.prompts[0].about(noun)}” and so on, without any token"
            + ("" if len(shown) == len(questions.prompts) else f" ({len(shown)} of {len(questions.prompts)} prompts)"),
            [questions.labels[p] for p in shown],
            [
                (side, [thumbnail(evaluation.drawn[side].paths.plain(n, p, 0)) for p in shown])
                for side in evaluation.sides
            ],
            width=100,
        )


def variety(evaluation: Evaluation, card: Card) -> None:
    """Do seeds differ? The prompt whose pictures are most alike is to be seen, beside the base's."""
    questions, found = evaluation.questions, evaluation.result["overall"].get("variety")
    if questions.seeds_per_prompt < 2 or not found:
        card.text(
            "Each prompt was drawn from one seed, so nothing can be compared (baseline.seeds_per_prompt draws more)."
        )
        return
    card.text(
        f"Pictures of one prompt from different seeds differ {with_span(found, 'variety')} as much as the photographs "
        "of one subject do: at 0 % every seed gives the same picture."
    )
    s, shown = worst_subject(evaluation), min(questions.seeds_per_prompt, 6)
    p = worst_prompt(evaluation)
    card.grid(
        f"{questions.subjects[s][0]}, “{questions.labels[p]}”: every seed",
        [f"seed {seed}" for seed in questions.seeds[s, p, :shown]],
        [
            (side, [thumbnail(evaluation.drawn[side].paths.of(s, p, k)) for k in range(shown)])
            for side in evaluation.sides
        ],
        width=120,
    )
