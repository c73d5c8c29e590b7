"""Steps: what a step declares (its config), what it is given (inputs), and how it is found on disk.

A step is `steps/<name>.py`, which makes things, and `steps/cards/<name>.py`, which shows what it left. Both are
imported from the project's own folder and checked before anything runs. `steps/replays/<name>.py` does parts of the
work again, where that can be done.
"""

import importlib
import re
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationInfo, field_validator

from personalize.cards.links import address
from personalize.evidence.chain import Link
from personalize.evidence.statement import Statement
from personalize.recipe.errors import RecipeError, nearest

ENGINE = "personalize.recipe"
DIAGNOSTICS = "diagnostics"
"""Folder of a step's outputs for what it tells of itself (seconds, speed, machine): no part of its result."""
HOW_NOT_WHAT: dict[str, JsonValue] = {"affects_result": False}
"""`json_schema_extra` of a key that changes how a step runs, or how it is shown, and not what it makes."""
OUTSIDE_DATA: dict[str, JsonValue] = {**HOW_NOT_WHAT, "outside_data": True}
"""`json_schema_extra` of a key that names data: their content counts (see `sources`) and stays on this machine."""
AGAIN = "recipe.again"
"""Tag by which a step's run asks for more, and says why: recipe.yaml's `again` names what is raised by one then."""
_looked_at = time.time()


class StepConfig(BaseModel):
    """Base of every step's `Config`: unknown keys are errors, values are frozen, numbers are finite.

    A key that changes how a step runs and not what it makes (a device, a timeout, a folder whose content `sources`
    already digests), or that only words need, stays out of the fingerprint:
    `Field(..., json_schema_extra=HOW_NOT_WHAT)`.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _a_yes_is_not_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name is not None:
            kinds = _kinds(cls.model_fields[info.field_name].annotation)
            if bool not in kinds and kinds & {int, float}:
                raise ValueError(f"needs a number, not {str(value).lower()}")
        return value

    @classmethod
    def result_keys(cls) -> tuple[str, ...]:
        """The keys whose values count in the fingerprint."""
        return tuple(name for name, field in cls.model_fields.items() if _affects_result(field.json_schema_extra))

    def outside_data(self) -> list[str]:
        """The folders and files that it names as data: keys marked so, and paths."""
        found = []
        for name, described in type(self).model_fields.items():
            extra, value = described.json_schema_extra, getattr(self, name)
            if isinstance(value, Path) or (isinstance(extra, dict) and extra.get("outside_data") and value):
                found.append(str(value))
        return found


def _affects_result(extra: Any) -> bool:
    return not (isinstance(extra, dict) and extra.get("affects_result") is False)


def _kinds(annotation: Any) -> set[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return set().union(*(_kinds(part) for part in get_args(annotation)))
    return {annotation}


class Input:
    """One earlier step's result. Outputs are fetched when `path` is first read: a step pays for what it opens.

    digest: of what it made, whoever made it. card: an address that `mlflow artifacts download -u` understands.
    """

    def __init__(
        self,
        run_id: str = "",
        fingerprint: str = "",
        fetch_outputs: Callable[[], Path] | None = None,
        fetch_metrics: Callable[[], Mapping[str, float]] | None = None,
        digest: str = "",
        card: str = "",
        fetch_statement: Callable[[], Statement] | None = None,
    ) -> None:
        self.run_id = run_id
        self.fingerprint = fingerprint
        self.digest = digest
        self.card = card or address(run_id)
        self._fetch_outputs = fetch_outputs
        self._fetch_metrics = fetch_metrics
        self._fetch_statement = fetch_statement

    @cached_property
    def path(self) -> Path:
        """The step's outputs directory. It may be the tracking store itself: read, never write."""
        if self._fetch_outputs is None:
            raise ValueError(f"run {self.run_id or '?'} has no outputs to read")
        return self._fetch_outputs()

    @cached_property
    def statement(self) -> Statement | None:
        """What the run has signed of itself (`recipe.provenance`); None for inputs that no run made."""
        return self._fetch_statement() if self._fetch_statement else None

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric the step logged."""
        return dict(self._fetch_metrics()) if self._fetch_metrics else {}


class Inputs(Mapping[str, Input]):
    """Earlier results by step name: `inputs["train"].path / "lora"`."""

    def __init__(self, inputs: Mapping[str, Input]) -> None:
        self._inputs = dict(inputs)

    @classmethod
    def from_paths(cls, paths: Mapping[str, Path]) -> "Inputs":
        """Inputs that lie in plain folders, for calling a step's `run` without the engine (a notebook, a test)."""
        return cls({name: Input(fetch_outputs=lambda path=Path(path): path) for name, path in paths.items()})  # type: ignore[misc]

    def __getitem__(self, name: str) -> Input:
        if name not in self._inputs:
            raise KeyError(
                f"this step does not declare '{name}' in NEEDS; it declares: {', '.join(self._inputs) or 'nothing'}"
            )
        return self._inputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)


@dataclass(frozen=True)
class Replay:
    """Parts of finished work that are to be done again: how many, drawn by which seed.

    tolerance: how far the result may be from what it was, in the step's own terms; 0 compares bytes.
    """

    segments: int
    seed: int
    tolerance: float = 0.0


Sources = Callable[[Any], Mapping[str, str]]


@dataclass(frozen=True)
class Step:
    """One stage of the recipe. about: the first paragraph of its docstring.

    acts: what it does is seen outside, in a registry or at an endpoint, so whoever makes a run again leaves it out.

    check: what must be so before any step runs (a name that the registry takes, a permission); raises ValueError.

    reads: the files that it reads of an input, where not all: they alone count, and it is given no others.

    sources: digests of what it depends on besides its inputs; remote_sources: of what a server knows of, which is asked
    once nothing on this machine is found wrong.
    """

    name: str
    path: Path
    about: str
    needs: tuple[str, ...]
    kind: type[StepConfig]
    run: Callable[..., None]
    show: Callable[..., None]
    card_path: Path | None
    sources: Sources
    reuse: bool
    code: tuple[str, ...]
    narrow: Callable[[Any], tuple[str, ...]] | None
    check: Callable[[Any], None]
    acts: bool = False
    reads: Callable[[Any], Mapping[str, tuple[str, ...]]] = lambda config: {}
    remote_sources: Sources = lambda config: {}


def load_steps(root: Path, places: Mapping[str, str]) -> dict[str, Step]:
    """Import the steps that recipe.yaml names, in its order. Raises RecipeError where one is missing or malformed."""
    refresh(root)
    found = sorted(path.stem for path in (root / "steps").glob("*.py") if path.stem != "__init__")
    steps: dict[str, Step] = {}
    for name, place in places.items():
        path = root / "steps" / f"{name}.py"
        if not path.is_file():
            raise RecipeError(f"{place}: step '{name}' has no file steps/{name}.py{nearest(name, found)}")
        steps[name] = _step(root, name, path)
    for step in steps.values():
        for need in step.needs:
            if need not in steps:
                raise RecipeError(
                    f"steps/{step.name}.py: NEEDS names '{need}', which recipe.yaml lacks{nearest(need, steps)}"
                )
    order = list(steps)
    for step in steps.values():
        late = [need for need in step.needs if order.index(need) >= order.index(step.name)]
        if late:
            raise RecipeError(
                f"{places[step.name]}: step '{step.name}' needs '{late[0]}'; put it after '{late[0]}' in recipe.yaml"
            )
    return steps


def _step(root: Path, name: str, path: Path) -> Step:
    module = _import(root, name, path)
    kind, run = getattr(module, "Config", None), getattr(module, "run", None)
    if not (isinstance(kind, type) and issubclass(kind, StepConfig)):
        raise RecipeError(f"steps/{name}.py must define `class Config(StepConfig)`")
    if not callable(run):
        raise RecipeError(f"steps/{name}.py must define `def run(config, inputs, outputs)`")
    needs = getattr(module, "NEEDS", ())
    if isinstance(needs, str) or not all(isinstance(need, str) for need in needs):
        raise RecipeError(f"steps/{name}.py: NEEDS is a tuple of step names, not {needs!r}")
    card_path = root / "steps" / "cards" / f"{name}.py"
    show = getattr(_import(root, f"cards.{name}", card_path), "show", None) if card_path.is_file() else show_files
    if not callable(show):
        raise RecipeError(f"steps/cards/{name}.py must define `def show(config, inputs, outputs, card)`")
    return Step(
        name=name,
        path=path,
        about=_about(name, module.__doc__ or name),
        needs=tuple(needs),
        kind=kind,
        run=run,
        show=show,
        card_path=card_path if card_path.is_file() else None,
        sources=getattr(module, "sources", lambda config: {}),
        reuse=bool(getattr(module, "REUSE", True)),
        code=tuple(getattr(module, "CODE", ())),
        narrow=getattr(module, "needs", None),
        check=getattr(module, "check", lambda config: None),
        acts=bool(getattr(module, "ACTS", False)),
        remote_sources=getattr(module, "remote_sources", lambda config: {}),
        reads=getattr(module, "reads", None) or _always(_reads(name, needs, getattr(module, "READS", {}))),
    )


def _always(reads: Mapping[str, tuple[str, ...]]) -> Callable[[Any], Mapping[str, tuple[str, ...]]]:
    return lambda config: reads


def _reads(name: str, needs: Sequence[str], reads: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(reads, Mapping) or any(isinstance(files, str) for files in reads.values()):
        raise RecipeError(f"steps/{name}.py: READS maps needed steps to the files that are read of them, not {reads!r}")
    if strange := next((need for need in reads if need not in needs), ""):
        raise RecipeError(f"steps/{name}.py: READS names '{strange}', which NEEDS does not{nearest(strange, needs)}")
    return {need: tuple(files) for need, files in reads.items()}


def replay_of(root: Path, name: str) -> Callable[..., list[Link]] | None:
    """A step's `replay(config, inputs, outputs, artifact, asked)`, which does parts of its work again, or None.

    inputs, outputs: of the finished run, only to be read. artifact: fetches another artifact of it. asked: a Replay.
    """
    path = root / "steps" / "replays" / f"{name}.py"
    return getattr(_import(root, f"replays.{name}", path), "replay", None) if path.is_file() else None


def show_files(config: Any, inputs: Mapping[str, "Input"], outputs: Path, card: Any) -> None:
    """The card of a step without one of its own: what it made, its pictures to be seen."""
    files = sorted(path for path in outputs.rglob("*") if path.is_file())
    pictures = [path for path in files if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp")][:40]
    if pictures:
        card.images("Pictures", [(path, path.relative_to(outputs).as_posix()) for path in pictures])
    card.table(
        "Files", ["file", "bytes"], [[path.relative_to(outputs).as_posix(), path.stat().st_size] for path in files]
    )


def _about(name: str, docstring: str) -> str:
    """The first paragraph, without what the engine says itself: the step's name, `needs: …   gives: …`."""
    first = " ".join(docstring.strip().split("\n\n")[0].split())
    said = re.split(r"\s(?:needs|gives):\s", first)[0].strip()
    head, colon, rest = said.partition(": ")
    return rest[:1].upper() + rest[1:] if colon and head.lower() == name.lower() else said


def _import(root: Path, name: str, path: Path) -> ModuleType:
    if sys.path[:1] != [str(root)]:
        sys.path.insert(0, str(root))
    try:
        return importlib.import_module(f"steps.{name}")
    except Exception as error:
        at = next(
            (
                f":{frame.lineno}"
                for frame in traceback.extract_tb(error.__traceback__)[::-1]
                if frame.filename == str(path)
            ),
            "",
        )
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.filename == str(path) else at
        raise RecipeError(
            f"{path.relative_to(root)}{line}: cannot be imported: {type(error).__name__}: {error}"
        ) from error


def refresh(root: Path) -> None:
    """Forget imported project modules that were edited since the last look, or that belong to another project's folder.

    In a notebook the second `run` must execute the code that its fingerprint names, not the code of the first import.
    """
    global _looked_at
    looked_at, _looked_at = _looked_at, time.time()
    loaded = _files(root)
    own = {name: file for name, file in loaded.items() if file.is_relative_to(root)}
    foreign = [name for name in loaded if name not in own]
    edited = any(file.exists() and file.stat().st_ctime > looked_at for file in own.values())  # nobody sets it back
    for name in [*(own if edited else ()), *foreign]:
        sys.modules.pop(name, None)
    if edited or foreign:
        importlib.invalidate_caches()


def _files(root: Path) -> dict[str, Path]:
    """Loaded modules that bear the name of one of the project's packages, with their files; not the engine."""
    found = {}
    for name, module in list(sys.modules.items()):
        top, file = name.partition(".")[0], getattr(module, "__file__", None)
        if file and not name.startswith(ENGINE) and name != "personalize" and (root / top / "__init__.py").is_file():
            found[name] = Path(file)
    return found
