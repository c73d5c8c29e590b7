"""Unpacking: a zip or tar of photographs, opened as if it came from a stranger.

An archive that names a path outside itself, a link, a device, an encrypted member, the same file twice, or more files
or bytes than the limits, is refused as a whole. Members are written by copying their bytes, so no mode, owner or link
is ever restored.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

SUFFIXES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_CHUNK: Final = 1 << 20
_HEADER: Final = 1 << 20
"""Bytes that the header of one member may have, its long name and its PAX records."""
_PACKED: Final = 50
_SMALL: Final = 200_000_000
"""So many times its own bytes an archive may hold, beyond this many: photographs hardly get smaller by packing."""


class Refused(ValueError):
    """The archive is not taken in; the message names the member or the rule."""


@dataclass(frozen=True)
class ArchiveLimits:
    """What an archive may hold, unpacked. Who has more gives the unpacked folder."""

    files: int = 10_000
    member_bytes: int = 200_000_000
    total_bytes: int = 4_000_000_000


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, into: Path, limits: ArchiveLimits = ArchiveLimits()) -> None:
    """Unpacks `archive` into the empty folder `into`. Raises Refused, and then leaves nothing in `into`."""
    into.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, into, limits)
        else:
            _unpack_tar(archive, into, limits)
    except Refused as error:
        _empty(into)
        raise Refused(f"{archive.name}: {error}") from None
    except Exception as error:  # there is no end of what decoders raise over a stranger's bytes
        _empty(into)
        if isinstance(error, OSError) and error.errno:  # this machine's trouble (a full disk), not the archive's
            raise
        raise Refused(
            f"{archive.name}: not a whole zip or tar archive ({error or type(error).__name__}); "
            f"copy or download it again."
        ) from error


def _unpack_zip(archive: Path, into: Path, limits: ArchiveLimits) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        if len(members) > limits.files:
            raise Refused(f"it has {len(members)} members, more than the {limits.files} allowed.")
        budget = Budget(limits, archive.stat().st_size)
        budget.announce("all of it", 0, sum(member.file_size for member in members))
        for member in members:
            if member.is_dir():
                continue
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise Refused(f"{_shown(member.filename)} is a link or special file; only plain files are taken.")
            if member.flag_bits & 0x1:
                raise Refused(f"{_shown(member.filename)} is encrypted; unpack it and give the folder.")
            budget.announce(member.filename, member.file_size)
            with opened.open(member) as source:
                _write(source, into, member.filename, budget)


def _unpack_tar(archive: Path, into: Path, limits: ArchiveLimits) -> None:
    openers: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
    with archive.open("rb") as file:
        opener = openers.get(file.read(2), open)
    # Headers and padding count too, hence the margin; reading a stream front to back never seeks in a bomb.
    with opener(archive, "rb") as raw:
        budget = Budget(limits, archive.stat().st_size)
        stream = _Bounded(raw, budget.total + limits.files * 2048)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as opened:  # type: ignore[call-overload]
            for count, member in enumerate(opened, start=1):
                if count > limits.files:
                    raise Refused(f"it has more than the {limits.files} members allowed.")
                if member.isdir():
                    continue
                if not member.isreg():
                    raise Refused(f"{_shown(member.name)} is a link or special file; only plain files are taken.")
                budget.announce(member.name, member.size)
                source = opened.extractfile(member)
                assert source is not None  # a regular member has content
                _write(source, into, member.name, budget)


class Budget:
    """Holds what headers announce, and then what is really written, to the limits; headers may lie."""

    def __init__(self, limits: ArchiveLimits, packed: int) -> None:
        self.limits = limits
        self.total = min(limits.total_bytes, max(_SMALL, _PACKED * packed))
        self.written = 0

    def announce(self, name: str, size: int, total: int | None = None) -> None:
        self._check(name, size, self.written + size if total is None else total)

    def spend(self, name: str, chunk: int, member: int) -> None:
        self.written += chunk
        self._check(name, member, self.written)

    def _check(self, name: str, member: int, total: int) -> None:
        if member > self.limits.member_bytes:
            raise Refused(
                f"{_shown(name)} has {member / 1e6:.0f} MB, more than the {self.limits.member_bytes / 1e6:.0f} MB that "
                f"a file may have."
            )
        if total > self.limits.total_bytes:
            raise Refused(f"unpacked it has more than the {self.limits.total_bytes / 1e6:.0f} MB allowed.")
        if total > self.total:
            raise Refused(
                f"unpacked it has more than {_PACKED} times the bytes of the archive, which photographs never have; "
                "if it is right, unpack it and give the folder."
            )


class _Member(tarfile.TarInfo):
    """A member whose name and records are read only where they are not endless: tarfile reads them into memory."""

    def _proc_member(self, opened: tarfile.TarFile) -> Any:
        if self.type not in tarfile.REGULAR_TYPES and self.type != tarfile.DIRTYPE and self.size > _HEADER:
            raise Refused(f"the header of a member has {self.size / 1e6:.0f} MB, which no name needs.")
        return super()._proc_member(opened)  # type: ignore[misc]


class _Bounded:
    """A readable that gives at most `limit` bytes, so that no header can make a decompressor run on."""

    def __init__(self, raw: IO[bytes], limit: int) -> None:
        self.raw, self.left = raw, limit

    def read(self, size: int = -1) -> bytes:
        data = self.raw.read(min(size, self.left + 1) if size >= 0 else self.left + 1)
        self.left -= len(data)
        if self.left < 0:
            raise Refused("unpacked it has more bytes than allowed.")
        return data


def _write(source: IO[bytes], into: Path, name: str, budget: Budget) -> None:
    target = into / inner_path(name)
    if target.exists():
        raise Refused(f"{_shown(name)} is in it twice.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise Refused(f"{_shown(name)} lies in what is itself a file of the archive.") from None
    size = 0
    with target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            budget.spend(name, len(chunk), size)
            file.write(chunk)


def inner_path(name: str) -> Path:
    """`name` as a path below the archive's own root. Raises Refused for one that leads anywhere else."""
    if "\0" in name or re.match(r"[A-Za-z]:", name) or name.startswith(("/", "\\")):
        raise Refused(f"{_shown(name)} is an absolute path; pack the folder with relative paths.")
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part != "."]
    if not parts or ".." in parts:
        raise Refused(f"{_shown(name)} leads out of the archive; pack the folder with paths inside it.")
    parts = [part.encode("utf-8", "replace").decode() for part in parts]
    if len("/".join(parts).encode()) > 1000 or any(len(part.encode()) > 255 for part in parts):
        raise Refused(f"{_shown(name)} is a longer name than a disk takes; shorten it.")
    return Path(*parts)


def _shown(name: str) -> str:
    return repr(name if len(name) < 120 else name[:117] + "...")


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()
