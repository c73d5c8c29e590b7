"""Review: people vote blind on an evaluation's pictures, then somebody approves or rejects.   gives: review.json

    mlflow run . -e review                                  the challenger's evaluation, on this machine
    mlflow run . -e review -P run=<run id>                  any evaluation, or the project run that has it
    mlflow run . -e review -P version=3 -P port=8080

Every vote is kept at once, on this disk and with the run that was evaluated; so is the decision, which names card,
scores, model and votes by their digests. `promote` takes the approval from there. Inside a Databricks App it listens
where the platform says and knows people by the name they signed in with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from personalize.evidence import keys
from personalize.evidence.trust import Trust
from personalize.files import read_rows, write_json, write_rows
from personalize.recipe import Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from personalize.recipe.past import Past
    from personalize.review.pairs import Photograph, Question
    from personalize.review.session import Session

NEEDS: tuple[str, ...] = ()
REUSE = False
ACTS = True


class Config(StepConfig):
    name: str = Field("personalize", min_length=1, description="The registered model")
    version: str = Field(
        "challenger", pattern=r"^([0-9]+|[A-Za-z][\w.-]*)$", description="A version's number or an alias"
    )
    run: str = Field("", description="The evaluation, by the id of its run or of a project run; empty is the version's")
    until: Literal["decided", "stopped"] = Field("decided", description="When to end: with a decision, or when told to")
    host: str = Field("127.0.0.1", description="Address to listen on; 127.0.0.1 is reached from this machine only")
    port: int = Field(0, ge=0, le=65535, description="Port; 0 takes a free one")
    folder: str = Field("build/reviews", min_length=1, description="Folder that votes are kept in on this machine")
    trust: Trust = Field(Trust(), description="The trust policy: the key that a decision is signed with")


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    from personalize.databricks.apps import app_place
    from personalize.review import server

    session = begin(config)
    app = app_place()
    door = server.listen(app.host, app.port) if app else server.listen(config.host, config.port)
    server.serve(
        session,
        door,
        until_decided=config.until == "decided",
        signed_in_by=app.signed_in_by if app else "",
        ready=lambda address: _tell(session, address),
    )
    with server.undisturbed():
        _leave(session, outputs)


def begin(config: Config) -> Session:
    """The session of the evaluation that is meant. Raises RecipeError or RegistryError where it cannot be reviewed."""
    from personalize.evaluation.recorded import read_scores, verdict_of
    from personalize.recipe.past import find
    from personalize.review import approval
    from personalize.review.pairs import Material
    from personalize.review.session import Session
    from personalize.review.votes import Book
    from personalize.serving import registry

    version = None if config.run else registry.version_of(config.name, config.version)
    if version is not None and not version.tags.get("evaluate_run"):
        raise RecipeError(
            f"{config.name} version {version.version} names no evaluation; give one with -P run=<run id>."
        )
    past = find(config.run or version.tags["evaluate_run"], "evaluate")  # type: ignore[union-attr]
    card = (version.tags.get("card", "") if version is not None else "") or past.own.card
    missing = [step for step in ("ingest", "caption", "train", "baseline", "draw") if step not in past.inputs]
    if missing:
        raise RecipeError(f"evaluation {past.run_id} cannot be reviewed: the runs of {', '.join(missing)} are gone")
    scores = read_scores(past.own.path / "scores.json")
    evidence = approval.gather(past.run_id, card, past.inputs["train"].run_id)
    champion, other = _champion(config, evidence.model.sha256)
    title = f"{config.name} version {version.version}" if version is not None else past.name or past.run_id[:8]
    return Session(
        title=title,
        material=Material(evidence.key, questions(past, scores, other), photographs(past), champion),
        evidence=evidence,
        book=Book(Path(config.folder) / past.run_id, past.run_id),
        verdict=verdict_of(scores),
        reasons=[str(reason) for reason in scores.get("reasons", ())],
        notice=lambda: _newer(config, version),
        decision=_decided(past.run_id),
        signer=keys.own(config.trust.key),
    )


def _decided(run_id: str) -> dict[str, Any] | None:
    """The decision in force; one that cannot be read is none, so that it can be made again."""
    from personalize.review import approval

    try:
        return approval.in_force(run_id)
    except approval.ApprovalError as error:
        print(f"evaluation {run_id} has no decision: {error}", flush=True)
        return None


def questions(past: Past, scores: Mapping[str, Any], champion: Past | None) -> list[Question]:
    """What was asked, with what each model drew. Raises RecipeError where a picture is gone."""
    from personalize.evaluation.recorded import read_scores
    from personalize.photographs.prompts import without_token
    from personalize.review.pairs import BASE, CHAMPION, TUNED, Question

    nouns = {subject["token"]: subject["class_noun"] for subject in scores["subjects"]}
    theirs = {}
    if champion is not None:
        drawn = champion.inputs["draw"].path
        rows = read_scores(champion.own.path / "scores.json")["pictures"]
        theirs = {(row["token"], row["prompt"], row["seed"]): drawn / row["file"] for row in rows}
    found = []
    for row in scores["pictures"]:
        pictures = {
            TUNED: past.inputs["draw"].path / row["file"],
            BASE: past.inputs["baseline"].path / row["base_file"],
        }
        if (asked := (row["token"], row["prompt"], row["seed"])) in theirs:
            pictures[CHAMPION] = theirs[asked]
        for picture in pictures.values():
            if not picture.is_file():
                raise RecipeError(f"evaluation {past.run_id} cannot be reviewed: its picture {picture} is gone")
        noun = nouns[row["token"]]
        found.append(Question(row["token"], noun, without_token(row["prompt"], row["token"]), row["seed"], pictures))
    return found


def photographs(past: Past) -> dict[str, list[Photograph]]:
    """Each subject's photographs as ingest left them, with their captions less the token."""
    from personalize.photographs.prompts import without_token
    from personalize.review.pairs import Photograph

    images = past.inputs["ingest"].path / "images"
    texts = {row["file_name"]: row["text"] for row in read_rows(past.inputs["caption"].path / "metadata.jsonl")}
    found: dict[str, list[Photograph]] = {}
    for row in read_rows(images / "metadata.jsonl"):
        token, file = row["token"], row["file_name"]
        caption = without_token(texts.get(file, f"a photo of a {row['class_noun']}"), token)
        found.setdefault(token, []).append(Photograph(images / file, caption))
    return found


def _champion(config: Config, model_sha256: str) -> tuple[str, Past | None]:
    """The champion's evaluation, where there is a champion of other weights that was evaluated; its run, too."""
    from personalize.cards.links import address
    from personalize.recipe.past import find
    from personalize.review.approval import ADAPTER, ApprovalError, artifact
    from personalize.serving import registry

    champion = registry.alias_or_none(config.name, registry.CHAMPION)
    if champion is None or not champion.tags.get("evaluate_run"):
        return "", None
    try:
        past = find(champion.tags["evaluate_run"], "evaluate")
        weights = artifact(address(past.inputs["train"].run_id, ADAPTER), "adapter")
    except (RecipeError, ApprovalError, KeyError) as error:
        print(f"the champion, version {champion.version}, is left out: {error}", flush=True)
        return "", None
    return ("", None) if weights.sha256 == model_sha256 else (past.run_id, past)


def _newer(config: Config, version: ModelVersion | None) -> str:
    """A word where the registry has moved on since the review began."""
    from mlflow.exceptions import MlflowException

    from personalize.serving import registry

    if version is None or config.version.isdigit():
        return ""
    try:
        now = registry.version_of(config.name, config.version)
    except (registry.RegistryError, MlflowException):
        return f"{config.name} has no {config.version} any more; you see version {version.version}."
    if str(now.version) == str(version.version):
        return ""
    return f"Version {now.version} is the {config.version} now. You see version {version.version}, and vote on that."


def _tell(session: Session, address: str) -> None:
    pairs = len(session.order(""))
    print(f"{session.title}: {pairs} pairs to vote on, results and decision at\n\n    {address}\n", flush=True)
    print(
        "Every vote is kept at once. Ctrl-C ends the review; it goes on where it was when it is started again.",
        flush=True,
    )


def _leave(session: Session, outputs: Path) -> None:
    """What the review came to."""
    import mlflow

    votes, _ = session.counted()
    found = session.results()
    write_rows(outputs / "votes.jsonl", [asdict(vote) for vote in votes])
    decision = session.decision if session.decided_here.is_set() else None
    write_json(
        outputs / "review.json",
        {
            "title": session.title,
            "verdict": session.verdict,
            "evidence": asdict(session.evidence),
            "decision": decision,
            "results": found,
        },
    )
    metrics = {"votes": float(found["votes"]), "voters": float(len(found["voters"]))}
    metrics |= {f"preferred_to_{kind}": rate["value"] for kind, rate in found["against"].items()}
    mlflow.log_metrics(metrics if found["alpha"] is None else metrics | {"alpha": found["alpha"]})
    if decision:
        print(f"{decision['decision']} by {decision['by']}: {decision['reason']}", flush=True)
