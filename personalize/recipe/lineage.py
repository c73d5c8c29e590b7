"""Where a run comes from: commit, uncommitted changes, pinned data, environment."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from personalize.files import dvc_digest
from personalize.recipe.fingerprint import environment_digest

MAX_UNTRACKED_BYTES = 1_000_000


@dataclass(frozen=True)
class Lineage:
    """commit: empty outside git. diff: a patch that `git apply` accepts; empty in a clean tree."""

    commit: str = ""
    diff: str = ""
    dirty: bool = False
    pins: dict[str, str] = field(default_factory=dict)
    environment: str = ""

    def tags(self) -> dict[str, str]:
        """As run tags, all under `lineage.`."""
        tags = {"lineage.commit": self.commit or "none", "lineage.dirty": str(self.dirty).lower()}
        tags.update({f"lineage.dvc.{name}": digest for name, digest in self.pins.items()})
        if self.environment:
            tags["lineage.environment"] = self.environment
        return tags


def collect(root: Path) -> Lineage:
    """Read the project's lineage. A project outside git, or a machine without git, has no commit; nothing is raised."""
    commit = _git(root, "rev-parse", "HEAD").strip()
    status = _git(root, "status", "--porcelain", "--untracked-files=normal") if commit else ""
    pins = {path.stem: digest for path in sorted(root.glob("*.dvc")) if (digest := dvc_digest(path))}
    return Lineage(commit, _diff(root) if status else "", bool(status), pins, environment_digest(root))


def _diff(root: Path) -> str:
    parts = [_git(root, "diff", "HEAD", "--binary", "--no-color", "--no-ext-diff")]
    top = Path(_git(root, "rev-parse", "--show-toplevel").strip() or root)
    names = _git(root, "ls-files", "--others", "--exclude-standard", "--full-name", "-z").split("\0")
    for name in filter(None, names):
        path = top / name
        if path.is_file() and path.stat().st_size <= MAX_UNTRACKED_BYTES:
            parts.append(
                _git(top, "diff", "--no-index", "--binary", "--no-color", "--no-ext-diff", "/dev/null", name, also=1)
            )
    return "".join(parts)


def _git(where: Path, *arguments: str, also: int = 0) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=where, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode in (0, also) else ""
