"""Evaluations as the recipe leaves them on a tracking store, made in milliseconds: runs, pictures, scores, a card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import yaml
from PIL import Image

from personalize.evaluation.gates import Gate
from personalize.evidence import keys, package
from personalize.evidence.statement import Statement, write
from personalize.files import file_digest, tree_digest
from personalize.recipe import provenance
from personalize.recipe.fingerprint import Components, Lineage
from personalize.review import approval

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

COMMITTED = Lineage(commit="c0ffee" + "0" * 34)
PROMPTS = tuple(
    f"a photo of a {{}} {where}" for where in ("on grass", "in snow", "on sand", "at sea", "in a wood", "by a wall")
)
COLOURS = {"zwvchr": (200, 40, 40), "brkchr": (40, 60, 200), "lntchr": (40, 170, 60)}
GREY = (128, 128, 128)
SETTINGS = {
    "sampling_steps": 4,
    "resolution": 32,
    "judges": {"dino": "models/dino", "clip": "models/clip"},
    "level": 0.95,
}


@dataclass(frozen=True)
class Made:
    """The runs of an evaluation, by step; project: their parent."""

    project: str
    runs: Mapping[str, str]
    card: str

    @property
    def evaluate(self) -> str:
        return self.runs["evaluate"]


FOUND = {"passed": (0.4, 0.6), "failed": (-0.6, -0.4), "undecided": (-0.1, 0.1)}


def gate(said: str) -> dict[str, Any]:
    """A gate as scores.json has it, with what makes it so."""
    low, high = FOUND[said]
    answer = {"judge": "clip", "subject": "", "value": (low + high) / 2, "ci": [low, high], "verdict": said}
    asked = Gate(metric="clip_t", kind="threshold", threshold=0)
    return {
        "name": "clip_t threshold", "gate": asked.model_dump(mode="json"), "verdict": said, "answers": [answer],
        "why": "so it was found",
    }  # fmt: skip


def evaluation(
    place: Path,
    *,
    tokens: Sequence[str] = ("zwvchr", "brkchr"),
    prompts: Sequence[str] = PROMPTS,
    seeds: Sequence[int] = (1, 2),
    likeness: float = 0.8,
    weights: bytes = b"weights",
    gates: Sequence[str] = ("passed", "passed"),
    verdict: str = "passed",
    photographs: int = 6,
    settings: Mapping[str, Any] = SETTINGS,
    rank: int = 16,
    noise: int = 0,
    lineage: Lineage = COMMITTED,
    signers: Mapping[str, CryptoSigner | None] | None = None,
) -> Made:
    """In the store in use. signers: whose key a step's run is signed with, where it is not the own one.
    likeness: of the tuned pictures, which have the subject's colour; the base's are grey.

       A subject's seeds count up from its place, so that the same call with other weights asks the same questions.
    """
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(noise)
    rows, subjects = [], [{"token": token, "class_noun": "chair"} for token in tokens]
    captioned = []
    for s, token in enumerate(tokens):
        for number in range(photographs):
            name = f"chair/{token}/{number}.png"
            _picture(place / "ingest/outputs/images" / name, COLOURS[token], 10 * number)
            text = f"a photo of a {token} chair in a studio"
            captioned.append({"file_name": name, "token": token, "class_noun": "chair", "text": text})
        for p, prompt in enumerate(prompts):
            for seed in seeds:
                name, number = f"images/{token}/{p}-{seed}.png", 1000 * s + 100 * p + seed
                _picture(place / "draw/outputs" / name, COLOURS[token], seed)
                _picture(place / "baseline/outputs" / name, GREY, seed)
                luck = float(rng.normal(0, 0.02))
                rows.append(
                    {
                        "at": [s, p, seed], "file": name, "base_file": name, "token": token, "label": prompt[16:],
                        "prompt": prompt.format(f"{token} chair"), "seed": number, "likeness": likeness + luck,
                        "likeness_base": 0.2, "clip_t": 0.6, "clip_t_base": 0.6,
                        "fits_own_prompt_best": True, "recognised_as": token, "copied": False,
                    }
                )  # fmt: skip
    for step in ("ingest/outputs/images", "caption/outputs"):
        (place / step).mkdir(parents=True, exist_ok=True)
        (place / step / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in captioned))
    (place / "train/outputs/lora").mkdir(parents=True)
    (place / "train/outputs/lora/pytorch_lora_weights.safetensors").write_bytes(weights)
    (place / "evaluate/outputs").mkdir(parents=True)
    (place / "evaluate/card.html").write_text(CARD)
    scores: dict[str, Any] = {
        "verdict": verdict, "headline": "as it is", "reasons": ["the gates say so"], "subjects": subjects,
        "gates": [gate(said) for said in gates],
        "pictures": rows, "settings": dict(settings),
    }  # fmt: skip
    (place / "evaluate/outputs/scores.json").write_text(json.dumps(scores))
    client, experiment = mlflow.MlflowClient(), mlflow.set_experiment("steps").experiment_id
    project = client.create_run(experiment, tags={"recipe.name": "chairs"}, run_name=f"local · rank={rank}").info.run_id
    runs: dict[str, str] = {}
    statements: dict[str, Statement] = {}
    for step in ("ingest", "caption", "train", "baseline", "draw", "evaluate"):
        made = {"inputs": {name: f"run {of}" for name, of in runs.items()}, "config": {}}
        (place / step / "made.json").write_text(json.dumps(made))
        outputs = place / step / "outputs"
        components = Components(step, {}, {}, {}, {"photographs": "ab" * 16} if step == "ingest" else {}, {})
        tags = {"recipe.step": step, "mlflow.parentRunId": project, "recipe.fingerprint": components.digest}
        tags["recipe.outputs.files"] = str(sum(path.is_file() for path in outputs.rglob("*")))
        tags["recipe.outputs.digest"] = tree_digest(outputs)
        run = client.create_run(experiment, tags=tags, run_name=step).info.run_id
        given = {name: (of, statements[name]) for name, of in runs.items()}
        signer = signers[step] if signers and step in signers else keys.own()
        said = provenance.state(outputs, components, {}, given, lineage, run, signer)
        (place / step / provenance.NAME).write_text(said)
        client.log_artifacts(run, str(place / step))
        client.set_terminated(run)
        runs[step], statements[step] = run, provenance.parse(said)
    client.log_param(runs["train"], "train.rank", rank)
    client.set_tag(project, "recipe.step.evaluate", f"ran {runs['evaluate']}")
    client.set_terminated(project)
    return Made(project, runs, f"runs:/{runs['evaluate']}/card.html")


CARD = "<!doctype html><title>card</title><h1>The card</h1>"


def version(made: Made, place: Path, name: str = "chairs", weights: bytes = b"weights", **tags: str) -> str:
    """A registered version of an evaluation, as `register` leaves it, and the challenger. An empty tag is left out."""
    client = mlflow.MlflowClient()
    run = client.get_run(made.evaluate)
    scores = Path(run.info.artifact_uri.removeprefix("file://")) / "outputs" / "scores.json"
    evaluated = provenance.parse((scores.parents[1] / provenance.NAME).read_text())
    made_from = {
        "code": {"commits": provenance.commits(evaluated), "dirty": provenance.dirty(evaluated)},
        "card": made.card,
        "verdict": json.loads(scores.read_text())["verdict"],
        "runs": {"train": made.runs["train"], "evaluate": made.evaluate},
    }
    papers = {
        package.CARD: approval.artifact(made.card, "card").sha256,
        package.SCORES: file_digest(scores, "sha256"),
    }
    a_model(place, weights, papers, made_from)
    if not client.search_registered_models(f"name='{name}'"):
        client.create_registered_model(name)
    tags = {"card": made.card, "verdict": "passed", "evaluate_run": made.evaluate} | tags
    kept = {key: value for key, value in tags.items() if value}
    registered = client.create_model_version(name, source=place.as_uri(), tags=kept)
    client.set_registered_model_alias(name, "challenger", registered.version)
    return str(registered.version)


def a_model(place: Path, weights: bytes, papers: Mapping[str, str], made_from: Mapping[str, Any]) -> None:
    """The files of a model as MLflow and the package lay them out, without anything in them that would load."""
    contents = {
        "artifacts/adapter/pytorch_lora_weights.safetensors": weights,
        "artifacts/base/model_index.json": b"{}",
        "code/personalize/__init__.py": b"",
        "model.py": b"",
    }
    for path, content in contents.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(content)
    held = {"config": {"device": "cpu"}, "packages": ["mlflow"]}
    flavor = {
        "loader_module": package.LOADER,
        "code": "code",
        "model_code_path": "/somewhere/model.py",
        "artifacts": {part: {"path": f"artifacts/{part}"} for part in ("base", "adapter", "evidence")},
        "config": held["config"],
    }
    (place / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": flavor}}))
    (place / "requirements.txt").write_text("mlflow")
    (place / "conda.yaml").write_text(yaml.safe_dump({"dependencies": ["python=3.11", {"pip": ["mlflow"]}]}))
    subjects = {path: file_digest(place / path, "sha256") for path in contents}
    (place / package.PLACE).parent.mkdir(parents=True)
    (place / package.PLACE).write_text(write(subjects | papers, package.KIND, held | made_from, keys.own()))


def _picture(path: Path, colour: tuple[int, int, int], shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (32, 32), tuple(min(255, part + shade) for part in colour)).save(path)
