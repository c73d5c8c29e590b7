"""A real tracking server on a real PostgreSQL, with artifacts of its own: forty writers at once lose nothing."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Metric, Param

from tests.postgres import postgres
from tests.tracking import Tracking

POOL = {"MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "20", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "30"}
"""As docs/fleet.md says. With MLflow's own 5 and 10 some of forty are refused after half a minute."""
WRITERS, RUNS, STEPS, PARAMS = 40, 2, 5, 30


@pytest.fixture
def database() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.mark.slow
def test_forty_writers_at_once_lose_nothing(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psycopg

    for name, connections in POOL.items():
        monkeypatch.setenv(name, connections)
    tracking = Tracking(database, tmp_path)
    try:
        tracking.wait()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking.uri)  # artifacts go where it says
        client = mlflow.MlflowClient(tracking.uri)
        experiment = client.create_experiment("fleet")

        def write(writer: int) -> list[str]:
            """As a subject's run does: parameters and tags at once, metrics in batches, files, and an end."""
            made = []
            for number in range(RUNS):
                run = client.create_run(experiment, tags={"writer": str(writer)}).info.run_id
                client.log_batch(run, params=[Param(f"p{n}", f"{writer} {n}") for n in range(PARAMS)])
                for step in range(STEPS):
                    client.log_batch(run, metrics=[Metric(f"m{n}", writer + step, 0, step) for n in range(4)])
                client.set_tag(run, "late", str(number))
                client.log_text(run, f"{writer} {number}", "outputs/said.txt")
                client.set_terminated(run)
                made.append(run)
            return made

        with ThreadPoolExecutor(WRITERS) as pool:
            made = [run for runs in pool.map(write, range(WRITERS)) for run in runs]
        found = {run.info.run_id: run for run in client.search_runs([experiment], max_results=1000)}
        assert set(found) == set(made)
        assert len(made) == WRITERS * RUNS
        for run in found.values():
            writer = run.data.tags["writer"]
            assert run.info.status == "FINISHED"
            assert run.data.params == {f"p{n}": f"{writer} {n}" for n in range(PARAMS)}
            assert run.data.metrics["m3"] == int(writer) + STEPS - 1
            said = tmp_path / "served" / experiment / run.info.run_id / "artifacts" / "outputs" / "said.txt"
            assert said.read_text() == f"{writer} {run.data.tags['late']}"
        connection = psycopg.connect(database)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM metrics")
                assert cursor.fetchone() == (WRITERS * RUNS * STEPS * 4,)
        finally:
            connection.close()
    finally:
        tracking.kill()
