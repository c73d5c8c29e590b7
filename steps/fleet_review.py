"""Fleet review: those of a fleet that passed are approved together, a sample of them looked at.   gives: review.json

    mlflow run . -e fleet_review -P fleet=<run id>                                       the sample, to be looked at
    mlflow run . -e fleet_review -P fleet=<run id> -P approved_by="you" -P reason="..."  approves all that passed
    ... -P bad=zwvchr,brkchr                                                             of the sample, these are bad

Which subjects are looked at is decided by the fleet's run, not by who looks; a larger sample holds the smaller. Each
approval is kept with the evaluation that it is of, as `review` keeps one, and says the sample's size and what it
shows. Bad ones are rejected. Nothing is promoted: `promote` takes each approval from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from personalize.cards import command
from personalize.evidence import keys
from personalize.evidence.trust import Trust
from personalize.files import read_rows, write_json
from personalize.recipe import Inputs, RecipeError, StepConfig
from personalize.recipe.errors import nearest

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

    from personalize.recipe.past import Past

Row = Mapping[str, Any]

NEEDS: tuple[str, ...] = ()
REUSE = False
ACTS = True

STRIPS = "before_and_after"
"""Artifacts of an evaluation: photograph, base's and tuned model's picture side by side, for each subject."""


class Config(StepConfig):
    name: str = Field("personalize", min_length=1, description="The registered model, whose versions are tagged")
    fleet: str = Field(min_length=1, description="The fleet's run, or the project run that has it, by its id")
    sample: int = Field(0, ge=0, description="Subjects to look at; 0 for as many as `at_most` needs")
    at_most: float = Field(0.05, gt=0, lt=1, description="Share of bad ones that may be left, with 95 % confidence")
    bad: str = Field("", description="Tokens of the sample that are bad, with commas between")
    approved_by: str = Field("", max_length=500, description="Who has looked and approves")
    reason: str = Field("", max_length=800, description="Why")
    trust: Trust = Field(Trust(), description="The trust policy: the key that the approvals are signed with")


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from personalize.recipe.past import find
    from personalize.review import acceptance

    fleet = find(config.fleet, "fleet")
    passed = {row["subject"]: row for row in read_rows(fleet.own.path / "subjects.jsonl") if row["verdict"] == "passed"}
    if not passed:
        raise RecipeError(f"in fleet {fleet.run_id} nothing has passed, so there is nothing to approve")
    size = min(config.sample or acceptance.sample_size(len(passed), config.at_most), len(passed))
    sample = acceptance.drawn(list(passed), size, fleet.run_id)
    bad = _bad(config.bad, [passed[name] for name in sample])
    shows = acceptance.sentence(len(passed), size, len(bad))
    about = {
        "fleet": fleet.run_id,
        "passed": len(passed),
        "looked_at": sample,
        "bad": sorted(bad),
        "most_bad": acceptance.most_bad(len(passed), size, len(bad)),
        "confidence": acceptance.CONFIDENCE,
        "shows": shows,
    }
    decided: dict[str, list[Any]] = {"approved": [], "rejected": [], "left_out": []}
    if config.approved_by.strip() or config.reason.strip():
        _refuse(config, about)
        signer = keys.own(config.trust.key)
        decided = _decide(config, about, passed, bad, signer)
    write_json(outputs / "review.json", about | decided | {"by": config.approved_by, "reason": config.reason})
    _keep_sample(outputs, [passed[name] for name in sample])
    print(f"{shows}{'' if config.approved_by else ': to be looked at, on the card'}", flush=True)


def _bad(said: str, sample: Sequence[Row]) -> set[str]:
    """The subjects that are meant by their tokens. Raises RecipeError for one that is not in the sample."""
    of = {token: row["subject"] for row in sample for token in row["tokens"]}
    found = set()
    for token in (word.strip() for word in said.split(",") if word.strip()):
        if token not in of:
            raise RecipeError(f"bad={token} is not in the sample that was to be looked at{nearest(token, of)}")
        found.add(of[token])
    return found


def _refuse(config: Config, about: Mapping[str, Any]) -> None:
    """Raises RecipeError where a name or a reason is missing, or the sample shows too little."""
    if not (config.approved_by.strip() and config.reason.strip()):
        raise RecipeError("who approves, and why? -P approved_by=... -P reason=...")
    if about["most_bad"] > config.at_most * about["passed"]:
        raise RecipeError(
            f"nothing is approved: {about['shows']}, and no more than {100 * config.at_most:g} % may be "
            f"(fleet_review.at_most). Look at more: {command('fleet_review', fleet=config.fleet, sample='<more>')}"
        )


def _decide(
    config: Config,
    about: Mapping[str, Any],
    passed: Mapping[str, Row],
    bad: set[str],
    signer: CryptoSigner | None,
) -> dict[str, list[Any]]:
    """Each passed subject's evaluation gets its decision; one whose papers do not hold is left out, and said."""
    from tqdm import tqdm

    from personalize.recipe import provenance
    from personalize.review import approval

    found: dict[str, list[Any]] = {"approved": [], "rejected": [], "left_out": []}
    sample = {key: about[key] for key in ("fleet", "passed", "looked_at", "bad", "most_bad", "confidence", "shows")}
    for name, row in tqdm(passed.items(), desc="approved", unit="subject", disable=None):
        try:
            past, evidence = _papers(row)
            trainer = provenance.trainer(past.own.statement) if past.own.statement else ""
            against = config.trust.against_approver(keys.own_id(config.trust.key), trainer)
            if against:
                raise ValueError(against)
            decision = "rejected" if name in bad else "approved"
            reason = f"{config.reason.strip()} ({about['shows']})"
            before = approval.in_force(past.run_id)
            same = before is not None and (before["decision"], before["reason"]) == (decision, reason)
            if not (same and before and not approval.differences(before, evidence)):
                how = f"with others of fleet {about['fleet'][:8]}"
                approval.decide(evidence, decision, config.approved_by, reason, how, signer, sample)  # type: ignore[arg-type]
            _tag(config, row, decision)
        except (RecipeError, ValueError, KeyError) as error:
            found["left_out"].append({"subject": name, "why": str(error)})
            continue
        found[decision].append(name)
    return found


def _papers(row: Row) -> tuple[Past, Any]:
    """A subject's evaluation and what lies in MLflow for it now. Raises ValueError where that has not passed."""
    from personalize.evaluation.recorded import read_scores, verdict_of
    from personalize.recipe.past import find
    from personalize.review import approval

    past = find(row["judged"], "evaluate")
    if (verdict := verdict_of(read_scores(past.own.path / "scores.json"))) != "passed":
        raise ValueError(f"its scores come to {verdict}")
    if "train" not in past.inputs:
        raise ValueError("its training is gone")
    return past, approval.gather(past.run_id, row["card"], past.inputs["train"].run_id)


def _tag(config: Config, row: Row, decision: str) -> None:
    """For people who look at the version in the registry; nothing believes it."""
    import mlflow
    from mlflow.exceptions import MlflowException

    if not (version := row["said"].get("version", "")):
        return
    try:
        for key, value in (
            ("approval_by", config.approved_by),
            ("approval_reason", config.reason),
            ("approval", decision),
        ):
            mlflow.MlflowClient().set_model_version_tag(config.name, version, key, value)
    except MlflowException as error:
        print(f"version {version} of {config.name} could not be tagged: {error}", flush=True)


def _keep_sample(outputs: Path, sample: Sequence[Row]) -> None:
    """What is looked at: each subject's pictures beside a photograph, or the small one of the fleet's card."""
    import base64

    import mlflow

    client, rows = mlflow.MlflowClient(), []
    folder = outputs / "sample"
    folder.mkdir()
    for number, row in enumerate(sample, 1):
        files = []
        for strip in client.list_artifacts(row["judged"], STRIPS) if row["judged"] else ():
            fetched = mlflow.artifacts.download_artifacts(run_id=row["judged"], artifact_path=strip.path)
            name = f"{number:04}-{Path(strip.path).name}"
            shutil.copyfile(fetched, folder / name)
            files.append(name)
        if not files and row["picture"]:
            files = [f"{number:04}.webp"]
            (folder / files[0]).write_bytes(base64.b64decode(row["picture"]))
        rows.append({key: row[key] for key in ("subject", "tokens", "card", "metrics")} | {"files": files})
    write_json(outputs / "sample.json", rows)
