"""Fleet: the recipe for every subject of a catalogue, on as many workers as there are.   gives: subjects.jsonl

    mlflow run . -e fleet -P catalogue=products.csv -P plan=true     what would run, what is done, what cannot be done
    mlflow run . -e fleet -P catalogue=products.csv                  an adapter and a card for each
    mlflow run . -e fleet -P catalogue=products.csv -P only=failed -P limit=50

A subject is the same recipe run by the same engine, in a run of its own under this one: what was done alone is reused
here and the other way round. Whatever stops it, the same command goes on. Parameters of the recipe (-P profile=gpu,
-P train.rank=8) hold for all subjects. Workers are Ray's: its own on this machine, or a cluster by RAY_ADDRESS.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from personalize.cards import command
from personalize.files import file_digest, write_json, write_rows
from personalize.fleet import catalogue as catalogues
from personalize.fleet import record, workers
from personalize.recipe import HOW_NOT_WHAT, OUTSIDE_DATA, Inputs, RecipeError, StepConfig, machine

if TYPE_CHECKING:
    from personalize.fleet.plan import Plan
    from personalize.fleet.record import Row
    from personalize.recipe.plan import Variants
    from personalize.recipe.tracking import Store

NEEDS: tuple[str, ...] = ()
REUSE = False
ACTS = True

SQLITE_WORKERS = 4
"""Workers up to which a database file may do: a cautious bound. `python -m benchmarks.fleet --writers` measures one."""


class Config(StepConfig):
    catalogue: str = Field(
        min_length=1,
        description="CSV or parquet with token, class_noun, photographs (captions, rights), or a folder "
        "<class noun>/<token>/",
        json_schema_extra=OUTSIDE_DATA,
    )
    group_size: int = Field(1, ge=1, description="Subjects of a class that one adapter learns")
    limit: int = Field(0, ge=0, description="Subjects to run at most; 0 for all", json_schema_extra=HOW_NOT_WHAT)
    only: Literal["", "failed"] = Field(
        "", description="failed: those whose latest run failed or was stopped", json_schema_extra=HOW_NOT_WHAT
    )
    plan: bool = Field(False, description="Say what would run, and run nothing", json_schema_extra=HOW_NOT_WHAT)
    workers: int = Field(
        0,
        ge=0,
        description="Subjects at once; 0 for as many as there are GPUs, without any 1",
        json_schema_extra=HOW_NOT_WHAT,
    )
    gpus: float | None = Field(
        None, ge=0, description="GPUs a worker, 0.5 for half a one; empty: 1 where there are any"
    )
    hour_price: float = Field(
        0,
        ge=0,
        description="What an hour of one worker costs, in your currency: plan and card then say what the fleet costs",
        json_schema_extra=HOW_NOT_WHAT,
    )
    until: str = Field("", description="The step up to which each subject goes; empty: recipe.yaml's until")
    tries: int = Field(
        3, ge=1, description="Times that a subject is tried whose process dies", json_schema_extra=HOW_NOT_WHAT
    )
    shows: dict[str, str] = Field(
        {"likeness": "gap_closed", "prompt following": "clip_t"},
        description="Columns of the card, each with the headline metric in it; the first decides which is worst",
        json_schema_extra=HOW_NOT_WHAT,
    )


def sources(config: Config) -> Mapping[str, str]:
    """The catalogue's digest, where it is a file."""
    return {"catalogue": file_digest(config.catalogue)} if os.path.isfile(config.catalogue) else {}


def check(config: Config) -> None:
    """Before anything runs: workers can be had."""
    if not config.plan:
        workers.check_installed()


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    import mlflow

    from personalize.fleet import plan as plans

    active = mlflow.active_run()
    if active is None:
        raise RecipeError(f"a fleet is run by the recipe: {command('fleet', catalogue=config.catalogue)}")
    with workers.threads_for(config.workers):
        variants, store, asked = _opened(config)
        _, target, configs = variants.common()
        fewest = getattr(configs.get("ingest"), "min_photographs", 1)
        plan = plans.make(
            catalogues.read(config.catalogue, fewest),
            variants,
            store,
            Path.cwd(),
            config.group_size,
            config.only == "failed",
            config.limit,
        )
        print(plans.text(plan, max(1, config.workers), config.hour_price), flush=True)
        write_rows(outputs / "invalid.jsonl", [asdict(fault) for fault in plan.faults])
        rows = list(plan.done)
        began = time.monotonic()
        count = 0
        try:
            if plan.waiting and not config.plan:
                count = _carry_out(config, plan, store, asked, active.info.run_id, rows)
        finally:
            ended = {row["subject"] for row in rows}
            rows += [record.blank(work) for work in plan.waiting if work.name not in ended]
            write_rows(outputs / "subjects.jsonl", sorted(rows, key=lambda row: row["row"]))
            write_json(outputs / "fleet.json", _about(config, plan, target, count))
            write_json(outputs / "diagnostics" / "fleet.json", {"seconds": round(time.monotonic() - began, 1)})
    _log(rows)


def _opened(config: Config) -> tuple[Variants, Store, dict[str, Any]]:
    """The recipe as it was asked for, less what is the fleet's own; the tracking store; and what was asked."""
    from personalize.fleet.plan import overrides_of
    from personalize.recipe.past import asked
    from personalize.recipe.plan import Variants
    from personalize.recipe.tracking import connect

    given = dict(asked())
    overrides = overrides_of(given.get("overrides", {}), given.get("withheld", []), "fleet")
    variants = Variants(Path.cwd(), given["profile"], overrides, config.until)
    merged, _, _ = variants.common()
    store = connect(merged.profile, Path.cwd(), create=False, trust=merged.trust)
    return variants, store, given | {"overrides": overrides}


def _carry_out(config: Config, plan: Plan, store: Store, asked: Mapping[str, Any], run_id: str, rows: list[Row]) -> int:
    """Every waiting subject; `rows` gets theirs as they end. Returns how many workers there were."""
    import mlflow

    from personalize.fleet.progress import Progress
    from personalize.fleet.worker import Place

    uri = mlflow.get_tracking_uri()
    place = Place(
        root=str(Path.cwd()),
        profile=asked["profile"],
        overrides=tuple(asked["overrides"]),
        until=config.until,
        fleet=run_id,
        experiment=store.experiment_id,
        tracking_uri=uri,
        registry_uri=mlflow.get_registry_uri() if mlflow.get_registry_uri() != uri else "",
        threads=machine.threads(),
    )
    try:
        with workers.crew(min(config.workers, len(plan.waiting)), config.gpus, place.root) as crew:
            _suits(uri, crew)
            progress = Progress(len(plan.waiting), crew.count, plan.seconds, store.client, run_id)
            try:
                with contextlib.closing(workers.carried_out(plan.waiting, place, crew, config.tries)) as ended:
                    for row in ended:
                        if row is None:
                            progress.show()
                            continue
                        rows.append(row)
                        progress.add(row)
            finally:
                progress.close()
    finally:
        _end_all(store, run_id)  # when Ray's processes are gone: whom a living one holds is not dead
    return crew.count


def _end_all(store: Store, run_id: str, tries: int = 10) -> None:
    """No subject's run stands as running: a process that was killed a moment ago may not be gone yet."""
    from personalize.recipe.lease import end_dead

    running = f"tags.`mlflow.parentRunId` = '{run_id}' AND attributes.status = 'RUNNING'"
    for _ in range(tries):
        end_dead(store)
        if not store.client.search_runs(store.searched, running, max_results=1):
            return
        time.sleep(0.5)


def _suits(uri: str, crew: workers.Crew) -> None:
    """Says, or raises RecipeError, where runs would be kept in a database file that so many cannot write to."""
    workers.check_reaches(crew, uri)
    if uri.startswith("sqlite") and crew.count > SQLITE_WORKERS:
        print(
            f"mind: runs are kept in {uri}; from {SQLITE_WORKERS + 1} workers on they wait for each other at such a "
            f"file, and may fail there: {workers.SERVER}",
            flush=True,
        )


def _about(config: Config, plan: Plan, target: str, count: int) -> dict[str, Any]:
    return {
        "planned": config.plan,
        "target": target,
        "workers": count,
        "group_size": config.group_size,
        "waiting": len(plan.waiting),
        "done": len(plan.done),
        "invalid": len(plan.faults),
        "left_out": plan.left_out,
        "seconds": plan.seconds,
        "unused": list(plan.unused),
    }


def _log(rows: Sequence[Row]) -> None:
    import mlflow

    count = Counter(row["state"] for row in rows)
    verdicts = Counter(row["verdict"] for row in rows)
    mlflow.log_metrics(
        {
            "subjects": len(rows),
            "subjects_reused": sum(row["reused"] for row in rows),
            "subjects_failed": count["failed"],
            **{f"subjects_{verdict}": verdicts[verdict] for verdict in ("passed", "undecided")},
            "subjects_not_passed": verdicts["failed"],
        }
    )
