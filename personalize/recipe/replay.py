"""Parts of a finished run's work done again, by the code, configuration and data that it says it was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize import files
from personalize.evidence.chain import Link
from personalize.evidence.statement import EvidenceError, Statement
from personalize.evidence.trust import ANYONE, Trust
from personalize.recipe import provenance
from personalize.recipe.config import Override
from personalize.recipe.errors import RecipeError, in_words
from personalize.recipe.plan import Prepared, prepare
from personalize.recipe.steps import Replay, replay_of

if TYPE_CHECKING:
    from personalize.recipe.tracking import StepRun, Store

WHOEVER = Trust(makers=(ANYONE,), unsigned=True)
"""Whether work can be done again does not depend on whose it is; who signed it is shown, and `verify` judges that."""


def replay(
    root: Path,
    profile: str,
    overrides: Sequence[Override],
    target: Mapping[str, str],
    run_id: str,
    asked: Replay,
    report: Path,
) -> None:
    """Writes what holds, link by link, to the JSON file `report`. `reproduce` calls this in the run's own commit.

    target: `step` or `until`, as `prepare` takes it. run_id: the project run.

    Raises RecipeError where none of its steps can be done again in parts.
    """
    from personalize.recipe.tracking import connect, used

    prepared = prepare(root, profile, overrides, **target)
    able = {name: again for name in prepared.components if (again := replay_of(root, name))}
    store = connect(prepared.merged.profile, root, create=False)
    asked_for = store.by_id(run_id)
    named = used(asked_for.tags) if asked_for else {}
    runs = {name: past for name in able if name in named and (past := store.by_id(named[name]))}
    if not runs:
        raise RecipeError(f"run {run_id} has no step that can be done again in parts; leave `segments` out")
    links: list[Link] = []
    for name, past in runs.items():
        try:
            links += _replayed(prepared, store, name, past, able[name], asked)
        except Exception as error:  # what was changed by hand raises errors of many kinds
            links.append(Link(name, False, f"it cannot be done again: {in_words(error)}"))
    files.write_json(report, [asdict(link) for link in links])


def _replayed(prepared: Prepared, store: Store, name: str, past: StepRun, again: Any, asked: Replay) -> list[Link]:
    from personalize.recipe.past import proven
    from personalize.recipe.showing import inputs_of

    links, statement = proven(past.run_id, WHOEVER, {name, *prepared.needs(name)})
    if statement is None:
        return links
    links.append(_configured(prepared, name, statement))
    if any(not link.holds for link in links if link.name != name):
        return links  # of other settings or inputs another training would be made
    given = {need: _given(store, statement, need) for need in prepared.needs(name)}
    found = again(
        prepared.configs[name],
        inputs_of(store, given),
        store.place(past),
        lambda artifact: store.artifact(past, artifact),
        asked,
    )
    return links + list(found)


def _given(store: Store, statement: Statement, need: str) -> StepRun:
    """The run whose result was used, by the statement. Raises EvidenceError where it is gone."""
    run_id = provenance.dependency(statement, need).get("uri", "").removeprefix("runs:/")
    past = store.by_id(run_id) if run_id else None
    if past is None:
        raise EvidenceError(f"the result of {need} that it was made from is gone (run {run_id or 'not named'})")
    return past


def _configured(prepared: Prepared, name: str, statement: Statement) -> Link:
    """Whether the statement speaks of the configuration that is about to be used, as far as it decides the result."""
    then = statement.predicate["buildDefinition"]["externalParameters"]["config"]
    now = provenance.plain(prepared.configs[name].model_dump(mode="json"))
    keys = prepared.configs[name].result_keys()
    apart = [f"{key} {then.get(key, '(not there)')}, and {now[key]} here" for key in keys if then.get(key) != now[key]]
    said = f"its statement says {'; '.join(apart)}" if apart else "as its statement says"
    return Link("settings", not apart, said)
