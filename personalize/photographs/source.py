"""Source: where photographs come from. It is a folder, a zip or tar of one, or the https address of such an archive."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personalize.cards import command
from personalize.files import dvc_digest, scratch, tree_digest
from personalize.photographs.downloading import download, without_query
from personalize.photographs.unpacking import ArchiveLimits, Refused, is_archive, unpack


def is_address(data: str) -> bool:
    return "://" in data


def shown(data: str) -> str:
    """`data` as it may be shown: signed addresses carry their secret in the query."""
    return without_query(data) if is_address(data) else data


def identity(data: str, sha256: str = "") -> str:
    """Which photographs they are, nothing downloaded: DVC's digest, or what an archive from an address must hash to.

    Without `sha256` an address stands for what lies there. Raises Refused where there is nothing.
    """
    if is_address(data):
        return sha256 or hashlib.sha256(data.encode()).hexdigest()
    return tree_digest(_located(data))


def pinned(data: str) -> str | None:
    """The digest that `<data>.dvc` pins, where there is one."""
    return None if is_address(data) else dvc_digest(_pin(data))


@contextmanager
def opened(data: str, sha256: str, limits: ArchiveLimits) -> Iterator[tuple[Path, str]]:
    """The photographs as a folder (an archive unpacked for as long as needed), and the digest of what was given.

    sha256: what a downloaded archive must hash to, if it is known. Raises Refused.
    """
    with scratch("photographs") as place:
        if is_address(data):
            archive = place / "download"
            digest = download(data, archive, limits.total_bytes)
            if sha256 and digest != sha256:
                raise Refused(
                    f"the downloaded archive has sha256 {digest}, not the {sha256} of data_sha256: it was changed "
                    f"since. Check where it comes from before you change the key."
                )
        else:
            archive = _located(data)
            digest = tree_digest(archive)
            if archive.is_dir():
                yield archive, digest
                return
            if not is_archive(archive):
                raise Refused(
                    f"{archive} is a single file and neither zip nor tar. Give the folder in which the photographs "
                    f"lie, or an archive of it."
                )
        unpack(archive, place / "unpacked", limits)
        yield place / "unpacked", digest


def _located(data: str) -> Path:
    try:
        path = Path(data).expanduser()
        found, pin = path.exists(), _pin(data).is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a null byte, the home of nobody
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Refused(f"{data!r} cannot be a path: {why}") from None
    if found and not (path.is_file() or path.is_dir()):
        raise Refused(f"{data} is a pipe or a device. Give the folder, zip or tar with your photographs.")
    if found:
        return path
    if pin:
        raise Refused(f"{data} is not here yet; {_pin(data)} pins it. Fetch it with: dvc pull {_pin(data)}")
    raise Refused(
        f"{data} does not exist (looked for {path.absolute()}). Give the folder, zip or tar with your photographs: "
        f"{command(data='photographs')}"
    )


def _pin(data: str) -> Path:
    return Path(f"{data.rstrip('/')}.dvc")
