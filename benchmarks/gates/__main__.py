"""Does the verdict let a broken model pass, or a good one fail? Models whose worth is known, judged by the gates.

    python -m benchmarks.gates [--questions 3] [--only NAME ...]

Good models are trained as the profile says, with other seeds and ranks. Broken ones are made in three ways: a good
one's pictures are spoilt (`edits`), its adapter is, or the training itself was done wrong. All answer the profile's
questions from several sets of seeds, and are judged with all subjects, with two and with one. Runs are kept and reused
like any other (experiment `gates`), and what was judged already is not judged again (`--out`), so it can be stopped and
goes on. Prints what passed and what caught the rest; writes benchmarks/results/gates.json.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.gates.edits import EDITS, NEED_TWO, Answers, Given
from personalize.evaluation import drawings, judges, quality
from personalize.evaluation.drawings import Drawings, Photograph, open_rgb
from personalize.evaluation.gates import verdict
from personalize.evaluation.measure import measure
from personalize.evaluation.scorecard import judge_all
from personalize.evaluation.scores import Pictures, Scores
from personalize.files import file_digest, read_json, value_digest, write_json

Overrides = dict[str, Any]

GOOD: dict[str, Overrides] = {
    "as the profile says": {},
    "another seed": {"SEED": 1},
    "a third seed": {"SEED": 2},
    "rank 16": {"train.rank": 16},
    "rank 64": {"train.rank": 64},
    "a third more steps": {"train.max_train_steps": 640},
}
WRONG: dict[str, Overrides] = {
    "starved": {"train.max_train_steps": 60, "train.validation_every": 0},
    "half starved": {"train.max_train_steps": 140, "train.validation_every": 0},
    "rate too high": {"train.learning_rate": 1e-2, "train.max_train_steps": 200, "train.validation_every": 0},
    "overfitted": {
        "train.prior_loss_weight": 0,
        "train.caption_dropout": 0,
        "train.lr_scheduler": "constant",
        "train.max_train_steps": 900,
        "train.validation_every": 0,
    },
    "no class images": {"train.prior_loss_weight": 0, "train.validation_every": 0},
}
ADAPTERS: dict[str, float] = {
    "adapter at 0": 0.0,
    "adapter at 0.3": 0.3,
    "adapter at 2": 2.0,
    "adapter at -1": -1.0,
}
"""A good model's adapter, its change multiplied."""


class Bench:
    """The recipe under a profile, and everything that judging needs, once."""

    def __init__(self, profile: str, questions: int) -> None:
        self.profile, self.questions = profile, questions

    @cached_property
    def config(self) -> Any:
        from personalize.recipe.config import load

        return load(Path.cwd(), self.profile, [])

    @cached_property
    def evaluate(self) -> Any:
        from steps.evaluate import Config

        return Config(**{key: value.value for key, value in self.config.steps["evaluate"].items()})

    @cached_property
    def judges(self) -> list[judges.Judge]:
        return judges.load([one for one in self.evaluate.judges if one.decides], self.evaluate.device)

    def drawn(self, overrides: Mapping[str, Any], number: int) -> tuple[Drawings, Drawings, list[list[Photograph]]]:
        """Base, tuned and photographs of a model that is trained now or was before."""
        from personalize.recipe import Inputs, Recipe
        from steps.evaluate import NEEDS, photographs_of

        recipe = Recipe(self.profile, overrides={**overrides, "baseline.questions_seed": number})
        for step in ("baseline", "draw"):
            recipe.run(step)
        folders = {step: recipe.get_artifact(step) for step in NEEDS}
        base, tuned = (drawings.load(folders[step]) for step in ("baseline", "draw"))
        return base, tuned, photographs_of(Inputs.from_paths(folders), base.questions.subjects)


def subset(scores: Scores, subjects: int) -> Scores:
    """The same evaluation with the first subjects alone."""
    chosen = [*range(subjects), *range(len(scores.photographs), len(scores.photographs) + len(scores.nouns))]

    def of(pictures: Pictures) -> Pictures:
        return Pictures(
            {name: values[chosen] for name, values in pictures.features.items()},
            {name: values[chosen] for name, values in pictures.qualities.items()},
        )

    drawn = {side: of(pictures) for side, pictures in scores.drawn.items()}
    return replace(scores, photographs=scores.photographs[:subjects], drawn=drawn)


def spoilt(scores: Scores, answers: Answers, jury: Sequence[judges.Judge]) -> Scores:
    """The evaluation with these pictures as the tuned model's."""
    shape = len(answers), len(answers[0]), len(answers[0][0])
    flat = [picture for prompts in answers for seeds in prompts for picture in seeds]
    named = quality.by_name(*quality.measured(flat), shape)
    features = {judge.name: judge.images(flat).reshape(*shape, -1) for judge in jury}
    return replace(scores, drawn={**scores.drawn, "tuned": Pictures(features, named)})


def opened(drawn: Drawings) -> Answers:
    asked = drawn.questions
    return [
        [[open_rgb(drawn.paths.of(n, p, k)) for k in range(asked.seeds_per_prompt)] for p in range(len(asked.prompts))]
        for n in range(len(asked.names))
    ]


def cases(bench: Bench, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str, int, Callable[[], Scores]]]:
    """(worth, name, number of the questions, scores) of every model, dear ones last."""

    def model(overrides: Overrides, number: int) -> Scores:
        base, tuned, photographs = bench.drawn(overrides, number)
        return measure(photographs, {"base": base, "tuned": tuned}, bench.judges, {})

    for number in range(bench.questions):
        for name, overrides in GOOD.items():
            if wanted(name):
                yield "good", name, number, lambda o=overrides, n=number: model(o, n)
        edits = {name: edit for name, edit in EDITS.items() if wanted(name)}
        if edits:
            base, tuned, photographs = bench.drawn({}, number)
            given = Given(opened(tuned), opened(base), [[open_rgb(one.path) for one in of] for of in photographs])
            scores = model({}, number)
            for name, edit in edits.items():
                yield "broken", name, number, lambda e=edit, g=given, s=scores: spoilt(s, e(g), bench.judges)
        for name, scale in ADAPTERS.items():
            if wanted(name):
                yield "broken", name, number, lambda x=scale, n=number: rescaled(bench, x, n)
        for name, overrides in WRONG.items():
            if wanted(name):
                yield "broken", name, number, lambda o=overrides, n=number: model(o, n)


def rescaled(bench: Bench, scale: float, number: int) -> Scores:
    """The profile's own model with its adapter at another strength."""
    from personalize.dreambooth.sampling import Sampling, load_pipeline, merge_adapter, sample
    from personalize.recipe import Recipe

    base, _, photographs = bench.drawn({}, number)
    how = base.conditions
    lora = Recipe(bench.profile).get_artifact("train") / "lora"
    pipe = load_pipeline(how["base_model"], device="cpu", lora=lora)
    merge_adapter(pipe, scale)
    sampling = Sampling(how["sampling_steps"], how["guidance_scale"], how["resolution"], how["resolution"])
    rows = list(zip(*base.questions.rows(), strict=True))
    about = {**how, "adapter": f"{file_digest(lora / 'pytorch_lora_weights.safetensors')} at {scale}"}
    book = drawings.Sketchbook(Path("build/drawings"), about)
    pictures: dict[int, Path] = {}
    for batch in base.questions.batches(how["batch_size"]):
        asked = [rows[row] for row in batch]
        files = book.drawn(asked, lambda some: sample(pipe, *zip(*some, strict=True), sampling, len(some)))
        pictures |= dict(zip(batch, files, strict=True))
    folder = Path("build/gates") / value_digest(about)[:16] / str(number)
    drawn = drawings.save(folder, base.questions, how, pictures)
    return measure(photographs, {"base": base, "tuned": drawn}, bench.judges, {})


def judged(bench: Bench, scores: Scores, name: str) -> Iterator[dict[str, Any]]:
    for subjects in sorted({len(scores.photographs), 2, 1}, reverse=True):
        if subjects < 2 and name in NEED_TWO:
            continue
        judgements = judge_all(subset(scores, subjects), bench.evaluate.gates)
        called = {id(each): f"{each.name}{' each' if each.gate.each else ''}" for each in judgements}
        against = {word: [called[id(j)] for j in judgements if j.verdict == word] for word in ("failed", "undecided")}
        found = {called[id(j)]: [j.found.value, j.found.low, j.found.high] for j in judgements if j.found is not None}
        rounded = {name: [round(value, 4) for value in values] for name, values in found.items()}
        yield {"subjects": subjects, "verdict": verdict(judgements), **against, "found": rounded}


def summary(rows: Sequence[Mapping[str, Any]]) -> None:
    print("\n| model | worth | judged | passed | what caught it, or kept it from passing |\n|---|---|---|---|---|")
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        against = [gate.split()[0] for row in own for gate in (row["failed"] or row["undecided"])]
        often = sorted(set(against), key=lambda gate: -against.count(gate))[:4]
        passed = sum(row["verdict"] == "passed" for row in own)
        print(f"| {name} | {own[0]['worth']} | {len(own)} | {passed} | {', '.join(often)} |")
    for worth in ("good", "broken"):
        of = [row for row in rows if row["worth"] == worth]
        passed = sum(row["verdict"] == "passed" for row in of)
        print(f"\n{worth}: {passed} of {len(of)} passed")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gates", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--profile", default="local")
    parser.add_argument("--questions", type=int, default=3, help="sets of seeds")
    parser.add_argument("--only", nargs="*", default=[], help="models whose name holds one of these")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gates.json"))
    given = parser.parse_args()
    os.environ["MLFLOW_EXPERIMENT_NAME"] = "gates"
    bench = Bench(given.profile, given.questions)
    rows: list[dict[str, Any]] = read_json(given.out)["rows"] if given.out.is_file() else []
    for worth, name, number, scores in cases(bench, lambda name: not given.only or any(x in name for x in given.only)):
        if any((row["model"], row["questions"]) == (name, number) for row in rows):
            continue
        for found in judged(bench, scores(), name):
            rows.append({"model": name, "worth": worth, "questions": number, **found})
            print(f"{name}, questions {number}, {found['subjects']} subjects: {found['verdict']} "
                  f"{found['failed'] or found['undecided']}", flush=True)  # fmt: skip
        write_json(given.out, {"gates": [gate.model_dump(mode="json") for gate in bench.evaluate.gates], "rows": rows})
    summary(rows)


if __name__ == "__main__":
    main()
