"""Showing: the card of a run, drawn by today's code from what the run left. No part of any result.

So a better card serves old results too, and words that only cards need (rights, limits) reach them without work. A card
is drawn again only where what it is drawn from has changed: its code, its config, the run.
"""

import hashlib
import json
import shutil
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personalize import files
from personalize.cards import Card
from personalize.cards.commands import under_profile
from personalize.cards.links import address, placed
from personalize.egress import without_secrets
from personalize.recipe.errors import RecipeError, in_words
from personalize.recipe.fingerprint import code_closure
from personalize.recipe.plan import Prepared
from personalize.recipe.steps import Input, Inputs, Step, StepConfig
from personalize.recipe.tracking import StepRun, Store

CARDS = Path("build/cards")
REDRAWN = "cards"
"""Folder of a project run for the cards of reused steps that it has drawn anew."""
MADE = "made.json"
"""Artifact of a step's run: how it was made (config, inputs, time), for its card's footer."""
OUTCOME = "recipe.outcome"
LONGEST = 500
"""Characters of an outcome's word that are kept."""


@dataclass(frozen=True)
class Shown:
    """A card on this machine. address: of the same card in MLflow; tags: what the step came to, as tags of its run."""

    path: Path
    address: str
    tags: Mapping[str, str]


class Cards:
    """The cards of one recipe's runs. parent_id: the project run, which keeps those that are drawn anew."""

    def __init__(self, prepared: Prepared, store: Store, parent_id: str = "") -> None:
        self.prepared = prepared
        self.store = store
        self.parent_id = parent_id

    def of_new(self, name: str, past: StepRun, results: Mapping[str, StepRun], made: Mapping[str, Any]) -> Shown:
        """Draw the card of a run that has just finished, and keep it with the run."""
        step, config = self.prepared.steps[name], self.prepared.configs[name]
        drawn = self.drawn_from(step, config, past, results)
        card = self.draw(step, config, past, results)
        if warnings := [block["text"] for block in card.blocks if block["kind"] == "warning"]:
            more = f" ({len(warnings) - 1} more on its card)" if len(warnings) > 1 else ""
            print(f"  mind: {warnings[0]}{more}", flush=True)
        path = self.keep(card, {**made, "drawn": drawn}, past.run_id)
        tags = outcome_tags(card)
        for key, value in {**tags, "recipe.card": drawn}.items():
            self.store.client.set_tag(past.run_id, key, value)
        return Shown(path, address(past.run_id), tags)

    def of_reused(self, name: str, past: StepRun, results: Mapping[str, StepRun]) -> Shown:
        """The card of an earlier run as today's code and words have it.

        What is drawn anew is kept with the project run, since the earlier one may be somebody else's; unless that was
        stopped before it had a card at all.
        """
        if "recipe.card" not in past.tags:
            return self.of_new(name, past, results, made_of(self.store, past))
        step, config = self.prepared.steps[name], self.prepared.configs[name]
        drawn, kept = self.drawn_from(step, config, past, results), outcome_of(past.tags)
        if past.tags["recipe.card"] == drawn and (found := self.stored(past, name)):
            return Shown(found, address(past.run_id), kept)
        own = f"{REDRAWN}/{name}"
        at = address(self.parent_id, f"{own}.html") if self.parent_id else address(past.run_id)
        path = self.prepared.root / CARDS / f"{name}.html"
        if _is_drawn_from(path, drawn):
            if self.parent_id:
                self.store.client.log_artifact(self.parent_id, str(path), REDRAWN)
            return Shown(path, at, kept)
        card = self.draw(step, config, past, results)
        made = {**made_of(self.store, past), "config": config.model_dump(mode="json"), "drawn": drawn}
        return Shown(self.keep(card, made, self.parent_id, own), at, outcome_tags(card))

    def of_any(self, past: StepRun) -> Path:
        """The card of any run of a step: drawn anew from its own config and inputs, or as it was kept.

        Raises RecipeError where the run is no step's, or has no card.
        """
        name = past.step
        step = self.prepared.steps.get(name)
        if step is None:
            raise RecipeError(f"run {past.run_id} is no run of a step of this recipe")
        kept_as = f"{name}-{past.run_id[:8]}"
        try:
            if past.status != "FINISHED":
                raise ValueError("only a finished run has results to draw")
            made = made_of(self.store, past)
            config = step.kind.model_validate(made["config"])
            results = given_to(self.store, made)
        except (KeyError, ValueError, AttributeError):  # an older format, or a config that today's code does not know
            if found := self.stored(past, kept_as):
                return found
            raise RecipeError(
                f"run {past.run_id} of step '{name}' has no card ({past.status.lower()}); run the step again"
            ) from None
        card = self.draw(step, config, past, results)
        if said := self.store.doubt(past):
            card.warning(f"Only to look at: {said}. What is shown need not be what the run made.")
        return self.keep(card, made, "", kept_as=kept_as)

    def draw(self, step: Step, config: StepConfig, past: StepRun, results: Mapping[str, StepRun]) -> Card:
        """A card that cannot be drawn says so: the result is there all the same."""
        card = Card(step.name, about=step.about)
        card.run_id = past.run_id
        try:
            with under_profile(past.tags.get("recipe.profile", self.prepared.merged.profile.name)):
                step.show(config, inputs_of(self.store, results, shown=True), self.store.place(past), card)
        except Exception as error:
            print(f"  the card of {step.name} could not be drawn ({in_words(error)})", flush=True)
            card.warning("The step is done and its result is kept, but its card could not be drawn.")
            card.code("Traceback", "".join(traceback.format_exception(error)))
        return card

    def keep(self, card: Card, made: Mapping[str, Any], run_id: str, artifact: str = "card", kept_as: str = "") -> Path:
        """Write a card to this machine and, where a run is named, into it, with the same facts as JSON."""
        html, runs = without_secrets(card.html(made)), self.runs(run_id or card.run_id)
        if run_id:
            facts = json.dumps({**card.as_dict(), "made": made}, ensure_ascii=False, indent=1, default=str)
            there = (runs or Path()) / run_id / "artifacts" / f"{artifact}.html"
            self.store.log_text(run_id, placed(html, there, runs), f"{artifact}.html")
            self.store.log_text(run_id, facts, f"{artifact}.json")
        path = self.prepared.root / CARDS / f"{kept_as or card.step}.html"
        files.write_bytes(path, placed(html, path, runs).encode("utf-8", "replace"))
        return path

    def runs(self, run_id: str) -> Path | None:
        """The folder in which this and other runs keep their artifacts, where it lies on this machine."""
        past = self.store.by_id(run_id)
        artifacts = past.folder if past else None
        return artifacts.parent.parent if artifacts and artifacts.parts[-2:] == (run_id, "artifacts") else None

    def stored(self, past: StepRun, kept_as: str) -> Path | None:
        """The card as it lies with the run, copied to this machine where it is not there already."""
        path = self.prepared.root / CARDS / f"{kept_as}.html"
        try:
            head = path.read_text(encoding="utf-8")[:2000] if path.is_file() else ""
            if f'<meta name="run" content="{past.run_id}">' in head and past.tags.get("recipe.card", "") in head:
                return path
            html = self.store.artifact(past, "card.html").read_text(encoding="utf-8")
            files.write_bytes(path, placed(html, path, self.runs(past.run_id)).encode("utf-8", "replace"))
        except Exception:  # a card that cannot be fetched is not worth failing for
            return None
        return path

    def drawn_from(self, step: Step, config: StepConfig, past: StepRun, results: Mapping[str, StepRun]) -> str:
        """Digest of everything that decides the card."""
        root = self.prepared.root
        templates = "personalize/cards/templates"
        extra = [templates] if (root / templates).is_dir() else []
        start = step.card_path or step.path
        parts = [
            code_closure(root, start, extra, showing=True),
            config.model_dump(mode="json"),
            self.prepared.merged.profile.name,
            past.run_id,
            {name: run.run_id for name, run in results.items()},
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def made_of(store: Store, past: StepRun) -> dict[str, Any]:
    """How a run was made; empty but for its id where it does not say."""
    try:
        made: dict[str, Any] = files.read_json(store.artifact(past, MADE))
    except Exception:  # an older run, or a server that does not have it
        return {"run_id": past.run_id}
    return made


def given_to(store: Store, made: Mapping[str, Any]) -> dict[str, StepRun]:
    """The results that a run was given, by step, as far as they are still there. Raises KeyError or AttributeError."""
    runs = {need: store.by_id(run.removeprefix("run ")) for need, run in made["inputs"].items()}
    return {need: run for need, run in runs.items() if run is not None}


def inputs_of(
    store: Store,
    results: Mapping[str, StepRun],
    cards: Mapping[str, str] | None = None,
    shown: bool = False,
    only: tuple[Mapping[str, tuple[str, ...]], Path] | None = None,
) -> Inputs:
    """Earlier results as a step reads them. cards: addresses of the cards that were drawn anew.

    shown: they are only looked at, as they are; what something is made from must be as it was made. only: of which
    inputs a few files are read (`Step.reads`), and a folder to lay those out in.
    """
    reads, place = only or ({}, Path())

    def fetched(name: str, past: StepRun) -> Path:
        made = store.place(past) if shown else store.outputs(past)
        return _laid_out(made, reads[name], place / name) if name in reads else made

    def one(name: str, past: StepRun) -> Input:
        return Input(
            past.run_id,
            past.tags.get("recipe.fingerprint", ""),
            lambda: fetched(name, past),
            lambda: past.metrics,
            past.digest,
            (cards or {}).get(name, ""),
            lambda: store.statement(past),
        )

    return Inputs({name: one(name, past) for name, past in results.items()})


def _laid_out(made: Path, names: Iterable[str], place: Path) -> Path:
    """A folder with these files of another and no others."""
    place.mkdir(parents=True, exist_ok=True)
    for name in names:
        if (made / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / name, place / name)
    return place


def outcome_tags(card: Card) -> dict[str, str]:
    """What a step came to, as tags of its run: `recipe.outcome` and `recipe.outcome.<word>`."""
    said = {OUTCOME: card.came_to, **{f"{OUTCOME}.{name}": word for name, word in card.words.items()}}
    return {tag: value[:LONGEST] for tag, value in said.items() if value}


def outcome_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Those tags out of all of a run's."""
    return {tag: value for tag, value in tags.items() if tag == OUTCOME or tag.startswith(f"{OUTCOME}.")}


def outcome_words(tags: Mapping[str, str]) -> dict[str, str]:
    """The words of an outcome in a run's tags, by their names."""
    prefix = f"{OUTCOME}."
    return {tag.removeprefix(prefix): word for tag, word in tags.items() if tag.startswith(prefix)}


def next_words(said: str | Mapping[str, str], tags: Mapping[str, str]) -> str:
    """The text of `next:` for the outcome in a run's tags, its `{words}` filled in; empty where there is none."""
    text = said if isinstance(said, str) else said.get(tags.get(OUTCOME, ""), "")
    for name, word in outcome_words(tags).items():
        text = text.replace("{" + name + "}", word)
    return text.strip()


def _is_drawn_from(path: Path, drawn: str) -> bool:
    try:
        return f'<meta name="drawn" content="{drawn}">' in path.read_text(encoding="utf-8")[:2000]
    except OSError:
        return False
