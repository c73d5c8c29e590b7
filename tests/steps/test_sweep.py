"""The sweep step: trials that really train, each in a run of its own; the best is named with its command."""

import json
import shlex
from pathlib import Path

import mlflow
import pytest

from personalize.dreambooth import trials
from personalize.dreambooth.progress import Diverged
from personalize.recipe import RecipeError
from steps import sweep, train
from tests.steps.conftest import judges_in, perform


@pytest.fixture
def config(tiny_models, store):
    """Trials of four steps, scored at 2 and 4, over two ranks; `config(trials=3)` changes what it says."""

    def config(**changed) -> sweep.Config:
        short = {
            "base_model": str(tiny_models / "sdxl"), "judges": judges_in(tiny_models),
            "device": "cpu", "dtype": "float32", "work": str(store / "work"), "resolution": 64, "max_train_steps": 4,
            "batch_size": 1, "rank": 4, "learning_rate": 1e-3, "validation_every": 2, "validation_prompts": 1,
            "validation_sampling_steps": 1, "log_every": 1, "resume_every": 2, "patience": 0, "trials": 2,
            "warmup_trials": 1, "warmup_checkpoints": 0, "prompt_margin": 1, "drift_margin": 1,
            "space": {"rank": {"choices": [2, 4]}, "learning_rate": {"low": 1e-4, "high": 2e-3, "log": True}},
        }  # fmt: skip
        return sweep.Config(**(short | changed))

    return config


@pytest.fixture
def start(inputs, store):
    """Runs the step as the engine does: (outputs, card, the sweep's run, its trials' runs in order)."""

    def start(config: sweep.Config, name: str = "outputs"):
        outputs = store / name
        with mlflow.start_run() as run:
            card = perform("sweep", config, inputs, outputs)
        return outputs, card, mlflow.get_run(run.info.run_id), nested(run.info.run_id)

    return start


def nested(run_id: str) -> list[mlflow.entities.Run]:
    found = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{run_id}'", output_format="list")
    return sorted(found, key=lambda run: int(run.data.tags["sweep.trial"]))


@pytest.fixture
def scripted(monkeypatch):
    """Judges that like a checkpoint the better the higher the rank and the later the step; what they saw is kept."""
    seen = []

    def judge(config, learnt, held_out):
        def score(step, samples):
            seen.append((config.rank, config.learning_rate, step))
            return {"fidelity": 0.1 + 0.01 * config.rank * step, "prompt": 0.3, "drift": 0.3}

        return score

    monkeypatch.setattr(train, "judge", judge)
    return seen


def test_every_trial_is_a_nested_run_and_the_best_is_told_everywhere(config, start, monkeypatch):
    outputs, card, run, runs = start(config())
    told = json.loads((outputs / "trials.json").read_text())
    best = json.loads((outputs / "best.json").read_text())
    assert [trial.info.run_name for trial in runs] == ["trial 1", "trial 2"]
    first = runs[0]
    assert first.data.params == {"sweep.rank": "4", "sweep.learning_rate": "0.001"}  # as configured
    assert (first.data.tags["sweep.state"], first.info.status) == ("complete", "FINISHED")
    history = mlflow.MlflowClient().get_metric_history
    for name, steps in {"fidelity": [0, 2, 4], "prompt": [0, 2, 4], "drift": [0, 2, 4], "loss": [1, 2, 3, 4]}.items():
        assert [metric.step for metric in history(first.info.run_id, name)] == steps
    assert told[0]["value"] == max(row["fidelity"] for row in told[0]["scores"] if row["step"])
    complete = [trial for trial in told if trial["state"] == "complete"]
    assert best["value"] == max(trial["value"] for trial in complete) == run.data.metrics["best_value"]
    assert run.data.params["sweep.best.rank"] == str(best["params"]["rank"])
    words = shlex.split(best["command"])
    assert words[:5] == ["mlflow", "run", ".", "--env-manager", "local"]
    assert f"train.rank={best['params']['rank']}" in words
    for name in ("base", "best"):
        assert len(list((outputs / "samples" / name).glob("*.png"))) == 3
    html = card.html()
    assert all(words in html for words in ("Chosen checkpoints", "Value by trial", "beside the base", "train.rank="))
    assert not (outputs / "trials").exists()
    went = json.loads((outputs / "diagnostics" / "trials.json").read_text())
    assert [row["run_id"] for row in went] == [trial.info.run_id for trial in runs]
    assert not {"minutes", "run_id"} & set(told[0])


@pytest.mark.slow
def test_a_trial_that_lags_is_given_up_and_leaves_nothing_to_train_on(config, start, scripted, store):
    space = {"rank": {"choices": [2, 4]}}
    outputs, card, run, runs = start(config(trials=4, space=space))
    by_rank = {trial.data.params["sweep.rank"]: trial for trial in runs}
    assert set(by_rank) == {"2", "4"}, "the seed draws one rank only; change it"
    lagging = by_rank["2"]
    assert (lagging.data.tags["sweep.state"], lagging.info.status) == ("pruned", "KILLED")
    assert mlflow.MlflowClient().get_metric_history(lagging.info.run_id, "fidelity")[-1].step == 2
    assert json.loads((outputs / "best.json").read_text())["params"] == {"rank": 4}
    assert run.data.metrics["best_value"] == pytest.approx(0.1 + 0.01 * 4 * 4)
    (place,) = (store / "work" / "sweeps").iterdir()
    assert not (place / "runs").exists()
    assert not list(place.rglob("*.safetensors"))
    assert "pruned" in card.html()


@pytest.mark.slow
def test_a_trial_that_diverges_fails_and_the_sweep_goes_on(config, start, scripted, monkeypatch):
    learn = train.learn

    def diverging(settings, *rest):
        if settings.rank == 4:
            raise Diverged("training stopped at step 2: loss nan")
        return learn(settings, *rest)

    monkeypatch.setattr(train, "learn", diverging)
    outputs, card, _, runs = start(config(trials=3, space={"rank": {"choices": [2, 4]}}))
    failed = runs[0]
    assert (failed.data.tags["sweep.state"], failed.info.status) == ("failed", "FAILED")
    assert json.loads((outputs / "best.json").read_text())["params"] == {"rank": 2}
    assert "loss nan" in card.html()


def test_a_sweep_whose_every_trial_diverges_says_so(config, start, monkeypatch):
    def diverging(*_):
        raise Diverged("loss nan")

    monkeypatch.setattr(train, "learn", diverging)
    with pytest.raises(RecipeError, match=r"none of 2 trials came to its end .*loss nan"):
        start(config())


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was_and_more_trials_add_to_it(config, start, scripted, inputs, store):
    judge, kills = train.judge, []

    def killing(config, *rest):
        score = judge(config, *rest)

        def kill(step, samples):
            if not kills and len(scripted) == 5:  # in the second trial, after its state at step 2
                kills.append(step)
                raise KeyboardInterrupt
            return score(step, samples)

        return kill

    train.judge = killing  # `scripted` puts the real one back
    asked = config(pruner="none")
    with pytest.raises(KeyboardInterrupt):
        start(asked, "killed")
    assert kills == [4]
    _, _, run, runs = start(asked)
    steps = [step for _, _, step in scripted]
    assert steps == [0, 2, 4, 0, 2, 4]  # neither the first trial nor the second one's first half again
    assert [trial.data.tags["sweep.state"] for trial in runs] == ["complete", "complete"]
    assert runs[0].data.tags["mlflow.parentRunId"] == run.info.run_id
    interrupted = mlflow.search_runs(filter_string="tags.`sweep.state` = 'interrupted'", output_format="list")
    assert [lost.info.status for lost in interrupted] == ["KILLED"]

    outputs, _, _, runs = start(config(pruner="none", trials=3), "more")
    assert len(scripted) == 6 + 3
    assert len(runs) == len(json.loads((outputs / "trials.json").read_text())) == 3

    (place,) = (store / "work" / "sweeps").iterdir()
    assert len(trials_of(config(pruner="none", trials=4), place)) == 3
    assert trials_of(config(pruner="none", trials=3), place) == [], "asked for once more, it starts anew"


def trials_of(asked: sweep.Config, place: Path) -> list:
    return trials.counted(sweep.open_study(asked, place))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"judges": ()}, "nothing would judge the trials"),
        ({"validation_every": 0}, "nothing would judge the trials"),
        ({"processes": 2}, "sweep.processes=1"),
        ({"space": {"optimizer": {"choices": ["prodigy"]}}}, "no combination: .*learning_rate 0.001 must be 1.0"),
    ],
)
def test_a_sweep_that_cannot_be_carried_out_is_refused_before_a_model_is_loaded(config, changed, words):
    with pytest.raises(ValueError, match=words):
        sweep.sources(config(**changed))


def test_two_processes_do_not_share_a_sweep(config, start, inputs, store):
    asked = config()
    place = Path(asked.work) / "sweeps" / sweep.identity(asked, inputs)
    with trials.alone(place), pytest.raises(RecipeError, match="another process is at this very sweep"):
        start(asked)


def test_the_command_repeats_what_was_asked_for_but_not_for_the_sweep(config):
    given = {
        "profile": "gpu",
        "overrides": {"ingest.data": "my photos", "sweep.trials": "2", "train.rank": "4", "SEED": "1"},
    }
    made = sweep.best_command({"rank": 8, "snr_gamma": None, "targets": "attention"}, given)
    assert made == (
        "mlflow run . --env-manager local -P profile=gpu -P ingest.data='my photos' -P train.rank=8 -P SEED=1 "
        "-P train.snr_gamma=null -P train.targets=attention"
    )


@pytest.mark.slow
def test_two_workers_try_two_at_a_time_and_the_best_is_told(config, start, store):
    pytest.importorskip("ray", reason="SWEEP ON WORKERS NOT TESTED: Ray is not installed")
    outputs, _, run, runs = start(config(trials=3, workers=2, gpus=0))
    told = json.loads((outputs / "trials.json").read_text())
    assert [trial["trial"] for trial in told] == [1, 2, 3]
    assert [trial.data.tags["sweep.state"] for trial in runs] == ["complete"] * 3
    assert runs[0].data.params == {"sweep.rank": "4", "sweep.learning_rate": "0.001"}, "as configured"
    assert len({json.dumps(trial["params"]) for trial in told}) == 3
    began = {trial.data.tags["sweep.trial"]: trial.info.start_time for trial in runs}
    ended = {trial.data.tags["sweep.trial"]: trial.info.end_time for trial in runs}
    assert began["2"] < ended["1"], "at once"
    assert began["1"] < ended["2"], "at once"
    assert began["3"] >= max(ended["1"], ended["2"]), "the third is proposed when both are known"
    best = json.loads((outputs / "best.json").read_text())
    assert best["value"] == run.data.metrics["best_value"] == max(trial["value"] for trial in told)
    (place,) = (store / "work" / "sweeps").iterdir()
    assert not (place / "runs").exists()
    assert not list(place.rglob("*.safetensors"))
