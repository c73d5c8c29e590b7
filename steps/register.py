"""Register: the trained model as a version that serves anywhere.   needs: train, evaluate   gives: model_version.json

A pyfunc from code (no pickle) that carries base weights and adapter, so serving needs no network. It is logged, loaded
again and asked for a picture; only what has answered is registered, as `challenger`, tagged with the verdict, the
card's address and where it comes from.

A model whose gates failed is registered as well: people want to look at it, and its card is the reason why not. It is
tagged `verdict=failed`, and promote refuses it.
"""

from __future__ import annotations

import base64
import io
import json
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from personalize.cards import Card
from personalize.files import file_digest, tree_digest
from personalize.recipe import Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models.model import ModelInfo
    from PIL.Image import Image

    from personalize.photographs.prompts import Subject
    from personalize.serving.request import Defaults, Limits

NEEDS = ("train", "evaluate")
CODE = ("personalize/serving/model.py",)

ADAPTER = "lora/pytorch_lora_weights.safetensors"


class Config(StepConfig):
    name: str = Field(
        "personalize", min_length=1, description="Registered model; catalog.schema.model in Unity Catalog"
    )
    base_model: str = Field("models/sdxl", description="Folder of the base model, or its Hugging Face name")
    base_revision: str | None = Field(None, description="Commit of a Hugging Face base model (40 hexadecimal digits)")
    resolution: int = Field(1024, ge=64, multiple_of=8, description="Side in pixels where a request gives none")
    sampling_steps: int = Field(25, ge=1, description="Denoising steps where a request gives none")
    guidance_scale: float = Field(5.0, ge=0, description="Guidance where a request gives none")
    negative_prompt: str = Field("", description="Negative prompt where a request gives none")
    format: Literal["webp", "png", "jpeg"] = Field("webp", description="Encoding where a request gives none")
    max_rows: int = Field(16, ge=1, description="Rows that a request may have")
    max_images: int = Field(8, ge=1, description="Pictures that a request may ask for")
    max_steps: int = Field(100, ge=1, description="Denoising steps that a request may ask for")
    max_pixels: int | None = Field(
        None, ge=64 * 64, description="Pixels that a picture may have; none is 1.5 times the default size"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the served model draws")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Precision the served model draws in"
    )


def sources(config: Config) -> Mapping[str, str]:
    """The base model, by content or by commit."""
    folder = Path(config.base_model)
    return {"base model": tree_digest(folder) if folder.is_dir() else f"{config.base_model}@{config.base_revision}"}


def run(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    from personalize.dreambooth.backbone import local_folder
    from personalize.photographs.prompts import load_subjects
    from personalize.serving import package, registry

    registry.check_name(config.name)
    train, scores = inputs["train"].path, _scores(inputs["evaluate"].path)
    subjects = load_subjects(train)
    example = _example(subjects)
    print("packing base weights and adapter into a model", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        adapter = _gathered(train, Path(folder))
        tags = _tags(config, inputs, subjects, scores)
        info = package.log(
            local_folder(config.base_model, config.base_revision, config.dtype),
            adapter,
            input_example=example,
            fingerprint=inputs["train"].fingerprint,
            device=config.device,
            dtype=config.dtype,
            defaults=_defaults(config),
            limits=_limits(config),
            tags=tags,
        )
    print("loading it as a server would and asking it for a picture", flush=True)
    answer, picture = _ask(info, example)
    version = _register(config, info, tags, scores)
    told = {
        "name": config.name,
        "version": str(version.version),
        "uri": f"models:/{config.name}/{version.version}",
        "model_id": str(info.model_id or ""),
        "alias": registry.CHALLENGER,
    }
    (outputs / "model_version.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    picture.save(outputs / "sample.png")
    _show(config, told, tags, scores, subjects, answer, picture, card)
    print(f"registered {config.name} version {version.version} (challenger), verdict {scores['verdict']}", flush=True)


def _scores(folder: Path) -> dict[str, Any]:
    try:
        scores: dict[str, Any] = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        if scores["verdict"] not in ("passed", "failed", "undecided"):
            raise ValueError(f"verdict {scores['verdict']!r}")
    except (OSError, ValueError, KeyError) as error:
        raise RecipeError(f"{folder / 'scores.json'} has no verdict ({error}); run evaluate again.") from error
    return scores


def _gathered(train: Path, folder: Path) -> Path:
    """The adapter and its subjects in one folder, as the package wants them."""
    for name in (ADAPTER, "subjects.json"):
        if not (train / name).is_file():
            raise RecipeError(f"{train / name} is missing; run train again.")
        shutil.copyfile(train / name, folder / Path(name).name)
    return folder


def _example(subjects: list[Subject]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([{"prompt": subjects[0].instance_prompt, "seed": 0.0}])


def _defaults(config: Config) -> Defaults:
    from personalize.dreambooth.sampling import Sampling
    from personalize.serving.request import Defaults

    side = config.resolution
    return Defaults(
        Sampling(config.sampling_steps, config.guidance_scale, side, side, config.negative_prompt), config.format
    )


def _limits(config: Config) -> Limits:
    from personalize.serving.request import Limits

    pixels = config.max_pixels or config.resolution**2 * 3 // 2
    return Limits(rows=config.max_rows, images=config.max_images, steps=config.max_steps, pixels=pixels)


def _tags(config: Config, inputs: Inputs, subjects: list[Subject], scores: Mapping[str, Any]) -> dict[str, str]:
    """What a person in the registry must see without opening a run: may it be promoted, what is it, where is it from.

    Unity Catalog takes at most 1000 characters, and none of . , - = / : in a key.
    """
    import mlflow

    run = mlflow.active_run()
    lineage = {k: v for k, v in run.data.tags.items() if k.startswith("lineage.")} if run else {}
    tags = {
        "verdict": scores["verdict"],
        "rights": scores.get("rights", ""),
        "card": inputs["evaluate"].card,
        "fingerprint": inputs["train"].fingerprint,
        "subjects": ", ".join(subject.name for subject in subjects),
        "tokens": ", ".join(subject.token for subject in subjects),
        "base_model": config.base_model,
        "base_revision": sources(config)["base model"],
        "adapter_md5": file_digest(inputs["train"].path / ADAPTER),
        "train_run": inputs["train"].run_id,
        "evaluate_run": inputs["evaluate"].run_id,
        "commit": lineage.get("lineage.commit", ""),
        "dirty": lineage.get("lineage.dirty", ""),
    }
    return {key: value[:1000].strip() for key, value in tags.items() if value}


def _ask(info: ModelInfo, example: pd.DataFrame) -> tuple[dict[str, Any], Image]:
    """Loads what was logged, from where it was logged to, and draws the example. Raises where it does not answer."""
    import mlflow
    from PIL import Image

    answer = mlflow.pyfunc.load_model(info.model_uri).predict(example).iloc[0].to_dict()
    picture = Image.open(io.BytesIO(base64.b64decode(answer.pop("image"), validate=True)))
    picture.load()
    if picture.size != (answer["width"], answer["height"]):
        raise RuntimeError(f"the logged model drew {picture.size} where it said {answer['width']} × {answer['height']}")
    return answer, picture


def _register(config: Config, info: ModelInfo, tags: dict[str, str], scores: dict[str, Any]) -> ModelVersion:
    import mlflow

    from personalize.serving.registry import CHALLENGER

    version = mlflow.register_model(info.model_uri, config.name, await_registration_for=1800, tags=tags)
    client = mlflow.MlflowClient()
    client.update_model_version(config.name, version.version, _described(tags, scores))
    client.set_registered_model_alias(config.name, CHALLENGER, version.version)
    return version


def _described(tags: dict[str, str], scores: dict[str, Any]) -> str:
    """Markdown for the version's page in the registry."""
    gates = "\n".join(f"- {gate['name']}: {gate['verdict']}" for gate in scores.get("gates", []))
    return (
        f"Subjects: {tags['subjects']}\n\nVerdict: **{tags['verdict']}**\n\n{gates}\n\n"
        f"Card: `mlflow artifacts download -u {tags['card']}`"
    )


def _show(
    config: Config,
    told: dict[str, str],
    tags: dict[str, str],
    scores: dict[str, Any],
    subjects: list[Subject],
    answer: dict[str, Any],
    picture: Image,
    card: Card,
) -> None:
    reasons = [f"{gate['name']}: {gate['verdict']}" for gate in scores.get("gates", [])]
    card.verdict(scores["verdict"], f"{config.name} version {told['version']} is the challenger", reasons)
    card.outcome(scores["verdict"], prompt=shlex.quote(f"{subjects[0].instance_prompt} on the beach"))
    if scores["verdict"] != "passed":
        card.warning(f"The gates say {scores['verdict']}: promote will refuse this version.")
    card.facts({"model": config.name, "version": told["version"], "alias": told["alias"], "address": told["uri"]})
    card.images(
        "Drawn by the registered model, loaded as a server loads it",
        [(picture, f"{answer['prompt']} · seed {answer['seed']} · {answer['latency_ms']:.0f} ms")],
        columns=1,
        width=320,
    )
    with card.section("Use it"):
        prompt = subjects[0].instance_prompt
        body = json.dumps({"dataframe_records": [{"prompt": prompt, "seed": 7}]}, ensure_ascii=False)
        if scores["verdict"] == "passed":
            card.code("Promote it", "mlflow run . --env-manager local -e promote -P approved_by=... -P reason=...")
        card.code(
            "Serve it here", f"mlflow models serve -m {told['uri']} --env-manager local --port 5001 --timeout 300"
        )
        card.code(
            "curl",
            "curl -s http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' \\\n"
            f"  -d '{body}' | python -c 'import base64, json, sys; row = json.load(sys.stdin)[\"predictions\"][0]; "
            'open("picture." + row["format"], "wb").write(base64.b64decode(row["image"]))\'',
        )
        card.code(
            "Python",
            "import base64, mlflow, pandas as pd\n\n"
            f'model = mlflow.pyfunc.load_model("{told["uri"]}")\n'
            f"rows = pd.DataFrame([{{'prompt': {prompt!r}, 'seed': 7.0}}])  # numbers in a frame are floats\n"
            "row = model.predict(rows).iloc[0]\n"
            "open('picture.' + row['format'], 'wb').write(base64.b64decode(row['image']))",
        )
    with card.section("What a request may say", open=False):
        from personalize.serving.request import INPUTS

        card.table("Columns of a row", ["column", "meaning"], [[name, meaning] for name, meaning in INPUTS.items()])
    with card.section("Where it comes from", open=False):
        card.table("Tags of the version", ["tag", "value"], [[key, value] for key, value in tags.items()])
