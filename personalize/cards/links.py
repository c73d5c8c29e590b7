"""Links: where a logged card opens in the tracking server's own pages, the parts of its address, and where it leads."""

import os
import re
from pathlib import Path
from urllib.parse import quote

RUNS = "runs:/"
_LINK = re.compile(r'href="(?:runs:/|(?:\.\./)+(?:[^"]*/)?)([0-9a-f]{32})/(?:artifacts/)?([^"]*)"')


def card_link(experiment_id: str, run_id: str, path: str = "card.html") -> str:
    """The link that opens a run's artifact in the pages of the tracking server in use, relative to its address.

    MLflow's pages lie behind a `#`; a Databricks workspace has the same ones under /ml. It is meant for texts that
    those pages show (descriptions of runs and versions). Source: MLflow 3.17, the route
    `/experiments/:experimentId/runs/:runUuid/*`, whose rest may be `artifacts/<path>`.
    """
    import mlflow

    pages = "/ml" if str(mlflow.get_tracking_uri()).startswith("databricks") else "#"
    return f"{pages}/experiments/{experiment_id}/runs/{run_id}/artifacts/{quote(path)}"


def address(run_id: str, path: str = "card.html") -> str:
    """`runs:/<run>/<path>`, which `mlflow artifacts download -u` understands."""
    return f"{RUNS}{run_id}/{path}"


def parts(address: str) -> tuple[str, str]:
    """The run and the path of `runs:/<run>/<path>`. Raises ValueError where it is no such address."""
    run_id, _, path = address.removeprefix(RUNS).partition("/")
    if not address.startswith(RUNS) or not run_id or not path:
        raise ValueError(f"{address!r} is not the address of an artifact: runs:/<run>/<path>")
    return run_id, path


def placed(html: str, at: Path, runs: Path | None) -> str:
    """A card whose links to artifacts can be followed where it lies.

    They are written as `runs:/<run>/<path>` (see `address`), which no browser knows. A tracking server hands artifacts
    out itself; else, where the folders of `runs` lie on this machine, links are relative to the card's own place `at`,
    so that folder and card can be moved together. Where neither is, they are no links.
    """
    import mlflow

    server = str(mlflow.get_tracking_uri()).rstrip("/")

    def link(found: re.Match[str]) -> str:
        run_id, path = found.groups()
        if server.startswith(("http://", "https://")):
            return f'href="{server}/get-artifact?run_uuid={run_id}&amp;path={path}"'
        if runs is not None:
            return f'href="{quote(os.path.relpath(runs / run_id / "artifacts", at.parent))}/{path}"'
        return ""

    return _LINK.sub(link, html)
