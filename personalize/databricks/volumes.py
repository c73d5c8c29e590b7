"""Unity Catalog volumes: photographs and base models as folders that every cluster sees at /Volumes/...

    python -m personalize.databricks.volumes upload   data   /Volumes/main/personalize/files/data
    python -m personalize.databricks.volumes download /Volumes/main/personalize/files/sdxl models/sdxl

A volume also serves as DVC's store. On a cluster it is a path, so a plain remote does:

    dvc remote add -d volume /Volumes/main/personalize/files/dvc

Elsewhere upload the store once (`upload .dvcstore /Volumes/...`), or put DVC on the bucket under an external volume.
"""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from personalize.databricks.workspace import WorkspaceError, connect, explained
from personalize.files import whole

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

THREADS = 8


def upload(client: WorkspaceClient, folder: Path, volume: str) -> list[str]:
    """Copy a folder's files below a volume path; a file there of the same name and size is left as it is.

    A large file whose upload was cut is gone on with (`uploads`). Returns the remote paths that were written. Symbolic
    links are followed when they stay inside the folder.

    Raises:
        WorkspaceError: `folder` is not a folder, or `volume` is not a volume path.
    """
    from personalize.databricks.uploads import resuming

    root = check_volume(volume)
    if not folder.is_dir():
        raise WorkspaceError(f"There is no folder {folder} to upload.")
    files = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.resolve().is_relative_to(folder.resolve())
    ]
    there, files_api = dict(_walk(client, str(root))), resuming(client)

    def send(path: Path) -> str | None:
        remote = str(root / path.relative_to(folder).as_posix())
        if there.get(remote) == path.stat().st_size:
            return None
        files_api.upload_from(remote, str(path), overwrite=True)
        return remote

    for parent in sorted({str(root / path.relative_to(folder).parent.as_posix()) for path in files}):
        client.files.create_directory(parent)
    with ThreadPoolExecutor(THREADS) as pool:
        return [remote for remote in pool.map(send, files) if remote]


def here(path: str) -> Path:
    """A path in a volume as a folder or file on this disk: in place on a cluster, else a copy kept in build/volumes.

    What changed since the last time is fetched anew; what is gone there goes here.

    Raises:
        WorkspaceError: there is nothing at it, or no way in.
    """
    if Path(path).exists():
        return Path(path)
    copy = Path("build/volumes", *check_volume(path).parts[2:])
    client = connect(timeout_s=600)
    with explained(f"reading {path}"):
        kept = {copy.joinpath(*PurePosixPath(name).relative_to(path).parts) for name, _ in _walk(client, path)}
        download(client, path, copy)
    for file in copy.rglob("*"):
        if file.is_file() and file not in kept:
            file.unlink()
    return copy


def download(client: WorkspaceClient, volume: str, folder: Path) -> list[Path]:
    """Copy the files below a volume path into a folder; a file here of the same size is left as it is.

    A file appears under its name only when it is whole. Returns the paths that were written.

    Raises:
        WorkspaceError: `volume` is not a volume path, there is nothing at it, or a remote name leads out of the folder.
    """
    root = check_volume(volume)
    found = list(_walk(client, str(root)))
    if not found:
        raise WorkspaceError(f"There is nothing at {volume}. Upload it first, or check the path in Catalog Explorer.")

    def fetch(entry: tuple[str, int]) -> Path | None:
        remote, size = entry
        relative = PurePosixPath(remote).relative_to(root)
        target = folder.joinpath(*relative.parts)
        if ".." in relative.parts or not target.resolve().is_relative_to(folder.resolve()):
            raise WorkspaceError(f"{remote} leads out of {folder}; nothing is written there.")
        if target.is_file() and target.stat().st_size == size:
            return None
        with whole(target) as part:
            client.files.download_to(remote, str(part))
        return target

    with ThreadPoolExecutor(THREADS) as pool:
        return [path for path in pool.map(fetch, found) if path]


def check_volume(path: str) -> PurePosixPath:
    """A path inside a volume, normalised.

    Raises:
        WorkspaceError: it is not of the form /Volumes/<catalog>/<schema>/<volume>[/...].
    """
    if not re.fullmatch(r"/Volumes(/[^/]+){3,}/?", path) or ".." in path.split("/"):
        raise WorkspaceError(
            f"{path!r} is not a volume path; it looks like /Volumes/<catalog>/<schema>/<volume>/<folder>."
        )
    return PurePosixPath(path)


def _walk(client: WorkspaceClient, folder: str) -> Iterator[tuple[str, int]]:
    """Path and size of every file below a remote folder; nothing when the folder does not exist."""
    from databricks.sdk.errors import NotFound

    with contextlib.suppress(NotFound):
        for entry in client.files.list_directory_contents(folder):
            if entry.is_directory:
                yield from _walk(client, str(entry.path))
            else:
                yield str(entry.path), int(entry.file_size or 0)


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="python -m personalize.databricks.volumes", description=__doc__.split("\n")[0]
    )
    parser.add_argument("direction", choices=("upload", "download"))
    parser.add_argument("source")
    parser.add_argument("destination")
    asked = parser.parse_args()
    try:
        client = connect(timeout_s=600)
        with explained(f"copying {asked.source} to {asked.destination}"):
            if asked.direction == "upload":
                written = upload(client, Path(asked.source), asked.destination)
            else:
                written = [str(path) for path in download(client, asked.source, Path(asked.destination))]
    except WorkspaceError as error:
        raise SystemExit(str(error)) from error
    print(*written, f"{len(written)} files copied", sep="\n")


if __name__ == "__main__":
    main()
