"""What a step's result depends on, as digests: its code, config, the content of its inputs, outside data, environment.

Code is compared by meaning: the parsed tree without docstrings, so comments, formatting and docstrings rerun nothing.
The engine and the cards are no part of a step's code, since they make no results; `FORMAT` is raised when they come to.
Inputs count by what they hold and not by who made them: where a step that ran again comes to the same, what follows is
reused (early cutoff: Mokhov et al., Build Systems à la Carte, 2018, Sec. 2.3).
"""

import ast
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from personalize.egress import sift, without_secrets
from personalize.environment import LOCK, TORCH, drift, locked
from personalize.files import dvc_digest, file_digest
from personalize.recipe import git
from personalize.recipe.errors import RecipeError
from personalize.recipe.fetched import repository

FORMAT = 3
ENGINE = (("personalize", "recipe"),)
SHOWING = (("personalize", "cards"), ("steps", "cards"))
ENVIRONMENT_FILES = ("conda.yaml", "python_env.yaml", "requirements.txt")
"""What an environment is known by where nothing is locked."""
UNLOCKED = " and not "
"""Between the version of a package that is installed and the one that is locked, where they are two."""


@dataclass(frozen=True)
class Components:
    """The parts of a fingerprint, kept beside each run so that the next plan can say what changed.

    inputs: digest of each needed step's result; empty while these are not known. environment: by package.
    """

    step: str
    code: dict[str, str]
    config: dict[str, Any]
    inputs: dict[str, str]
    sources: dict[str, str]
    environment: dict[str, str]
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """The fingerprint: 64 hexadecimal digits."""
        return _sha256(json.dumps(asdict(self), sort_keys=True, ensure_ascii=False))

    def given(self, inputs: Mapping[str, str]) -> "Components":
        """The same with the digests of its inputs."""
        return replace(self, inputs=dict(inputs))

    def as_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Components":
        """Raises ValueError or TypeError where the text is not of this format."""
        fields = json.loads(text)
        if isinstance(fields["environment"], str):  # before format 3: one digest
            fields["environment"] = {"": fields["environment"]}
        return cls(**fields)


def environment(root: Path) -> dict[str, str]:
    """The environment that is installed: each locked package with its version and a digest of its files' hashes.

    Of one that is installed in another version, that version and what is locked. Where a project locks none: the digest
    of the file that pins its environment; comments do not count. Empty where it pins none either.
    """
    locks = [path.read_text(encoding="utf-8") if path.is_file() else "" for path in (root / LOCK, root / TORCH)]
    if any(locks):
        pinned = locked("\n".join(locks))
        apart = drift(*locks)
        return pinned | {
            name: f"{version or 'nothing'}{UNLOCKED}{pinned[name].partition(' ')[0]}" for name, version in apart.items()
        }
    for name in ENVIRONMENT_FILES:
        path = root / name
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".yaml":
                return {name: _sha256(json.dumps(yaml.safe_load(text), sort_keys=True, default=str))}
            lines = [line.partition("#")[0].strip() for line in text.splitlines()]
            return {name: _sha256("\n".join(line for line in lines if line))}
    return {}


def unlocked(environment: Mapping[str, str]) -> list[str]:
    """The packages that are not installed as they are locked: `numpy 2.4.6 and not 2.5.0`."""
    return [f"{name} {said}" for name, said in sorted(environment.items()) if UNLOCKED in said]


def code_closure(root: Path, start: Path, extra: Iterable[str] = (), showing: bool = False) -> dict[str, str]:
    """Digest by path of every project file that `start` reaches through imports, at module level or inside functions.

    extra: files or folders the code uses by path (a model's source, a template); .py files with their closure.
    showing: follow imports into the cards as well.
    """
    left_out = ENGINE if showing else ENGINE + SHOWING
    closure: dict[str, str] = {}
    waiting = [start]
    for name in extra:
        path = root / name
        if not path.exists():
            raise RecipeError(f"{start.relative_to(root)}: CODE names '{name}', which does not exist")
        waiting.extend(sorted(path.rglob("*.py")) if path.is_dir() else [path])
        if path.is_dir():
            waiting.extend(
                sorted(file for file in path.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc"))
            )
    while waiting:
        path = waiting.pop()
        name = path.relative_to(root).as_posix()
        if name in closure:
            continue
        if path.suffix != ".py":
            closure[name] = hashlib.sha256(path.read_bytes()).hexdigest()
            continue
        stat = path.stat()
        stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        closure[name], imports = _parsed(path, name, stamp)
        waiting.extend(file for module in imports for file in _files(root, module, left_out))
    return dict(sorted(closure.items()))


@lru_cache(maxsize=512)
def _parsed(path: Path, name: str, stamp: tuple[int, ...]) -> tuple[str, frozenset[str]]:
    """The digest of a module's meaning and the dotted names it may import."""
    try:
        tree = ast.parse(path.read_bytes(), filename=name)
    except SyntaxError as error:
        raise RecipeError(f"{name}:{error.lineno}: not valid Python: {error.msg}") from error
    imports: set[str] = set()
    package = name.removesuffix(".py").split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            imports.add(base)
            imports.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) == "import_module":
            imports.update(str(name.value) for name in node.args[:1] if isinstance(name, ast.Constant))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    return _sha256(ast.dump(tree, annotate_fields=False)), frozenset(imports)


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _drop_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    first = node.body[0] if node.body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        node.body = node.body[1:]


def _files(root: Path, module: str, left_out: Iterable[tuple[str, ...]]) -> list[Path]:
    """The project files that importing `a.b.c` executes: a/__init__.py, a/b/__init__.py and a/b/c.py."""
    parts = [part for part in module.split(".") if part]
    if not parts or tuple(parts[:2]) in left_out:
        return []
    found = []
    for depth in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:depth])
        if place.is_dir():
            package = place / "__init__.py"
            if package.is_file():
                found.append(package)
        elif place.with_suffix(".py").is_file():
            found.append(place.with_suffix(".py"))
            break
        else:
            break
    return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def differences(now: Components, then: Components, waiting: Iterable[str] = ()) -> list[str]:
    """What changed between two runs of a step, each in a few words, what a person did first.

    waiting: inputs that are being made anew, of which nothing can be said yet.
    """
    said: list[str] = []
    said += [f"code of {name} changed" for name in _changed(then.code, now.code)]
    for key in _changed(then.config, now.config):
        said.append(f"{key} {_show(then.config, key)} → {_show(now.config, key)}")
    for name in _changed(then.sources, now.sources):
        said.append(f"{name} changed (digest {_short(then.sources.get(name))} → {_short(now.sources.get(name))})")
    if then.environment != now.environment:
        said.append("environment changed" + _packages(then.environment, now.environment))
    unknown = set(waiting)
    said += [f"input {name} changed" for name in _changed(then.inputs, now.inputs) if name not in unknown]
    if then.format != now.format:
        said.append("the engine's format changed")
    return said


def _packages(then: Mapping[str, str], now: Mapping[str, str], most: int = 3) -> str:
    """What changed in a lock: `: numpy 2.3.1 → 2.4.6, other files of torch 2.13.0 and 2 more`; nothing without one."""
    if not set(then) & set(now) or set(now) & set(ENVIRONMENT_FILES):
        return ""
    words = []
    for name in _changed(then, now):
        before, after = (_version(side[name]) if name in side else "(not there)" for side in (then, now))
        words.append(f"{name} {before} → {after}" if before != after else f"other files of {name} {after}")
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return f": {', '.join(words[:most])}{more}"


def _version(said: str) -> str:
    return f"{said} as locked" if UNLOCKED in said else said.partition(" ")[0]


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [key for key in sorted({*then, *now}) if then.get(key, _ABSENT) != now.get(key, _ABSENT)]


_ABSENT = object()


def _show(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "(not there)"
    value = values[key]
    text = without_secrets(value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= 40 else f"{text[:38]}…"


def _short(digest: str | None) -> str:
    return "none" if not digest else f"{digest[:4]}…" if len(digest) > 12 else digest


@dataclass(frozen=True)
class Lineage:
    """commit: empty outside git. dirty: whether anything differs from it. lock: sha256 of the locked environment.

    repository: the address that the checkout was cloned from, where it is one.

    diff: of what may leave this machine, a patch that `git apply` accepts. left_out: the other changed files, and why.
    """

    commit: str = ""
    diff: str = ""
    dirty: bool = False
    left_out: dict[str, str] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    environment: str = ""
    lock: str = ""
    repository: str = ""

    def tags(self) -> dict[str, str]:
        """As run tags, all under `lineage.`."""
        tags = {"lineage.commit": self.commit or "none", "lineage.dirty": str(self.dirty).lower()}
        tags.update({f"lineage.dvc.{name}": digest for name, digest in self.pins.items()})
        if self.left_out:
            tags["lineage.left_out"] = str(len(self.left_out))
        if self.repository:
            tags["lineage.repository"] = self.repository
        if self.environment:
            tags["lineage.environment"] = self.environment
        return tags


def lineage(root: Path, places: Iterable[str] = ()) -> Lineage:
    """Read the project's lineage. A project outside git, or a machine without git, has no commit; nothing is raised.

    places: folders and files with data, which stay on this machine.

    A job's copy of a checkout has no git around it; who submitted it says in PERSONALIZE_COMMIT what it is of.
    """
    commit = git.said(root, "rev-parse", "HEAD").strip()
    told, _, changes = os.environ.get("PERSONALIZE_COMMIT", "").partition("+")
    status = git.said(root, "status", "--porcelain", "--untracked-files=normal") if commit else ""
    pins = {path.stem: digest for path in sorted(root.glob("*.dvc")) if (digest := dvc_digest(path))}
    diff, left_out = _diff(root, places) if status else ("", {})
    dirty = bool(status) if commit else bool(changes)
    pinned = environment(root)
    digest = _sha256(json.dumps(pinned, sort_keys=True)) if pinned else ""
    lock = file_digest(root / LOCK, "sha256") if (root / LOCK).is_file() else ""
    return Lineage(commit or told, diff, dirty, left_out, pins, digest, lock, repository(root) if commit else "")


def _diff(root: Path, places: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The patch of what differs from the commit inside the project and may leave this machine, and what may not."""
    top = Path(git.said(root, "rev-parse", "--show-toplevel").strip() or root)
    prefix = git.said(root, "rev-parse", "--show-prefix").rstrip("\n")
    plain = ["--text", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv"]
    plain += ["--src-prefix=a/", "--dst-prefix=b/"]
    tracked = _names(top, "diff", "HEAD", "--name-only", "--no-renames", "-z")
    new = _names(root, "ls-files", "--others", "--exclude-standard", "--full-name", "-z")

    def patch(name: str) -> bytes:
        full = prefix + name
        if full in new:
            return git.raw(top, "diff", "--no-index", *plain, "--", "/dev/null", full, also=1)
        return git.raw(top, "--literal-pathspecs", "diff", "HEAD", *plain, "--", full)

    changed = {*tracked, *new}
    inside = {name.removeprefix(prefix) for name in changed if name.startswith(prefix)}
    sifted = sift(root, inside, patch, places)
    outside = {name: "outside the project's folder" for name in sorted(changed) if not name.startswith(prefix)}
    return "".join(sifted.texts.values()), sifted.left_out | outside


def _names(where: Path, *arguments: str) -> set[str]:
    return {name for name in git.said(where, *arguments).split("\0") if name}
