"""Links: where a logged card opens in the tracking server's own pages, and the parts of its address."""

from urllib.parse import quote

RUNS = "runs:/"


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
