"""Proof of training: a chain of digests of what a training was, every so many steps, and states along the way.

A link holds sha256 of the adapter, the optimiser's state, the EMA, the loss scale, of what was learnt from since the
link before, of the adapter as it would be saved, and of the link before. Randomness has no entry of its own: every draw
is a function of (seed, purpose, step, sample), `run` holds the seed, and `drawn` the noise itself.

From a state that was kept, a stretch of the training can be done again (`replay`) and must come to the same links.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from personalize.dreambooth import adapter_files, lora, tensorfile
from personalize.dreambooth.batches import Batch
from personalize.dreambooth.settings import TrainSettings
from personalize.dreambooth.setup import Setup
from personalize.dreambooth.training_state import TrainingState, pack_optimizer, write
from personalize.dreambooth.validation import evaluating
from personalize.files import read_json, read_rows, value_digest, write_json, write_rows

CHAIN = Path("proof") / "chain.jsonl"
"""Among what a training makes: one link a line, the first of step 0."""
INDEX = "index.json"
"""Among the states: the steps that they are of."""

MEANT = {
    "shown": "other pictures, captions or timesteps were learnt from",
    "drawn": "other latents or noise were learnt from",
    "adapter": "the adapter is another",
    "average": "the EMA is another",
    "optimizer": "the optimiser's state is another",
    "scaler": "the loss scale is another",
    "saved": "the adapter as it is saved is another",
}
"""What it means where a link's entry differs, the cause before its effects."""


@dataclass(frozen=True)
class Stretch:
    """From the state after step `first` to that after step `last`."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"steps {self.first + 1} to {self.last}"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. words: what was found, for a person."""

    name: str
    holds: bool
    words: str


class Chain:
    """The chain of a training that is under way. Every process takes part; the first one writes."""

    def __init__(self, run: Setup, so_far: Mapping[str, Any]) -> None:
        """so_far: what `kept` gave when the state was saved from which the training goes on; empty at its beginning."""
        self.run = run
        self.links: list[dict[str, Any]] = list(so_far.get("links", []))
        seen = so_far.get("seen", [])
        own = seen[run.place.accelerator.process_index] if seen else ["", ""]
        self.shown, self.drawn = str(own[0]), str(own[1])

    def following(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, each noted when it is used."""
        for batch in batches:
            self.shown = value_digest([self.shown, batch.shown])
            self.drawn = value_digest([self.drawn, batch.drawn])
            yield batch

    def kept(self) -> dict[str, Any]:
        """What a training state keeps of it, so that a killed training comes to the same chain."""
        return {"links": self.links, "seen": self._seen()}

    def add(self, state: TrainingState) -> dict[str, Any]:
        """The link of this state; empty on processes other than the first."""
        seen = self._seen()
        self.shown = self.drawn = ""
        if not self.run.place.accelerator.is_main_process:
            return {}
        link = {
            "step": state.step,
            "run": self.run.place.identity,
            **digests(state),
            "saved": weights_digest(saved(self.run, state.average)),
            "shown": value_digest([shown for shown, _ in seen]),
            "drawn": value_digest([drawn for _, drawn in seen]),
        }
        link["link"] = following(self.links[-1]["link"] if self.links else "", link)
        self.links.append(link)
        return link

    def write(self, outputs: Path) -> None:
        if self.links:
            write_rows(outputs / CHAIN, self.links)

    def _seen(self) -> list[list[str]]:
        from accelerate.utils import gather_object

        found: list[list[str]] = gather_object([[self.shown, self.drawn]])
        return found


def read_chain(outputs: Path) -> list[dict[str, Any]]:
    """The links beside an adapter. Raises OSError where there is no chain, and ValueError where it cannot be one."""
    links = read_rows(outputs / CHAIN)
    entries = {"step", "run", "link", *MEANT}
    if not links or any(not isinstance(link, dict) or set(link) != entries for link in links):
        raise ValueError(f"{CHAIN} is no chain of links")
    steps = [link["step"] for link in links]
    if (
        steps[0] != 0
        or any(not isinstance(step, int) for step in steps)
        or steps != sorted(set(steps))
        or len(steps) < 2
    ):
        raise ValueError(f"the steps of {CHAIN} do not follow each other from 0")
    return links


def following(before: str, link: Mapping[str, Any]) -> str:
    """What a link is called: the digest of its entries and of the link before."""
    return value_digest([before, {name: value for name, value in link.items() if name != "link"}])


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, shapes and bytes; empty where there are none."""
    return hashlib.sha256(tensorfile.serialize(tensors, {})).hexdigest() if tensors else ""


def digests(state: TrainingState) -> dict[str, str]:
    """Of each part of a state, whether it was just reached or read from disk."""
    tensors, scalars = pack_optimizer(state.optimizer)
    rest = hashlib.sha256(json.dumps(scalars, sort_keys=True).encode()).hexdigest()  # Prodigy's has an infinity
    return {
        "adapter": weights_digest(state.weights),
        "average": weights_digest(state.average),
        "optimizer": value_digest([weights_digest(tensors), rest]),
        "scaler": value_digest(state.scaler) if state.scaler else "",
    }


def saved(run: Setup, average: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the file that `lora.save` would write now."""
    with evaluating(run, average):
        found = {name: tensor.clone() for name, tensor in lora.state(run.model.parts).items()}
    run.model.train_mode()
    return found


def due(settings: TrainSettings, step: int) -> bool:
    """Whether a link is due for the step itself; the loop adds those of scored checkpoints and of the end."""
    return settings.proof_every > 0 and step % settings.proof_every == 0


def is_kept(settings: TrainSettings, step: int) -> bool:
    """Whether the state after this step is kept: those of `proof_states` links, evenly spread, the last the end's."""
    every, count = settings.proof_every, settings.proof_states
    links = settings.steps / every
    return any(step == every * round(links * part / count) for part in range(1, count))


def keep(folder: Path, state: TrainingState, identity: str) -> None:
    """Keeps a state to be replayed from."""
    write(folder / place_of(state.step), replace(state, history={}, proof={}), identity)
    write_json(folder / INDEX, sorted(int(each.name.removeprefix("step-")) for each in folder.glob("step-*")))


def place_of(step: int) -> str:
    """The name of a state's folder among the states."""
    return f"step-{step:06d}"


def stretches(links: Sequence[Mapping[str, Any]], kept: Sequence[int]) -> list[Stretch]:
    """What can be done again: from the beginning to the first state, and on from each; all of it where none is kept."""
    at, last = {link["step"] for link in links}, links[-1]["step"]
    ends = [step for step in sorted({*kept, last}) if 0 < step <= last and step in at]
    return [Stretch(first, end) for first, end in zip([0, *ends], ends, strict=False)]


def pick(among: Sequence[Stretch], count: int, seed: int) -> list[Stretch]:
    """`count` of them, drawn by the seed, in their order; all where there are no more."""
    return sorted(random.Random(seed).sample(among, min(count, len(among))), key=lambda stretch: stretch.first)


def examine(outputs: Path, links: Sequence[Mapping[str, Any]], among: Sequence[Stretch]) -> list[Finding]:
    """What can be said of a chain and of the adapter beside it without training anything."""
    return [_linked(links, among), _of_adapter(outputs, links, among)]


def _linked(links: Sequence[Mapping[str, Any]], among: Sequence[Stretch]) -> Finding:
    before = ""
    for link in links:
        if link["link"] != following(before, link) or link["run"] != links[0]["run"]:
            where = _around(link["step"], among)
            return Finding(
                "chain", False, f"{where}: the link of step {link['step']} does not follow from those before"
            )
        before = link["link"]
    return Finding("chain", True, f"{len(links)} links follow from each other, the last of step {links[-1]['step']}")


def _of_adapter(outputs: Path, links: Sequence[Mapping[str, Any]], among: Sequence[Stretch]) -> Finding:
    chosen = read_json(outputs / "history.json")["chosen"]["step"]
    link = next((link for link in links if link["step"] == chosen), None)
    if link is None:
        return Finding("adapter", False, f"{_around(chosen, among)}: step {chosen}, whose adapter it is, has no link")
    try:
        now = weights_digest(tensorfile.load(outputs / "lora" / adapter_files.DIFFUSERS))
    except Exception as error:  # a damaged file raises errors of many kinds
        return Finding("adapter", False, f"it cannot be read ({error})")
    if now != link["saved"]:
        return Finding("adapter", False, f"{_around(chosen, among)}: it is not the one that step {chosen} came to")
    return Finding("adapter", True, f"is that of step {chosen}")


def _around(step: int, among: Sequence[Stretch]) -> str:
    return str(next((stretch for stretch in among if step <= stretch.last), among[-1]))


def first_difference(then: Mapping[str, Any], now: Mapping[str, Any], among: Sequence[str] = tuple(MEANT)) -> str:
    """The first entry in which two links of one step differ; empty where none does."""
    return next((name for name in among if then[name] != now[name]), "")
