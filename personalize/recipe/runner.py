"""Carrying out a plan: a parent run, a nested run for each step that runs, and cards for all of them."""

import contextlib
import json
import logging
import os
import shutil
import time
import traceback
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from personalize.cards.card import Card
from personalize.files import tree_digest
from personalize.recipe.errors import RecipeError
from personalize.recipe.failures import advice, say
from personalize.recipe.inputs import Input, Inputs
from personalize.recipe.interruption import terminable
from personalize.recipe.lineage import Lineage, collect
from personalize.recipe.outcome import outcome_tags
from personalize.recipe.plan import Planned, Prepared
from personalize.recipe.tracking import Past, Store
from personalize.recipe.workplace import sweep, workplace

CARDS = Path("build/cards")
SYSTEM_METRICS_SECONDS = 5


class StepFailed(Exception):
    """A step raised. code: the process's exit status; card: where the failure card lies."""

    def __init__(self, message: str, code: int, card: Path | None) -> None:
        super().__init__(message)
        self.code = code
        self.card = card


class Runner:
    """Runs one plan. results holds, after a step, the run that has its outputs."""

    def __init__(
        self, prepared: Prepared, store: Store, plan: list[Planned], tags: Mapping[str, str] | None = None
    ) -> None:
        self.prepared = prepared
        self.store = store
        self.plan = plan
        self.tags = dict(tags or {})
        self.results: dict[str, Past] = {}
        self.cards: dict[str, Path] = {}
        self.parent_id = ""
        self.lineage = Lineage()

    def run(self) -> None:
        """Raises StepFailed, or KeyboardInterrupt after marking the runs as killed."""
        import mlflow

        _quiet()
        sweep(self.prepared.root)
        self.lineage = collect(self.prepared.root)
        with terminable():
            parent = self._open_parent()
            self.parent_id = parent.info.run_id
            try:
                self._describe_parent(parent)
                for planned in self.plan:
                    self._advance(planned)
            except BaseException as error:
                _end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise
            mlflow.end_run("FINISHED")

    def _advance(self, planned: Planned) -> None:
        name = planned.step.name
        if planned.past is not None:
            self.results[name] = planned.past
            return
        self.results[name] = self._execute(planned)

    def _open_parent(self) -> Any:
        import mlflow

        if os.environ.get(
            "MLFLOW_RUN_ID"
        ):  # the project run that `mlflow run` opened; asking for it consumes the variable
            return mlflow.start_run()
        nested = mlflow.active_run() is not None
        return mlflow.start_run(run_name=self.prepared.name, experiment_id=self.store.experiment_id, nested=nested)

    def _describe_parent(self, parent: Any) -> None:
        from mlflow.entities import Param, RunTag

        tags = {**self._common_tags(), "recipe.target": self.prepared.target}
        seeds = {str(config.get("seed")) for config in self._resolved().values() if config.get("seed") is not None}
        if seeds:
            tags["lineage.seed"] = ", ".join(sorted(seeds))
        for planned in self.plan:
            if planned.past is not None:
                tags[f"recipe.step.{planned.step.name}"] = f"reused {planned.past.run_id}"
        taken = set(
            parent.data.params
        )  # `mlflow run` has logged what was typed, quoted; a second value would be refused
        params = {f"{step}.{key}": value for step, config in self._resolved().items() for key, value in config.items()}
        self._log_batch(
            self.parent_id,
            [Param(k, _param(v)) for k, v in params.items() if k not in taken],
            [RunTag(k, v) for k, v in tags.items()],
        )
        self._log_text(
            self.parent_id,
            yaml.safe_dump(self.prepared.resolved(), sort_keys=False, allow_unicode=True),
            "recipe.resolved.yaml",
        )
        if self.lineage.diff:
            self._log_text(self.parent_id, self.lineage.diff, "uncommitted.diff")

    def _execute(self, planned: Planned) -> Past:
        import mlflow
        from mlflow.entities import Param

        step, name = planned.step, planned.step.name
        config, components = self.prepared.configs[name], self.prepared.components[name]
        print(f"▸ {name}  {step.about}", flush=True)
        started = time.monotonic()
        work = workplace(self.prepared.root, name)
        outputs = work / "outputs"
        outputs.mkdir()
        card = Card(name, about=step.about)
        tags = {
            **self._common_tags(),
            "recipe.step": name,
            "recipe.why": planned.why,
            "mlflow.note.content": f"{step.about}\n\nRan because: {planned.why}",
        }
        tags.update({f"lineage.source.{source}": digest for source, digest in components.sources.items()})
        if (seed := getattr(config, "seed", None)) is not None:
            tags["lineage.seed"] = str(seed)
        try:
            run = mlflow.start_run(
                run_name=name,
                nested=True,
                tags={**tags, "recipe.fingerprint": components.digest},
                log_system_metrics=_can_measure(),
            )
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        run_id = run.info.run_id
        self._tag_parent(name, f"running {run_id}")
        try:
            self._log_batch(
                run_id, [Param(f"{name}.{key}", _param(value)) for key, value in self._resolved()[name].items()], []
            )
            self._log_text(run_id, components.as_json(), "fingerprint.json")
            if self.lineage.diff:
                self._log_text(run_id, self.lineage.diff, "uncommitted.diff")
            if step.show is None:
                step.run(config, self._inputs(name), outputs, card)
            else:
                step.run(config, self._inputs(name), outputs)
                step.show(config, self._inputs(name), outputs, card)
            if (active := mlflow.active_run()) is None or active.info.run_id != run_id:
                raise RuntimeError(
                    "the step ended the MLflow run it was given; log to it and leave its end to the engine"
                )
            files = sum(len(names) for _, _, names in os.walk(outputs))
            top = "/".join(sorted(path.name for path in outputs.iterdir()))
            if files:
                mlflow.log_artifacts(str(outputs), "outputs")
            self._log_card(card, run_id, "finished", started)
            mlflow.set_tags(
                {
                    "recipe.outputs.files": str(files),
                    "recipe.outputs": top[:4000],
                    "recipe.outputs.digest": tree_digest(outputs),
                    **outcome_tags(card),
                }
            )
            past = self.store.past(self.store.client.get_run(run_id))
            self._tag_parent(name, f"ran {run_id}")
            _end("FINISHED")  # last of all: a run is reused only when everything before this line has happened
        except BaseException as error:
            self._fail(error, card, name, run_id, started)
            raise AssertionError("unreachable") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        print(f"  {name} done in {time.monotonic() - started:.1f} s", flush=True)
        return past

    def _fail(self, error: BaseException, card: Card, name: str, run_id: str, started: float) -> None:
        """Leave a failure card and a status that is never reused, then raise StepFailed (or the interruption again)."""
        import mlflow

        stopped = isinstance(error, KeyboardInterrupt)
        message = "stopped" if stopped else say(error)
        while (active := mlflow.active_run()) is not None and active.info.run_id not in (run_id, self.parent_id):
            mlflow.end_run("KILLED" if stopped else "FAILED")
        failure = Card(name, card.title, card.about)
        merged = self.prepared.merged
        asked = {override.name: override.text for override in merged.overrides if override.text}
        failure.verdict(
            "failed",
            message,
            [advice(error, name, merged.profile.name, asked)],
            stamp="Stopped" if stopped else "Failed",
        )
        failure.code("Traceback", "".join(traceback.format_exception(error)))
        if card.blocks:
            with failure.section("What the step had said before", open=False):
                failure.blocks[-1]["blocks"].extend(card.blocks)
        path = None
        with contextlib.suppress(Exception):  # a full disk or a lost server must not hide why the step failed
            path = self._log_card(failure, run_id, "stopped" if stopped else "failed", started)
        with contextlib.suppress(Exception):
            self._tag_parent(name, f"{'stopped' if stopped else 'failed'} {run_id}")
        with contextlib.suppress(Exception):
            if (active := mlflow.active_run()) is not None and active.info.run_id == run_id:
                mlflow.end_run("KILLED" if stopped else "FAILED")
            else:
                self.store.client.set_terminated(run_id, "KILLED" if stopped else "FAILED")
        if not isinstance(error, Exception) and not isinstance(error, SystemExit):
            raise error
        raise StepFailed(f"{name}: {message}", 2 if isinstance(error, RecipeError) else 1, path) from error

    def _inputs(self, name: str) -> Inputs:
        def one(past: Past, fingerprint: str) -> Input:
            return Input(past.run_id, fingerprint, lambda: self.store.outputs(past), lambda: past.metrics)

        return Inputs(
            {need: one(self.results[need], self.prepared.components[need].digest) for need in self.prepared.needs(name)}
        )

    def _log_card(self, card: Card, run_id: str, status: str, started: float) -> Path:
        name = card.step
        footer = {
            "recipe": self.prepared.name,
            "profile": self.prepared.merged.profile.name,
            "when": datetime.now().strftime("%-d %B %Y, %H:%M"),
            "run_id": run_id,
            "status": status,
            "seconds": round(time.monotonic() - started, 1),
            "fingerprint": self.prepared.components[name].digest,
            "config": self._resolved()[name],
            "inputs": {need: f"run {self.results[need].run_id}" for need in self.prepared.needs(name)},
            "lineage": {key.removeprefix("lineage."): tag for key, tag in self.lineage.tags().items()}
            | self.prepared.components[name].sources,
        }
        path = self.prepared.root / CARDS / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        html = card.html(footer)
        self._log_text(run_id, html, "card.html")
        facts = json.dumps({**card.as_dict(), "made": footer}, ensure_ascii=False, indent=1, default=str)
        self._log_text(run_id, facts, "card.json")
        path.write_text(html, encoding="utf-8", errors="replace")
        self.cards[name] = path
        return path

    def _common_tags(self) -> dict[str, str]:
        return {
            "recipe.name": self.prepared.name,
            "recipe.profile": self.prepared.merged.profile.name,
            **self.lineage.tags(),
            **self.tags,
        }

    def _resolved(self) -> dict[str, dict[str, Any]]:
        return {name: self.prepared.configs[name].model_dump(mode="json") for name in self.prepared.components}

    def _tag_parent(self, step: str, what: str) -> None:
        self.store.client.set_tag(self.parent_id, f"recipe.step.{step}", what)

    def _log_batch(self, run_id: str, params: list[Any], tags: list[Any]) -> None:
        for start in range(0, max(len(params), 1), 100):
            self.store.client.log_batch(run_id, params=params[start : start + 100], tags=tags if start == 0 else [])

    def _log_text(self, run_id: str, text: str, name: str) -> None:
        self.store.client.log_text(run_id, text.encode("utf-8", "replace").decode("utf-8"), name)


def _end(status: str) -> None:
    import mlflow

    if status == "FINISHED":
        mlflow.end_run(status)
        return
    with contextlib.suppress(Exception):
        mlflow.end_run(status)


def _quiet() -> None:
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", str(SYSTEM_METRICS_SECONDS))
    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)


def _can_measure() -> bool:
    import importlib.util

    return importlib.util.find_spec("psutil") is not None


def _param(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
