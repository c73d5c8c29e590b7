"""What the judges of an evaluation can see: their examination on the user's own photographs, as a section of a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from personalize.cards import Card

if TYPE_CHECKING:
    from PIL.Image import Image


def show(
    result: Mapping[str, Any],
    photographs_by_subject: Mapping[str, Sequence[Image]],
    class_images: Sequence[Image],
    card: Card,
) -> None:
    """The section. result: what `examination.examine` found with these pictures."""
    from personalize.evaluation import examination
    from personalize.evaluation.examination import ACCEPTABLE, DIFFERENT, FIT, OUTSTANDING, SAME

    card.text(
        "A number is worth what its judge can see. Each was shown pairs of pictures of which the truth is known, made "
        "from your own photographs: the same subject cropped, lit otherwise, blurred, mirrored and photographed again; "
        "and other things: other subjects, other pictures of the class, and the same photograph with another colour, "
        "a bent form or a part painted over. 100 % is a judge that always finds the right pair more alike, 50 % is "
        "guessing; brackets are 95 % intervals for photographs like these."
    )
    for name, of in result.items():
        card.text(f"{name}{'' if of['decides'] else ' (a second opinion)'}: {of['words']}.")
    examined = [
        kind for kind in (*DIFFERENT, *SAME) if any(of["kinds"][kind]["auc"] is not None for of in result.values())
    ]
    card.table(
        "What each judge sees",
        ["judge", "decides", "recognises", *({**SAME, **DIFFERENT}[kind] for kind in examined)],
        [
            [
                name,
                "yes" if of["decides"] else "no, a second opinion",
                share(of["recognised"], "share"),
                *(share(of["kinds"][kind], "auc") for kind in examined),
            ]
            for name, of in result.items()
        ],
    )
    pairs = {kind: max(of["kinds"][kind]["pairs"] for of in result.values()) for kind in examined}
    card.text(
        f"Pairs: {', '.join(f'{count} {({**SAME, **DIFFERENT})[kind]}' for kind, count in pairs.items())}. From "
        f"{100 * OUTSTANDING:.0f} % on a judge “sees”, from {100 * ACCEPTABLE:.0f} % on “partly sees” (Hosmer and "
        f"Lemeshow's bounds for outstanding and acceptable discrimination). To decide, it must recognise "
        f"{100 * FIT:.0f} % of the photographs as their own subject."
    )
    rows = [
        [
            name,
            examination.picture(row["first"], photographs_by_subject, class_images, of["seed"]),
            examination.picture(row["second"], photographs_by_subject, class_images, of["seed"]),
            DIFFERENT[row["kind"]],
            f"{row['similarity']:z.2f}",
            f"{row['beside']:z.2f}",
        ]
        for name, of in result.items()
        for row in of["worst"]
    ]
    if rows:
        card.table(
            "Where they are most wrong: pairs that differ and look more alike to a judge than what is the same",
            ["judge", "photograph", "beside", "differs by", "alike", "what is the same"],
            rows,
        )


def share(found: Mapping[str, Any], key: str) -> str:
    """`97 % (86 to 99)`, or a dash for what was not examined."""
    if found[key] is None:
        return "–"
    return f"{100 * found[key]:.0f} % ({100 * found['low']:.0f} to {100 * found['high']:.0f})"
