"""Does the verdict let a broken model pass, or a good one fail? Models whose worth is known, judged by the gates.

    python -m benchmarks.gates [--questions 3] [--only NAME ...]

Good models are trained as the profile says, with other seeds, ranks and subjects. Broken ones are made in three ways: a
good one's pictures are spoilt (`edits`), its adapter is, or the training itself was done wrong (`models`). All answer
the profile's questions from several sets of seeds, and are judged with all subjects, with two and with one: the first
of a broken model, which is where it is broken, each in turn of a good one. Where that leaves one undecided it is asked
again with the prompts that were kept back, as the recipe does. Runs are kept and reused like any other
(experiment `gates`), and what was judged already is not judged again (`--out`), so it can be stopped and goes on.
Prints what passed and what caught the rest; writes benchmarks/results/gates.json.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gates.edits import EDITS, NEED_TWO, Answers, Edit, Given, listed
from benchmarks.gates.models import ADAPTERS, GOOD, WRONG, Model
from benchmarks.gates.pictures import Picture
from personalize.evaluation import drawings, faults, judges
from personalize.evaluation.drawings import Drawings, Photograph
from personalize.evaluation.faults import Flags, Traces
from personalize.evaluation.gates import Gate, is_open, prompts_wanted, verdict
from personalize.evaluation.images import open_rgb
from personalize.evaluation.measure import Seen, combined, measure, pictures
from personalize.evaluation.scorecard import judge_all
from personalize.evaluation.scores import Pictures, Scores
from personalize.files import file_digest, read_json, value_digest, write_text


@dataclass(frozen=True)
class Asked:
    """Which set of seeds, and at which look."""

    number: int
    look: int = 1


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

    def drawn(self, model: Model, asked: Asked) -> tuple[Drawings, Drawings, list[list[Photograph]]]:
        """Base, tuned and the right photographs of a model that is trained now or was before."""
        from personalize.recipe import Inputs, Recipe
        from steps.evaluate import NEEDS, photographs_of

        overrides = {**model.overrides, "baseline.questions_seed": asked.number, "baseline.look": asked.look}
        if model.photographs is not None:
            overrides["DATA"] = str(self._photographs(model))
        recipe = Recipe(self.profile, overrides=overrides)
        for step in ("baseline", "draw"):
            recipe.run(step)
        folders = {step: recipe.get_artifact(step) for step in NEEDS}
        base, tuned = (drawings.load(folders[step]) for step in ("baseline", "draw"))
        photographs = photographs_of(Inputs.from_paths(folders), base.questions.subjects)
        return base, tuned, self.drawn(GOOD[0], asked)[2] if model.misled else photographs

    def _photographs(self, model: Model) -> Path:
        from personalize.recipe import Recipe

        assert model.photographs is not None
        folder = Path("build/gates/photographs") / model.name.replace(" ", "-")
        if not folder.is_dir():
            plain = Recipe(self.profile)
            plain.run("prior")
            half = folder.with_name(folder.name + ".partial")
            shutil.rmtree(half, ignore_errors=True)
            shutil.copytree(self.config.steps["ingest"]["data"].value, half)
            model.photographs(half, plain.get_artifact("prior"))
            half.rename(folder)
        return folder


def subset(scores: Scores, subjects: Sequence[int]) -> Scores:
    """The same evaluation with these subjects alone."""
    chosen = [*subjects, *range(len(scores.photographs), len(scores.photographs) + len(scores.nouns))]

    def of(pictures: Pictures) -> Pictures:
        return Pictures(
            {name: values[chosen] for name, values in pictures.features.items()},
            {name: values[chosen] for name, values in pictures.qualities.items()},
        )

    drawn = {side: of(pictures) for side, pictures in scores.drawn.items()}
    return replace(scores, photographs=[scores.photographs[s] for s in subjects], drawn=drawn)


def spoilt(
    scores: Scores,
    given: Given,
    seen: Seen,
    base: Traces,
    answers: Answers,
    jury: Sequence[judges.Judge],
) -> Scores:
    """The evaluation with these pictures as the tuned model's.

    seen: what was found of those that it drew, which are not looked at again; base: traces of what the base drew.
    """
    flat = listed(answers)
    other = [at for at, (new, old) in enumerate(zip(flat, listed(given.tuned), strict=True)) if new is not old]

    def put(own: np.ndarray, new: np.ndarray) -> np.ndarray:
        both = own.copy()
        both[other] = new
        return both

    if other:
        seen = combined(put, seen, Seen.of([flat[at] for at in other], jury))

    def placed(values: np.ndarray) -> np.ndarray:
        return values.reshape(len(answers), len(answers[0]), len(answers[0][0]), *values.shape[1:])

    def upright(name: int) -> Sequence[Picture]:
        return given.photographs[name] if name < len(given.photographs) else listed([given.base[name]])

    def on_heads(laid: Flags) -> Flags:
        return faults.upside_down(laid, lambda at: answers[at[0]][at[1]][at[2]], upright, judges.reader(jury))

    tuned = pictures(combined(placed, seen), base.map(placed), given.known, on_heads)
    return replace(scores, drawn={**scores.drawn, "tuned": tuned})


def opened(drawn: Drawings) -> Answers:
    asked = drawn.questions
    return [
        [[open_rgb(drawn.paths.of(n, p, k)) for k in range(asked.seeds_per_prompt)] for p in range(len(asked.prompts))]
        for n in range(len(asked.names))
    ]


def cases(bench: Bench, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str, int, Callable[[int], Scores]]]:
    """(worth, name, number of the questions, scores at a look) of every model, those that cost a training last."""

    def answers(model: Model, asked: Asked) -> Scores:
        base, tuned, photographs = bench.drawn(model, asked)
        return measure(photographs, {"base": base, "tuned": tuned}, bench.judges, {})

    for number in range(bench.questions):
        spoil = functools.cache(lambda look, n=number: Spoiling(bench, Asked(n, look)))
        if wanted(GOOD[0].name):
            yield GOOD[0].worth, GOOD[0].name, number, lambda look, s=spoil: s(look).scores
        edits = {name: edit for name, edit in EDITS.items() if wanted(name)}
        for name, edit in edits.items():
            yield "broken", name, number, lambda look, e=edit, s=spoil: s(look).by(e)
    for number in range(bench.questions):
        for name, scale in ADAPTERS.items():
            if wanted(name):
                yield "broken", name, number, lambda look, x=scale, n=number: rescaled(bench, x, Asked(n, look))
        for model in (*WRONG, *GOOD[1:]):
            if wanted(model.name):
                yield model.worth, model.name, number, lambda look, m=model, n=number: answers(m, Asked(n, look))


class Spoiling:
    """The profile's own model's pictures, opened once for all edits."""

    def __init__(self, bench: Bench, asked: Asked) -> None:
        self.bench, self.asked = bench, asked

    @cached_property
    def drawn(self) -> tuple[Drawings, Drawings, list[list[Photograph]]]:
        return self.bench.drawn(GOOD[0], self.asked)

    @cached_property
    def scores(self) -> Scores:
        base, tuned, photographs = self.drawn
        return measure(photographs, {"base": base, "tuned": tuned}, self.bench.judges, {})

    @cached_property
    def given(self) -> Given:
        base, tuned, photographs = self.drawn
        return Given(opened(tuned), opened(base), [[open_rgb(one.path) for one in of] for of in photographs])

    @cached_property
    def seen(self) -> Seen:
        return Seen.of(listed(self.given.tuned), self.bench.judges)

    @cached_property
    def base(self) -> Traces:
        return faults.traces(listed(self.given.base))

    def by(self, edit: Edit) -> Scores:
        answers = edit(self.given)
        return spoilt(self.scores, self.given, self.seen, self.base, answers, self.bench.judges)


def rescaled(bench: Bench, scale: float, asked: Asked) -> Scores:
    """The profile's own model with its adapter at another strength."""
    from personalize.dreambooth.sampling import Sampling, load_pipeline, merge_adapter, sample
    from personalize.recipe import Recipe

    base, _, photographs = bench.drawn(GOOD[0], asked)
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
        of_batch = [rows[row] for row in batch]
        files = book.drawn(of_batch, lambda some: sample(pipe, *zip(*some, strict=True), sampling, len(some)))
        pictures |= dict(zip(batch, files, strict=True))
    folder = Path("build/gates") / value_digest(about)[:16] / f"{asked.number}-{asked.look}"
    drawn = drawings.Drawings(folder, base.questions, how)
    drawings.save(drawn, pictures)
    return measure(photographs, {"base": base, "tuned": drawn}, bench.judges, {})


def groups(count: int, worth: str, name: str) -> list[tuple[int, ...]]:
    """Which subjects of `count` are judged together."""
    fewer = [tuple(range(first, first + size)) for size in (2, 1) for first in range(count - size + 1) if size < count]
    if worth == "broken":
        fewer = [group for group in fewer if group[0] == 0 and len(group) >= (2 if name in NEED_TWO else 1)]
    return [tuple(range(count)), *fewer]


def judged(bench: Bench, scores: Callable[[int], Scores], worth: str, name: str) -> Iterator[dict[str, Any]]:
    at = functools.cache(scores)
    for subjects in groups(len(at(1).photographs), worth, name):
        for look in range(1, max(1, len(at(1).looks)) + 1):
            judgements = judge_all(subset(at(look), subjects), bench.evaluate.gates)
            if not is_open(verdict(judgements), prompts_wanted(judgements)):
                break
        called = {id(each): f"{each.name}{' each' if each.gate.each else ''}" for each in judgements}
        against = {word: [called[id(j)] for j in judgements if j.verdict == word] for word in ("failed", "undecided")}
        found = {called[id(j)]: [j.found.value, j.found.low, j.found.high] for j in judgements if j.found is not None}
        rounded = {name: [round(value, 4) for value in values] for name, values in found.items()}
        yield {"subjects": list(subjects), "look": look, "verdict": verdict(judgements), **against, "found": rounded}


def write_results(path: Path, gates: Sequence[Gate], rows: Sequence[Mapping[str, Any]]) -> None:
    """By which gates, and what each model came to: JSON, one of either on a line."""
    listed = {"gates": [gate.model_dump(mode="json") for gate in gates], "rows": rows}
    parts = [
        f'"{name}": [\n' + ",\n".join(json.dumps(one, ensure_ascii=False, allow_nan=False) for one in of) + "\n]"
        for name, of in listed.items()
    ]
    write_text(path, "{" + ", ".join(parts) + "}\n")


def summary(rows: Sequence[Mapping[str, Any]]) -> None:
    print("\n| model | worth | judged | passed | what caught it, or kept it from passing |\n|---|---|---|---|---|")
    for name in dict.fromkeys(row["model"] for row in rows):
        own = [row for row in rows if row["model"] == name]
        against = [gate.split()[0] for row in own for gate in (row["failed"] or row["undecided"])]
        often = sorted(set(against), key=lambda gate: -against.count(gate))[:4]
        passed = sum(row["verdict"] == "passed" for row in own)
        print(f"| {name} | {own[0]['worth']} | {len(own)} | {passed} | {', '.join(often)} |")
    print("\n| worth | subjects | judged | passed | undecided | failed |\n|---|---|---|---|---|---|")
    for worth in ("good", "broken"):
        for subjects in (5, 2, 1):
            of = [row["verdict"] for row in rows if row["worth"] == worth and len(row["subjects"]) == subjects]
            counts = " | ".join(str(of.count(word)) for word in ("passed", "undecided", "failed"))
            print(f"| {worth} | {subjects} | {len(of)} | {counts} |")


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
        for found in judged(bench, scores, worth, name):
            rows.append({"model": name, "worth": worth, "questions": number, **found})
            print(f"{name}, questions {number}, subjects {found['subjects']}: look {found['look']}, {found['verdict']} "
                  f"{found['failed'] or found['undecided']}", flush=True)  # fmt: skip
        write_results(given.out, bench.evaluate.gates, rows)
    summary(rows)


if __name__ == "__main__":
    main()
