"""The evaluate step on random weights: what it asks, writes, logs and shows, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from personalize.cards import Card
from personalize.dreambooth import sampling
from personalize.recipe import Inputs, RecipeError
from steps import evaluate
from tests.random_adapter import random_adapter

from .conftest import active

SUBJECTS = [("zwvchr", "chair"), ("brkchr", "chair")]
PROMPTS = [f"a photo of a {{token_noun}} {where}" for where in ("on grass", "in snow", "on sand", "in a <b>", "at sea")]


def untrained(trained: Path, folder: Path) -> Path:
    """The adapter of the folder `trained` as it was before its first step: B is zero, so it changes nothing."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(trained / "pytorch_lora_weights.safetensors", "pt") as file:
        weights = {name: file.get_tensor(name) * ("lora_B" not in name) for name in file.keys()}  # noqa: SIM118
        folder.mkdir()
        save_file(weights, folder / "pytorch_lora_weights.safetensors", metadata=file.metadata())
    return folder


@pytest.fixture(scope="module")
def inputs(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """What ingest, caption and train would have left."""
    root = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    rows = []
    for token, noun in SUBJECTS:
        for number in range(3):
            name = f"{noun}/{token}/{number}.png"
            (root / "ingest" / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            colours = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
            Image.fromarray(colours).resize((100, 80)).save(root / "ingest" / "images" / name)
            rows.append({"file_name": name, "token": token, "class_noun": noun})
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "ingest" / "images" / "metadata.jsonl").write_text(lines)
    (root / "ingest" / "qa.json").write_text(json.dumps({"rights": "the museum, for this exhibition"}))
    (root / "caption").mkdir()
    subjects = [{"token": token, "class_noun": noun, "images": 3} for token, noun in SUBJECTS]
    (root / "caption" / "subjects.json").write_text(json.dumps(subjects))
    said = [{"file_name": row["file_name"], "text": f"a photo of a {row['token']} chair in snow"} for row in rows]
    (root / "caption" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    random_adapter(tiny_models / "sdxl", root / "train" / "lora")
    history = {"held_out": ["chair/zwvchr/0.png", "chair/brkchr/1.png"], "chosen": {"step": 40}, "steps": [{}] * 60}
    (root / "train" / "history.json").write_text(json.dumps(history))
    return Inputs.from_paths({name: root / name for name in evaluate.NEEDS})


@pytest.fixture(scope="module")
def config(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> evaluate.Config:
    return evaluate.Config(
        base_model=str(tiny_models / "sdxl"),
        clip_model=str(tiny_models / "clip"),
        dino_model=str(tiny_models / "dino"),
        prompts=PROMPTS,
        seeds_per_prompt=1,
        sampling_steps=1,
        resolution=32,
        gates=[
            {"metric": "dino", "kind": "superiority", "margin": 0.5},
            {"metric": "clip_t", "kind": "non-inferiority", "margin": 1},
        ],
        limits="These models know nothing.",
        device="cpu",
        batch_size=16,
        work=str(tmp_path_factory.mktemp("work")),
    )


@pytest.fixture(scope="module")
def done(
    config: evaluate.Config, inputs: Inputs, new_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    import mlflow

    place, outputs, card = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("outputs"), Card("evaluate")
    with active(new_database, place):
        with mlflow.start_run() as run:
            evaluate.run(config, inputs, outputs, card)
        logged = mlflow.get_run(run.info.run_id).data
        pictures = [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id, "before_and_after")]
    scores = json.loads((outputs / "scores.json").read_text(encoding="utf-8"))
    return SimpleNamespace(
        outputs=outputs, card=card, scores=scores, metrics=logged.metrics, tags=logged.tags, pictures=pictures
    )


def test_a_model_that_did_not_learn_the_subjects_fails_and_says_why(done):
    assert done.scores["verdict"] == "failed"
    verdicts = {gate["metric"]: gate["verdict"] for gate in done.scores["gates"]}
    assert verdicts == {"dino": "failed", "clip_t": "passed"}
    for gate in done.scores["gates"]:
        assert gate["ci"][0] <= gate["value"] <= gate["ci"][1]
        assert gate["why"]


def test_every_picture_is_kept_with_its_scores_so_that_anybody_can_check_them(done):
    assert len(done.scores["pictures"]) == len(SUBJECTS) * len(PROMPTS)
    seeds = [row["seed"] for row in done.scores["pictures"]]
    assert len(set(seeds)) == len(seeds)
    for row in done.scores["pictures"]:
        tuned, base = Image.open(done.outputs / row["file"]), Image.open(done.outputs / row["base_file"])
        assert tuned.size == base.size == (32, 32)
        assert -1 <= row["dino"] <= 1
    assert len(list((done.outputs / "images" / "tuned").rglob("*.png"))) == (len(SUBJECTS) + 1) * len(PROMPTS)


def test_scores_written_are_those_of_the_pictures_written(done, config):
    from personalize.evaluation.encoders import ClipEncoder

    row = done.scores["pictures"][3]
    clip = ClipEncoder(config.clip_model, device="cpu")
    text = row["prompt"].replace(f"{row['token']} chair", "chair")
    again = float((clip.images([Image.open(done.outputs / row["file"])]) @ clip.texts([text]).T)[0, 0])
    assert again == pytest.approx(row["clip_t"], abs=1e-4)


def test_subjects_are_scored_apart_with_the_photographs_own_ceiling(done):
    for (token, _), of in zip(SUBJECTS, done.scores["subjects"], strict=True):
        assert of["token"] == token
        assert of["pictures"] == len(PROMPTS)
        assert -1 <= of["ceiling"]["dino"] <= 1
        assert done.metrics[f"dino.{token}"] == pytest.approx(of["dino"]["tuned"])
    assert {"dino", "dino_base", "clip_t", "clip_i", "held_out", "gates_passed"} <= set(done.metrics)
    assert done.tags["verdict"] == "failed"
    assert done.pictures == [f"before_and_after/{token}.png" for token in ("brkchr", "zwvchr")]


def test_prompt_following_stands_beside_that_of_the_photographs_and_their_captions(done, config, inputs):
    from personalize.evaluation.encoders import ClipEncoder

    clip = ClipEncoder(config.clip_model, device="cpu")
    opened = [Image.open(inputs["ingest"].path / f"images/chair/zwvchr/{i}.png").convert("RGB") for i in range(3)]
    reached = float((clip.images(opened) @ clip.texts(["a photo of a chair in snow"]).T).mean())
    assert done.scores["subjects"][0]["ceiling"]["clip_t"] == pytest.approx(reached, abs=1e-4)
    assert done.metrics["clip_t_ceiling.zwvchr"] == pytest.approx(reached, abs=1e-4)
    assert "beside their own captions" in done.card.html()


def test_photographs_held_out_are_never_called_copied(done):
    nearest = {row["nearest_photograph"] for row in done.scores["pictures"]}
    assert nearest
    assert not any("held out" in name for name in nearest)


def test_the_card_shows_verdict_pictures_limits_and_the_command_to_do_it_again(done):
    page = done.card.html()
    kinds = [block["kind"] for block in done.card.blocks]
    assert kinds[0] == "verdict"
    assert kinds.index("grid") < kinds.index("table"), "pictures come before numbers"
    assert page.count("<img") > 2 * len(SUBJECTS) * len(PROMPTS)
    assert "These models know nothing." in page
    assert "the museum, for this exhibition" in page
    assert "-e generate -P prompt=" in page
    assert "held out" in page


def test_the_card_escapes_what_prompts_say(done):
    assert "in a <b>" not in done.card.html()
    assert "in a &lt;b&gt;" in done.card.html()


def test_an_adapter_that_learnt_nothing_draws_exactly_what_the_base_draws(config, inputs, tmp_path):
    """So every difference between the two columns of the card comes from training, none from chance."""
    lora = untrained(inputs["train"].path / "lora", tmp_path / "lora")
    base, tuned = evaluate._draw(config, evaluate.Questions(SUBJECTS[:1], PROMPTS[:1], 1, 7), lora)
    for before, after in zip(base.flat, tuned.flat, strict=True):
        np.testing.assert_array_equal(np.asarray(before), np.asarray(after))


def test_what_the_base_draws_is_drawn_once_and_the_tuned_model_s_each_time(config, inputs, tmp_path, monkeypatch):
    drawn = []
    sample = sampling.sample
    monkeypatch.setattr(sampling, "sample", lambda *given: drawn.append(given[1]) or sample(*given))
    own = config.model_copy(update={"work": str(tmp_path)})
    asked = evaluate.Questions(SUBJECTS[:1], PROMPTS[:1], 1, 7), inputs["train"].path / "lora"
    first, _ = evaluate._draw(own, *asked)
    assert len(drawn) == 2
    again, _ = evaluate._draw(own, *asked)
    assert len(drawn) == 3
    assert [picture.tobytes() for picture in again.flat] == [picture.tobytes() for picture in first.flat]
    evaluate._draw(own.model_copy(update={"guidance_scale": 4.0}), *asked)
    assert len(drawn) == 5


def test_an_adapter_that_learnt_something_draws_otherwise(done):
    row = done.scores["pictures"][0]
    pictures = [np.asarray(Image.open(done.outputs / row[name]), int) for name in ("file", "base_file")]
    assert np.abs(pictures[0] - pictures[1]).max() > 2


def test_config_refuses_gates_and_prompts_that_make_no_sense(config):
    given = config.model_dump()
    with pytest.raises(ValidationError, match="token_noun"):
        evaluate.Config(**{**given, "prompts": ["a chair on the beach"]})
    with pytest.raises(ValidationError, match="no metric is called 'beauty'"):
        evaluate.Config(**{**given, "gates": [{"metric": "beauty", "kind": "superiority"}]})


def test_sources_name_models_by_content_or_by_commit(config):
    found = evaluate.sources(config)
    assert all(len(digest) > 30 for digest in found.values())
    hub = config.model_copy(update={"clip_model": "openai/clip-vit-base-patch32", "clip_revision": "c" * 40})
    assert evaluate.sources(hub)["CLIP"] == f"openai/clip-vit-base-patch32@{'c' * 40}"


def test_a_subject_without_photographs_is_named(config, inputs, tmp_path):
    (tmp_path / "subjects.json").write_text(json.dumps([{"token": "nobody", "class_noun": "chair"}]))
    paths = {name: inputs[name].path for name in evaluate.NEEDS} | {"caption": tmp_path}
    with pytest.raises(RecipeError, match="no photograph of nobody chair"):
        evaluate.run(config, Inputs.from_paths(paths), tmp_path, Card("evaluate"))
