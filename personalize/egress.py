"""Egress: what may leave this machine with a run or a job. It is an allow-list; whatever is not on it stays here.

Code, configuration and text leave, by kind and place. Data never do (folders of photographs, what DVC pins, what the
configuration names as data), nor pictures, archives, weights, tables, notebooks (they hold their outputs), databases
and `.env` files, nor a text that holds a picture in base64, nor a file in which detect-secrets finds what looks like a
secret. What is left out is named, with the reason.
"""

import fnmatch
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from personalize.files import parse_yaml

MOST_FILE_BYTES = 500_000
MOST_BYTES = 2_000_000
MOST_FILES = 1000

CODE = (".py", ".pyi", ".sh", ".sql", ".j2", ".jinja", ".mk")
CONFIGURATION = (".yaml", ".yml", ".toml", ".ini", ".cfg", ".lock", ".dvc")
TEXT = (".md", ".rst")
NAMES = (
    *("MLproject", "Makefile", "Dockerfile", "LICENSE", "NOTICE", "py.typed", ".python-version"),
    *(".gitignore", ".gitattributes", ".dvcignore", ".dockerignore", "requirements*.txt", "constraints*.txt"),
)
PACKAGED = frozenset((".txt", ".json", ".html", ".css", ".js"))
"""Kinds that may as well be data: code only where they lie in a Python package."""
SECRETIVE = ("*secret*", "*credential*", "*password*", "*.local.*", ".env*", "*.env")
HIDDEN = frozenset((".github", ".gitlab", ".circleci", ".ci", ".dvc"))
"""Hidden folders that are part of a project; any other is somebody's own."""
PICTURES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".psd"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}  # as cameras write them
)
DATA = ("data", "photographs", "models")

ALLOWED = "pragma: allowlist secret"
"""On a line of a file: what looks like a secret there is none (detect-secrets' own word)."""
PUT_OUT = "[secret]"
COVERED = ("Private Key", "Basic Auth Credentials")
"""The library's kinds whose match is not the secret: the first line of a key, an address around its password."""


@dataclass(frozen=True)
class Sifted:
    """texts: what leaves, by name. left_out: why, by name; a data folder counts as one, its name ending in `/`."""

    texts: dict[str, str]
    left_out: dict[str, str]


def sift(
    root: Path, names: Iterable[str], read: Callable[[str], bytes], places: Iterable[str] = (), most: int = MOST_BYTES
) -> Sifted:
    """Divide the files of the project in `root`.

    names: relative to `root`. read: what would leave of a file (its bytes, or a patch). places: folders and files with
    data, beside those that the project's own pins and profiles tell. most: bytes in all; the smallest go first.
    """
    data = [*data_places(root), *filter(None, (place_in(root, place) for place in places))]
    left_out: dict[str, str] = {}
    within: Counter[tuple[str, str]] = Counter()
    albums: dict[str, bool] = {}
    sized: list[tuple[int, str]] = []
    for name in sorted(set(names)):
        if place := next((place for place in data if name == place or name.startswith(f"{place}/")), ""):
            within["data", place] += 1
        elif folder := _album(root, name, albums):
            within["a folder of pictures", folder] += 1
        elif folder := _hidden(name):
            within["a hidden folder", folder] += 1
        elif why := _unwanted(root, name):
            left_out[name] = why
        else:
            path = root / name
            sized.append((path.stat().st_size if path.is_file() else 0, name))
    for (why, place), count in within.items():
        is_file = (root / place).is_file()
        left_out[place if is_file else f"{place}/"] = why if is_file else f"{why}, {count} file{'s' * (count > 1)}"
    texts: dict[str, str] = {}
    total = 0
    for number, (_, name) in enumerate(sorted(sized)):
        if number >= MOST_FILES:
            left_out[name] = f"more than {MOST_FILES} files"
            continue
        text, why = _readable(root / name, read(name), total, most)
        if text is None:
            left_out[name] = why
        else:
            texts[name] = text
            total += len(text.encode("utf-8"))
    return Sifted(dict(sorted(texts.items())), dict(sorted(left_out.items())))


def data_places(root: Path) -> list[str]:
    """The folders and files of `root` that hold data: what DVC pins, what a profile calls DATA, and the usual names."""
    found = list(DATA)
    for path in sorted(root.glob("*.dvc")):
        outs = _mapping(path).get("outs")
        found += [str(out.get("path")) for out in outs or () if isinstance(out, Mapping)]
    found += [str(_mapping(path).get("DATA") or "") for path in sorted(root.glob("profiles/*.yaml"))]
    return list(dict.fromkeys(place for each in found if (place := place_in(root, each))))


def place_in(root: Path, place: str) -> str:
    """`place` relative to `root`; empty where it lies elsewhere, is the whole of it, or is no path at all."""
    if not place or "://" in place or "\0" in place:
        return ""
    here = root.resolve()
    path = Path(place).expanduser()
    for candidate in ((here / path), (here / path).resolve()):
        inside = PurePosixPath(candidate.as_posix())
        if ".." not in inside.parts and inside.is_relative_to(here.as_posix()) and str(inside) != str(here):
            return inside.relative_to(here.as_posix()).as_posix()
    return ""


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _hidden(name: str) -> str:
    """The outermost hidden folder that the file lies in and that is not part of a project."""
    folders = PurePosixPath(name).parts[:-1]
    for depth, folder in enumerate(folders, start=1):
        if folder.startswith(".") and folder not in HIDDEN:
            return "/".join(folders[:depth])
    return ""


def _album(root: Path, name: str, known: dict[str, bool]) -> str:
    """The outermost folder around the file that holds no fewer pictures than code, configuration and text."""
    for folder in [each.as_posix() for each in PurePosixPath(name).parents][-2::-1]:
        if folder not in known:
            kinds = Counter(Path(each.name).suffix.lower() for each in _entries(root / folder))
            pictures = sum(count for kind, count in kinds.items() if kind in PICTURES)
            known[folder] = pictures > 0 and pictures >= sum(kinds[kind] for kind in (*CODE, *CONFIGURATION, *TEXT))
        if known[folder]:
            return folder
    return ""


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _unwanted(root: Path, name: str) -> str:
    """Why the file's kind or place keeps it here; empty where nothing does."""
    path = PurePosixPath(name)
    if (root / name).is_symlink():
        return "a link"
    if (root / name).exists() and not (root / name).is_file():
        return "not a plain file"
    low = path.name.lower()
    if path.suffix != ".py" and any(fnmatch.fnmatchcase(low, pattern) for pattern in SECRETIVE):
        return "named like a secret"
    suffix = path.suffix.lower()
    of_profile = path.parent.name == "profiles" and suffix == ".json"
    if suffix in (*CODE, *CONFIGURATION, *TEXT) or name == ".dvc/config" or of_profile:
        return ""
    if any(fnmatch.fnmatchcase(path.name, known) for known in NAMES):
        return ""
    if suffix in PACKAGED and any((root / folder / "__init__.py").is_file() for folder in path.parents):
        return ""
    if not suffix and _bytes(root / name, 2) == b"#!":
        return ""  # a script
    return "no code, configuration or text"


def _readable(path: Path, content: bytes, total: int, most: int) -> tuple[str | None, str]:
    """The text, or why it does not leave. What lies in the file itself is looked at too: a patch shows parts of it."""
    lies = _bytes(path)
    if max(len(content), len(lies)) > MOST_FILE_BYTES:
        return None, f"larger than {MOST_FILE_BYTES // 1000} kB"
    if total + len(content) > most:
        return None, f"more than {most / 1e6:g} MB in all"
    try:
        text, whole = content.decode("utf-8"), lies.decode("utf-8")
    except UnicodeDecodeError:
        return None, "not text"
    if "\0" in text or "\0" in whole:
        return None, "not text"
    if whole and not text:
        return None, "cannot be read"
    if any(map(_holds_data, {text, whole})):
        return None, "holds data written as text"
    found = secret_in(text, path.name) or ("" if text == whole else secret_in(whole, path.name))
    return (None, f"looks like a secret: {found}") if found else (text, "")


_WRITTEN = re.compile(r"[A-Za-z0-9+/=_-]{40,}")
MOST_WRITTEN = 2000
"""Base64 or hexadecimal digits in a row, in lines of little else: more are a picture, or an array."""


def _holds_data(text: str) -> bool:
    in_a_row = 0
    for line in text.splitlines():
        word = max(_WRITTEN.findall(line), key=len, default="")
        word = word if len(set(word)) >= 10 else ""
        in_a_row = in_a_row + len(word) if len(word) >= 0.9 * len(line.strip()) else 0
        if max(in_a_row, len(word)) > MOST_WRITTEN:
            return True
    return False


def _bytes(path: Path, most: int = MOST_FILE_BYTES + 1) -> bytes:
    """The first bytes of a file; none where it is gone."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return b""


# Secrets.


_VERSION = re.compile(r"[=<>~!]+[0-9][0-9a-z.+-]*|[0-9]{1,4}(?:\.[0-9]{1,5})+(?:[a-z.+-][0-9a-z.+-]{0,15})?")
"""What stands after the name of a package, also of one named for secrets. A token may begin with a digit too."""


@lru_cache(maxsize=MOST_FILES)
def secret_in(text: str, name: str) -> str:
    """The kind of the first thing in a file's text that looks like a secret; empty where nothing does."""
    from detect_secrets.filters.heuristic import is_sequential_string, is_templated_secret

    known, guessed = _detectors()
    text = "\n".join(line for line in text.split("\n") if ALLOWED not in line)
    for detector in known:
        if any(True for _ in detector.analyze_string(text)):
            return str(detector.secret_type)
    for number, line in enumerate(text.split("\n"), start=1):
        for detector in guessed:
            for found in detector.analyze_line(filename=name, line=line.lstrip("+-"), line_number=number):
                value = found.secret_value or ""
                if not (_VERSION.fullmatch(value) or is_templated_secret(value) or is_sequential_string(value)):
                    return str(detector.secret_type)
    return ""


def without_secrets(text: str) -> str:
    """The text with what looks like a secret (a token, a key, the password or signature of an address) put out."""
    if not re.search(r"[A-Za-z0-9_-]{16}|://|\?.*=|-----BEGIN", text):
        return text  # too short for any: the detectors need not be loaded
    return "".join(part if part.startswith("data:") else _put_out(part) for part in _EMBEDDED.split(text))


def has_secret(text: str) -> bool:
    """Whether `without_secrets` would put anything out."""
    return without_secrets(text) != text


def _put_out(text: str) -> str:
    for secret in sorted(set(_known_in(text)), key=len, reverse=True):
        text = text.replace(secret, PUT_OUT)
    return _KEY_BLOCK.sub(PUT_OUT, text)


_EMBEDDED = re.compile(r"(data:[\w/+.-]+;base64,[A-Za-z0-9+/=]*)")
_KEY_BLOCK = re.compile(r"-----BEGIN[A-Z ]* PRIVATE KEY[A-Z ]*-----.*?(?:-----END[A-Z ]*-----|\Z)", re.DOTALL)


def _known_in(text: str) -> Iterator[str]:
    for detector in _detectors()[0]:
        for pattern in detector.denylist if detector.secret_type not in COVERED else ():
            yield from (match[getattr(detector, "group", 0)] for match in pattern.finditer(text))


@cache
def _detectors() -> tuple[list[Any], list[Any]]:
    """Those that know a kind of secret by its look, and those that guess from a name or from randomness.

    Left out of the library's own: public IP addresses, which are none, and random hexadecimal digits, which are mostly
    digests and commits.
    """
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    from detect_secrets.plugins.base import RegexBasedDetector

    class More(RegexBasedDetector):
        secret_type = ""
        group = 1  # of a match: the secret

        def __init__(self, secret_type: str, *patterns: str) -> None:
            self.secret_type = secret_type
            self._denylist = [re.compile(pattern) for pattern in patterns]

        @property
        def denylist(self) -> list[re.Pattern[str]]:
            return self._denylist

    shipped: list[Any] = list(get_mapping_from_secret_type_to_class().values())
    kinds = {kind.__name__: kind for kind in shipped}
    guessed = [kinds.pop(name)() for name in ("KeywordDetector", "Base64HighEntropyString")]
    ends = "API_?KEY|ACCESS_KEY|TOKEN|SECRET|PASSWORD|PASSWD"
    guessed.append(More("Secret Variable", rf"^\s*(?:export\s+)?[A-Z0-9_]*(?:{ends})=([^\s\"'$(<{{]{{8,}})"))
    for name in ("IPPublicDetector", "HexHighEntropyString"):
        kinds.pop(name)
    secret = "(?:sig|signature|x-amz-signature|x-amz-security-token|x-goog-signature|access_token|token|api_?key|code)"
    known = [
        More("Databricks Token", r"\b((?:dapi|dkea|dose)[0-9a-f]{32}(?:-\d+)?)\b"),
        More("Hugging Face Token", r"\b((?:hf|api_org)_[A-Za-z0-9]{30,})\b"),
        More("Anthropic or OpenAI Key", r"\b(sk-(?:ant|proj|svcacct)-[A-Za-z0-9_-]{20,})"),
        More("Google API Key", r"\b(AIza[0-9A-Za-z_-]{35})"),
        More("Password in an Address", r"://([^\s/@:]*:[^\s/@]+)@", r"https?://([^\s/@:]{12,})@"),
        More("Signed Address", rf"(?i)[?&]{secret}=([^&\s'\"<>#]+)"),
    ]
    return [*known, *(kind() for _, kind in sorted(kinds.items()))], guessed
