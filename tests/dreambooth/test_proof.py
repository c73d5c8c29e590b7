"""Proof of training: links say what a training was, and stretches of it done again come to the same bytes."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from personalize.dreambooth import lora, proof, tensorfile
from personalize.dreambooth.proof import Finding, Stretch
from personalize.dreambooth.replay import Past, replay
from personalize.dreambooth.setup import Base
from personalize.dreambooth.train import Observer, train
from personalize.dreambooth.validation import previews
from personalize.files import read_json, read_rows, write_json, write_rows
from personalize.photographs.prompts import Subject
from tests.dreambooth import training
from tests.dreambooth.test_train import Killed

PROVEN = {"max_train_steps": 6, "proof_every": 2, "proof_states": 3, "resume_every": 3}
SUBJECTS = [Subject("bcnchr", "chair")]


class Trained:
    """A training with its outputs, and the states that it keeps where a run would keep them."""

    def __init__(self, base: Base, data: tuple[list, list], place: Path, work: Path, **changed: Any) -> None:
        self.base, self.data, self.outputs, self.work = base, data, place / "outputs", work
        self.states = place / "states"
        self.judged = bool(changed.pop("judged", False))
        self.settings = training.settings(**PROVEN | changed)

    def train(self, stop_at: int = 0) -> "Trained":
        def logged(step: int, metrics: dict) -> None:
            if step == stop_at:
                raise Killed

        score = (lambda step, samples: {"fidelity": 0.1 * step, "prompt": 0.3, "drift": 0.0}) if self.judged else None
        train(
            self.settings, self.base, *self.data, self.outputs, work=self.work, score=score,
            previews=previews(SUBJECTS, 1, 1, 0)[:2],
            observer=Observer(logged=logged, states=lambda folder: shutil.copytree(folder, self.states)),
        )  # fmt: skip
        return self

    def copy(self, place: Path) -> "Trained":
        shutil.copytree(self.states.parent, place, dirs_exist_ok=True)
        copied = Trained(self.base, self.data, place, self.work)
        copied.settings, copied.judged = self.settings, self.judged
        return copied

    @property
    def links(self) -> list[dict]:
        return read_rows(self.outputs / proof.CHAIN)

    def check(self, *stretches: Stretch, tolerance: float = 0.0) -> list[Finding]:
        """What `examine` and `replay` find of these stretches, or of all."""
        links, kept = proof.read_chain(self.outputs), read_json(self.states / proof.INDEX)
        past = Past(
            links,
            read_json(self.outputs / "history.json"),
            {step: self.states / proof.place_of(step) for step in kept},
            self.outputs / "lora" / lora.WEIGHTS,
        )
        every = proof.stretches(links, kept)
        return proof.examine(self.outputs, links, every) + replay(
            self.settings, self.base, *self.data, past, stretches or every, work=self.work, tolerance=tolerance,
            previews=previews(SUBJECTS, 1, 1, 0)[:2],
        )  # fmt: skip


@pytest.fixture(scope="module")
def trained(base, data, tmp_path_factory) -> Trained:
    work = tmp_path_factory.mktemp("work")
    return Trained(base, data, tmp_path_factory.mktemp("whole"), work, ema_decay=0.9, lora_dropout=0.1).train()


def broken(found: list[Finding]) -> list[str]:
    return [f"{each.name}: {each.words}" for each in found if not each.holds]


def test_a_training_leaves_a_link_every_few_steps_and_a_few_states(trained):
    assert [link["step"] for link in trained.links] == [0, 2, 4, 6]
    assert sorted(path.name for path in trained.states.iterdir()) == [
        proof.INDEX, "step-000002", "step-000004", "step-000006",
    ]  # fmt: skip
    adapter = load_file(trained.outputs / "lora" / lora.WEIGHTS)
    assert proof.weights_digest(adapter) == trained.links[-1]["saved"]
    assert len({link["adapter"] for link in trained.links}) == 4


def test_every_stretch_comes_to_the_same_bytes(trained):
    found = trained.check()
    assert [(each.name, each.holds) for each in found] == [
        ("chain", True), ("adapter", True), ("steps 1 to 2", True), ("steps 3 to 4", True), ("steps 5 to 6", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "stop_at", [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(5, marks=pytest.mark.slow)]
)
def test_a_killed_training_comes_to_the_same_chain_and_states(trained, tmp_path, stop_at):
    """Before a state was saved, and after one in the midst of a link."""
    killed = Trained(trained.base, trained.data, tmp_path, trained.work)
    killed.settings = trained.settings
    with pytest.raises(Killed):
        killed.train(stop_at)
    killed.train()
    assert (killed.outputs / proof.CHAIN).read_bytes() == (trained.outputs / proof.CHAIN).read_bytes()
    for file in trained.states.rglob("*"):
        if file.is_file():
            assert (killed.states / file.relative_to(trained.states)).read_bytes() == file.read_bytes()


KINDS = {
    "schedule-free": {"optimizer": "schedule-free", "lr_scheduler": "constant", "judged": True, "validation_every": 3},
    "Prodigy": {"optimizer": "prodigy", "learning_rate": 1.0},
    "text encoders": {"train_text_encoder": True, "gradient_accumulation": 2},
    "scored": {"judged": True, "validation_every": 3, "ema_decay": 0.9},
}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "scored")) for kind in KINDS])
def test_every_kind_of_training_can_be_replayed(base, data, trained, tmp_path, kind):
    whole = Trained(base, data, tmp_path, trained.work, validation_sampling_steps=1, **KINDS[kind]).train()
    found = whole.check(Stretch(2, 4), Stretch(4, 6))
    assert not broken(found), found
    if whole.judged:
        assert [link["step"] for link in whole.links] == [0, 2, 3, 4, 6]


def rewritten(links: list[dict]) -> list[dict]:
    """A chain whose links follow from each other again."""
    before = ""
    for link in links:
        before = link["link"] = proof.following(before, link)
    return links


def test_a_changed_link_is_named_with_its_stretch(trained, tmp_path):
    forged = trained.copy(tmp_path)
    links = forged.links
    links[2]["adapter"] = "0" * 64
    write_rows(forged.outputs / proof.CHAIN, links)
    (chain, _, beginning, between, end) = forged.check()
    assert (chain.holds, chain.words) == (
        False, "steps 3 to 4: the link of step 4 does not follow from those before",
    )  # fmt: skip
    assert beginning.holds
    assert "after step 4 the adapter is another" in between.words
    assert "the state kept after step 4 is not what the chain says: the adapter is another" in end.words
    write_rows(forged.outputs / proof.CHAIN, rewritten(links))
    assert broken(forged.check(Stretch(2, 4)))[0].startswith("steps 3 to 4: after step 4 the adapter is another")


def test_a_changed_state_is_named_with_the_stretch_that_sets_out_from_it(trained, tmp_path):
    forged = trained.copy(tmp_path)
    file = forged.states / "step-000004" / "tensors.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.startswith("optimizer/"))
    tensorfile.save(file, tensors | {name: tensors[name] + 1})
    assert broken(forged.check(Stretch(2, 4), Stretch(4, 6))) == [
        "steps 5 to 6: the state kept after step 4 is not what the chain says: the optimiser's state is another"
    ]
    file.write_bytes(b"not a tensor file")
    assert "steps 5 to 6: the state kept after step 4 cannot be read" in broken(forged.check(Stretch(4, 6)))[0]


def test_a_forged_adapter_is_found_with_and_without_a_chain_that_looks_right(trained, tmp_path):
    forged = trained.copy(tmp_path)
    adapter = forged.outputs / "lora" / lora.WEIGHTS
    tensors = {name: -3 * tensor for name, tensor in load_file(adapter).items()}
    tensorfile.save(adapter, tensors, {"lora_adapter_metadata": "{}"})
    assert broken(forged.check(Stretch(2, 4))) == ["adapter: steps 5 to 6: it is not the one that step 6 came to"]
    links = forged.links
    links[-1]["saved"] = proof.weights_digest(tensors)
    write_rows(forged.outputs / proof.CHAIN, rewritten(links))
    assert not broken(forged.check(Stretch(2, 4))), "a stretch that was not touched holds"
    for tolerance in (0.0, 0.5):
        assert broken(forged.check(Stretch(4, 6), tolerance=tolerance)) == [
            "steps 5 to 6: after step 6 the adapter as it is saved is another"
        ]


def test_a_curve_of_losses_that_was_made_up_is_found(trained, tmp_path):
    forged = trained.copy(tmp_path)
    history = read_json(forged.outputs / "history.json")
    history["steps"][2]["loss"] /= 2
    write_json(forged.outputs / "history.json", history)
    (said,) = broken(forged.check(Stretch(2, 4)))
    assert said.startswith("steps 3 to 4: the loss of step 3 is ")


@pytest.mark.slow
def test_what_another_device_would_make_of_it_is_measured_against_a_tolerance(trained, tmp_path, monkeypatch):
    """A device that adds in another order is stood in for by a breath of noise on the gradient."""
    from personalize.dreambooth import replay as module

    honest = module.take_step

    def shaken(step, run, *rest):
        result = honest(step, run, *rest)
        with torch.no_grad():
            for parameter in run.model.params.values():
                parameter.mul_(1 + 1e-6)
        return result

    monkeypatch.setattr(module, "take_step", shaken)
    (exact,) = broken(trained.check(Stretch(2, 4)))
    assert "after step 4 the adapter is another; the adapter ends" in exact
    assert exact.endswith("(tolerance 0)")
    assert not broken(trained.check(Stretch(2, 4), Stretch(4, 6), tolerance=0.01))
    assert broken(trained.check(Stretch(2, 4), tolerance=1e-9))
    other = trained.copy(tmp_path)
    other.data = (trained.data[0][::-1], trained.data[1])
    assert "other pictures" in broken(other.check(Stretch(2, 4), tolerance=0.9))[0]


def test_without_states_all_is_one_stretch_and_a_seed_picks_the_same_ones():
    links = [{"step": step} for step in (0, 100, 200, 300, 350)]
    assert proof.stretches(links, []) == [Stretch(0, 350)]
    every = proof.stretches(links, [100, 200, 300, 350])
    assert every == [Stretch(0, 100), Stretch(100, 200), Stretch(200, 300), Stretch(300, 350)]
    assert proof.stretches(links, [150, 200, 900]) == [Stretch(0, 200), Stretch(200, 350)]
    assert proof.pick(every, 2, 7) == proof.pick(every, 2, 7)
    assert len({tuple(proof.pick(every, 2, seed)) for seed in range(50)}) > 3
    assert proof.pick(every, 9, 0) == every


@pytest.mark.parametrize(
    ("steps", "kept"),
    [(1000, [200, 400, 600, 800]), (900, [200, 400, 500, 700]), (250, [100, 200]), (60, [])],
)
def test_states_are_few_and_evenly_spread(steps, kept):
    settings = training.settings(max_train_steps=steps, proof_every=100, proof_states=5)
    assert [step for step in range(1, steps) if proof.is_kept(settings, step)] == kept


@pytest.mark.parametrize("text", ["", "[]\n", '{"step": 0}\n', "null\n"])
def test_what_is_no_chain_says_so(tmp_path, text):
    (tmp_path / "proof").mkdir()
    (tmp_path / proof.CHAIN).write_text(text)
    with pytest.raises(ValueError, match=r"is no chain of links"):
        proof.read_chain(tmp_path)


def test_no_proof_is_made_where_none_is_asked_for(base, data, trained, tmp_path):
    bare = Trained(base, data, tmp_path, trained.work, proof_every=0, max_train_steps=1).train()
    assert not (bare.outputs / "proof").exists()
    assert not bare.states.exists()
    assert json.loads((bare.outputs / "history.json").read_text())["chosen"]["step"] == 1
