"""`Recipe(profile)`: the recipe in a notebook, with the verbs of MLflow Recipes."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personalize.cards.page import frame
from personalize.recipe.config import Override, load, overrides_from
from personalize.recipe.errors import RecipeError, nearest
from personalize.recipe.overview import overview
from personalize.recipe.plan import Prepared, make_plan, prepare, survey
from personalize.recipe.report import end_text, local_card, plan_text
from personalize.recipe.runner import CARDS, Runner, StepFailed
from personalize.recipe.tracking import Store, connect


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
        self.name = survey(self.root, profile, self.overrides).name

    def plan(self, step: str | None = None) -> str:
        """What would run for `step` (default: the recipe up to its `until`), and why."""
        prepared, store = self._prepared(step)
        return plan_text(prepared, make_plan(prepared, store))

    def run(self, step: str | None = None, fresh: bool = False) -> CardFile:
        """Run `step` and what it needs (default: the recipe up to its `until`), reusing what is done.

        Raises RecipeError; a failed step leaves a card.
        """
        started = time.monotonic()
        prepared, store = self._prepared(step, create=True)
        plan = make_plan(prepared, store, fresh)
        print(plan_text(prepared, plan), flush=True)
        runner = Runner(prepared, store, plan)
        try:
            runner.run()
        except StepFailed as failure:
            where = f" (card: {failure.card})" if failure.card else ""
            raise RecipeError(f"{failure}{where}") from failure.__cause__
        print(end_text(runner, time.monotonic() - started), flush=True)
        return CardFile(self.card_path(prepared.target))

    def inspect(self, step: str | None = None) -> CardFile:
        """The card of a step's latest run; without a step, the whole recipe with the state of each."""
        return CardFile(self.card_path(step))

    def card_path(self, step: str | None = None) -> Path:
        """Where that card lies on this machine. Raises RecipeError where the step has not run."""
        if step is None:
            return self._overview()
        prepared = survey(self.root, self.profile, self.overrides)
        if step not in prepared.steps:
            raise RecipeError(f"unknown step '{step}'{nearest(step, prepared.steps)}")
        store = connect(prepared.merged.profile, self.root, create=False)
        if step not in prepared.components:  # it lacks a required value: any run of it is the one meant
            tries = []
        else:
            tries = store.with_fingerprint(prepared.components[step].digest)
        past = next((past for past in tries if past.status == "FINISHED"), None) or store.latest(
            self.name, step, finished=False
        )
        if past is None:
            raise RecipeError(
                f"step '{step}' has not run in experiment {store.experiment_id}; "
                f"mlflow run . --env-manager local -e {step} runs it"
            )
        path = local_card(store, past, step)
        if path is None:
            raise RecipeError(
                f"run {past.run_id} of step '{step}' has no card ({past.status.lower()}); run the step again"
            )
        return path

    def get_artifact(self, name: str) -> Path:
        """A step's outputs (`"train"`) or one file (`"train/history.json"`), of the result for this config."""
        step, _, inside = name.partition("/")
        prepared, store = self._prepared(step)
        for past in store.with_fingerprint(prepared.components[step].digest):
            if past.status == "FINISHED" and store.outputs_present(past):
                outputs = store.outputs(past)
                if not (outputs / inside).exists():
                    names = [path.relative_to(outputs).as_posix() for path in outputs.rglob("*")]
                    raise RecipeError(f"step '{step}' made no '{inside}'{nearest(inside, names)}")
                return outputs / inside
        raise RecipeError(f"step '{step}' has no result under this configuration; run it first")

    def clean(self, step: str | None = None, everyone: bool = False) -> str:
        """Mark a step's runs (default: every step's) as deleted, so that it runs again; says what was removed.

        With what is nested in them, as trials are in a sweep.

        Other people's runs are kept unless `everyone`. `mlflow runs restore` brings a run back until `mlflow gc`.
        """
        import getpass

        merged = load(self.root, self.profile, self.overrides)
        if step is not None and step not in merged.steps:
            raise RecipeError(f"unknown step '{step}'{nearest(step, merged.steps)}")
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

    def _prepared(self, step: str | None, create: bool = False) -> tuple[Prepared, Store]:
        prepared = prepare(self.root, self.profile, self.overrides, step=step or "")
        return prepared, connect(prepared.merged.profile, self.root, create)

    def _overview(self) -> Path:
        prepared = survey(self.root, self.profile, self.overrides)
        store = connect(prepared.merged.profile, self.root, create=False)
        card = overview(prepared, make_plan(prepared, store), store)
        path = self.root / CARDS / "recipe.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(card.html({"recipe": self.name, "profile": self.profile}), encoding="utf-8")
        return path
