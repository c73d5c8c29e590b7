"""`Recipe(profile)`: the recipe in a notebook, with the verbs of MLflow Recipes. The command line calls it too."""

import os
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize import files
from personalize.cards import command
from personalize.cards.commands import under_profile
from personalize.cards.page import frame
from personalize.recipe.config import Override, load, load_profile, overrides_from
from personalize.recipe.errors import Faults, RecipeError, nearest
from personalize.recipe.plan import Prepared, prepare, survey

if TYPE_CHECKING:
    from personalize.recipe.project import Under
    from personalize.recipe.runner import Runner
    from personalize.recipe.steps import Step
    from personalize.recipe.tracking import Store


class CardFile:
    """A card on disk; a notebook shows it in place."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _repr_html_(self) -> str:
        return frame(self.path.read_text(encoding="utf-8"))

    def __repr__(self) -> str:
        return f"card  {self.path}"


class Recipe:
    """The recipe in `root` (default: the working directory) under a profile.

    overrides: `{"train.rank": 8, "SEED": 1}`, as `-P` would give them.
    """

    def __init__(
        self,
        profile: str = "local",
        root: str | Path | None = None,
        overrides: Mapping[str, Any] | Sequence[Override] = (),
    ) -> None:
        self.profile = profile
        self.root = Path(root or Path.cwd()).resolve()
        self.overrides = overrides_from(overrides) if isinstance(overrides, Mapping) else list(overrides)
        load_profile(self.root, profile)  # a profile that is none is said at once

    @cached_property
    def name(self) -> str:
        """The recipe's, as recipe.yaml says."""
        return load(self.root, self.profile, self.overrides).name

    def plan(self, step: str | None = None, until: str | None = None, fresh: bool = False) -> str:
        """What would run for `step` (default: the recipe up to its `until`), and why."""
        from personalize.recipe.plan import make_plan_on
        from personalize.recipe.terminal import plan_text

        prepared = self._prepared(step, until)
        store = self._store(prepared)
        text = plan_text(*make_plan_on(prepared, store, fresh))
        store.name_plan(text)
        return text

    def run(
        self,
        step: str | None = None,
        fresh: bool = False,
        until: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> CardFile:
        """Run `step` and what it needs (default: the recipe up to its `until`), reusing what is done.

        until: every step up to this one instead. tags: more tags for the runs.

        Raises RecipeError; a failed step leaves a card.
        """
        started = time.monotonic()
        runner = self.runner(step, fresh, until, tags)
        runner.run()

        from personalize.recipe.terminal import end_text

        print(end_text(runner, time.monotonic() - started), flush=True)
        return CardFile(runner.shown[runner.prepared.target].path)

    def runner(
        self,
        step: str | None = None,
        fresh: bool = False,
        until: str | None = None,
        tags: Mapping[str, str] | None = None,
        under: "Under | None" = None,
    ) -> "Runner":
        """What `run` runs, planned and checked: for who wants to know what became of it. under: a run to hang it under.

        Raises RecipeError.
        """
        prepared = self._prepared(step, until)
        if tags and "reproduces" in tags:
            prepared, left_out = self._without_acts(prepared)
            tags = {**tags, **({"reproduces.left_out": ", ".join(left_out)} if left_out else {})}

        from personalize.recipe.lease import take
        from personalize.recipe.plan import make_plan_on
        from personalize.recipe.runner import Runner
        from personalize.recipe.terminal import plan_text

        store = self._store(prepared, create=True)
        if run_id := os.environ.get("MLFLOW_RUN_ID"):  # `mlflow run` has opened it, and may be killed from now on
            take(store, run_id)
        prepared, plan = make_plan_on(prepared, store, fresh)
        print(plan_text(prepared, plan), flush=True)
        _check(prepared, [planned.step for planned in plan if planned.reused is None])
        return Runner(prepared, store, plan, fresh, tags, under)

    def inspect(self, step: str | None = None, run: str | None = None) -> CardFile:
        """The card of a step's latest run, or of any run by its id; without either, the whole recipe with its states.

        It is drawn by today's code from what the run left. Raises RecipeError where the step has not run.
        """
        prepared = self._surveyed(step)
        with under_profile(self.profile):
            return CardFile(self._card(prepared, step, run))

    def _card(self, prepared: Prepared, step: str | None, run: str | None) -> Path:
        from personalize.recipe.overview import overview
        from personalize.recipe.plan import make_plan_on
        from personalize.recipe.showing import CARDS, Cards

        store = self._store(prepared)
        if run is not None:
            cards = Cards(prepared, store)
            past = store.by_id(run)
            if past is None:
                raise RecipeError(f"run {run} is not in this tracking store")
            return cards.of_any(past)
        prepared, planned = make_plan_on(prepared, store)
        cards = Cards(prepared, store)
        plan = {each.step.name: each for each in planned}
        if step is None:
            page = overview(prepared, list(plan.values()), store).html({"recipe": self.name, "profile": self.profile})
            files.write_text(self.root / CARDS / "recipe.html", page)
            return self.root / CARDS / "recipe.html"
        if step in plan and (past := plan[step].reused) is not None:
            results = {need: found for need in prepared.needs(step) if (found := plan[need].reused) is not None}
            return cards.of_reused(step, past, results).path
        past = store.latest(self.name, step, finished=False)
        if past is None:
            raise RecipeError(f"step '{step}' has not run in experiment {store.experiment_id}; {command(step)} runs it")
        return cards.of_any(past)

    def get_artifact(self, name: str) -> Path:
        """A step's outputs (`"train"`) or one file (`"train/history.json"`), of the result for this config."""
        from personalize.recipe.plan import make_plan_on

        step, _, inside = name.partition("/")
        prepared = self._surveyed(step)
        store = self._store(prepared)
        _, plan = make_plan_on(prepared, store)
        past = next((each.reused for each in plan if each.step.name == step), None)
        if past is None:
            self._prepared(step)  # says what keeps it from running, where something does
            raise RecipeError(f"step '{step}' has no result under this configuration; run it first")
        outputs = store.outputs(past)
        if not (outputs / inside).exists():
            names = [path.relative_to(outputs).as_posix() for path in outputs.rglob("*")]
            raise RecipeError(f"step '{step}' made no '{inside}'{nearest(inside, names)}")
        return outputs / inside

    def describe(self) -> str:
        """Every parameter of every step: type, default, meaning."""
        from personalize.recipe.describe import describe

        return describe(self.root, self.profile, tuple(self.overrides))

    def clean(self, step: str | None = None, everyone: bool = False) -> str:
        """Mark a step's runs (default: every step's) as deleted, so that it runs again; says what was removed.

        With what is nested in them, as trials are in a sweep.

        Other people's runs are kept unless `everyone`. `mlflow runs restore` brings a run back until `mlflow gc`.
        """
        import getpass

        merged = load(self.root, self.profile, self.overrides)
        if step is not None and step not in merged.steps:
            raise RecipeError(f"unknown step '{step}'{nearest(step, merged.steps)}")
        from personalize.recipe.tracking import connect

        store = connect(merged.profile, self.root, create=False)
        said = []
        for name in [step] if step else list(merged.steps):
            runs = store.of_step(self.name, name)
            mine = [past for past in runs if everyone or past.tags.get("mlflow.user") in (getpass.getuser(), None)]
            nested = [below for past in mine for below in store.nested(past)]
            for past in [*nested, *mine]:
                store.client.delete_run(past.run_id)
            within = f" with {len(nested)} nested in {'them' if len(mine) > 1 else 'it'}" if nested else ""
            others = f", {len(runs) - len(mine)} of other people kept" if len(runs) > len(mine) else ""
            said.append(f"{name}: {len(mine)} run{'s' if len(mine) != 1 else ''} forgotten{within}{others}")
        return "\n".join([*said, "bring one back with: mlflow runs restore --run-id RUN_ID"])

    def _repr_html_(self) -> str:
        return self.inspect()._repr_html_()

    def _prepared(self, step: str | None = None, until: str | None = None) -> Prepared:
        with under_profile(self.profile):  # commands in what is refused name it
            return prepare(self.root, self.profile, self.overrides, until=until or "", step=step or "")

    def _surveyed(self, step: str | None) -> Prepared:
        """All steps, as far as they can be said. Raises RecipeError where there is no such step."""
        prepared = survey(self.root, self.profile, self.overrides)
        if step is not None and step not in prepared.steps:
            raise RecipeError(f"unknown step '{step}'{nearest(step, prepared.steps)}")
        return prepared

    def _without_acts(self, prepared: Prepared) -> tuple[Prepared, list[str]]:
        """The recipe up to the last step before one that acts outside, and what is left out.

        Raises RecipeError where every step does.
        """
        left_out: list[str] = []
        before = list(prepared.components)
        while before and prepared.steps[before[-1]].acts:
            left_out.insert(0, before.pop())
        if not before:
            raise RecipeError("every step of that run acts outside (a registry, an endpoint); none is run again")
        return (self._prepared(until=before[-1]) if left_out else prepared), left_out

    def _store(self, prepared: Prepared, create: bool = False) -> "Store":
        from personalize.recipe.tracking import connect

        return connect(prepared.merged.profile, self.root, create, prepared.merged.trust)


def _check(prepared: Prepared, steps: Sequence["Step"]) -> None:
    """What the steps that will run want to be so, before the first of them costs anything. Raises RecipeError."""
    faults = Faults()
    for step in steps:
        with faults.noted():
            try:
                step.check(prepared.configs[step.name])
            except RecipeError:
                raise
            except ValueError as error:
                raise RecipeError(f"{step.name}: {error}") from error
    faults.refuse()
