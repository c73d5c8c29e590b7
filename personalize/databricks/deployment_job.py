"""The model's deployment job: every new version goes through Evaluation, Approval_Check and Deployment.

    mlflow run . -e deployment_job -P profile=databricks                    make the job, link it to the model
    mlflow run . -e deployment_job -P profile=databricks -P on=alias        a job that deploys whatever becomes champion

The workspace runs it with `model_name` and `model_version`. The Approve button of a version's page sets a tag named
like the approval task to Approved and repairs the run; `promote` sets the same tag and takes it for an approval, so
either may be used. Evaluation reads the verdict that the recipe has registered the version with; Deployment promotes
and deploys.

Sources: docs.databricks.com, mlflow/deployment-job, and its template notebooks; MLflow's `deployment_job_id`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.databricks.backend import code_source
from personalize.databricks.compute import check_config, task_on
from personalize.databricks.workspace import WorkspaceError, connect, explained

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

APPROVAL = "Approval_Check"
STAGES = {"Evaluation": "evaluation", APPROVAL: "approval", "Deployment": "deployment"}


def make(
    client: WorkspaceClient,
    project: Path,
    config: Mapping[str, Any],
    model: str,
    profile: str,
    experiment: str,
    on: str,
) -> int:
    """Make the job, or bring the one of that name up to date, and link it to the model; returns its id.

    config: a backend config; of serverless GPUs the job takes a CPU. on: `version` or `alias`.
    """
    from databricks.sdk.service.jobs import (
        JobParameterDefinition,
        JobSettings,
        ModelTriggerConfiguration,
        ModelTriggerConfigurationCondition,
        Task,
        TaskDependency,
        TriggerSettings,
    )

    python, source = code_source(client, dict(config), project)
    stages = STAGES if on == "version" else {"Deployment": "champion"}
    tasks, environments, before = [], None, ""
    for key, stage in stages.items():
        python.parameters = [
            *("--entry-point", "deployment", "--tracking-uri", "databricks", "--experiment", experiment),
            *("--without-torch", "true", "--parameter", f"stage={stage}", "--parameter", f"profile={profile}"),
            *("--parameter", "model_name={{job.parameters.model_name}}"),
            *("--parameter", "model_version={{job.parameters.model_version}}"),
            *source.arguments,
        ]
        submitted, environments = task_on(client, dict(config), python)
        task = Task.from_dict({**submitted.as_dict(), "task_key": key})
        task.compute = None
        task.depends_on = [TaskDependency(before)] if before else None
        tasks.append(task)
        before = key
    trigger = None
    if on == "alias":
        champion = ModelTriggerConfiguration(
            ModelTriggerConfigurationCondition.MODEL_ALIAS_SET, aliases=["champion"], securable_name=model
        )
        trigger = TriggerSettings(model=champion)
    settings = JobSettings(
        name=f"personalize {model} on {on}",
        tasks=tasks,
        environments=environments,
        git_source=source.git,
        parameters=[JobParameterDefinition("model_name", model), JobParameterDefinition("model_version", "")],
        trigger=trigger,
        budget_policy_id=config.get("budget_policy_id"),
        max_concurrent_runs=1 if on == "alias" else 10,
    )
    with explained(f"making the deployment job of {model}"):
        named = client.jobs.list(name=settings.name)  # whatever its case
        known = next((job for job in named if job.settings and job.settings.name == settings.name), None)
        if known is not None and known.job_id is not None:
            client.jobs.reset(known.job_id, settings)
            number = known.job_id
        else:
            made: Any = client.api_client.do("POST", "/api/2.2/jobs/create", body=settings.as_dict())
            number = int(made["job_id"])
    if on == "version":
        link(model, number)
    return number


def link(model: str, job_id: int) -> None:
    """From now on every new version of the model starts the job; the model is made where it is missing."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    registry = MlflowClient(registry_uri="databricks-uc")
    try:
        registry.get_registered_model(model)
    except MlflowException:
        registry.create_registered_model(model, deployment_job_id=str(job_id))
        return
    registry.update_registered_model(model, deployment_job_id=str(job_id))


def evaluation(model: str, version: str) -> None:
    """Raises WorkspaceError where the version was not registered by this recipe, or its gates failed."""
    tags = _tags(model, version)
    verdict, card = tags.get("verdict", ""), tags.get("card", "")
    print(f"{model} version {version}: verdict {verdict or 'none'}, card {card or 'none'}", flush=True)
    if not card or verdict not in ("passed", "undecided"):
        raise WorkspaceError(
            f"{model} version {version} may not be deployed: "
            + ("its gates failed" if verdict == "failed" else "it has no evaluation card; register it with the recipe")
        )


def approval(model: str, version: str) -> None:
    """Raises WorkspaceError where nobody has approved the version yet."""
    tags = _tags(model, version)
    if tags.get(APPROVAL, "").strip().lower() != "approved":
        promote = f"mlflow run . -e promote -P profile=databricks -P version={version} -P approved_by=... -P reason=..."
        raise WorkspaceError(
            f"{model} version {version} is not approved yet. Look at its evaluation card ({tags.get('card', 'none')}), "
            f"then press Approve on the version's page, or `{promote}` and repair this run."
        )


def deployment(model: str, version: str, profile: str) -> int:
    """Promote the version and deploy it; the exit status of the recipe. `version` empty: the champion as it is."""
    from personalize.recipe.__main__ import main as recipe

    words = ["run", "--profile", profile, "--MODEL_NAME", model]
    if version and (status := recipe([*words, "--step", "promote", "--promote.version", version])):
        return status
    served = f"models:/{model}/{version}" if version else model
    return recipe([*words, "--step", "deploy", "--deploy.model", served])


def _tags(model: str, version: str) -> dict[str, str]:
    from mlflow import MlflowClient

    return dict(MlflowClient(registry_uri="databricks-uc").get_model_version(model, version).tags)


def main(words: list[str] | None = None) -> int:
    """The command line of this module; returns the exit status."""
    from personalize.recipe.__main__ import parse
    from personalize.recipe.errors import RecipeError

    options = ("stage", "profile", "model_name", "model_version", "config", "on")
    try:
        asked = parse(sys.argv[1:] if words is None else words, options, ()).options
        profile, stage = asked.get("profile", "databricks"), asked.get("stage", "make")
        if stage == "make":
            return _make(profile, asked)
        model, version = asked["model_name"], asked.get("model_version", "")
        if stage in ("deployment", "champion"):
            return deployment(model, version if stage == "deployment" else "", profile)
        {"evaluation": evaluation, "approval": approval}[stage](model, version)
    except (RecipeError, WorkspaceError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


def _make(profile: str, asked: Mapping[str, str]) -> int:
    from personalize.recipe.config import load_profile

    chosen = load_profile(Path.cwd(), profile)
    model = asked.get("model_name") or str(chosen.variables.values["MODEL_NAME"])
    on = asked.get("on", "version")
    if on not in ("version", "alias"):
        raise WorkspaceError(
            f"A deployment job runs on a new version or on an alias: on=version or on=alias, not {on!r}"
        )
    config = check_config(json.loads(Path(asked["config"]).read_text(encoding="utf-8")))
    client = connect()
    number = make(client, Path.cwd(), config, model, profile, str(chosen.experiment["name"]), on)
    when = f"every new version of {model}" if on == "version" else f"the alias champion of {model}"
    print(f"job {number} runs for {when}: {client.config.host}/jobs/{number}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
