"""Gates: what a model must show before it may be promoted, judged on the interval and not on the value.

A gate is *passed* when its whole confidence interval lies on the good side, *failed* when the whole interval lies on
the bad side, and *undecided* when it straddles the line: then there are too few pictures to tell, which is neither.
(`mlflow.validate_evaluation_results` compares bare values, so it cannot say "undecided"; hence this module.)

The verdict needs all gates. Such a conjunction needs no correction for many tests: that a bad model passes every gate
is at most as likely as that it passes the one it should fail (intersection-union test, Berger 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from personalize.evaluation.statistics import Estimate

Kind = Literal["superiority", "non-inferiority", "threshold"]
GateVerdict = Literal["passed", "failed", "undecided", "skipped"]
Verdict = Literal["passed", "failed", "undecided"]


class Metric(BaseModel):
    """What a gate may ask about: its name in plain words, and which way is good."""

    model_config = ConfigDict(frozen=True)

    words: str
    higher_is_better: bool = True
    percent: bool = False

    def write(self, value: float, sign: bool = False) -> str:
        return f"{self._digits(value, sign)} %" if self.percent else self._digits(value, sign)

    def span(self, low: float, high: float, sign: bool = False) -> str:
        """ "8 to 78 %"."""
        return f"{self._digits(low, sign)} to {self.write(high, sign)}"

    def _digits(self, value: float, sign: bool) -> str:
        plus = "+" if sign else ""
        return (f"{100 * value:{plus}.0f}" if self.percent else f"{value:{plus}.3f}").replace("-", "−")


METRICS = {
    "dino": Metric(words="likeness to the photographs (DINO)"),
    "held_out": Metric(words="likeness to photographs that training never saw (DINO)"),
    "clip_i": Metric(words="likeness to the photographs (CLIP-I)"),
    "clip_t": Metric(words="prompt following (CLIP-T)"),
    "r_precision": Metric(words="pictures that fit their own prompt best (R-precision)", percent=True),
    "variety": Metric(words="variety among the pictures of a prompt"),
    "retention": Metric(words="likeness of plain class pictures to the base's"),
    "gap_closed": Metric(words="way from base model to real photographs", percent=True),
    "recognised": Metric(words="pictures recognised as their own subject", percent=True),
    "copied": Metric(words="pictures that look copied from a photograph", higher_is_better=False, percent=True),
    "leakage": Metric(words="way the plain class word moved to the subjects", higher_is_better=False, percent=True),
}
"""Metrics a gate can ask for. The first seven have a base to be compared with; the others are judged by a threshold."""

PAIRED = ("dino", "held_out", "clip_i", "clip_t", "r_precision", "variety", "retention")
"""Metrics that the base has too, on the same questions."""


class Gate(BaseModel):
    """One requirement. Superiority and non-inferiority judge tuned minus base; a threshold judges the tuned model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = Field(description=f"one of {', '.join(METRICS)}")
    kind: Kind = Field(
        description="superiority: better than base by more than margin; non-inferiority: not worse than base by "
        "more than margin; threshold: on the good side of a fixed value"
    )
    margin: float = Field(0.0, ge=0, description="for superiority and non-inferiority, in the metric's unit")
    threshold: float | None = Field(None, description="for threshold: least value, or greatest where lower is better")
    level: float = Field(0.95, gt=0.5, lt=1, description="confidence of the two-sided interval")

    @model_validator(mode="after")
    def _fits(self) -> Gate:
        if self.metric not in METRICS:
            raise ValueError(f"no metric is called {self.metric!r}: choose from {', '.join(METRICS)}")
        if self.kind == "threshold" and self.threshold is None:
            raise ValueError(f"the gate on {self.metric} is a threshold: say which (`threshold: 0.5`)")
        if self.kind == "threshold" and self.margin:
            raise ValueError(f"the gate on {self.metric} is a threshold and takes no margin")
        if self.kind != "threshold" and self.threshold is not None:
            raise ValueError(f"the gate on {self.metric} is {self.kind}: give a margin, not a threshold")
        if self.kind != "threshold" and self.metric not in PAIRED:
            raise ValueError(
                f"{self.metric} has no base to be compared with: use `kind: threshold`, "
                f"or one of {', '.join(PAIRED)} for {self.kind}"
            )
        return self

    @property
    def line(self) -> float:
        """The value that the interval must clear."""
        good = 1 if METRICS[self.metric].higher_is_better else -1
        if self.threshold is not None:
            return self.threshold
        return good * (self.margin if self.kind == "superiority" else -self.margin)

    @property
    def requirement(self) -> str:
        """In plain words: "more than +0.050", which is against base, or "at least 60 %"."""
        metric = METRICS[self.metric]
        least = "at least" if metric.higher_is_better else "at most"
        if self.kind == "threshold":
            return f"{least} {metric.write(self.line)}"
        if self.kind == "superiority":
            return f"{'more' if metric.higher_is_better else 'less'} than {metric.write(self.line, sign=True)}"
        return f"{least} {metric.write(self.line, sign=True)}"


@dataclass(frozen=True)
class Judgement:
    """A gate with what was found: the tuned model's value (threshold) or its difference from the base."""

    gate: Gate
    found: Estimate | None
    verdict: GateVerdict
    why: str

    @property
    def name(self) -> str:
        return f"{self.gate.metric} {self.gate.kind}"


def judge(gate: Gate, found: Estimate | None, reason_for_none: str = "") -> Judgement:
    """Judges one gate. `found` is None where the metric has no meaning (one subject cannot be confused)."""
    metric = METRICS[gate.metric]
    if found is None:
        return Judgement(gate, None, "skipped", f"{_sentence(metric.words)}: not asked, {reason_for_none}.")
    paired = gate.kind != "threshold"
    value = metric.write(found.value, sign=paired) + (" against base" if paired else "")
    if not found.known:
        return Judgement(
            gate,
            found,
            "undecided",
            f"{_sentence(metric.words)}: {value}, but {found.clusters} prompts are too few to say how sure that is.",
        )
    good = 1 if metric.higher_is_better else -1
    worst, best = sorted((good * found.low, good * found.high))
    line = good * gate.line
    strict = gate.kind == "superiority"
    if worst > line or (worst == line and not strict):
        verdict: GateVerdict = "passed"
    elif best < line or (best == line and strict):
        verdict = "failed"
    else:
        verdict = "undecided"
    needed = {
        "passed": f"All of it meets the requirement of {gate.requirement}.",
        "failed": f"None of it meets the requirement of {gate.requirement}.",
        "undecided": f"Only part of it meets the requirement of {gate.requirement}; more prompts would tell.",
    }[verdict]
    span = metric.span(found.low, found.high, sign=paired)
    why = f"{_sentence(metric.words)}: {value} ({100 * gate.level:g} % interval {span}). {needed}"
    return Judgement(gate, found, verdict, why)


def verdict(judgements: Sequence[Judgement]) -> Verdict:
    """All passed: passed. Any failed: failed. Otherwise, and when nothing was asked: undecided."""
    verdicts = [each.verdict for each in judgements if each.verdict != "skipped"]
    if "failed" in verdicts:
        return "failed"
    return "passed" if verdicts and all(each == "passed" for each in verdicts) else "undecided"


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]
