"""Carrying out a plan: a parent run, a nested run for each step that runs, and cards for all of them."""

import contextlib
import gc
import json
import logging
import os
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize import files
from personalize.cards import Card
from personalize.cards.commands import under_profile
from personalize.evidence import keys
from personalize.evidence.statement import EvidenceError
from personalize.recipe import machine, provenance
from personalize.recipe.alone import alone, held
from personalize.recipe.errors import RecipeError, advice, in_words
from personalize.recipe.fingerprint import Components, Lineage, lineage
from personalize.recipe.lease import end_dead, lease
from personalize.recipe.plan import Planned, Prepared, asks_again, given, plan_step, raised
from personalize.recipe.process import ending_with_mlflow, sweep, terminable, workplace
from personalize.recipe.project import ProjectRun, Under, asked_of, param
from personalize.recipe.showing import MADE, Cards, Shown, inputs_of
from personalize.recipe.steps import DIAGNOSTICS, Inputs
from personalize.recipe.tracking import STEP, STEPS, StepRun, Store

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

SYSTEM_METRICS_SECONDS = 5


class StepFailed(RecipeError):
    """A step raised. code: the process's exit status; card: where the failure card lies."""

    def __init__(self, message: str, code: int, card: Path | None) -> None:
        super().__init__(message)
        self.code = code
        self.card = card
        if card is not None:
            self.add_note(f"card: {card}")


class Runner:
    """Runs one plan. results holds, after a step, the run that has its outputs; shown its card, where it is shown."""

    def __init__(
        self,
        prepared: Prepared,
        store: Store,
        plan: list[Planned],
        fresh: bool = False,
        tags: Mapping[str, str] | None = None,
        under: Under | None = None,
    ) -> None:
        self.under = under
        self.prepared = prepared
        self.store = store
        self.plan = plan
        self.fresh = fresh
        self.tags = dict(tags or {})
        self.results: dict[str, StepRun] = {}
        self.shown: dict[str, Shown] = {}
        self.ran: list[str] = []
        self.cards = Cards(prepared, store)
        self.parent_id = ""
        self.lineage = Lineage()
        self.signer: CryptoSigner | None = None

    def run(self) -> None:
        """Raises StepFailed, or KeyboardInterrupt after marking the runs as killed."""
        import mlflow

        _quiet()
        sweep(self.prepared.root)
        files.sweep_scratch()
        self.lineage = lineage(self.prepared.root, self.prepared.outside_data())
        self.signer = self._key()
        with terminable(), ending_with_mlflow(), under_profile(self.prepared.merged.profile.name):
            if died := end_dead(self.store):
                print(f"marked as killed, for nobody works on them any more: {', '.join(died)}", flush=True)
            project = ProjectRun(self.prepared, self.store, self.under)
            self.parent_id = self.cards.parent_id = project.run_id
            try:
                with lease(self.store, project.run_id):
                    project.begin(self._common_tags(), self._resolved(), self.lineage)
                    left = list(self.plan)
                    while left:
                        planned = self._next(left)
                        left.remove(planned)
                        self._advance(planned)
                        self._go_on(planned.step.name)
                    in_order = {each.step.name: self.results[each.step.name] for each in self.plan}
                    project.conclude(in_order, self.shown, self.ran)
            except BaseException as error:
                _end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
                raise
            mlflow.end_run("FINISHED")

    def _key(self) -> "CryptoSigner | None":
        try:
            signer = keys.own(self.prepared.merged.trust.key)
        except EvidenceError as error:
            raise RecipeError(str(error)) from error
        if signer is None:
            print("unsigned: there is no signing key, so these runs are believed where unsigned ones are", flush=True)
        return signer

    def _next(self, left: list[Planned]) -> Planned:
        """The first step; while another process makes that very result, one that does not need it."""
        ready = [each for each in left if all(need in self.results for need in self.prepared.needs(each.step.name))]
        if len(ready) < 2:
            return left[0]
        return next((each for each in ready if not self._is_made_elsewhere(each)), left[0])

    def _is_made_elsewhere(self, planned: Planned) -> bool:
        if not self._is_made_alone(planned):
            return False
        name = planned.step.name
        return held(self.prepared.root, given(self.prepared, self.store, name, self._inputs_of(name)).digest)

    def _is_made_alone(self, planned: Planned) -> bool:
        """Whether it has to be made, and others who want the very same wait for it."""
        return planned.reused is None and not self.fresh and planned.step.reuse

    def _inputs_of(self, name: str) -> dict[str, StepRun]:
        return {need: self.results[need] for need in self.prepared.needs(name)}

    def _advance(self, planned: Planned) -> None:
        """One step: run, or reused; what had to wait for the steps before is decided now."""
        name = planned.step.name
        results = self._inputs_of(name)
        if planned.waiting:
            planned = plan_step(self.prepared, self.store, name, results, fresh=self.fresh)
            if planned.reused is not None:
                print(f"▸ {name}  reuse  {planned.why}", flush=True)
        if self._is_made_alone(planned):
            planned = self._make_alone(planned, results)
        elif planned.reused is None:
            self._make(planned, results)
        if planned.reused is None:
            return
        self.results[name] = planned.reused
        self._tag_parent(name, f"reused {planned.reused.run_id}")
        if name in (self.prepared.target, self.prepared.merged.card):
            self.shown[name] = self.cards.of_reused(name, planned.reused, results)

    def _go_on(self, name: str) -> None:
        """What a step that asks for more depends on is made with more, and it again, as often as it asks."""
        while said := asks_again(self.prepared, name, self.results[name]):
            print(f"▸ {name}  {said}", flush=True)
            self.prepared, changed = raised(self.prepared, name)
            self.cards = Cards(self.prepared, self.store, self.parent_id)
            for each in changed:
                self._advance(Planned(self.prepared.steps[each], "maybe", said, waiting=(name,)))

    def _make_alone(self, planned: Planned, results: Mapping[str, StepRun]) -> Planned:
        """Made here, unless another process of this folder was at it: then what that has made is used."""
        name = planned.step.name
        fingerprint = given(self.prepared, self.store, name, results).digest

        def say() -> None:
            print(f"▸ {name}  waits for another process, which makes the very same", flush=True)

        with alone(self.prepared.root, fingerprint, say) as waited:
            if waited:
                planned = plan_step(self.prepared, self.store, name, results)
            if planned.reused is None:
                self._make(planned, results)
        return planned

    def _make(self, planned: Planned, results: Mapping[str, StepRun]) -> None:
        self.results[planned.step.name] = self._execute(planned, results)
        if planned.step.name not in self.ran:
            self.ran.append(planned.step.name)

    def _execute(self, planned: Planned, results: Mapping[str, StepRun]) -> StepRun:
        import mlflow
        from mlflow.entities import Param

        step, name = planned.step, planned.step.name
        config = self.prepared.configs[name]
        components = given(self.prepared, self.store, name, results)
        print(f"▸ {name}  {step.about}", flush=True)
        started = time.monotonic()
        work = workplace(self.prepared.root, name)
        cards = {need: shown.address for need, shown in self.shown.items()}
        inputs = inputs_of(self.store, results, cards, only=(step.reads(config), work / "inputs"))
        outputs = work / "outputs"
        outputs.mkdir()
        tags = {
            **self._common_tags(),
            STEP: name,
            "recipe.why": planned.why,
            "mlflow.note.content": f"{step.about}\n\nRan because: {planned.why}",
        }
        tags.update({f"lineage.source.{source}": digest for source, digest in components.sources.items()})
        if (seed := getattr(config, "seed", None)) is not None:
            tags["lineage.seed"] = str(seed)
        try:
            run = mlflow.start_run(
                run_name=name,
                experiment_id=self.store.experiment_id,
                nested=True,
                tags={**tags, "recipe.fingerprint": components.digest},
                log_system_metrics=_can_measure(),
            )
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        run_id = run.info.run_id
        self._tag_parent(name, f"running {run_id}")
        made = self._made(name, components, run_id, results)
        try:
            self.store.log_batch(
                run_id,
                [Param(f"{name}.{key}", param(value)) for key, value in self._resolved()[name].items()],
                [],
            )
            self.store.log_text(run_id, components.as_json(), "fingerprint.json")
            with forgotten():
                step.run(config, inputs, outputs)
            if (active := mlflow.active_run()) is None or active.info.run_id != run_id:
                raise RuntimeError(
                    "the step ended the MLflow run it was given; log to it and leave its end to the engine"
                )
            made |= {"status": "finished", "seconds": round(time.monotonic() - started, 1)}
            self.store.log_text(run_id, json.dumps(made, ensure_ascii=False, indent=1, default=str), MADE)
            used = {need: (past.run_id, self.store.statement(past)) for need, past in results.items()}
            said = provenance.state(
                outputs, components, self._resolved()[name], used, self.lineage, run_id, self.signer
            )
            self.store.log_text(run_id, said, provenance.NAME, sifted=True)
            count = sum(len(names) for _, _, names in os.walk(outputs))
            top = "/".join(sorted(path.name for path in outputs.iterdir()))
            if count:
                mlflow.log_artifacts(str(outputs), "outputs")
            mlflow.set_tags(
                {
                    "recipe.outputs.files": str(count),
                    "recipe.outputs": top[:4000],
                    "recipe.outputs.digest": files.tree_digest(outputs, DIAGNOSTICS, dvcignore=False),
                }
            )
            self._tag_parent(name, f"ran {run_id}")
            _end("FINISHED")  # last of all: a run is reused only when everything before this line has happened
        except BaseException as error:
            self._fail(error, name, run_id, made | {"seconds": round(time.monotonic() - started, 1)}, inputs, outputs)
            raise AssertionError("unreachable") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        past = self.store.step_run(self.store.client.get_run(run_id))
        self.shown[name] = self.cards.of_new(name, past, results, made)
        print(f"  {name} done in {time.monotonic() - started:.1f} s", flush=True)
        return replace(past, tags={**past.tags, **self.shown[name].tags})

    def _fail(
        self, error: BaseException, name: str, run_id: str, made: dict[str, Any], inputs: Inputs, outputs: Path
    ) -> None:
        """Leave a failure card and a status that is never reused, then raise StepFailed (or the interruption again)."""
        import mlflow

        stopped = isinstance(error, KeyboardInterrupt)
        message = "stopped" if stopped else in_words(error)
        while (active := mlflow.active_run()) is not None and active.info.run_id not in (run_id, self.parent_id):
            mlflow.end_run("KILLED" if stopped else "FAILED")
        step = self.prepared.steps[name]
        card, before = Card(name, about=step.about), Card(name, about=step.about)
        card.verdict(
            "failed", message, [advice(error, name, asked_of(self.prepared))], stamp="Stopped" if stopped else "Failed"
        )
        card.code("Traceback", "".join(traceback.format_exception(error)))
        with contextlib.suppress(Exception):  # of what it had made by then a card may be drawn, or may not
            step.show(self.prepared.configs[name], inputs, outputs, before)
        if before.blocks:
            with card.section("What the step had made before", open=False):
                card.blocks[-1]["blocks"].extend(before.blocks)
        path = None
        with contextlib.suppress(Exception):  # a full disk or a lost server must not hide why the step failed
            path = self.cards.keep(card, made | {"status": "stopped" if stopped else "failed"}, run_id)
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

    def _made(self, name: str, components: Components, run_id: str, results: Mapping[str, StepRun]) -> dict[str, Any]:
        """How a step's result is made: the footer of its card."""
        return {
            "recipe": self.prepared.name,
            "profile": self.prepared.merged.profile.name,
            "when": datetime.now().strftime("%-d %B %Y, %H:%M"),
            "run_id": run_id,
            "fingerprint": components.digest,
            "config": self._resolved()[name],
            "inputs": {need: f"run {past.run_id}" for need, past in results.items()},
            "lineage": {key.removeprefix("lineage."): tag for key, tag in self.lineage.tags().items()}
            | components.sources,
        }

    def _common_tags(self) -> dict[str, str]:
        return {
            "recipe.name": self.prepared.name,
            "recipe.profile": self.prepared.merged.profile.name,
            **self.lineage.tags(),
            **machine.tags(),
            **self.tags,
        }

    def _resolved(self) -> dict[str, dict[str, Any]]:
        return {name: self.prepared.configs[name].model_dump(mode="json") for name in self.prepared.components}

    def _tag_parent(self, step: str, what: str) -> None:
        self.store.client.set_tag(self.parent_id, f"{STEPS}{step}", what)


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """What a step has made in memory is gone after it: a model refers to itself, and would be there yet while the next
    step loads its own. What was there before is not looked through, which would take as long as a small step.
    """
    frozen = gc.get_freeze_count() > 0  # by who called us, for good
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if not frozen:
            gc.unfreeze()


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
