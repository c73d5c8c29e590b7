"""The evaluation card: pictures first, then plain words, with the numbers behind them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from personalize.evaluation.gates import METRICS
from personalize.evaluation.questions import Answers, Questions

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN = 3
"""Pictures each among the best, the middle and the worst."""


class Card(Protocol):
    """What is asked of a card; the engine's has it."""

    def text(self, text: str) -> None: ...
    def verdict(self, status: Any, headline: str, reasons: Sequence[str] = ()) -> None: ...
    def facts(self, facts: Mapping[str, Any]) -> None: ...
    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...
    def images(self, title: str, images: Sequence[tuple[Any, str]], columns: int = 5, width: int = 160) -> None: ...
    def grid(
        self, title: str, column_labels: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]], width: int = 160
    ) -> None: ...
    def code(self, title: str, text: str) -> None: ...
    def warning(self, text: str) -> None: ...
    def section(self, name: str, open: bool = True) -> AbstractContextManager[None]: ...


@dataclass(frozen=True)
class Pages:
    """`result` is what `report` made of the pictures; `photographs[s]` are a subject's, in the order given there."""

    questions: Questions
    photographs: Sequence[Sequence[Image]]
    photograph_names: Sequence[Sequence[str]]
    base: Answers[Image]
    tuned: Answers[Image]
    result: Mapping[str, Any]
    limits: str = ""
    facts: Mapping[str, Any] | None = None
    reproduce: str = "mlflow run ."

    def write(self, card: Card) -> None:
        card.verdict(self.result["verdict"], self.result["headline"], self.result["reasons"])
        card.facts(self.result["facts"])
        if self.limits:
            card.warning(self.limits)
        self._overview(card)
        self._gates(card)
        with card.section("Subjects"):
            self._subjects(card)
        with card.section("Best, middle, worst"):
            self._ranked(card)
        with card.section("Copies"):
            self._copies(card)
        with card.section("Plain class word"):
            self._drift(card)
        with card.section("Mix-ups"):
            self._confusion(card)
        with card.section("Prompts"):
            self._prompts(card)
        with card.section("How it was judged"):
            self._method(card)

    # What a design team looks at first.

    def _overview(self, card: Card) -> None:
        chosen = _spread(len(self.questions.prompts), 3)
        columns = ["photograph"]
        columns += [f"{model}: {self.questions.labels[p]}" for p in chosen for model in ("base", "tuned")]
        rows = []
        for s, (token, noun) in enumerate(self.questions.subjects):
            pairs = [_fit(model.of(s, p, 0)) for p in chosen for model in (self.base, self.tuned)]
            rows.append((f"{token} {noun}", [_fit(self.photographs[s][0]), *pairs]))
        card.grid("Same prompt, same seed, before and after (first seed, not selected)", columns, rows, width=108)

    def strips(self) -> Iterator[tuple[str, Image]]:
        """For each subject one picture: photograph, base, tuned, from the first prompt and seed."""
        from PIL import Image, ImageOps

        for s, (token, _) in enumerate(self.questions.subjects):
            trio = [self.photographs[s][0], self.base.of(s, 0, 0), self.tuned.of(s, 0, 0)]
            side = min(512, *trio[2].size)
            strip = Image.new("RGB", (side * 3, side))
            for i, image in enumerate(trio):
                strip.paste(ImageOps.fit(image, (side, side)), (i * side, 0))
            yield token, strip

    def _gates(self, card: Card) -> None:
        words = {"passed": "passed", "failed": "not passed", "undecided": "undecided", "skipped": "does not apply"}
        rows = []
        for gate in self.result["gates"]:
            paired = gate["kind"] != "threshold"
            metric = METRICS[gate["metric"]]
            value = "–" if gate["value"] is None else metric.write(gate["value"], sign=paired)
            rows.append(
                [
                    words[gate["verdict"]],
                    gate["words"],
                    value,
                    f"{span(gate['ci'], gate['metric'], paired)} ({100 * gate['level']:g} %)" if gate["ci"] else "–",
                    gate["requirement"],
                ]
            )
        card.table(
            "What was required",
            ["verdict", "question", "found", "interval", "required"],
            rows,
        )

    def _subjects(self, card: Card) -> None:
        rows = []
        for s, of in enumerate(self.result["subjects"]):
            reached = [f"{of['dino'][side]:.2f}" for side in ("base", "tuned")] + [_number(of["ceiling"]["dino"])]
            rows.append(
                [
                    _fit(self.photographs[s][0]),
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
        chance = {of["token"]: of["improved_p_holm"] for of in self.result["subjects"]}
        unproven = [token for token, p in chance.items() if p is None or p >= 0.05]
        proven = (
            "Every subject's gain in likeness is real"
            if not unproven
            else f"Not proven to have gained: {', '.join(unproven)}"
        )
        card.text(
            f"Brackets are {self._percent} intervals. {proven} (each tested, Holm-corrected for testing "
            f"{len(self.result['subjects'])}, 5 %). “Photographs” is how much a subject's real photographs resemble "
            "one another, each left out in turn: more than that can hardly be asked."
        )
        unseen = self.result["overall"].get("held_out")
        if unseen:
            card.text(
                f"Against only those photographs that training never saw, likeness went from {unseen['base']:.3f} to "
                f"{unseen['tuned']:.3f}: {with_span(unseen['difference'], 'held_out', sign=True)}."
            )
        for s, (token, noun) in enumerate(self.questions.subjects):
            with card.section(f"{token} {noun}", open=s == 0):
                photos = zip(self.photographs[s], self.photograph_names[s], strict=True)
                card.images("Photographs", [(_fit(photo), name) for photo, name in photos], columns=8, width=104)
                card.grid(
                    "Every picture that was drawn, none left out",
                    self.questions.labels,
                    [
                        (f"{name}, seed {k + 1}", [_fit(model.of(s, p, k)) for p in range(len(self.questions.prompts))])
                        for k in range(self.questions.seeds_per_prompt)
                        for name, model in (("base", self.base), ("tuned", self.tuned))
                    ],
                    width=100,
                )

    def _ranked(self, card: Card) -> None:
        """By the share of the ceiling that a picture reaches, so that subjects can be compared."""
        ceilings = {of["token"]: of["ceiling"]["dino"] or 1.0 for of in self.result["subjects"]}
        ranked = sorted(self.result["pictures"], key=lambda row: -row["dino"] / ceilings[row["token"]])
        middle = max(0, len(ranked) // 2 - SHOWN // 2)
        chosen = [("best", row) for row in ranked[:SHOWN]]
        chosen += [("middle", row) for row in ranked[middle : middle + SHOWN]]
        chosen += [("worst", row) for row in ranked[-SHOWN:]]
        card.table(
            "By likeness, as a share of what the photographs reach among themselves",
            ["", "photograph", "base", "tuned", "prompt and seed", "likeness"],
            [
                [rank, *self._trio(row), _asked(row), f"{100 * row['dino'] / ceilings[row['token']]:.0f} %"]
                for rank, row in chosen
            ],
        )
        lost = sorted(self.result["pictures"], key=lambda row: row["clip_t"] - row["clip_t_base"])[:SHOWN]
        card.table(
            "Where the prompt was lost most, against the base",
            ["photograph", "base", "tuned", "prompt and seed", "CLIP-T"],
            [[*self._trio(row), _asked(row), f"{row['clip_t_base']:.3f} → {row['clip_t']:.3f}"] for row in lost],
        )

    def _copies(self, card: Card) -> None:
        rows = [row for row in self.result["pictures"] if row["closest_photographs"] is not None]
        if not rows:
            card.text("No subject has two photographs, so there is no telling how alike is too alike.")
            return
        rows = sorted(rows, key=lambda row: row["closest_photographs"] - row["nearest"])[:6]
        copied = sum(row["copied"] for row in self.result["pictures"])
        card.text(
            "A picture that resembles one photograph more than any two photographs of the subject resemble each other "
            f"was probably learnt by heart. That is so for {copied} of {len(self.result['pictures'])} pictures. "
            "Here are those that come nearest."
        )
        card.table(
            "Nearest training photograph",
            ["tuned", "photograph", "prompt and seed", "alike (DINO)", "closest two photographs", ""],
            [
                [
                    _fit(self._image(row)),
                    _fit(self._photograph(row)),
                    _asked(row),
                    f"{row['nearest']:.3f}",
                    f"{row['closest_photographs']:.3f}",
                    "looks copied" if row["copied"] else "no sign of it",
                ]
                for row in rows
            ],
        )

    def _drift(self, card: Card) -> None:
        overall, questions = self.result["overall"], self.questions
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
                    (name, [_fit(model.plain(n, p, 0)) for p in range(len(questions.prompts))])
                    for name, model in (("base", self.base), ("tuned", self.tuned))
                ],
                width=100,
            )

    def _confusion(self, card: Card) -> None:
        tokens, shares = self.result["confusion"]["tokens"], self.result["confusion"]["shares"]
        if len(tokens) < 2:
            card.text("There is one subject, and none to mix it up with.")
            return
        card.table(
            "Asked for (rows), most like the photographs of (columns)",
            ["", "asked for", *tokens],
            [
                [
                    _fit(self.photographs[s][0]),
                    token,
                    *(f"{100 * share:.0f} %" if share else "·" for share in shares[s]),
                ]
                for s, token in enumerate(tokens)
            ],
        )

    def _prompts(self, card: Card) -> None:
        card.table(
            "Where it is easy and where it is hard",
            ["prompt", "likeness: base", "tuned", "prompt following: base", "tuned"],
            [
                [
                    row["label"],
                    *(f"{row[key]:.3f}" for key in ("dino_base", "dino_tuned", "clip_t_base", "clip_t_tuned")),
                ]
                for row in self.result["prompts"]
            ],
        )

    def _method(self, card: Card) -> None:
        overall, questions = self.result["overall"], self.questions
        count = len(questions.prompts) * questions.seeds_per_prompt
        card.text(
            f"Both models answered the same {len(questions.prompts)} prompts from the same seeds "
            f"({questions.seeds.min()} to {questions.seeds.max()}; none helped to choose the checkpoint): {count} "
            "pictures of each subject. What is compared is tuned minus base, picture by picture. Intervals come from "
            "resampling whole prompts (cluster bootstrap), since pictures of one prompt resemble each other; they hold "
            "for these subjects and for prompts like these. In CLIP-T the token is replaced by its class noun, which "
            "CLIP knows."
        )
        detectable = overall["dino"]["detectable"], overall["clip_t"]["detectable"]
        if None not in detectable:
            card.text(
                f"With this many pictures a true change of {detectable[0]:.3f} in likeness or {detectable[1]:.3f} in "
                "prompt following would be noticed four times in five; a smaller one may well be missed."
            )
        if self.facts:
            card.facts(self.facts)
        row = self.result["pictures"][0]
        worst = min(self.result["pictures"], key=lambda row: row["dino"])
        card.code("Draw one of these pictures again", "\n".join(self._command(each) for each in (row, worst)))
        card.code("Run this evaluation again", f"{self.reproduce} -e evaluate")

    def _command(self, row: Mapping[str, Any]) -> str:
        return f"{self.reproduce} -e generate -P prompt={shlex.quote(row['prompt'])} -P seed={row['seed']}"

    @property
    def _percent(self) -> str:
        level = self.result["overall"]["dino"]["difference"]["level"]
        return f"{100 * level:g} %"

    def _trio(self, row: Mapping[str, Any]) -> list[Image | None]:
        return [_fit(self._photograph(row)), _fit(self._image(row, self.base)), _fit(self._image(row))]

    def _image(self, row: Mapping[str, Any], model: Answers[Image] | None = None) -> Image:
        return (model or self.tuned).of(*row["at"])

    def _photograph(self, row: Mapping[str, Any]) -> Image:
        s = row["at"][0]
        return self.photographs[s][self.photograph_names[s].index(row["nearest_photograph"])]


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


def _asked(row: Mapping[str, Any]) -> str:
    return f"{row['prompt']}, seed {row['seed']}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` indices, evenly over `count`."""
    most = min(count, most)
    return [round(i * (count - 1) / max(most - 1, 1)) for i in range(most)]


def _fit(image: Image | None, side: int = 256) -> Image | None:
    """The middle square, small enough to be carried many times over in a card."""
    from PIL import ImageOps

    return None if image is None else ImageOps.fit(image, (min(side, *image.size),) * 2)
