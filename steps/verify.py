"""Verify: what holds of a model or a run, link by link, and what does not.   gives: verification.json

    mlflow run . -e verify                                     the champion; while there is none, the challenger
    mlflow run . -e verify -P model=models:/personalize/3
    mlflow run . -e verify -P model=<run id>                   of a step, or a project run: every step in it

Nothing but the tracking store is asked, so it works without a network where the store does. It ends with an error where
a link does not hold. What each link means, and what none of them can show: docs/evidence.md.
"""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import Field

from personalize.evidence import keys
from personalize.evidence.chain import Link, broken, listed
from personalize.evidence.trust import Trust
from personalize.files import write_json
from personalize.recipe import Inputs, RecipeError, StepConfig
from steps.evidence import approval_of, chain_of, place_of

NEEDS: tuple[str, ...] = ()
REUSE = False


class Config(StepConfig):
    name: str = Field("personalize", min_length=1, description="The registered model that is meant where none is given")
    model: str = Field("", description="models:/<name>/<version>, models:/<name>@<alias>, or the id of a run")
    trust: Trust = Field(Trust(), description="The trust policy: whose results and approvals count")


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    """Raises RecipeError where a link does not hold; what was found is in verification.json all the same."""
    what, links = _of_run(config) if re.fullmatch("[0-9a-f]{32}", config.model) else _of_version(config)
    print("\n".join([f"\n{what}\n", *listed(links)]), flush=True)
    own = keys.own_id(config.trust.key)
    print(f"\nthe key of this machine is {own}" if own else "\nunsigned: there is no key on this machine", flush=True)
    write_json(outputs / "verification.json", {"what": what, "links": [asdict(link) for link in links], "key": own})
    if wrong := broken(links):
        raise RecipeError(f"{what} does not hold: {'; '.join(wrong)}")


def _of_version(config: Config) -> tuple[str, list[Link]]:
    from personalize.serving.registry import CHAMPION, best_version, resolve

    version = resolve(config.model) if config.model else best_version(config.name)
    if not version.version:
        raise RecipeError(f"{config.model}: give models:/<name>/<version>, models:/<name>@<alias>, or the id of a run")
    champion = not config.model or config.model.endswith(f"@{CHAMPION}")
    chain = chain_of(version.name, version.version, config.trust, everything=True)
    past, place = place_of(chain, version.name, version.version, config.trust)
    if not past.wrong and not champion:
        place = replace(place, holds=True)  # an older version is asked about by its number
    return str(version), [*chain.links, approval_of(chain, config.trust)[1], place]


def _of_run(config: Config) -> tuple[str, list[Link]]:
    import mlflow
    from mlflow.exceptions import MlflowException

    from personalize.recipe.past import proven
    from personalize.recipe.tracking import STEP, used

    try:
        tags = mlflow.MlflowClient().get_run(config.model).data.tags
    except MlflowException as error:
        raise RecipeError(f"there is no run {config.model} in {mlflow.get_tracking_uri()}") from error
    if STEP in tags:
        return f"run {config.model} of {tags[STEP]}", proven(config.model, config.trust)[0]
    if not (runs := used(tags)):
        raise RecipeError(f"run {config.model} is no run of this recipe, or none of its steps has finished")
    links = {link.name: link for run in runs.values() for link in proven(run, config.trust)[0]}
    return f"project run {config.model}", list(links.values())
