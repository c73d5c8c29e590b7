"""Files: a file is whole or not there, and content decides what it is.

The ground floor: every room writes through here what another process may read, and takes digests here. Digests are in
DVC's own terms: a folder's digest equals the md5 that `dvc add` would pin for it. Those of large files are remembered
by (size, mtime, ctime, inode), as git does, so asking again about a gigabyte of weights costs milliseconds.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

MEMORY = Path("build/recipe/digests.json")  # relative to the working directory, like everything else the engine keeps
REMEMBER_FROM_BYTES = 1 << 20
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times as fast
_SETTLED_SECONDS = 2.0  # a file younger than this may change again within one clock tick


# Writing.


@contextmanager
def whole(path: str | Path, private: bool = False, first_wins: bool = False) -> Iterator[Path]:
    """A path beside `path` to write a file or fill a folder at; when the block ends, `path` is what was written.

    A killed or failed writer leaves what was at `path` before. A folder replaces a folder; missing parents are made.
    private: nobody but its owner may read the file. first_wins: a folder that another process has put there meanwhile
    stays, for whoever fills it fills it alike and somebody may be reading in it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    os.close(descriptor)
    part = Path(name)
    part.unlink()  # only the name was wanted: the writer decides whether it is a file or a folder
    try:
        yield part
        if part.is_file():
            with part.open("rb") as stream:
                os.fsync(stream.fileno())  # before the name: a machine that goes down leaves no empty file
        if private:
            keep_private(part)
        _put(part, path, first_wins)
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def _put(part: Path, path: Path, first_wins: bool) -> None:
    """`part` becomes `path`; a folder that is there makes way, or stays where the first wins."""
    for attempt in range(100):  # another process may make the same folder at this moment
        if part.is_dir() and path.is_dir():
            if first_wins:
                return
            with contextlib.suppress(FileNotFoundError):
                aside = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}")
                path.rename(aside)
                shutil.rmtree(aside, ignore_errors=True)
        try:
            part.replace(path)
            return
        except OSError as error:
            if attempt == 99 or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def write_bytes(path: str | Path, content: bytes, private: bool = False) -> None:
    """Replace a file in one step."""
    with whole(path, private) as part:
        part.write_bytes(content)


def write_text(path: str | Path, text: str, private: bool = False) -> None:
    """Replace a UTF-8 file in one step."""
    write_bytes(path, text.encode("utf-8"), private)


def write_json(path: str | Path, content: Any, private: bool = False) -> None:
    """Replace a JSON file in one step: indented, NaN refused with a ValueError."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n", private)


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises OSError or ValueError."""
    return parse_json(Path(path).read_text(encoding="utf-8"))


class TooDeep(ValueError):
    """A text that is nested deeper than can be read."""

    def __init__(self) -> None:
        super().__init__("it is nested too deep")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError, for one that is nested too deep as well."""
    try:
        return json.loads(text)
    except RecursionError:
        raise TooDeep from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, no objects in it. Raises ValueError, for one that is nested too deep as well."""
    check_depth(text)
    try:
        return yaml.load(text, Loader=_YAML)
    except yaml.YAMLError as error:
        raise ValueError(f"it is not valid YAML ({error})") from error
    except RecursionError:
        raise TooDeep from None


def check_depth(text: str, most: int = 1000) -> None:
    """Raises TooDeep for a YAML text of more levels: libyaml composes them one in another, and ends the process."""
    depth = 0
    with contextlib.suppress(yaml.YAMLError):  # whoever reads it next says what is wrong
        for event in yaml.parse(text, Loader=_YAML):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > most:
                raise TooDeep


def read_handed(path: str | Path, most: int = 20_000_000) -> str:
    """A text that somebody has handed in, UTF-8 with or without a mark at its beginning. Raises as bytes do."""
    return bytes_handed(path, most).decode("utf-8-sig")


def bytes_handed(path: str | Path, most: int) -> bytes:
    """A file that somebody has handed in.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is none (a pipe would be waited for, a device has no end), or has more than so many bytes.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError(f"{path} is a pipe or a device and no file")
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path} has more than the {most / 1e6:g} MB that are read")
    return content


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSON Lines file in one step."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file; empty lines do not count. Raises OSError or ValueError.

    Lines end at a line feed alone: text may hold the other characters that Python takes for a line's end.
    """
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    return [parse_json(line) for line in lines if line.strip()]


def free_path(folder: str | Path, stem: str, suffix: str) -> Path:
    """`folder/stem.png`, or `stem-2.png`, `stem-3.png`, ... where that is taken."""
    path, copy = Path(folder) / f"{stem}{suffix}", 1
    while path.exists():
        copy += 1
        path = Path(folder) / f"{stem}-{copy}{suffix}"
    return path


# Only for oneself.


def keep_private(path: str | Path) -> None:
    """Let nobody but its owner read a file or enter a folder that is there. Somebody else's is left as it is."""
    path = Path(path)
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode
        if mode & 0o077:
            path.chmod(stat.S_IMODE(mode) & 0o700)


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """A folder among the system's temporary files, for as long as the block lasts; nobody else may enter it.

    Raises PermissionError where somebody else has taken its place.

    What a killed process leaves there is removed by the next `sweep_scratch`. The lock beside the folder tells: the
    system releases it with the process that holds it.
    """
    from filelock import FileLock

    root = _scratch_root()
    root.mkdir(mode=0o700, exist_ok=True)
    if root.is_symlink() or root.stat().st_uid != os.getuid():
        raise PermissionError(f"{root} is somebody else's; have it removed, or set TMPDIR to a folder of your own")
    with FileLock(root / f"{purpose}-{uuid.uuid4().hex}.lock", mode=0o600) as lock:
        folder = Path(lock.lock_file).with_suffix("")
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)


def sweep_scratch() -> None:
    """Remove the scratch folders of processes that no longer live."""
    from filelock import FileLock, Timeout

    for kept in _scratch_root().glob("*.lock"):
        with contextlib.suppress(Timeout, OSError), FileLock(kept, timeout=0, mode=0o600):
            shutil.rmtree(kept.with_suffix(""), ignore_errors=True)
            kept.unlink(missing_ok=True)


def _scratch_root() -> Path:
    """One for each user, whose name everybody knows."""
    return Path(tempfile.gettempdir(), f"personalize-{os.getuid()}")


# Digests.


def value_digest(value: Any) -> str:
    """sha256 of a plain value as JSON with sorted keys: equal values, equal digests."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def file_digest(path: str | Path, algorithm: str = "md5") -> str:
    """Of a file's bytes, in hexadecimal digits. Raises FileNotFoundError naming the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; give the path of a file that exists")
    info = path.stat()
    if info.st_size < REMEMBER_FROM_BYTES:
        return hashlib.new(algorithm, path.read_bytes(), usedforsecurity=algorithm != "md5").hexdigest()
    stamp = [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev]  # nobody can set back a ctime
    name = f"{algorithm} {path.resolve()}"
    known = _recall().get(name)
    if known and known[:-1] == stamp:
        return str(known[-1])
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=algorithm != "md5"))
    if time.time() - max(info.st_mtime, info.st_ctime) > _SETTLED_SECONDS:
        _remember(name, [*stamp, digest.hexdigest()])
    return digest.hexdigest()


def tree_files(path: str | Path, leave_out: str = "") -> dict[str, str]:
    """sha256 of each file below a folder, whatever DVC leaves out, by its name there.

    leave_out: a folder at its top that does not count.
    """
    root = Path(path)
    names = {file.relative_to(root): file for file in files_under(root, dvcignore=False)}
    return {
        name.as_posix(): file_digest(file, "sha256")
        for name, file in sorted(names.items())
        if not leave_out or name.parts[0] != leave_out
    }


def tree_digest(path: str | Path, leave_out: str = "", dvcignore: bool = True) -> str:
    """DVC's digest of a folder (`<md5>.dir`), or of a single file. leave_out: a folder at its top that does not count.

    What the .dvcignore files of a DVC repository name does not count either, as for `dvc add`; dvcignore: False counts
    every file. Raises FileNotFoundError naming the path.
    """
    root = Path(path)
    if root.is_file():
        return file_digest(root)
    if not root.is_dir():
        raise FileNotFoundError(
            f"{root} does not exist; give a file or folder that does, or `dvc pull` it if it is pinned"
        )
    found = files_under(root, dvcignore)
    files = [file for file in found if not leave_out or file.relative_to(root).parts[0] != leave_out]
    entries = [{"md5": file_digest(file), "relpath": file.relative_to(root).as_posix()} for file in files]
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def dvc_digest(pin: str | Path) -> str | None:
    """The md5 a .dvc file pins for its first output, or None where there is no such file or it pins none."""
    try:
        content = parse_yaml(Path(pin).read_text(encoding="utf-8"))
        return str(content["outs"][0]["md5"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def files_under(root: Path, dvcignore: bool = True) -> Iterator[Path]:
    """The files in a folder and in those below it, linked ones too; a link back up is not followed.

    dvcignore: without those that DVC leaves out.
    """
    place = Path(os.path.abspath(root))
    ignored = _dvcignored(place) if dvcignore else lambda path, is_folder: False
    for folder, folders, names in os.walk(root, followlinks=True):
        here = Path(folder)
        inside = place / here.relative_to(root)
        kept = [name for name in folders if name not in (".git", ".hg", ".dvc")]
        folders[:] = sorted(
            name for name in kept if not ignored(inside / name, True) and not _leads_back(root, here / name)
        )
        for name in sorted(names):
            file = here / name
            if file.is_file() and not ignored(inside / name, False):
                yield file


def _dvcignored(root: Path) -> Callable[[Path, bool], bool]:
    """Whether DVC leaves a path below the folder `root` out (and whether that path is a folder).

    By the .dvcignore files of the repository above it; one inside a folder that is added DVC refuses. A folder that is
    itself left out cannot be DVC's: there all counts.
    """
    import pathspec

    repository = next((place for place in root.parents if (place / ".dvc").is_dir()), None)
    above = root.parents[: root.parents.index(repository) + 1] if repository else ()
    specs = [
        (place, pathspec.GitIgnoreSpec.from_lines((place / ".dvcignore").read_text(encoding="utf-8").splitlines()))
        for place in above
        if (place / ".dvcignore").is_file()
    ]

    def ignored(path: Path, is_folder: bool) -> bool:
        for place, spec in specs:  # the nearest file, and in it the last pattern, that speaks of the path decides
            said = spec.check_file(path.relative_to(place).as_posix() + "/" * is_folder).include
            if said is not None:
                return bool(said)
        return False

    if any(ignored(place, True) for place in (root, *above[:-1])):
        specs.clear()
    return ignored


def _leads_back(root: Path, folder: Path) -> bool:
    """Whether a folder is a link to one that it lies in, by whatever way it was come to."""
    if not folder.is_symlink():
        return False
    target = Path(os.path.realpath(folder))
    above = [parent for parent in folder.parents if parent == root or parent.is_relative_to(root)]
    return any(Path(os.path.realpath(parent)).is_relative_to(target) for parent in above)


def _recall() -> dict[str, Any]:
    try:
        content = read_json(MEMORY)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(path: str, entry: list[Any]) -> None:
    try:
        write_text(MEMORY, json.dumps({**_recall(), path: entry}))
    except OSError:  # a read-only checkout only loses the shortcut
        return
