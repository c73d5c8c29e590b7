"""Steps on disk: steps/<name>.py, imported from the project's own folder and checked before anything runs."""

import importlib
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from personalize.recipe.errors import RecipeError, nearest
from personalize.recipe.stepconfig import StepConfig

ENGINE = "personalize.recipe"
_looked_at = time.time()


@dataclass(frozen=True)
class Step:
    """One stage of the recipe. about: the first paragraph of its docstring."""

    name: str
    path: Path
    about: str
    needs: tuple[str, ...]
    kind: type[StepConfig]
    run: Callable[..., None]
    show: Callable[..., None] | None
    sources: Callable[[Any], Mapping[str, str]]
    reuse: bool
    code: tuple[str, ...]
    narrow: Callable[[Any], tuple[str, ...]] | None


def load_steps(root: Path, places: Mapping[str, str]) -> dict[str, Step]:
    """Import the steps that recipe.yaml names, in its order. Raises RecipeError where one is missing or malformed."""
    refresh(root)
    found = sorted(path.stem for path in (root / "steps").glob("*.py") if path.stem != "__init__")
    steps: dict[str, Step] = {}
    for name, place in places.items():
        path = root / "steps" / f"{name}.py"
        if not path.is_file():
            raise RecipeError(f"{place}: step '{name}' has no file steps/{name}.py{nearest(name, found)}")
        steps[name] = _step(name, path, _import(root, name, path), _show(root, name))
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


def _show(root: Path, name: str) -> Callable[..., None] | None:
    path = root / "steps" / "cards" / f"{name}.py"
    return _import(root, f"cards.{name}", path).show if path.is_file() else None


def _step(name: str, path: Path, module: ModuleType, show: Callable[..., None] | None) -> Step:
    kind, run = getattr(module, "Config", None), getattr(module, "run", None)
    if not (isinstance(kind, type) and issubclass(kind, StepConfig)):
        raise RecipeError(f"steps/{name}.py must define `class Config(StepConfig)`")
    if not callable(run):
        raise RecipeError(f"steps/{name}.py must define `def run(config, inputs, outputs, card)`")
    needs = getattr(module, "NEEDS", ())
    if isinstance(needs, str) or not all(isinstance(need, str) for need in needs):
        raise RecipeError(f"steps/{name}.py: NEEDS is a tuple of step names, not {needs!r}")
    return Step(
        name=name,
        path=path,
        about=_about(name, module.__doc__ or name),
        needs=tuple(needs),
        kind=kind,
        run=run,
        show=show,
        sources=getattr(module, "sources", lambda config: {}),
        reuse=bool(getattr(module, "REUSE", True)),
        code=tuple(getattr(module, "CODE", ())),
        narrow=getattr(module, "needs", None),
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
        raise RecipeError(f"steps/{name}.py{line}: cannot be imported: {type(error).__name__}: {error}") from error


def refresh(root: Path) -> None:
    """Forget imported project modules that were edited since the last look, or that belong to another project's folder.

    In a notebook the second `run` must execute the code that its fingerprint names, not the code of the first import.
    """
    global _looked_at
    looked_at, _looked_at = _looked_at, time.time()
    loaded = _files(root)
    own = {name: file for name, file in loaded.items() if file.is_relative_to(root)}
    foreign = [name for name in loaded if name not in own]
    edited = any(file.exists() and file.stat().st_mtime > looked_at for file in own.values())
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
