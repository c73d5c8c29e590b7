"""Findings: what `reproduce` came to when it made a run again, signed, so that nobody turns it into its opposite.

That it came to something else counts whoever says it. That it came to the same counts where somebody whose results
count has signed it, of these very results.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.evidence.chain import Link
from personalize.evidence.statement import SUFFIX, EvidenceError, read, write
from personalize.evidence.trust import Trust
from personalize.recipe import provenance
from personalize.recipe.tracking import StepRun, Store

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

FILE = f"reproduction{SUFFIX}"
"""Artifact of the run that made another again."""
KIND = "urn:personalize:reproduction:1"
AGREES = "reproduces.agrees"
OF = "reproduces.run."
"""Begins the tags that say which run of each step was made again."""
PARTS = "reproduces.parts"
"""Tag of a run that made parts of another's work again: how many, and the seed."""


def keep(
    store: Store, run_id: str, of: Mapping[str, StepRun], agrees: bool, how: str, signer: CryptoSigner | None
) -> None:
    """What the run came to that made the steps' runs `of` again. how: within what it agrees, in words."""
    subjects = {step: digest for step, past in of.items() if (digest := _result(store, past))}
    said = {"runs": {step: past.run_id for step, past in of.items()}, "agrees": agrees, "how": how}
    store.log_text(run_id, write(subjects, KIND, said, signer), FILE, sifted=True)
    store.client.set_tag(run_id, AGREES, str(agrees).lower())
    for step, past in of.items():  # last of all: by these it is found
        store.client.set_tag(run_id, OF + step, past.run_id)


def reproduced(run_ids: Collection[str], trust: Trust) -> list[Link]:
    """What `reproduce` found last when it made these runs again, whole and in parts."""
    import mlflow

    store = Store(mlflow.MlflowClient(), "", [], Path.cwd())
    pasts = [past for run_id in run_ids if (past := store.by_id(run_id)) is not None]
    found = {each.run_id: each for past in pasts for each in _findings(store, past, trust)}
    links = []
    for in_parts in (False, True):
        tries = sorted((each for each in found.values() if each.in_parts == in_parts), key=lambda each: -each.started)
        if counting := next((each for each in tries if each.counts), tries[0] if tries else None):
            links.append(counting.link(trust))
    return links


@dataclass(frozen=True)
class _Finding:
    """counts: it differs, or somebody has signed that it agrees whose word counts."""

    run_id: str
    started: float
    in_parts: bool
    agrees: bool
    counts: bool

    def link(self, trust: Trust) -> Link:
        where = f"parts made again (run {self.run_id[:8]})" if self.in_parts else f"made again as run {self.run_id[:8]}"
        said = f"{where}, it {'came to the same' if self.agrees else 'came to something else'}"
        if self.agrees:
            return Link(
                "reproduced", True, said if self.counts else f"{said}, which nobody has signed whose word counts"
            )
        refused = "" if trust.differing else "; find out why, or allow it (trust.differing)"
        return Link("reproduced", trust.differing, said + refused)


def _findings(store: Store, past: StepRun, trust: Trust) -> list[_Finding]:
    step = past.step
    condition = f"tags.`{OF}{step}` = '{past.run_id}'"
    order = ["attributes.start_time DESC"]
    tried = store.client.search_runs([past.experiment_id], condition, order_by=order) if step else ()
    return [_finding(store, run, step, past, trust) for run in tried]


def _finding(store: Store, run: Any, step: str, past: StepRun, trust: Trust) -> _Finding:
    again = store.step_run(run)
    agrees = again.tags.get(AGREES) == "true"
    try:
        statement = read(store.artifact(again, FILE).read_text(encoding="utf-8"), KIND)
        agrees = agrees and statement.predicate["agrees"] is True
        of_this = statement.subjects.get(step) == _result(store, past) != ""
        counts = of_this and not trust.against_maker(statement.key)
    except Exception:  # none, or none that can be read: what a tag says is shown and not believed
        counts = False
    return _Finding(again.run_id, again.started, PARTS in again.tags, agrees, counts or not agrees)


def _result(store: Store, past: StepRun) -> str:
    try:
        return provenance.result(store.statement(past))
    except EvidenceError:
        return ""
