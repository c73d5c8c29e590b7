"""The evaluate step on random weights: what it asks, writes, logs and shows, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from personalize.evaluation.questions import Questions, as_prompts
from personalize.recipe import AGAIN, Inputs, RecipeError
from steps import baseline, draw, evaluate
from tests.random_adapter import random_adapter

from .conftest import active, judges_in, perform

SUBJECTS = [("zwvchr", "chair"), ("brkchr", "chair")]
PROMPTS = {w: f"a photo of a {{token_noun}} {w}" for w in ("on grass", "in snow", "on sand", "in a <b>", "at sea")}


@pytest.fixture(scope="module")
def inputs(tiny_models: Path, new_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """What ingest, caption and train would have left, and what baseline and draw make of it."""
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
    (root / "caption").mkdir()
    subjects = [{"token": token, "class_noun": noun, "images": 3} for token, noun in SUBJECTS]
    (root / "caption" / "subjects.json").write_text(json.dumps(subjects))
    said = [{"file_name": row["file_name"], "text": f"a photo of a {row['token']} chair in snow"} for row in rows]
    (root / "caption" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    history = {"held_out": ["chair/zwvchr/0.png", "chair/brkchr/1.png"], "chosen": {"step": 40}, "steps": [{}] * 60}
    random_adapter(tiny_models / "sdxl", root / "train" / "lora")
    (root / "train" / "history.json").write_text(json.dumps(history))
    asked = {
        "base_model": str(tiny_models / "sdxl"),
        "prompts": {"place": PROMPTS},
        "seeds_per_prompt": 1,
        "sampling_steps": 1,
        "resolution": 32,
        "device": "cpu",
        "batch_size": 16,
        "work": str(root / "work"),
    }
    paths = Inputs.from_paths({name: root / name for name in evaluate.NEEDS})
    with active(new_database, root), mlflow.start_run():
        baseline.run(baseline.Config(**asked), paths, root / "baseline")
        draw.run(draw.Config(**asked), paths, root / "draw")
    return paths


@pytest.fixture(scope="module")
def config(tiny_models: Path) -> evaluate.Config:
    return evaluate.Config(
        judges=judges_in(tiny_models),
        gates=[
            {"metric": "likeness", "kind": "superiority", "margin": 0.5},
            {"metric": "clip_t", "kind": "non-inferiority", "margin": 1},
            {"metric": "r_precision", "kind": "superiority", "margin": 0.9},
        ],
        limits="These models know nothing.",
        rights="the museum, for this exhibition",
        device="cpu",
    )


@pytest.fixture(scope="module")
def done(
    config: evaluate.Config, inputs: Inputs, new_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    place, outputs = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("outputs")
    with active(new_database, place):
        with mlflow.start_run() as run:
            card = perform("evaluate", config, inputs, outputs)
        logged = mlflow.get_run(run.info.run_id).data
        pictures = [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id, "before_and_after")]
    scores = json.loads((outputs / "scores.json").read_text(encoding="utf-8"))
    return SimpleNamespace(
        outputs=outputs, card=card, scores=scores, metrics=logged.metrics, tags=logged.tags, pictures=pictures
    )


def test_a_model_that_did_not_learn_the_subjects_fails_and_says_why(done):
    assert done.scores["verdict"] == "failed"
    verdicts = {gate["metric"]: gate["verdict"] for gate in done.scores["gates"]}
    assert verdicts == {"likeness": "undecided", "clip_t": "passed", "r_precision": "failed"}
    for gate in done.scores["gates"]:
        assert gate["ci"][0] <= gate["value"] <= gate["ci"][1]
        assert gate["why"]


@pytest.mark.parametrize(
    ("verdict", "wanted", "look", "asks"),
    [
        ("undecided", 60, 1, "about 60 would decide it"),
        ("undecided", 97, 1, "it lies near a line"),
        ("undecided", None, 1, ""),
        ("undecided", 90, 2, ""),
    ]
    + [(verdict, 60, 1, "") for verdict in ("passed", "failed")],
)
def test_only_what_more_prompts_can_decide_asks_for_them(new_database, tmp_path, verdict, wanted, look, asks):
    prompts = as_prompts({"place": {f"p{n}": f"{{token_noun}} {n}" for n in range((24, 72)[look - 1])}})
    asked = Questions(SUBJECTS, prompts, 1, 0, [24, 72])
    with active(new_database, tmp_path):
        with mlflow.start_run() as run:
            evaluate._ask_again({"verdict": verdict, "prompts_wanted": wanted}, asked)
        tag = mlflow.get_run(run.info.run_id).data.tags.get(AGAIN, "")
    assert tag == (f"undecided after 24 prompts ({asks}): 48 more are asked" if asks else "")


def test_a_later_look_is_of_the_same_pictures_and_more_and_is_no_other_question(config, inputs, new_database, tmp_path):
    asked = json.loads((inputs["baseline"].path / "questions.json").read_text())
    more = {f"a {n}": f"a photo of a {{token_noun}} at {n}" for n in range(9)}
    common = {
        "base_model": asked["conditions"]["base_model"],
        "prompts": {"place": {**PROMPTS, **more}},
        "looks": [5],
        "seeds_per_prompt": 1,
        "sampling_steps": 1,
        "resolution": 32,
        "device": "cpu",
        "batch_size": 5,
        "work": str(tmp_path / "work"),
    }
    drawn = {}
    with active(new_database, tmp_path):
        for look in (1, 2):
            folders = {name: inputs[name].path for name in ("ingest", "caption", "train")}
            folders |= {step: tmp_path / f"{step}{look}" for step in ("baseline", "draw")}
            with mlflow.start_run():
                baseline.run(baseline.Config(**common, look=look), inputs, folders["baseline"])
                draw.run(draw.Config(**common, look=look), inputs, folders["draw"])
            out = tmp_path / f"out{look}"
            out.mkdir()
            with mlflow.start_run():
                evaluate.run(config, Inputs.from_paths(folders), out)
            settings = json.loads((out / "scores.json").read_text())["settings"]
            assert (settings["looks"], settings["prompts"]) == ([5, 14], (5, 14)[look - 1])
            images = (folders["draw"] / "images").rglob("*.png")
            drawn[look] = {path.relative_to(folders["draw"]): path.read_bytes() for path in images}
    assert drawn[1].items() < drawn[2].items()
    assert json.loads((tmp_path / "out2/diagnostics/earlier.json").read_text()) == []


def test_every_score_names_the_pictures_it_is_of_so_that_anybody_can_check_it(done, inputs):
    assert len(done.scores["pictures"]) == len(SUBJECTS) * len(PROMPTS)
    files = [row["file"] for row in done.scores["pictures"]]
    assert len(set(files)) == len(files)
    for row in done.scores["pictures"]:
        tuned, base = (
            Image.open(inputs[step].path / row[f]) for step, f in (("draw", "file"), ("baseline", "base_file"))
        )
        assert tuned.size == base.size == (32, 32)
        assert -1 <= row["likeness"] <= 1


def test_scores_written_are_those_of_the_pictures_drawn(done, config, inputs):
    from personalize.evaluation.judges import load

    row = done.scores["pictures"][3]
    (clip,) = load(config.judges[1:], "cpu")
    text = row["prompt"].replace(f"{row['token']} chair", "chair")
    again = float((clip.images([Image.open(inputs["draw"].path / row["file"])]) @ clip.texts([text]).T)[0, 0])
    assert again == pytest.approx(row["clip_t"], abs=1e-4)


def test_subjects_are_scored_apart_with_the_photographs_own_ceiling(done):
    for (token, _), of in zip(SUBJECTS, done.scores["subjects"], strict=True):
        assert of["token"] == token
        assert of["pictures"] == len(PROMPTS)
        assert -1 <= of["ceiling"]["likeness"] <= 1
        assert done.metrics[f"likeness.{token}"] == pytest.approx(of["likeness"]["tuned"])
    assert {"likeness", "likeness_base", "clip_t", "held_out", "likeness.clip", "gates_passed"} <= set(done.metrics)
    assert done.tags["verdict"] == "failed"
    assert done.pictures == [f"before_and_after/{token}.png" for token in ("brkchr", "zwvchr")]


def test_prompt_following_stands_beside_that_of_the_photographs_and_their_captions(done, config, inputs):
    from personalize.evaluation.judges import load

    (clip,) = load(config.judges[1:], "cpu")
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
    assert kinds.index("compare") < kinds.index("table"), "pictures come before numbers"
    assert page.count("<img") > 2 * len(SUBJECTS) * len(PROMPTS)
    assert "These models know nothing." in page
    assert "the museum, for this exhibition" in page
    assert "-e generate -P prompt=" in page
    assert "held out" in page


def test_the_card_escapes_what_prompts_say(done):
    assert "in a <b>" not in done.card.html()
    assert "in a &lt;b&gt;" in done.card.html()


def test_config_refuses_gates_that_make_no_sense(config):
    given = config.model_dump()
    with pytest.raises(ValidationError, match="no metric is called 'beauty'"):
        evaluate.Config(**{**given, "gates": [{"metric": "beauty", "kind": "superiority"}]})


def test_sources_name_models_by_content_or_by_commit(config):
    found = evaluate.sources(config)
    assert found.keys() == {"dino", "clip"}
    assert all(len(digest) > 30 for digest in found.values())
    given = {**config.model_dump(), "judges": [{"name": "clip", "model": "openai/clip", "revision": "c" * 40}]}
    assert evaluate.sources(evaluate.Config(**given)) == {"clip": f"openai/clip@{'c' * 40}"}


def instead(inputs: Inputs, **changed: Path) -> Inputs:
    return Inputs.from_paths({name: inputs[name].path for name in evaluate.NEEDS} | changed)


def test_a_subject_without_photographs_is_named(config, inputs, tmp_path):
    (tmp_path / "images").mkdir()
    rows = (inputs["ingest"].path / "images" / "metadata.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "images" / "metadata.jsonl").write_text("".join(row for row in rows if "zwvchr" not in row))
    with pytest.raises(RecipeError, match="no photograph of zwvchr chair"):
        evaluate.run(config, instead(inputs, ingest=tmp_path), tmp_path)


def test_pictures_that_were_not_drawn_alike_are_not_compared(config, inputs, tmp_path):
    asked = json.loads((inputs["draw"].path / "questions.json").read_text())
    asked["conditions"] |= {"sampling_steps": 2, "computed_on": "cuda"}
    (tmp_path / "questions.json").write_text(json.dumps({**asked, "seed": 5}))
    with pytest.raises(RecipeError) as refused:
        evaluate.run(config, instead(inputs, draw=tmp_path), tmp_path / "outputs")
    for words in ("seed 0 and 5", "sampling_steps 1 and 2", "and cuda", "-e clean -P step=draw"):
        assert words in str(refused.value)


def test_the_ceiling_of_prompt_following_is_of_whole_words(inputs, tmp_path):
    """A token that is part of another word stays there: `ra` is no part of "camera"."""
    rows = [json.loads(line) for line in (inputs["caption"].path / "metadata.jsonl").read_text().splitlines()]
    texts = [{**row, "text": row["text"].replace("zwvchr", "ra").replace("in snow", "by a camera on")} for row in rows]
    images = tmp_path / "ingest" / "images"
    images.mkdir(parents=True)
    listed = (
        (inputs["ingest"].path / "images" / "metadata.jsonl").read_text().replace('"token": "zwvchr"', '"token": "ra"')
    )
    (images / "metadata.jsonl").write_text(listed)
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    changed = instead(inputs, caption=tmp_path, ingest=tmp_path / "ingest")
    (photographs,) = evaluate.photographs_of(changed, [("ra", "chair")])
    assert {photograph.caption for photograph in photographs} == {"a photo of a chair by a camera on"}
    assert [photograph.held_out for photograph in photographs] == [True, False, False]


def test_words_of_the_card_count_in_no_fingerprint(config):
    assert not {"limits", "rights", "device"} & set(config.result_keys())
    assert {"gates", "level", "judges"} <= set(config.result_keys())


def test_an_evaluation_counts_the_earlier_ones_of_this_adapter_that_asked_otherwise(
    config, inputs, new_database, tmp_path
):
    """Whoever changes gates until one passes leaves a trace."""
    stricter = config.model_copy(update={"gates": config.gates[:1]})
    found = []
    with active(new_database, tmp_path):
        for turn, asked in enumerate((stricter, config, config)):
            with mlflow.start_run() as run:
                evaluate.run(asked, inputs, tmp_path / str(turn))
            found.append(json.loads((tmp_path / str(turn) / "diagnostics" / "earlier.json").read_text()))
    assert found[0] == []
    assert [(row["other"], row["verdict"]) for row in found[1]] == [(["gates"], "undecided")]
    assert found[2] == found[1], "the same asked again is no other question"
    assert run.info.run_id not in {row["run"] for row in found[2]}


def test_a_judge_that_cannot_tell_the_subjects_apart_decides_nothing(done):
    """Random weights see noise: what such a judge finds is written down, and passes nothing."""
    assert done.scores["examination"].keys() == {"dino", "clip"}
    assert not done.scores["examination"]["dino"]["fit"]
    assert "dino" in done.scores["unfit"]
    likeness = done.scores["gates"][0]
    assert likeness["verdict"] == "undecided"
    assert "cannot judge these photographs" in likeness["why"]
