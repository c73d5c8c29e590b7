"""The evaluation card: pictures first, then plain words, with the numbers behind them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from personalize.evaluation import sections
from personalize.evaluation.gates import METRICS
from personalize.evaluation.presentation import Card, fit, span, spread
from personalize.evaluation.questions import Answers, Questions

if TYPE_CHECKING:
    from PIL.Image import Image


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
    reproduce: str = "mlflow run . --env-manager local"

    def write(self, card: Card) -> None:
        card.verdict(self.result["verdict"], self.result["headline"], self.result["reasons"])
        card.facts(self.result["facts"])
        if self.limits:
            card.warning(self.limits)
        self._overview(card)
        self._gates(card)
        with card.section("Subjects"):
            sections.subjects(self, card)
        with card.section("Best, middle, worst"):
            sections.ranked(self, card)
        with card.section("Copies"):
            sections.copies(self, card)
        with card.section("Plain class word"):
            sections.drift(self, card)
        with card.section("Mix-ups"):
            sections.confusion(self, card)
        with card.section("Prompts"):
            sections.prompts(self, card)
        with card.section("How it was judged"):
            self._method(card)

    # What a design team looks at first.

    def _overview(self, card: Card) -> None:
        chosen = spread(len(self.questions.prompts), 3)
        columns = ["photograph"]
        columns += [f"{model}: {self.questions.labels[p]}" for p in chosen for model in ("base", "tuned")]
        rows = []
        for s, (token, noun) in enumerate(self.questions.subjects):
            pairs = [fit(model.of(s, p, 0)) for p in chosen for model in (self.base, self.tuned)]
            rows.append((f"{token} {noun}", [fit(self.photographs[s][0]), *pairs]))
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

    def _method(self, card: Card) -> None:
        overall, questions = self.result["overall"], self.questions
        count = len(questions.prompts) * questions.seeds_per_prompt
        card.text(
            f"Both models answered the same {len(questions.prompts)} prompts from the same seeds "
            f"({questions.seeds.min()} to {questions.seeds.max()}; none helped to choose the checkpoint): {count} "
            "pictures of each subject. What is compared is tuned minus base, picture by picture. Intervals come from "
            "resampling whole prompts (cluster bootstrap), since pictures of one prompt resemble each other; they hold "
            "for these subjects and for prompts like these. In CLIP-T the token is replaced by its class noun, which "
            "CLIP knows. A subject that does not look like its class lowers CLIP-T in every place; whether a picture "
            "fits its own prompt better than all the others (R-precision) does not suffer from that."
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
    def percent(self) -> str:
        level = self.result["overall"]["dino"]["difference"]["level"]
        return f"{100 * level:g} %"

    def trio(self, row: Mapping[str, Any]) -> list[Image | None]:
        """The nearest photograph, the base's answer and the tuned model's."""
        return [fit(self.photograph(row)), fit(self.image(row, self.base)), fit(self.image(row))]

    def image(self, row: Mapping[str, Any], model: Answers[Image] | None = None) -> Image:
        """One of the result's pictures, by default the tuned model's."""
        return (model or self.tuned).of(*row["at"])

    def photograph(self, row: Mapping[str, Any]) -> Image:
        """The photograph that a picture comes nearest to."""
        s = row["at"][0]
        return self.photographs[s][self.photograph_names[s].index(row["nearest_photograph"])]
