"""Gates: what a model must show before it may be promoted, judged on the interval and not on the value.

A gate is *passed* when its whole confidence interval lies on the good side, *failed* when the whole interval lies on
the bad side, and *undecided* when it straddles the line: then there are too few pictures to tell, which is neither.
(`mlflow.validate_evaluation_results` compares bare values, so it cannot say "undecided"; hence this module.)

A gate may be asked of each subject, and is asked of every judge that decides: all must pass. Such conjunctions, and the
verdict over all gates is another, need no correction for many tests: that a bad model passes all of them is at most as
likely as that it passes the one it should fail (intersection-union test, Berger 1982). Judges of whom one passes what
another fails leave a gate undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from personalize.evaluation.statistics import Estimate

Kind = Literal["superiority", "non-inferiority", "equivalence", "threshold"]
Rival = Literal["base", "champion"]
GateVerdict = Literal["passed", "failed", "undecided", "skipped"]
Verdict = Literal["passed", "failed", "undecided"]


class Metric(BaseModel):
    """What a gate may ask about.

    `words` name it plainly. `judged_by`: those that look, the one that reads, or no judge but arithmetic. `paired`: the
    base has it too. `each`: every subject has it; `plain`: so has the plain class word, and a gate that asks each
    subject asks it as well. `share`: yes or no for each picture. `change`: it is one by itself, and is held
    against 0 in the base's place. `percent`, `digits`: how it is written.
    """

    model_config = ConfigDict(frozen=True)

    words: str
    higher_is_better: bool = True
    percent: bool = False
    digits: int = 3
    judged_by: Literal["looking", "reading", "measuring"] = "looking"
    paired: bool = True
    each: bool = True
    plain: bool = False
    share: bool = False
    change: bool = False

    def write(self, value: float, sign: bool = False) -> str:
        return f"{self._digits(value, sign)} %" if self.percent else self._digits(value, sign)

    def span(self, low: float, high: float, sign: bool = False) -> str:
        """ "8 to 78 %"."""
        return f"{self._digits(low, sign)} to {self.write(high, sign)}"

    def _digits(self, value: float, sign: bool) -> str:
        plus = "+" if sign else ""
        return (f"{100 * value:{plus}.0f}" if self.percent else f"{value:{plus}.{self.digits}f}").replace("-", "−")


def _measured(words: str, each: bool = True, plain: bool = True) -> Metric:
    return Metric(words=words, judged_by="measuring", each=each, plain=plain)


def _counted(words: str, plain: bool = False) -> Metric:
    """A share of pictures at fault."""
    return Metric(
        words=words,
        higher_is_better=False,
        percent=True,
        judged_by="measuring",
        paired=False,
        plain=plain,
        share=True,
    )


METRICS = {
    "likeness": Metric(words="likeness to the photographs"),
    "held_out": Metric(words="likeness to photographs kept from training"),
    "gap_closed": Metric(words="way from base model to real photographs", percent=True, paired=False),
    "recognised": Metric(
        words="pictures nearer to their own subject than to any other or to its class",
        percent=True,
        paired=False,
        share=True,
    ),
    "clip_t": Metric(words="prompt following (CLIP-T)", judged_by="reading"),
    "prompt_kept": Metric(
        words="fit to the own prompt above that to the others, of the base's",
        percent=True,
        judged_by="reading",
        paired=False,
    ),
    "r_precision": Metric(
        words="pictures that fit their own prompt best (R-precision)", percent=True, judged_by="reading", share=True
    ),
    "variety": Metric(words="variety among the pictures of a prompt, of the photographs'", percent=True, paired=False),
    "copied": _counted("pictures that look copied from a photograph"),
    "sharpness": _measured("sharpness"),
    "middle_sharpness": _measured("sharpness in the middle, where subjects are"),
    "noise": _measured("noise"),
    "blockiness": _measured("blocks of 8 pixels"),
    "marks": _measured("marks that stand at the same place in every picture"),
    "fringes": _measured("colours that lie apart, in pixels of 128"),
    "upside_down": _counted("pictures that stand on their heads", plain=True),
    "displaced": _counted("pictures whose surroundings lie elsewhere than the base's", plain=True),
    "altered": _counted("pictures whose surroundings differ from the base's in light, colour or grain", plain=True),
    "stamped": _counted("pictures that carry the same mark as others", plain=True),
    "repeats": _counted("pictures that repeat themselves, mirrored or side by side", plain=True),
    "register": Metric(
        words="fit of the edges in what surrounds the subjects to the base's from the same noise",
        judged_by="measuring",
        paired=False,
        plain=True,
    ),
    "proportions": Metric(
        words="width over height of the subjects, of the photographs' (log)",
        judged_by="measuring",
        paired=False,
        change=True,
    ),
    "colour_difference": Metric(
        words="difference of the subjects' colours from the photographs', beyond that among these (ΔE)",
        higher_is_better=False,
        digits=1,
        judged_by="measuring",
        paired=False,
        change=True,
    ),
    "aspect": _measured("proportions of plain class pictures", each=False),
    "brightness": _measured("brightness of plain class pictures", each=False),
    "contrast": _measured("contrast of plain class pictures", each=False),
    "saturation": _measured("colourfulness of plain class pictures", each=False),
    "class_clip_t": Metric(words="prompt following of the plain class word (CLIP-T)", judged_by="reading", each=False),
    "class_r_precision": Metric(
        words="plain class pictures that fit their own prompt best",
        percent=True,
        judged_by="reading",
        each=False,
        share=True,
    ),
    "retention": Metric(words="likeness of plain class pictures to the base's", each=False),
    "leakage": Metric(
        words="way the plain class word moved to the subjects",
        higher_is_better=False,
        percent=True,
        paired=False,
        each=False,
        change=True,
    ),
}
"""Metrics a gate can ask for."""


class Gate(BaseModel):
    """One requirement. A threshold judges the tuned model, the other kinds tuned minus rival."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = Field(description=f"one of {', '.join(METRICS)}")
    kind: Kind = Field(
        description="superiority: better than the rival by more than margin; non-inferiority: not worse by more than "
        "margin; equivalence: neither better nor worse by more than margin (proportions and leakage by 0); "
        "threshold: on the good side of a fixed value"
    )
    margin: float = Field(0.0, ge=0, description="for all but threshold, in the metric's unit")
    threshold: float | None = Field(None, description="for threshold: least value, or greatest where lower is better")
    each: bool = Field(
        False,
        description="asked of every subject, and of the plain class word where it has it too: the worst decides",
    )
    against: Rival = Field("base", description="whom it is compared with; skipped where there is no champion")
    why: str = Field("", description="where the line comes from; the card says it")
    level: float = Field(0.95, gt=0.5, lt=1, description="confidence of the two-sided interval")

    @model_validator(mode="after")
    def _fits(self) -> Gate:
        if self.metric not in METRICS:
            raise ValueError(f"no metric is called {self.metric!r}: choose from {', '.join(METRICS)}")
        metric = METRICS[self.metric]
        if self.kind == "threshold" and self.threshold is None:
            raise ValueError(f"the gate on {self.metric} is a threshold: say which (`threshold: 0.5`)")
        if self.kind == "threshold" and self.margin:
            raise ValueError(f"the gate on {self.metric} is a threshold and takes no margin")
        if self.kind == "threshold" and self.against != "base":
            raise ValueError(f"the gate on {self.metric} is a threshold and is judged against nobody")
        if self.kind != "threshold" and self.threshold is not None:
            raise ValueError(f"the gate on {self.metric} is {self.kind}: give a margin, not a threshold")
        if self.kind == "equivalence" and not self.margin:
            raise ValueError(f"the gate on {self.metric} asks that nothing changes at all: give a margin")
        if self.rival and self.rival == "base" and not metric.paired:
            paired = ", ".join(name for name, one in METRICS.items() if one.paired)
            raise ValueError(
                f"{self.metric} has no base to be compared with: use `kind: threshold`; {self.kind} is for {paired}"
            )
        if self.each and not metric.each:
            several = ", ".join(name for name, one in METRICS.items() if one.each)
            raise ValueError(f"{self.metric} is not a subject's own: `each` is for {several}")
        return self

    @property
    def rival(self) -> str:
        """Whom tuned is compared with picture by picture; empty where the value itself is judged."""
        itself = self.kind == "threshold" or (METRICS[self.metric].change and self.against == "base")
        return "" if itself else self.against

    @property
    def line(self) -> float:
        """The value that the interval must clear; for equivalence on both sides of 0."""
        good = 1 if METRICS[self.metric].higher_is_better else -1
        if self.threshold is not None:
            return self.threshold
        if self.kind == "equivalence":
            return self.margin
        return good * (self.margin if self.kind == "superiority" else -self.margin)

    @property
    def requirement(self) -> str:
        """In plain words: "more than +0.050", which is against the rival, or "at least 60 % of every subject"."""
        metric = METRICS[self.metric]
        least = "at least" if metric.higher_is_better else "at most"
        words = {
            "threshold": f"{least} {metric.write(self.line)}",
            "superiority": f"{'more' if metric.higher_is_better else 'less'} than {metric.write(self.line, sign=True)}",
            "non-inferiority": f"{least} {metric.write(self.line, sign=True)}",
            "equivalence": f"within ±{metric.write(self.line)}",
        }[self.kind]
        return (
            words
            + (" against the champion" if self.rival == "champion" else "")
            + (", every subject" if self.each else "")
            + (" and the plain class" if self.each and metric.plain else "")
        )

    def decide(self, found: Estimate | None) -> GateVerdict:
        """On which side of the line the interval lies."""
        if found is None:
            return "skipped"
        if not found.known:
            return "undecided"
        if self.kind == "equivalence":
            if -self.margin <= found.low and found.high <= self.margin:
                return "passed"
            return "failed" if found.low > self.margin or found.high < -self.margin else "undecided"
        good = 1 if METRICS[self.metric].higher_is_better else -1
        worst, best = sorted((good * found.low, good * found.high))
        line, strict = good * self.line, self.kind == "superiority"
        if worst > line or (worst == line and not strict):
            return "passed"
        return "failed" if best < line or (best == line and strict) else "undecided"

    def room(self, found: Estimate) -> float:
        """How far the interval's worse end is on the good side of the line; negative beyond it."""
        if self.kind == "equivalence":
            return self.margin - max(abs(found.low), abs(found.high))
        good = 1 if METRICS[self.metric].higher_is_better else -1
        return min(good * found.low, good * found.high) - good * self.line


@dataclass(frozen=True)
class Answer:
    """What one judge found of one subject, or of "a plain chair"; of all where it is empty.

    `reason` says why there is nothing to find.
    """

    judge: str
    subject: str
    found: Estimate | None
    reason: str = ""


@dataclass(frozen=True)
class Judgement:
    """A gate with what was found; `decisive` is the answer that speaks most against the model."""

    gate: Gate
    answers: Sequence[Answer]
    decisive: Answer
    verdict: GateVerdict
    why: str

    @property
    def name(self) -> str:
        return f"{self.gate.metric} {self.gate.kind}" + (" champion" if self.gate.rival == "champion" else "")

    @property
    def found(self) -> Estimate | None:
        return self.decisive.found


def judge(gate: Gate, answers: Sequence[Answer], unfit: Mapping[str, str] | None = None) -> Judgement:
    """Judges one gate by all answers. `unfit` says of judges that cannot tell, and so decide nothing, why not."""
    metric, unfit = METRICS[gate.metric], unfit or {}
    asked = [answer for answer in answers if answer.found is not None]
    if not asked:
        reason = answers[0].reason if answers else "nobody was asked"
        return Judgement(gate, answers, Answer("", "", None, reason), "skipped", f"{metric.words}: {reason}")
    verdicts = {name: _of_judge(gate, name, asked) for name in dict.fromkeys(answer.judge for answer in asked)}
    decisive = min(asked, key=lambda answer: _against(gate, answer))
    fit = {name: verdict for name, verdict in verdicts.items() if name not in unfit}
    verdict: GateVerdict = "undecided"
    if fit and len(set(fit.values())) == 1:
        verdict = next(iter(fit.values()))
    elif "failed" in fit.values() and "passed" not in fit.values():
        verdict = "failed"
    why = _why(gate, decisive, verdict, len(verdicts) > 1)
    if not fit:
        name = decisive.judge
        why = f"{_sentence(metric.words)}: {name} cannot judge these photographs ({unfit[name]})."
    elif {"passed", "failed"} <= set(fit.values()):
        sides = "; ".join(f"{name} says {word}" for name, word in fit.items())
        why = f"{_sentence(metric.words)}: the judges disagree ({sides}). {why}"
    return Judgement(gate, answers, decisive, verdict, why)


def _of_judge(gate: Gate, name: str, answers: Sequence[Answer]) -> GateVerdict:
    """One judge's: every subject must pass, and one that fails is enough."""
    verdicts = {gate.decide(answer.found) for answer in answers if answer.judge == name}
    return next(verdict for verdict in ("failed", "undecided", "passed") if verdict in verdicts)


def _against(gate: Gate, answer: Answer) -> tuple[int, float]:
    """Sorts answers: what speaks most against the model first."""
    assert answer.found is not None
    rank = ("failed", "undecided", "passed").index(gate.decide(answer.found))
    room = gate.room(answer.found)
    return rank, room if room == room else float("-inf")


def _why(gate: Gate, answer: Answer, verdict: GateVerdict, several: bool) -> str:
    metric, found = METRICS[gate.metric], answer.found
    assert found is not None
    paired = bool(gate.rival)
    who = [f"to {answer.judge}"] if several else []
    who += [f"worst for {answer.subject}"] if answer.subject else []
    words = f"{_sentence(metric.words)}{' (' + ', '.join(who) + ')' if who else ''}"
    value = metric.write(found.value, sign=paired) + (f" against {gate.rival}" if paired else "")
    if not found.known:
        return f"{words}: {value}, but {found.clusters} prompts are too few to say how sure that is."
    span = metric.span(found.low, found.high, sign=paired)
    needed = {
        "passed": f"All of it meets the requirement of {gate.requirement}.",
        "failed": f"None of it meets the requirement of {gate.requirement}.",
        "undecided": f"Only part of it meets the requirement of {gate.requirement}.",
    }[gate.decide(found)]
    return f"{words}: {value} ({100 * gate.level:g} % interval {span}). {needed}"


NEAREST = 0.05
"""The least distance to a line that is believed, as a share of what the interval reaches on that side."""
MANY = 4
"""So many times the prompts there are, and drawing more is no way to a decision."""


def more_would_decide(wanted: int | None, there: int) -> bool:
    """Whether so many prompts that are `wanted` can be asked where there are that many."""
    return wanted is not None and wanted <= MANY * there


def is_open(verdict: Verdict, wanted: int | None) -> bool:
    """Whether it is undecided for want of prompts: then a look that is planned is taken.

    Also where what was found lies near a line: after a few prompts luck has moved it by as much as it is away.
    """
    return verdict == "undecided" and wanted is not None


def prompts_wanted(judgements: Sequence[Judgement]) -> int | None:
    """About how many prompts would decide what pictures are too few for; None where it is for nothing of the kind."""
    wanted = [
        _prompts_to_decide(each.gate, answer.found)
        for each in judgements
        if each.verdict == "undecided"
        for answer in each.answers
        if answer.found is not None and each.gate.decide(answer.found) == "undecided"
    ]
    return max(wanted, default=None)


def _prompts_to_decide(gate: Gate, found: Estimate) -> int:
    """An interval narrows with the root of the number of prompts. A value on its line counts as `NEAREST` to it."""
    if not found.known:
        return 2 * found.clusters
    line = -gate.line if gate.kind == "equivalence" and found.value < 0 else gate.line
    half = found.value - found.low if found.value > line else found.high - found.value
    near = max(abs(found.value - line) / half, NEAREST) if half > 0 else NEAREST
    return math.ceil(found.clusters / near**2)


def verdict(gates: Sequence[Judgement] | Sequence[Mapping[str, Any]]) -> Verdict:
    """All passed: passed. Any failed: failed. Otherwise, and when nothing was asked: undecided.

    Takes judgements, or the rows that scores.json keeps of them.
    """
    verdicts = [each["verdict"] if isinstance(each, Mapping) else each.verdict for each in gates]
    asked = [one for one in verdicts if one != "skipped"]
    if "failed" in asked:
        return "failed"
    return "passed" if asked and all(one == "passed" for one in asked) else "undecided"


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]
