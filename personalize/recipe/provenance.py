"""Provenance: the signed statement of each step's run about what it made and from what. SLSA's predicate.

It is written before the run counts as finished, and it decides whether a run's outputs are believed, here or on a
colleague's server; tags only help to find runs. Dependencies of earlier steps are carried along (`train/code`), so that
one statement tells the whole way from the photographs.

Source: SLSA Provenance v1 (https://slsa.dev/spec/v1.1/provenance).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize import files
from personalize.egress import without_secrets
from personalize.evidence.statement import PROVENANCE, Statement, differences, read, write
from personalize.recipe.fingerprint import Components, Lineage, unlocked
from personalize.recipe.steps import DIAGNOSTICS

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

NAME = PROVENANCE
KIND = "https://slsa.dev/provenance/v1"
BUILD = "urn:personalize:step:1"


def _pins(components: Components) -> str:
    return files.value_digest(components.environment) if components.environment else ""


def state(
    outputs: Path,
    components: Components,
    config: Mapping[str, Any],
    inputs: Mapping[str, tuple[str, Statement | None]],
    lineage: Lineage,
    run_id: str,
    signer: CryptoSigner | None,
) -> str:
    """The envelope for a run that has just made `outputs`. inputs: run id and statement of each result it was given."""
    commit = {"gitCommit": lineage.commit} if lineage.commit else {}
    told = {"dirty": lineage.dirty} | ({"repository": lineage.repository} if lineage.repository else {})
    apart = unlocked(components.environment)
    drifted = {"annotations": {"unlocked": apart}} if apart else {}
    dependencies: list[dict[str, Any]] = [
        {"name": "code", "digest": commit, "annotations": told},
        *({"name": "environment", "digest": {"sha256": pins}, **drifted} for pins in [_pins(components)] if pins),
        *({"name": "lock", "digest": {"sha256": digest}} for digest in [lineage.lock] if digest),
        *({"name": name, "digest": {"content": digest}} for name, digest in components.sources.items()),
    ]
    for need, (run, statement) in inputs.items():
        digest = {"sha256": result(statement)} if statement else {}
        key = {"annotations": {"key": statement.key}} if statement else {}
        dependencies.append({"name": need, "uri": f"runs:/{run}", "digest": digest, **key})
    known = {each["name"] for each in dependencies}
    for need, (_, statement) in inputs.items():
        for each in of(statement) if statement else ():
            name = each["name"] if "/" in each["name"] or "uri" in each else f"{need}/{each['name']}"
            if name not in known:
                known.add(name)
                dependencies.append({**each, "name": name})
    predicate = {
        "buildDefinition": {
            "buildType": BUILD,
            "externalParameters": {
                "step": components.step,
                "config": plain(config),
            },
            "internalParameters": {
                "fingerprint": components.digest,
                "outputs": files.tree_digest(outputs, leave_out=DIAGNOSTICS),
            },
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": {"id": BUILD},
            "metadata": {
                "invocationId": run_id,
                "finishedOn": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        },
    }
    return write(files.tree_files(outputs, leave_out=DIAGNOSTICS), KIND, predicate, signer)


def plain(config: Mapping[str, Any]) -> dict[str, str]:
    """A configuration as a statement has it: texts, secrets put out."""
    return {key: without_secrets(str(value)) for key, value in config.items()}


def parse(text: str) -> Statement:
    """Raises EvidenceError where it is none of a run's."""
    return read(text, KIND)


def result(statement: Statement) -> str:
    """sha256 of everything that was made: what the statements of later steps call their input."""
    return files.value_digest(dict(statement.subjects))


def of(statement: Statement) -> list[dict[str, Any]]:
    """What it was made from: SLSA's resolved dependencies."""
    found: list[dict[str, Any]] = statement.predicate["buildDefinition"]["resolvedDependencies"]
    return found


def dependency(statement: Statement, name: str) -> dict[str, Any]:
    """The one of that name; empty where there is none."""
    return next((each for each in of(statement) if each["name"] == name), {})


def trainer(statement: Statement) -> str:
    """The id of the key that the training on the way to it is signed with; empty where that is unsigned."""
    return str(dependency(statement, "train").get("annotations", {}).get("key", ""))


def dirty(statement: Statement) -> list[str]:
    """The steps on the way to it whose code no commit holds; empty where all was committed."""
    codes = _codes(statement).items()
    return sorted(step for step, code in codes if code["annotations"]["dirty"] or not code["digest"])


def drifted(statement: Statement) -> list[str]:
    """The packages that were not installed as they are locked, in any step on the way to it."""
    found = [each for each in of(statement) if each["name"].rpartition("/")[2] == "environment"]
    return sorted({said for each in found for said in each.get("annotations", {}).get("unlocked", ())})


def commits(statement: Statement) -> list[str]:
    """The commits that the code of the whole way is of."""
    return sorted({code["digest"]["gitCommit"] for code in _codes(statement).values() if code["digest"]})


def data(statement: Statement) -> dict[str, str]:
    """Digests of outside data and models by `step/name`."""
    own = statement.predicate["buildDefinition"]["externalParameters"]["step"]
    found = {each["name"]: each["digest"]["content"] for each in of(statement) if "content" in each["digest"]}
    return {name if "/" in name else f"{own}/{name}": digest for name, digest in found.items()}


def apart(statement: Statement, fingerprint: str, outputs_digest: str) -> str:
    """Why a statement is not of the run that has it; empty where it is."""
    said = statement.predicate["buildDefinition"]["internalParameters"]
    if said["fingerprint"] != fingerprint:
        return "has the statement of other work"
    return "" if said["outputs"] == outputs_digest else "has a digest in its tags that its statement does not have"


def changed(statement: Statement, outputs: Path) -> list[str]:
    """What lies in `outputs` other than as it was made, each in a few words."""
    return differences(statement.subjects, files.tree_files(outputs, leave_out=DIAGNOSTICS))


def _codes(statement: Statement) -> dict[str, dict[str, Any]]:
    """The code of each step on the way, by step."""
    own = statement.predicate["buildDefinition"]["externalParameters"]["step"]
    named = [(each["name"].rpartition("/"), each) for each in of(statement)]
    return {step or own: each for (step, _, name), each in named if name == "code"}
