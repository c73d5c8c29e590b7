"""Choice: which checkpoint to keep, and when to stop. Numbers in, a step and a reason out.

Longer training makes the subject more like its photographs and, past some point, makes the model deaf to the rest of
the prompt and turns every chair into this chair. The knee is the most faithful checkpoint among those that keep prompt
following and the class prior within a margin of the base model (cf. Sec. 4.3, Ruiz et al. 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from personalize.dreambooth.settings import TrainSettings

Verdict = Literal["knee", "only", "still improving", "unlike", "compromise", "base"]


@dataclass(frozen=True)
class Point:
    """One checkpoint's scores. `step` 0 is the base model.

    `fidelity`: likeness to the subject's photographs (more is better). `prompt`: agreement with the prompt (more is
    better). `drift`: likeness of class pictures, drawn without the token, to the subject (less is better).
    """

    step: int
    fidelity: float
    prompt: float
    drift: float = 0.0

    @classmethod
    def of(cls, step: int, scores: Mapping[str, float]) -> Point:
        missing = {"fidelity", "prompt"} - set(scores)
        if missing:
            raise ValueError(f"the scorer's answer lacks {', '.join(sorted(missing))}; it gave {sorted(scores)}.")
        return cls(step, float(scores["fidelity"]), float(scores["prompt"]), float(scores.get("drift", 0.0)))


@dataclass(frozen=True)
class Margins:
    """How much prompt following may be lost and class drift gained against the base, and what counts as a gain.

    `reach`: the share of the way from the base to the photographs' own likeness that a chosen step should have gone.
    """

    prompt: float = 0.03
    drift: float = 0.1
    gain: float = 0.005
    reach: float = 0.5


def margins(settings: TrainSettings) -> Margins:
    """How much prompt following and class drift a checkpoint may cost."""
    s = settings
    return Margins(s.prompt_margin, s.drift_margin, s.fidelity_gain, s.fidelity_reach)


@dataclass(frozen=True)
class Choice:
    step: int
    verdict: Verdict
    reason: str


def admissible(point: Point, base: Point, margins: Margins) -> bool:
    """Whether a checkpoint still follows prompts and still knows its class as the base does, within the margins."""
    return point.prompt >= base.prompt - margins.prompt and point.drift <= base.drift + margins.drift


def choose(points: Sequence[Point], base: Point, margins: Margins, ceiling: float | None = None) -> Choice:
    """The knee of a run: the earliest checkpoint whose fidelity is within `gain` of the best admissible one.

    Where none is admissible, the one that breaks the margins least is taken, and said to be a compromise. `ceiling` is
    the photographs' own fidelity, where it is known: a schedule that ends too early also ends flat, and only the way
    still to go tells. Of a single checkpoint nobody knows whether it was still rising.
    """
    if not points:
        return Choice(base.step, "base", "nothing was scored")
    good = [point for point in points if admissible(point, base, margins)]
    if not good:
        least = min(points, key=lambda point: (excess(point, base, margins), point.step))
        return Choice(
            least.step,
            "compromise",
            f"no checkpoint kept prompt following within {margins.prompt:g} and class drift within {margins.drift:g} "
            f"of the base; step {least.step} breaks these least. A lower learning rate, a smaller rank or more prior "
            f"preservation should help.",
        )
    best = max(point.fidelity for point in good)
    knee = next(point for point in sorted(good, key=lambda p: p.step) if point.fidelity >= best - margins.gain)
    last = max(points, key=lambda point: point.step)
    if knee is last and still_improving(points, margins):
        return Choice(
            knee.step,
            "still improving",
            f"likeness to the subject was still rising at the last step ({knee.step}): more steps should do better.",
        )
    later = [point for point in points if point.step > knee.step]
    lost = [point for point in later if not admissible(point, base, margins)]
    share = way_gone(knee, base, ceiling)
    if share < margins.reach:
        advice = (
            f"{len(lost)} of {len(later)} later checkpoints lost prompt following or class prior, so a lower learning "
            f"rate or more prior preservation should do better"
            if lost
            else "more steps, a higher learning rate or a larger rank should do better"
        )
        return Choice(
            knee.step,
            "unlike",
            f"step {knee.step} is the most faithful checkpoint within the margins, and still only {100 * share:.0f} % "
            f"of the way from the base model to how alike the photographs are: {advice}.",
        )
    kept = f"keeps prompt following (within {margins.prompt:g} of the base) and class prior (within {margins.drift:g})"
    if len(points) == 1:
        reason = f"step {knee.step} is the only checkpoint that was looked at, and {kept}."
        return Choice(knee.step, "only", reason)
    after = (
        f"after it {len(lost)} of {len(later)} checkpoints lost prompt following or class prior"
        if lost
        else "later checkpoints were no more faithful"
        if later
        else "it is the last one, and had stopped gaining"
    )
    return Choice(
        knee.step,
        "knee",
        f"step {knee.step} is the most faithful checkpoint that {kept}; {after}.",
    )


def way_gone(point: Point, base: Point, ceiling: float | None) -> float:
    """Share of the way from the base's fidelity to the photographs' own; 1 where there is no way to go."""
    if ceiling is None or ceiling <= base.fidelity + 1e-6:
        return 1.0
    return (point.fidelity - base.fidelity) / (ceiling - base.fidelity)


def still_improving(points: Sequence[Point], margins: Margins) -> bool:
    """Whether the last checkpoint beat the one before it by more than a gain; of a single one that is not known."""
    ordered = sorted(points, key=lambda point: point.step)
    return len(ordered) > 1 and ordered[-1].fidelity > ordered[-2].fidelity + margins.gain


def stalled(points: Sequence[Point], base: Point, margins: Margins, patience: int) -> bool:
    """Whether the last `patience` checkpoints brought no admissible gain in fidelity over all before them."""
    if patience <= 0 or len(points) <= patience:
        return False
    ordered = sorted(points, key=lambda point: point.step)
    reached = [point.fidelity for point in ordered[:-patience] if admissible(point, base, margins)]
    best = max(reached, default=base.fidelity)
    return not any(
        point.fidelity > best + margins.gain and admissible(point, base, margins) for point in ordered[-patience:]
    )


def excess(point: Point, base: Point, margins: Margins) -> float:
    """How far a checkpoint breaks the margins, in margins: 0 where it is admissible."""
    over_prompt = max(0.0, base.prompt - margins.prompt - point.prompt) / max(margins.prompt, 1e-6)
    over_drift = max(0.0, point.drift - base.drift - margins.drift) / max(margins.drift, 1e-6)
    return over_prompt + over_drift
