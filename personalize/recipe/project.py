"""The project run: what people find in MLflow's table of runs, with its name, verdict, data, models and cards."""

import json
import os
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from personalize.cards.links import address, card_link, parts
from personalize.egress import has_secret, without_secrets
from personalize.recipe.errors import in_short
from personalize.recipe.fingerprint import Lineage
from personalize.recipe.lease import held
from personalize.recipe.plan import Prepared
from personalize.recipe.showing import OUTCOME, Shown
from personalize.recipe.tracking import StepRun, Store, refuse_logged_secrets

RANDOM_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")
"""What MLflow calls a run that nobody has named."""
LONGEST_NAME = 120
LONGEST_PARAM = 5900
"""Characters of a value that MLflow keeps as a param, which are 6,000, with room to say that there are more."""
DIFF = "uncommitted.diff"
WORK = "recipe.work"
"""Tag of a project run: the digest of all that decided what it came to (`Prepared.work`)."""
LEFT_OUT = "left_out.json"
"""Artifact that names the changed files which stayed on the machine: {name: why}."""


@dataclass(frozen=True)
class Under:
    """The run that a project run hangs under, and what it is called there."""

    run_id: str
    name: str


class ProjectRun:
    """The parent of the steps' runs: the one that `mlflow run` opened, or one of its own, opened at once."""

    def __init__(self, prepared: Prepared, store: Store, under: Under | None = None) -> None:
        import mlflow

        self.prepared = prepared
        self.store = store
        if under is not None:
            run = mlflow.start_run(
                run_name=under.name,
                experiment_id=store.experiment_id,
                nested=True,
                parent_run_id=under.run_id,
                tags=held(),
            )
        elif os.environ.get("MLFLOW_RUN_ID"):  # the project run of `mlflow run`; asking for it consumes the variable
            run = mlflow.start_run()
            if RANDOM_NAME.fullmatch(run.info.run_name or ""):
                store.client.update_run(run.info.run_id, name=run_name(prepared))
        else:
            nested = mlflow.active_run() is not None
            run = mlflow.start_run(
                run_name=run_name(prepared), experiment_id=store.experiment_id, nested=nested, tags=held()
            )
        self.run_id = run.info.run_id
        # `mlflow run` has logged what was typed, quoted; a second value would be refused
        self.logged_already = dict(run.data.params)
        for tag, text in run.data.tags.items():  # a password in the address of the git remote, say
            if has_secret(text):
                store.client.set_tag(self.run_id, tag, without_secrets(text))

    def begin(self, tags: Mapping[str, str], resolved: Mapping[str, Mapping[str, Any]], lineage: Lineage) -> None:
        """Where it comes from, and everything that was decided.

        Raises RecipeError where `mlflow run` has logged a secret as a parameter, which nobody can take back.
        """
        from mlflow.entities import Param, RunTag

        refuse_logged_secrets(self.run_id, self.logged_already)
        tags = {**tags, "recipe.target": self.prepared.target}
        if self.prepared.work:
            tags[WORK] = self.prepared.work
        seeds = {str(config["seed"]) for config in resolved.values() if config.get("seed") is not None}
        if seeds:
            tags["lineage.seed"] = ", ".join(sorted(seeds))
        params = {f"{step}.{key}": value for step, config in resolved.items() for key, value in config.items()}
        self.store.log_batch(
            self.run_id,
            [Param(name, param(value)) for name, value in params.items() if name not in self.logged_already],
            [RunTag(name, value) for name, value in tags.items()],
        )
        text = yaml.safe_dump(self.prepared.resolved(), sort_keys=False, allow_unicode=True)
        self.store.log_text(self.run_id, text, "recipe.resolved.yaml")
        if lineage.dirty:
            self.store.log_text(self.run_id, lineage.diff, DIFF, sifted=True)
        if lineage.left_out:
            self.store.log_text(self.run_id, json.dumps(lineage.left_out, indent=1, ensure_ascii=False), LEFT_OUT)

    def conclude(self, results: Mapping[str, StepRun], shown: Mapping[str, Shown], ran: Sequence[str]) -> None:
        """What it came to: verdict and headline metrics, data, models, and links to the cards."""
        from mlflow.entities import Metric, RunTag

        client, judged = self.store.client, self.prepared.merged.card
        outcomes = {name: outcome(past, shown.get(name)) for name, past in results.items()}
        tags = {"mlflow.note.content": self._description(results, shown, outcomes, ran)}
        metrics = {}
        if judged in results:
            tags["verdict"] = outcomes[judged]
            found = results[judged].metrics
            metrics = {name: found[name] for name in self.prepared.merged.headline if name in found}
        now = int(time.time() * 1000)
        client.log_batch(
            self.run_id,
            metrics=[Metric(name, value, now, 0) for name, value in metrics.items()],
            tags=[RunTag(name, value) for name, value in tags.items() if value],
        )
        datasets = {each.dataset.digest: each for past in results.values() for each in past.datasets}
        if datasets:
            client.log_inputs(self.run_id, datasets=list(datasets.values()))
        models = {each.model_id: each for past in results.values() for each in past.models}
        if models:
            client.log_outputs(self.run_id, models=list(models.values()))

    def _description(
        self,
        results: Mapping[str, StepRun],
        shown: Mapping[str, Shown],
        outcomes: Mapping[str, str],
        ran: Sequence[str],
    ) -> str:
        """Markdown for the run's page: what was asked, and every step with a link that opens its card."""
        asked = " ".join(shlex.join(["-P", f"{name}={text}"]) for name, text in asked_of(self.prepared).items())
        lines = [f"`{asked}`", ""] if asked else []
        lines += ["| card | | |", "|---|---|---|"]
        for name, past in results.items():
            run_id, path = parts(shown[name].address if name in shown else address(past.run_id))
            experiment_id = past.experiment_id if run_id == past.run_id else self.store.experiment_id
            link = card_link(experiment_id, run_id, path)
            lines.append(f"| [{name}]({link}) | {'run' if name in ran else 'reused'} | {outcomes[name]} |")
        return "\n".join(lines)


def run_name(prepared: Prepared) -> str:
    """`gpu · register · data=photographs, rank=8`: profile, target, and what was asked for."""
    asked = ", ".join(f"{name.rpartition('.')[2]}={text}" for name, text in asked_of(prepared).items())
    words = [prepared.merged.profile.name, prepared.target, asked]
    name = " ".join(" · ".join(filter(None, words)).split())
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def asked_of(prepared: Prepared) -> dict[str, str]:
    """What a person gave a value on the command line, secrets put out."""
    return {override.name: without_secrets(override.text) for override in prepared.merged.overrides if override.text}


def outcome(past: StepRun, shown: Shown | None) -> str:
    """What a step came to, in one word."""
    return (shown.tags if shown else past.tags).get(OUTCOME, "")


def param(value: Any) -> str:
    """A value as a param: text as it is, the rest as JSON; what is too long is whole in recipe.resolved.yaml."""
    return in_short(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), LONGEST_PARAM)
