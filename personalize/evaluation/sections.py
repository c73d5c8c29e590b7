"""Sections of the evaluation card: each shows the pictures and the figures behind one question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from personalize.evaluation.presentation import Card, asked, fit, number, with_span

if TYPE_CHECKING:
    from personalize.evaluation.pages import Pages

SHOWN = 3
"""Pictures each among the best, the middle and the worst."""


def subjects(pages: Pages, card: Card) -> None:
    """Does it look like each subject? All of its pictures, none left out."""
    rows = []
    for s, of in enumerate(pages.result["subjects"]):
        reached = [f"{of['dino'][side]:.2f}" for side in ("base", "tuned")] + [number(of["ceiling"]["dino"])]
        rows.append(
            [
                fit(pages.photographs[s][0]),
                of["token"],
                *reached,
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
    chance = {of["token"]: of["improved_p_holm"] for of in pages.result["subjects"]}
    unproven = [token for token, p in chance.items() if p is None or p >= 0.05]
    proven = (
        "Every subject's gain in likeness is real"
        if not unproven
        else f"Not proven to have gained: {', '.join(unproven)}"
    )
    card.text(
        f"Brackets are {pages.percent} intervals. {proven} (each tested, Holm-corrected for testing "
        f"{len(pages.result['subjects'])}, 5 %). “Photographs” is how much a subject's real photographs resemble "
        "one another, each left out in turn: more than that can hardly be asked."
    )
    spoken = {of["token"]: of["ceiling"]["clip_t"] for of in pages.result["subjects"]}
    if all(value is not None for value in spoken.values()):
        followed = pages.result["overall"]["clip_t"]
        card.text(
            f"CLIP-T went from {followed['base']:.3f} to {followed['tuned']:.3f}. The photographs themselves, beside "
            f"their own captions, reach {sum(spoken.values()) / len(spoken):.3f} "
            f"({', '.join(f'{token} {value:.2f}' for token, value in spoken.items())}): a subject that hardly looks "
            "like its class cannot be drawn faithfully and please CLIP as an ordinary one does."
        )
    unseen = pages.result["overall"].get("held_out")
    if unseen:
        card.text(
            f"Against only those photographs that training never saw, likeness went from {unseen['base']:.3f} to "
            f"{unseen['tuned']:.3f}: {with_span(unseen['difference'], 'held_out', sign=True)}."
        )
    for s, (token, noun) in enumerate(pages.questions.subjects):
        with card.section(f"{token} {noun}", open=s == 0):
            photos = zip(pages.photographs[s], pages.photograph_names[s], strict=True)
            card.images("Photographs", [(fit(photo), name) for photo, name in photos], columns=8, width=104)
            card.grid(
                "Every picture that was drawn, none left out",
                pages.questions.labels,
                [
                    (f"{name}, seed {k + 1}", [fit(model.of(s, p, k)) for p in range(len(pages.questions.prompts))])
                    for k in range(pages.questions.seeds_per_prompt)
                    for name, model in (("base", pages.base), ("tuned", pages.tuned))
                ],
                width=100,
            )


def ranked(pages: Pages, card: Card) -> None:
    """The best and the worst, by the share of the ceiling that a picture reaches, so that subjects can be compared."""
    ceilings = {of["token"]: of["ceiling"]["dino"] or 1.0 for of in pages.result["subjects"]}
    ranked = sorted(pages.result["pictures"], key=lambda row: -row["dino"] / ceilings[row["token"]])
    middle = max(0, len(ranked) // 2 - SHOWN // 2)
    chosen = [("best", row) for row in ranked[:SHOWN]]
    chosen += [("middle", row) for row in ranked[middle : middle + SHOWN]]
    chosen += [("worst", row) for row in ranked[-SHOWN:]]
    card.table(
        "By likeness, as a share of what the photographs reach among themselves",
        ["", "photograph", "base", "tuned", "prompt and seed", "likeness"],
        [
            [rank, *pages.trio(row), asked(row), f"{100 * row['dino'] / ceilings[row['token']]:.0f} %"]
            for rank, row in chosen
        ],
    )
    lost = sorted(pages.result["pictures"], key=lambda row: row["clip_t"] - row["clip_t_base"])[:SHOWN]
    card.table(
        "Where the prompt was lost most, against the base",
        ["photograph", "base", "tuned", "prompt and seed", "CLIP-T"],
        [[*pages.trio(row), asked(row), f"{row['clip_t_base']:.3f} → {row['clip_t']:.3f}"] for row in lost],
    )


def copies(pages: Pages, card: Card) -> None:
    """Were photographs learnt by heart?"""
    rows = [row for row in pages.result["pictures"] if row["closest_photographs"] is not None]
    if not rows:
        card.text("No subject has two photographs, so there is no telling how alike is too alike.")
        return
    rows = sorted(rows, key=lambda row: (not row["copied"], row["closest_photographs"] - row["nearest"]))[:6]
    copied = sum(row["copied"] for row in pages.result["pictures"])
    card.text(
        "A picture that resembles a photograph more than any two photographs of the subject resemble each other was "
        "probably learnt by heart. Both judges must find it so: DINO, which looks at the thing, and CLIP, which sees "
        f"the place as well. They do for {copied} of {len(pages.result['pictures'])} pictures. Here are those that "
        "come nearest."
    )
    card.table(
        "Nearest training photograph",
        ["tuned", "photograph", "prompt and seed", "alike (DINO, CLIP)", "closest two photographs", ""],
        [
            [
                fit(pages.image(row)),
                fit(pages.photograph(row)),
                asked(row),
                f"{row['nearest']:.3f}, {row['nearest_clip']:.3f}",
                f"{row['closest_photographs']:.3f}, {row['closest_photographs_clip']:.3f}",
                "looks copied" if row["copied"] else "no sign of it",
            ]
            for row in rows
        ],
    )


def drift(pages: Pages, card: Card) -> None:
    """What became of the class, asked for without any token?"""
    overall, questions = pages.result["overall"], pages.questions
    words = []
    if overall["leakage"]:
        words.append(
            f"Asked for a plain {' or '.join(questions.nouns)}, the tuned model has moved "
            f"{with_span(overall['leakage'], 'leakage')} of the way from the base model's to your subjects: "
            "0 % is untouched, at 100 % every one of them would be yours."
        )
    if overall.get("retention"):
        kept = overall["retention"]
        words.append(
            f"Its plain pictures resemble the base's by {kept['tuned']:.3f}, where the base's own resemble each "
            f"other by {kept['base']:.3f} (DINO, same prompt, other seeds)."
        )
    card.text(" ".join(words) or "There are too few photographs or seeds to measure it.")
    for n, noun in enumerate(questions.nouns):
        card.grid(
            f"“{questions.prompt(questions.prompts[0], noun)}” and so on, without any token",
            questions.labels,
            [
                (name, [fit(model.plain(n, p, 0)) for p in range(len(questions.prompts))])
                for name, model in (("base", pages.base), ("tuned", pages.tuned))
            ],
            width=100,
        )


def confusion(pages: Pages, card: Card) -> None:
    """Are subjects mixed up?"""
    tokens, shares = pages.result["confusion"]["tokens"], pages.result["confusion"]["shares"]
    if len(tokens) < 2:
        card.text("There is one subject, and none to mix it up with.")
        return
    card.table(
        "Asked for (rows), most like the photographs of (columns)",
        ["", "asked for", *tokens],
        [
            [
                fit(pages.photographs[s][0]),
                token,
                *(f"{100 * share:.0f} %" if share else "·" for share in shares[s]),
            ]
            for s, token in enumerate(tokens)
        ],
    )


def prompts(pages: Pages, card: Card) -> None:
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
            for row in pages.result["prompts"]
        ],
    )
