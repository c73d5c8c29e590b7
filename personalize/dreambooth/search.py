"""Search: which training settings to try next, what a trial was worth, and when to give one up.

A trial is worth the greatest likeness among its checkpoints that still follow prompts and still know their class
(`choice.admissible`): what the train step would have kept of it. Imports Optuna where it is used, and no torch.
"""

from __future__ import annotations

import difflib
import json
import sys
import types
from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import TYPE_CHECKING, Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from personalize.dreambooth.choice import Margins, Point, admissible, excess
from personalize.dreambooth.settings import NOT_THE_RESULT, TrainSettings

if TYPE_CHECKING:
    import optuna

MEASURE = (
    "seed",
    "prompt_margin",
    "drift_margin",
    "fidelity_gain",
    "fidelity_reach",
    *(name for name in TrainSettings.model_fields if name.startswith("validation_")),
)
"""Settings that decide how trials are measured. Were they searched, trials could not be compared."""

DIGITS = 3
"""Significant digits of a proposed number, so that the command that trains with it can be read and typed."""

COMBINATIONS = 4096
"""Combinations of values that are tried against each other before a sweep starts."""


class Dimension(BaseModel):
    """Where one setting is searched: between two numbers, or among given values."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: float | None = Field(None, description="least value")
    high: float | None = Field(None, description="greatest value")
    log: bool = Field(False, description="equal ratios are equally likely, not equal differences")
    step: float | None = Field(None, gt=0, description="distance between values")
    choices: tuple[JsonValue, ...] = Field((), description="the values, in place of low and high")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.choices) == (self.low is not None or self.high is not None):
            raise ValueError("takes either low and high, or choices")
        if self.choices:
            if self.log or self.step is not None:
                raise ValueError("log and step belong to low and high, not to choices")
            return self
        if self.low is None or self.high is None:
            raise ValueError("takes both low and high")
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0 and no step")
        return self

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that stand for all: the choices, or low and high."""
        return self.choices or (self.low, self.high)


Space = Mapping[str, Dimension]


def check_space(space: Space) -> dict[str, Dimension]:
    """The space with its values in their settings' types. ValueError for a name or a value that no training knows."""
    if not space:
        raise ValueError(
            "names no setting; give at least one, such as learning_rate: {low: 1e-4, high: 1e-3, log: true}"
        )
    return {name: _settled(name, dimension) for name, dimension in space.items()}


def check_combinations(space: Space, settings: Mapping[str, Any]) -> None:
    """ValueError for a value that can be trained with in no combination with the others and the given settings."""
    waiting = {(name, json.dumps(value)) for name, dimension in space.items() for value in dimension.ends}
    why = ""
    every = product(*(dimension.ends for dimension in space.values()))
    for values in islice(every, COMBINATIONS):
        try:
            TrainSettings(**{**settings, **dict(zip(space, values, strict=True))})
            waiting -= {(name, json.dumps(value)) for name, value in zip(space, values, strict=True)}
        except ValidationError as error:
            why = fault(error)
    if waiting and next(every, None) is None:
        name, value = min(waiting)
        raise ValueError(f"space: {name}: {value} can be trained with in no combination: {why}")


def suggest(trial: optuna.Trial, space: Space) -> dict[str, Any]:
    """A value for each setting of the space, whatever the order in which they are named."""
    return {name: _suggested(trial, name, space[name]) for name in sorted(space)}


def spelt(value: Any) -> str:
    """A value as it is typed on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def start(space: Space, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as configured, those that lie in the space: what the first trial tries."""
    return {
        name: _label(settings[name], dimension)
        for name, dimension in space.items()
        if _holds(name, dimension, settings[name])
    }


def worth(points: Sequence[Point], base: Point, margins: Margins) -> float:
    """What a trial's checkpoints are worth: the greatest fidelity of an admissible one.

    Where none is admissible, a number below -1 and so below every cosine: the lower, the further margins are broken.
    """
    good = [point.fidelity for point in points if admissible(point, base, margins)]
    return max(good) if good else -1.0 - min(excess(point, base, margins) for point in points)


class Front:
    """A trial's checkpoints as they are scored; tells Optuna and gives the trial up where it lags.

    The scores lie in the trial's attributes, so that a trial which a kill interrupted goes on with them. last: the step
    after which there is nothing left to give up.
    """

    def __init__(self, trial: optuna.Trial, margins: Margins, last: int = sys.maxsize) -> None:
        self.trial, self.margins, self.last = trial, margins, last
        self.told: set[int] = set()

    @property
    def points(self) -> list[Point]:
        """The base's scores first, then those of the checkpoints."""
        return [Point.of(int(row["step"]), row) for row in self.trial.user_attrs.get("scores", [])]

    @property
    def value(self) -> float:
        base, *points = self.points
        return worth(points, base, self.margins)

    def scored(self, step: int, scores: Mapping[str, float]) -> float | None:
        """What the trial is worth now; None for the base. Raises optuna.TrialPruned."""
        import optuna

        before = [row for row in self.trial.user_attrs.get("scores", []) if row["step"] < step]
        self.trial.set_user_attr("scores", [*before, {"step": step, **scores}])
        base, *points = self.points
        for point in points:
            if point.step not in self.told:
                self.told.add(point.step)
                self.trial.report(worth([p for p in points if p.step <= point.step], base, self.margins), point.step)
        if points and step < self.last and self.trial.should_prune():
            raise optuna.TrialPruned
        return self.value if points else None


def _settled(name: str, dimension: Dimension) -> Dimension:
    if name not in TrainSettings.model_fields:
        near = difflib.get_close_matches(name, TrainSettings.model_fields, n=1, cutoff=0.6)
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(TrainSettings.model_fields)}"
        raise ValueError(f"'{name}' is not a training setting; {hint}")
    if name in MEASURE:
        raise ValueError(f"{name} decides how trials are measured; set sweep.{name} for all of them instead")
    if name in NOT_THE_RESULT:
        raise ValueError(f"{name} changes how training goes and not what it makes, so there is nothing to search")
    if dimension.choices:
        values = [_typed(name, value) for value in dimension.choices]
        if len({json.dumps(value) for value in values}) < len(values):
            raise ValueError(f"{name}: a value is given twice among the choices")
        return dimension.model_copy(update={"choices": tuple(values)})
    if not _kinds(name) & {int, float}:
        raise ValueError(f"{name}: is not a number; give choices in place of low and high")
    low, high = _typed(name, dimension.low), _typed(name, dimension.high)
    return dimension.model_copy(update={"low": low, "high": high})


def _typed(name: str, value: Any) -> Any:
    field = TrainSettings.model_fields[name]
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    if isinstance(value, bool) and bool not in _kinds(name):
        raise ValueError(f"{name}: {json.dumps(value)} is not a value of it")
    try:
        return TypeAdapter(kind).dump_python(TypeAdapter(kind).validate_python(value), mode="json")
    except ValidationError as error:
        raise ValueError(f"{name}: {json.dumps(value)} is not a value of it: {fault(error)}") from error


def _kinds(name: str) -> set[Any]:
    annotation = TrainSettings.model_fields[name].annotation
    return set(get_args(annotation)) if get_origin(annotation) in (Union, types.UnionType) else {annotation}


def fault(error: ValidationError) -> str:
    """The first thing that is wrong, in words."""
    message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _suggested(trial: optuna.Trial, name: str, dimension: Dimension) -> Any:
    if dimension.choices:
        labels = [_label(value, dimension) for value in dimension.choices]
        return dimension.choices[labels.index(trial.suggest_categorical(name, labels))]
    low, high = dimension.low, dimension.high
    assert low is not None
    assert high is not None
    if int in _kinds(name):
        return trial.suggest_int(name, int(low), int(high), step=int(dimension.step or 1), log=dimension.log)
    value = trial.suggest_float(name, low, high, step=dimension.step, log=dimension.log)
    return min(high, max(low, float(f"{value:.{DIGITS}g}")))


def _label(value: Any, dimension: Dimension) -> Any:
    """What Optuna keeps of a value: numbers, words and yes or no as they are, the rest as JSON."""
    return json.dumps(value) if dimension.choices and isinstance(value, list | tuple | dict) else value


def _holds(name: str, dimension: Dimension, value: Any) -> bool:
    if dimension.choices:
        return any(json.dumps(value) == json.dumps(choice) for choice in dimension.choices)
    assert dimension.low is not None
    assert dimension.high is not None
    return value is not None and dimension.low <= value <= dimension.high
