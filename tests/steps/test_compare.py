"""Compare: several evaluations on their common questions; each misuse is one clear sentence."""

import json
from pathlib import Path

import mlflow
import pytest

from personalize.cards import Card
from personalize.recipe import Inputs, RecipeError
from steps import compare
from tests.review.world import PROMPTS, SETTINGS, evaluation
from tests.steps.conftest import perform


def run(tmp_path: Path, *runs: str) -> tuple[dict, Card]:
    outputs = tmp_path / "compared"
    with mlflow.start_run():
        card = perform("compare", compare.Config(runs=",".join(runs)), Inputs({}), outputs)
    return json.loads((outputs / "comparison.json").read_text()), card


def test_each_is_compared_with_the_first_picture_by_picture(store, tmp_path):
    worse = evaluation(tmp_path / "a", likeness=0.5, noise=1)
    better = evaluation(tmp_path / "b", likeness=0.8, noise=2, weights=b"others", rank=8)
    alike = evaluation(tmp_path / "c", likeness=0.5, noise=3, weights=b"third")
    found, card = run(tmp_path, worse.evaluate, better.project, alike.evaluate)
    assert found["questions"] == 2 * len(PROMPTS) * 2
    ahead, even = (of["overall"]["likeness"] for of in found["differences"])
    assert ahead["ci"][0] > 0.25
    assert ahead["value"] == pytest.approx(0.3, abs=0.03)
    assert even["ci"][0] < 0 < even["ci"][1]
    assert {"zwvchr", "brkchr"} == set(found["differences"][0]["subjects"])
    assert found["trained_with"] == {"train.rank": ["16", "8", "16"]}
    page = card.html()
    assert "B against A: better in likeness to the photographs" in page
    assert "C against A: no difference that could not be chance" in page
    assert found["same_weights"] == []
    assert len(found["grid"]) == 2 * len(PROMPTS)
    assert all((tmp_path / "compared" / file).is_file() for row in found["grid"] for file in row["files"])


def test_only_what_all_were_asked_counts_and_a_prompt_counts_once_whatever_its_pictures(store, tmp_path):
    first = evaluation(tmp_path / "a", likeness=0.5, seeds=(1, 2))
    other = evaluation(tmp_path / "b", likeness=0.7, seeds=(2, 3), prompts=PROMPTS[:5], tokens=("zwvchr",))
    found, _ = run(tmp_path, first.evaluate, other.evaluate)
    assert (found["questions"], found["prompts"], found["subjects"]) == (5, 5, ["zwvchr"])


def test_looks_and_champions_may_differ_and_looks_widen_the_intervals(store, tmp_path):
    def width(name: str, **settings) -> float:
        first, other = (
            evaluation(tmp_path / f"{name}{n}", noise=n, weights=f"{name}{n}".encode(), settings=SETTINGS | of)
            for n, of in enumerate(({}, settings))
        )
        low, high = run(tmp_path, first.evaluate, other.evaluate)[0]["differences"][0]["overall"]["likeness"]["ci"]
        return high - low

    once = width("a", champion={"version": "3"})
    assert width("b", looks=[6, 12, 18]) > 1.03 * once


def test_the_same_weights_evaluated_twice_are_called_so(store, tmp_path):
    runs = [evaluation(tmp_path / name, noise=n).evaluate for n, name in enumerate("ab")]
    found, card = run(tmp_path, *runs)
    assert found["same_weights"] == ["B"]
    assert "B has the very weights of A" in card.html()


def test_with_fewer_than_five_common_prompts_no_interval_is_claimed(store, tmp_path):
    runs = [evaluation(tmp_path / name, prompts=PROMPTS[:4], weights=name.encode()).evaluate for name in "ab"]
    found, card = run(tmp_path, *runs)
    assert found["differences"][0]["overall"]["likeness"]["ci"] is None
    assert "too few prompts" in card.html()


def test_the_card_can_be_drawn_when_the_runs_are_gone(store, tmp_path):
    runs = [evaluation(tmp_path / name, weights=name.encode()).evaluate for name in "ab"]
    run(tmp_path, *runs)
    from steps.cards.compare import show

    for run_id in runs:
        mlflow.MlflowClient().delete_run(run_id)
    card = Card("compare")
    show(compare.Config(), Inputs({}), tmp_path / "compared", card)
    assert "Side by side" in card.html()


def test_every_misuse_is_one_sentence_that_names_it(store, tmp_path):
    made = evaluation(tmp_path / "a")
    elsewhere = evaluation(tmp_path / "b", tokens=("lntchr",), weights=b"others")
    judged = evaluation(tmp_path / "c", weights=b"third", settings={**SETTINGS, "judges": {"dino": "another"}})
    broken = evaluation(tmp_path / "d", weights=b"fourth")
    scores = Path(mlflow.get_run(broken.evaluate).info.artifact_uri.removeprefix("file://")) / "outputs/scores.json"
    scores.write_text("{}")
    with mlflow.start_run(tags={"recipe.step": "evaluate"}) as unfinished:
        pass
    mlflow.MlflowClient().set_terminated(unfinished.info.run_id, "FAILED")
    with mlflow.start_run() as plain:
        pass
    for runs, words in [
        ((), r"takes 2 to 10 runs, not 0"),
        ((made.evaluate,), r"takes 2 to 10 runs, not 1"),
        ((made.evaluate, "f" * 32), r"run f{32} is not in the tracking store"),
        ((made.evaluate, made.runs["draw"]), r"is a run of step 'draw', and one of 'evaluate' is needed"),
        ((made.evaluate, plain.info.run_id), r"has no finished 'evaluate'"),
        ((made.evaluate, unfinished.info.run_id), r"of step 'evaluate' is failed"),
        ((made.evaluate, made.project), r"are the same evaluation"),
        ((made.evaluate, made.evaluate), r"are the same evaluation"),
        ((made.evaluate, elsewhere.evaluate), r"no question in common .*A: brkchr, zwvchr in 6 prompts"),
        ((made.evaluate, judged.evaluate), r"not drawn and judged alike: judges .* and .*another"),
        ((made.evaluate, broken.evaluate), r"is no evaluation that can be compared: .* scores.json was changed"),
    ]:
        with mlflow.start_run(), pytest.raises(RecipeError, match=words) as refused:
            compare.run(compare.Config(runs=",".join(runs)), Inputs({}), tmp_path / "none")
        assert "\n" not in str(refused.value)
