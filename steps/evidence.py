"""What speaks for a registered version, link by link: promote, deploy and verify look at the same chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from personalize.cards import command
from personalize.evidence.chain import Link
from personalize.evidence.trust import Trust, signed_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from personalize.evidence.statement import Statement
    from personalize.review.approval import Evidence
    from personalize.serving.promotions import History

WEIGHTS = "lora/pytorch_lora_weights.safetensors"
"""Of a train run; a model has the same under `artifacts/adapter/`."""
READ = ("train", "evaluate")
"""Steps whose outputs are read before a version is promoted or deployed, wherever they lie."""
ABOUT = {
    "failed": "its gates failed",
    "undecided": "its gates are undecided: more prompts or seeds in evaluate would settle them",
}


@dataclass(frozen=True)
class Chain:
    """links: in the order that a reader follows. statement: the model's; evidence: what lies in MLflow for it now.

    trainer: the key that its training is signed with, empty where nobody signed. dirty: what uncommitted code made.
    """

    links: list[Link]
    statement: Statement | None = None
    evidence: Evidence | None = None
    trainer: str = ""
    dirty: str = ""


def chain_of(name: str, version: str, trust: Trust, everything: bool = False) -> Chain:
    """From the files of a registered version back to the photographs, and to its card and verdict.

    everything: also the outputs of runs that lie elsewhere and decide nothing any more (pictures, captions).
    """
    from personalize.evidence.statement import EvidenceError
    from personalize.recipe.finding import reproduced
    from personalize.recipe.past import proven
    from personalize.serving.checking import check_model
    from personalize.serving.registry import resolve

    model = resolve(f"models:/{name}/{version}")
    try:
        statement, wrong = check_model(model)
    except EvidenceError as error:
        return Chain([Link("statement", False, f"it has {error}: register it with this recipe, which evaluates first")])
    against, said = trust.against_maker(statement.key), statement.predicate
    links = [
        Link("statement", not against, f"its statement {against}" if against else signed_by(statement)),
        Link(
            "files",
            not wrong,
            f"it is not as it was registered: {_listed(wrong)}"
            if wrong
            else f"{len(statement.subjects)} as registered",
        ),
    ]
    if "runs" not in said:
        return Chain([*links, Link("runs", False, "its statement names no evaluation: register it with this recipe")])
    found, evaluated = proven(said["runs"]["evaluate"], trust, None if everything else READ)
    links += found
    links += reproduced([said["runs"]["train"], said["runs"]["evaluate"]], trust)
    evidence, papers = _papers(model.name, model.version, statement)
    if evaluated is None:
        return Chain(links + papers, statement, evidence)
    trainer, dirty, more = _trained(statement, evaluated, trust)
    return Chain(links + more + papers, statement, evidence, trainer, dirty)


def _trained(statement: Statement, evaluated: Statement, trust: Trust) -> tuple[str, str, list[Link]]:
    """The training's key, what is dirty, and what the evaluation's statement says of code, data and environment."""
    from personalize.recipe import provenance

    train = provenance.dependency(evaluated, "train")
    key = provenance.trainer(evaluated)
    said = statement.predicate
    links = []
    if train.get("uri") != f"runs:/{said['runs']['train']}":
        links.append(Link("training", False, "its evaluation is of another training than it names"))
    if said.get("trainer", key) != key:
        links.append(Link("training", False, "it names another trainer than its evaluation"))
    commits = ", ".join(commit[:12] for commit in provenance.commits(evaluated)) or "none"
    steps = ", ".join(sorted({*provenance.dirty(evaluated), *said["code"]["dirty"]}))
    dirty = f"{steps} ran on code that no commit holds (commit {commits} and changes)" if steps else ""
    refused = f"{dirty}; commit and run again, or allow it (trust.dirty)"
    code = commits if not dirty else dirty if trust.dirty else refused
    links.append(Link("code", trust.dirty or not dirty, code))
    data = ", ".join(f"{name} {digest[:12]}" for name, digest in sorted(provenance.data(evaluated).items()))
    links.append(Link("data", True, data or "none is named"))
    locks = {each["name"]: each["digest"]["sha256"] for each in provenance.of(evaluated) if "lock" in each["name"]}
    installed = f"; installed were {_listed(apart, ', ')}" if (apart := provenance.drifted(evaluated)) else ""
    lock = f"lock {locks['lock'][:12]}" if "lock" in locks else "no lock is named"
    links.append(Link("environment", True, lock + installed))
    return key, dirty, links


def _papers(name: str, version: str, statement: Statement) -> tuple[Evidence | None, list[Link]]:
    """Card, scores and weights as they lie in MLflow now, and the verdict that the scores come to."""
    from personalize.evaluation.recorded import parse_scores, verdict_of
    from personalize.evidence.package import CARD, SCORES
    from personalize.review import approval
    from personalize.serving.registry import version_of

    said, subjects = statement.predicate, statement.subjects
    try:
        evidence = approval.gather(said["runs"]["evaluate"], said["card"], said["runs"]["train"])
        scores = parse_scores(approval.content(evidence.scores.address, "scores"))
    except ValueError as error:
        return None, [Link("papers", False, f"{error}: run the recipe again to make it anew")]
    links = []
    for part, now, then in (
        ("weights", evidence.model.sha256, subjects.get(f"artifacts/adapter/{WEIGHTS.rpartition('/')[2]}", "")),
        ("card", evidence.card.sha256, subjects.get(CARD, "")),
        ("scores", evidence.scores.sha256, subjects.get(SCORES, "")),
    ):
        apart = {
            "weights": "its weights are not those that were evaluated",
            "card": "its card is not the one that it was registered with",
            "scores": "its scores are not those that it was registered with",
        }[part]
        words = f"sha256 {now[:12]}" if now == then else f"{apart} (sha256 {then[:12]} then, {now[:12]} now)"
        links.append(Link(part, now == then, words))
    try:
        verdict = verdict_of(scores)
    except ValueError as error:
        return evidence, [*links, Link("verdict", False, f"{error}: evaluate again")]
    about = f"{ABOUT.get(verdict, '')} (see {said['card']})"
    links.append(Link("verdict", verdict == "passed", "passed, judged anew" if verdict == "passed" else about))
    tag = version_of(name, version).tags.get("verdict", "")
    if tag != verdict:
        changed = f"its tag says verdict={tag or 'none'}, and its scores come to {verdict}: somebody changed one"
        links.append(Link("tag", False, changed))
    return evidence, links


def approval_of(chain: Chain, trust: Trust) -> tuple[Mapping[str, Any] | None, Link]:
    """The decision that is kept with the evaluation, and whether it stands for what there is now."""
    from dataclasses import replace

    from personalize.review import approval

    if chain.evidence is None:
        return None, Link("approval", False, "what could have been approved is not there")
    try:
        record = approval.in_force(chain.evidence.run_id)
        if record is None:
            return None, Link("approval", False, f"nobody has approved it: `{command('review')}`, or promote it")
        # what was looked at may be another drawing of the same card than the version names
        card = approval.artifact(record["card"]["address"], "evaluation card that was looked at")
    except approval.ApprovalError as error:
        return None, Link("approval", False, f"{error}: decide again (`{command('review')}`)")
    if record["decision"] != "approved":
        return record, Link("approval", False, f"{record['by']} rejected it: {record['reason']}")
    if apart := approval.differences(record, replace(chain.evidence, card=card)):
        return record, Link("approval", False, f"{'; '.join(apart)}: look again and decide (`{command('review')}`)")
    if against := trust.against_approver(record["key"], chain.trainer):
        return record, Link("approval", False, against)
    by = f"{record['by']} on {record['at'][:16]}: {record['reason']}"
    return record, Link("approval", True, f"{by} ({'signed' if record['key'] else 'unsigned'}{_key(record['key'])})")


def place_of(chain: Chain, name: str, version: str, trust: Trust) -> tuple[History, Link]:
    """What was promoted so far, and whether this version is none that another has taken the place of."""
    from personalize.serving.promotions import history

    past = history(name, chain.evidence.run_id if chain.evidence else "", trust)
    word = f"`{command('promote', version=version, rollback=True, approved_by='...', reason='...')}`"
    if past.wrong:
        return past, Link("place", False, f"{past.wrong}; whoever may approve settles it: {word}")
    if later := past.instead_of(version):
        words = f"{later} was promoted instead of it, and going back is a decision: {word}"
        return past, Link("place", False, words)
    return past, Link("place", True, "promoted last" if past.promotions else "nothing was promoted before it")


def _key(key: str) -> str:
    from personalize.evidence.statement import short

    return f" with {short(key)}" if key else ""


def _listed(said: list[str], between: str = "; ") -> str:
    return between.join(said[:3]) + (f"{between}and {len(said) - 3} more" if len(said) > 3 else "")
