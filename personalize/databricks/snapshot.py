"""How a project reaches a cluster: as a pushed Git commit, or as a snapshot in a Unity Catalog volume."""

from __future__ import annotations

import gzip
import hashlib
import io
import logging
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from personalize.databricks.workspace import WorkspaceError
from personalize.egress import sift

_logger = logging.getLogger(__name__)

MOST_BYTES = 20_000_000

PROVIDERS = {
    "github.com": "gitHub",
    "gitlab.com": "gitLab",
    "bitbucket.org": "bitbucketCloud",
    "dev.azure.com": "azureDevOpsServices",
}


@dataclass(frozen=True)
class Commit:
    """A commit that the workspace can fetch; `folder` is the project's place inside the repository."""

    url: str
    provider: str
    sha: str
    folder: str


def pushed_commit(project: Path, provider: str = "") -> Commit | str:
    """The commit that is exactly what lies in `project` and that a remote has; or, in words, why there is none."""
    try:
        top = Path(git(project, "rev-parse", "--show-toplevel"))
        sha = git(project, "rev-parse", "HEAD")
        if git(project, "status", "--porcelain"):
            return "there are uncommitted changes"
        remotes = git(project, "remote").split()
        holding = [
            remote for remote in remotes if git(project, "branch", "-r", "--list", f"{remote}/*", "--contains", sha)
        ]
    except WorkspaceError as error:
        return str(error)
    if not holding:
        return f"no remote has commit {sha[:12]}" if remotes else "the repository has no remote"
    url = git(project, "remote", "get-url", "origin" if "origin" in holding else holding[0])
    url = https(url)
    parts = urlsplit(url)
    kind = provider or PROVIDERS.get(parts.hostname or "", "")
    if not kind:
        return f"Databricks does not know the host of {url}; name its kind as git_provider in the backend config"
    return Commit(url, kind, sha, str(project.resolve().relative_to(top.resolve())))


def https(url: str) -> str:
    """A remote's address as a workspace fetches it: over https, without the token that may be in it."""
    if url.startswith("git@"):
        url = "ssh://" + url.replace(":", "/", 1)
    parts = urlsplit(url)
    if parts.scheme in ("ssh", "git+ssh"):  # its port is ssh's own
        return parts._replace(scheme="https", netloc=parts.hostname or "").geturl()
    port = f":{parts.port}" if parts.port else ""
    return parts._replace(netloc=f"{parts.hostname or ''}{port}").geturl()


def snapshot(project: Path) -> tuple[str, bytes]:
    """The project's files that may leave this machine as a .tar.gz, and the sha256 of it.

    Of those that Git tracks, and new ones that it does not ignore; what stays here is said in the log. The same files
    give the same bytes, so an unchanged project is uploaded once.
    """
    names = set(git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")) - {""}
    there = [name for name in names if (project / name).is_symlink() or (project / name).exists()]
    sifted = sift(project, there, lambda name: (project / name).read_bytes(), most=MOST_BYTES)
    if sifted.left_out:
        said = ", ".join(f"{name} ({why})" for name, why in sifted.left_out.items())
        _logger.warning("The snapshot leaves out %s", said)
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as squeezed,
        tarfile.open(fileobj=squeezed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, text in sifted.texts.items():
            content = text.encode("utf-8")
            entry = archive.gettarinfo(project / name, name)
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    data = packed.getvalue()
    return hashlib.sha256(data).hexdigest(), data


def git(project: Path, *arguments: str) -> str:
    """What Git says.

    Raises:
        WorkspaceError: Git refuses, or there is no Git.
    """
    try:
        done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise WorkspaceError("git is not installed; it says which files belong to the project") from error
    except subprocess.CalledProcessError as error:
        raise WorkspaceError(f"git {arguments[0]} in {project}: {error.stderr.strip()}") from error
    return done.stdout.strip("\n")
