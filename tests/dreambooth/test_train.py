"""The loop: the same seed gives the same bytes, a killed run goes on as if it had not been, and it stops well."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from personalize.dreambooth import lora
from personalize.dreambooth.adapter_files import KOHYA
from personalize.dreambooth.progress import Diverged
from personalize.dreambooth.train import Observer, Result, train
from personalize.dreambooth.validation import previews
from personalize.photographs.prompts import Subject
from tests.dreambooth import training


class Killed(BaseException):
    """Stands for kill -9: nothing in the project catches it."""


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """One latent cache for all runs."""
    return tmp_path_factory.mktemp("work")


def run(base, data, outputs: Path, work: Path, stop_at: int = 0, **changed) -> Result:
    """Trains; with `stop_at` the process is killed when that step has been logged."""

    def logged(step: int, metrics: dict) -> None:
        if step == stop_at:
            raise Killed

    scored = changed.pop("score", None)
    wanted = previews([Subject("bcnchr", "chair")], 1, 1, 0)[:2] if scored else []
    return train(
        training.settings(**changed), base, *data, outputs, work=work, previews=wanted, score=scored,
        observer=Observer(logged=logged),
    )  # fmt: skip


def digests(outputs: Path) -> dict[str, str]:
    files = [file for file in outputs.rglob("*") if file.is_file() and file.parent.name != "diagnostics"]
    return {str(f.relative_to(outputs)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


RESUMABLE = {"resume_every": 2, "ema_decay": 0.9, "lora_dropout": 0.1}


@pytest.fixture(scope="module")
def whole(base, data, work, tmp_path_factory) -> tuple[Path, Result]:
    """A run that nothing disturbed."""
    outputs = tmp_path_factory.mktemp("whole")
    return outputs, run(base, data, outputs, work, **RESUMABLE)


def test_a_run_writes_the_adapter_in_both_forms_and_its_history(whole):
    outputs, result = whole
    assert set(digests(outputs)) == {
        "history.json", f"lora/{KOHYA}", "lora/pytorch_lora_weights.safetensors", "proof/chain.jsonl",
    }  # fmt: skip
    history = json.loads((outputs / "history.json").read_text())
    assert [row["step"] for row in history["steps"]] == [1, 2, 3, 4, 5]
    assert history["chosen"]["step"] == 5
    assert result.speed["images_per_second"] > 0
    assert result.speed["tflop_per_second"] > 0


def test_training_moved_the_adapter_and_kept_it_float32(whole):
    tensors, metadata = training.read_adapter(whole[0] / "lora" / lora.WEIGHTS)
    assert {t.dtype for t in tensors.values()} == {torch.float32}
    assert all(t.abs().max() > 0 for name, t in tensors.items() if "lora_B" in name)
    assert (metadata["unet.r"], metadata["unet.lora_alpha"]) == (4, 1.0)


@pytest.mark.parametrize("stop_at", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_killed_run_goes_on_as_if_it_had_never_been_killed(base, data, whole, work, tmp_path, stop_at):
    """Before the first state is saved, and a step after one was."""
    with pytest.raises(Killed):
        run(base, data, tmp_path, work, stop_at=stop_at, **RESUMABLE)
    assert digests(tmp_path) == {}
    assert len(list(work.glob("runs/*/state/step-*"))) == (1 if stop_at == 3 else 0)
    run(base, data, tmp_path, work, **RESUMABLE)
    assert digests(tmp_path) == digests(whole[0])
    assert not list(work.glob("runs/*/state"))


KINDS = {
    "plain": {},
    "the base kept": {"prior_target": "base", "prior_loss_weight": 4, "prior_surroundings": 0.5},
    "DoRA": {"use_dora": True},
    "text encoders": {"train_text_encoder": True},
    "Prodigy": {"optimizer": "prodigy", "learning_rate": 1.0},
    "schedule-free": {"optimizer": "schedule-free", "lr_scheduler": "constant"},
}


SLOW = ("DoRA", "Prodigy", "schedule-free")  # their parts have tests of their own


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KINDS])
def test_every_kind_of_training_moves_its_adapter_and_survives_a_kill(base, data, work, tmp_path, kind):
    chosen = {"max_train_steps": 4, "resume_every": 2, **KINDS[kind]}
    run(base, data, tmp_path / "whole", work, **chosen)
    with pytest.raises(Killed):
        run(base, data, tmp_path / "killed", work, stop_at=3, **chosen)
    run(base, data, tmp_path / "killed", work, **chosen)
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
    tensors, _ = training.read_adapter(tmp_path / "whole" / "lora" / lora.WEIGHTS)
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    learnt = {name.split(".")[0] for name, t in tensors.items() if "lora_B" in name and t.abs().max() > 0}
    assert learnt == ({"unet", "text_encoder", "text_encoder_2"} if kind == "text encoders" else {"unet"})


def test_a_step_s_arithmetic_is_the_same_however_it_is_computed(base, data, work, tmp_path, monkeypatch):
    """The compiler itself takes minutes on a CPU; here it gives back what it is given."""
    monkeypatch.setattr(torch, "compile", lambda model, **options: torch.compiler.disable(model))
    kinds = {"eager": {}, "compiled": {"compile": True}, "its blocks": {"compile": "blocks"}}
    kinds |= {"recomputing": {"memory": "balanced"}}
    speeds = [run(base, data, tmp_path / kind, work, max_train_steps=2, **how).speed for kind, how in kinds.items()]
    flops = [speed["tflop_per_second"] / speed["images_per_second"] for speed in speeds]
    assert flops[1:] == [pytest.approx(flops[0])] * 3


def test_what_the_base_says_of_class_images_costs_nothing_until_the_adapter_says_otherwise(base, data, work, tmp_path):
    kinds: dict[str, dict] = {
        "none": {"prior_loss_weight": 0},
        "kept": {"prior_target": "base", "prior_loss_weight": 100},
        "kept, text encoders too": {"prior_target": "base", "prior_loss_weight": 100, "train_text_encoder": True},
        "kept, recomputing": {"prior_target": "base", "prior_loss_weight": 100, "memory": "balanced"},
    }
    results = {kind: run(base, data, tmp_path / kind, work, max_train_steps=3, **how) for kind, how in kinds.items()}
    without, kept, texts, recomputing = (losses_of(result) for result in results.values())
    assert kept[0] == pytest.approx(without[0], rel=1e-4)
    assert texts[0] == pytest.approx(without[0], rel=1e-4)
    assert kept[2] > without[2]
    assert recomputing == pytest.approx(kept, rel=1e-3)
    pictures = run(base, data, tmp_path / "pictures", work, max_train_steps=3)
    flops = [
        result.speed["tflop_per_second"] / result.speed["images_per_second"] for result in (pictures, results["kept"])
    ]
    assert 1.2 < flops[1] / flops[0] < 1.4, "half of a step is class images, and a pass forward is half of the work"


def test_another_seed_trains_another_adapter(base, data, whole, work, tmp_path):
    run(base, data, tmp_path, work, seed=1, **RESUMABLE)
    assert digests(tmp_path)[f"lora/{KOHYA}"] != digests(whole[0])[f"lora/{KOHYA}"]


def losses_of(result: Result) -> list[float]:
    return [row["loss"] for row in result.history["steps"]]


def test_accumulating_micro_batches_equals_one_large_batch(base, data, work, tmp_path):
    large = run(base, data, tmp_path / "a", work, batch_size=4, max_train_steps=3)
    small = run(base, data, tmp_path / "b", work, batch_size=1, gradient_accumulation=4, max_train_steps=3)
    assert losses_of(small) == pytest.approx(losses_of(large), rel=1e-4)
    one, other = (training.read_adapter(tmp_path / name / "lora" / lora.WEIGHTS)[0] for name in ("a", "b"))
    moved = max(t.abs().max() for name, t in one.items() if "lora_B" in name)
    assert max((one[k] - other[k]).abs().max() for k in one) < 0.05 * moved


def test_a_loss_that_is_not_a_number_stops_with_step_files_and_advice(base, data, work, tmp_path, monkeypatch):
    from personalize.dreambooth import train as module

    honest = module.training_loss
    calls = []

    def breaks(*arguments):
        calls.append(1)
        return honest(*arguments) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(module, "training_loss", breaks)
    with pytest.raises(Diverged, match=r"step 3: loss nan.*bcnchr/\d\.png.*lower learning_rate"):
        run(base, data, tmp_path, work, log_every=4, resume_every=4)
    assert digests(tmp_path) == {}
    assert not list(work.glob("runs/*/state/step-*"))


def test_a_run_left_to_overfit_is_stopped_and_its_best_checkpoint_kept(base, data, work, tmp_path):
    """Likeness peaks at step 2; later the prompt is lost."""
    fidelity = {0: 0.1, 1: 0.4, 2: 0.6, 3: 0.7, 4: 0.75}
    prompt = {0: 0.3, 1: 0.3, 2: 0.3, 3: 0.1, 4: 0.05}
    seen = []

    def score(step, samples):
        seen.append([(s.preview.prompt, s.preview.seed) for s in samples])
        return {"fidelity": fidelity[step], "prompt": prompt[step], "drift": 0.0}

    result = run(base, data, tmp_path, work, score=score, validation_every=1, patience=2, max_train_steps=30,
                 validation_sampling_steps=2)  # fmt: skip
    assert (result.steps, result.choice.step, result.choice.verdict) == (4, 2, "knee")
    assert "no gain" in result.stop_reason
    assert all(asked == seen[0] for asked in seen)
    assert len(list((tmp_path / "samples").glob("step-*"))) == 5
    scores = result.history["scores"]
    assert scores[0]["validation_loss_0"] != scores[1]["validation_loss_0"]


def test_prior_preservation_without_class_images_says_what_to_do(base, data, work, tmp_path):
    with pytest.raises(ValueError, match="prior_loss_weight: 0"):
        run(base, (data[0], []), tmp_path, work)
