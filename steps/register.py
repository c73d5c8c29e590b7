"""Register: the trained model as a version that serves anywhere.   needs: train, evaluate   gives: model_version.json

A pyfunc from code (no pickle) that carries base weights and adapter, so serving needs no network; or the adapter alone,
and the digests of a base that the server finds (`base: referenced`). It is logged, loaded again and asked for a
picture; only what has answered is registered, as `challenger`, tagged with the verdict, the
card's address and where it comes from. What evaluate measured stands on the pages of the model and of its version.

A model whose gates failed is registered as well: people want to look at it, and its card is the reason why not. It is
tagged `verdict=failed`, and promote refuses it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from personalize import hub
from personalize.evidence.trust import Trust
from personalize.files import file_digest, read_json, value_digest, write_json
from personalize.photographs.prompts import Words
from personalize.recipe import HOW_NOT_WHAT, Input, Inputs, RecipeError, StepConfig
from personalize.serving.safety import Policy, load, module_of

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion as RegisteredVersion

    from personalize.photographs.prompts import Subject
    from personalize.serving.endpoint import Prediction
    from personalize.serving.request import Defaults, Limits

NEEDS = ("train", "evaluate")
ACTS = True
CODE = ("personalize/serving/model.py",)

MADE_AS = "registered_as"
"""Tag of a version: the fingerprint of the step that registered it, by which a killed one finds what it has done."""
ADAPTER = "lora/pytorch_lora_weights.safetensors"
CARRIED = (ADAPTER, "subjects.json")
"""Of what train made, what the model carries."""


class Config(StepConfig):
    name: str = Field(
        "personalize", min_length=1, description="Registered model; catalog.schema.model in Unity Catalog"
    )
    rights: str = Field("", description="Who allowed the use of the photographs; a tag of the version")
    base_model: str = Field("models/sdxl", description="Folder of the base model, or its Hugging Face name")
    base_revision: str | None = Field(None, description="Commit of a Hugging Face base model (40 hexadecimal digits)")
    base: Literal["carried", "referenced"] = Field(
        "carried", description="Whether a version has the base in it, or names it by digest and is some 20 MB"
    )
    base_version: str = Field(
        "",
        pattern=r"^(models:/.+)?$",
        description="referenced: a registered version that carries the base, where servers find it: models:/x/1",
    )
    resolution: int = Field(1024, ge=32, multiple_of=8, description="Side in pixels where a request gives none")
    sampling_steps: int = Field(25, ge=1, le=1000, description="Denoising steps where a request gives none")
    guidance_scale: float = Field(5.0, ge=0, description="Guidance where a request gives none")
    negative_prompt: Words = Field("", description="Negative prompt where a request gives none")
    format: Literal["webp", "png", "jpeg"] = Field("webp", description="Encoding where a request gives none")
    max_rows: int = Field(16, ge=1, description="Rows that a request may have")
    max_images: int = Field(8, ge=1, description="Pictures that a request may ask for")
    max_steps: int = Field(100, ge=1, description="Denoising steps that a request may ask for")
    aspect_ratio_buckets: bool = Field(
        True, description="Draw in all sizes of training's aspect-ratio buckets; otherwise in squares alone"
    )
    max_batch: int = Field(
        16, ge=1, le=64, description="Pictures drawn at once; 1 makes them equal to the byte whoever else asks"
    )
    max_queue: int = Field(64, ge=1, description="Pictures of default size and steps that may wait; then comes 429")
    safety: str = Field("none", description="A look at each picture before it is sent: none, or <module>:<function>")
    safety_policy: Policy = Field("withhold", description="What becomes of a picture in which it found something")
    device: hub.Device = Field("auto", description="Where the served model draws")
    dtype: hub.Dtype = Field("float32", description="Precision the served model draws in")
    trust: Trust = Field(
        Trust(), description="The trust policy: the key to sign the model with", json_schema_extra=HOW_NOT_WHAT
    )


def sources(config: Config) -> Mapping[str, str]:
    """The base model, by content or by commit; the safety check, where it is a file of this project."""
    from personalize.serving.package import PROJECT, modules

    base = {"base model": hub.identity(config.base_model, config.base_revision)}
    module = module_of(config.safety)
    if not module:
        return base
    more = sorted(set(modules(module)) - set(modules()))
    return base | {"safety check": value_digest({name: file_digest(PROJECT / name) for name in more})}


def check(config: Config) -> None:
    """Before anything is trained: the registry takes a model of this name, and from us.

    Raises:
        ValueError: it does not; the message says what is missing and who can give it.
    """
    import mlflow

    from personalize.serving import registry

    registry.check_name(config.name)
    load(config.safety)
    if str(mlflow.get_registry_uri()).startswith("databricks-uc"):
        from personalize.databricks.governance import check_model
        from personalize.databricks.workspace import connect

        check_model(connect(), config.name)
    if config.base_version:
        _reference(config)


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    import mlflow

    from personalize.dreambooth.backbone import local_folder
    from personalize.photographs.prompts import load_subjects
    from personalize.serving import package, registry

    registry.check_name(config.name)
    train, scores = inputs["train"].path, _scores(inputs["evaluate"].path)
    if missing := next((name for name in CARRIED if not (train / name).is_file()), ""):
        raise RecipeError(f"{train / missing} is missing; run train again.")
    subjects = load_subjects(train)
    example = _example(subjects)
    tags, limits = _tags(config, inputs, subjects, scores), _limits(config)
    earlier = registry.with_tag(config.name, MADE_AS, tags.get(MADE_AS, ""))
    if earlier is not None and not _carries(f"models:/{config.name}/{earlier.version}", tags["adapter_md5"]):
        earlier = None  # a tag is not believed
    logged = registry.logged_with_tag(MADE_AS, tags.get(MADE_AS, "")) if earlier is None else None
    if logged is not None and not _carries(logged.artifact_location, tags["adapter_md5"]):
        logged = None
    if earlier is not None:
        print(f"version {earlier.version} is this very model, of a run that did not end; it is taken up", flush=True)
        model_uri, model_id = f"models:/{config.name}/{earlier.version}", registry.model_id(earlier)
    elif logged is not None:
        print(f"{logged.model_uri} is this very model, of a run that did not register it; it is taken up", flush=True)
        model_uri, model_id = logged.model_uri, logged.model_id
    else:
        reference = _reference(config) if config.base == "referenced" else None
        print(f"packing {'' if reference else 'base weights and '}the adapter into a model", flush=True)
        with tempfile.TemporaryDirectory() as folder, _going_on(tags) as begun:
            info = package.log(
                local_folder(config.base_model, config.base_revision, config.dtype),
                _gathered(train, Path(folder)),
                input_example=example,
                fingerprint=inputs["train"].fingerprint,
                device=config.device,
                dtype=config.dtype,
                defaults=_defaults(config),
                limits=limits,
                safety=config.safety,
                policy=config.safety_policy,
                tags=tags,
                reference=reference,
                state=lambda subjects, held: _statement(config, inputs, tags, subjects, held),
                model_id=begun,
            )
        model_uri, model_id = info.model_uri, info.model_id
    metrics = _headline(inputs["evaluate"].metrics)
    if metrics and model_id:
        mlflow.log_metrics(metrics, model_id=model_id)
    print("loading it as a server would and asking it for a picture", flush=True)
    sample = _ask(config, model_uri, example)
    description = _described(tags, scores["gates"], metrics, inputs["evaluate"])
    version = registry.challenge(earlier or _registered(model_uri, config.name, tags), description)
    sample.open().save(outputs / "sample.png")
    answer = dict(sample.facts)
    write_json(outputs / "diagnostics/speed.json", {"latency_ms": answer.pop("latency_ms")})
    write_json(
        outputs / "model_version.json",
        {
            "name": version.name,
            "version": version.version,
            "uri": version.uri,
            "model_id": str(model_id or ""),
            "alias": registry.CHALLENGER,
            "verdict": scores["verdict"],
            "gates": scores["gates"],
            "subjects": [subject.to_json() for subject in subjects],
            "answer": answer,
            "sizes": limits.sizes,
            "tags": tags,
        },
    )
    print(f"registered {version} (challenger), verdict {scores['verdict']}", flush=True)


def _reference(config: Config) -> dict[str, Any]:
    """What the version says of a base that it does not carry.

    Raises RecipeError where the version that is said to carry it does not.
    """
    from personalize.dreambooth.backbone import local_folder
    from personalize.evidence import package
    from personalize.evidence.statement import EvidenceError
    from personalize.serving import base, registry
    from personalize.serving.checking import check_model

    folder = local_folder(config.base_model, config.base_revision, config.dtype)
    if not config.base_version:
        return base.refer(folder, config.base_model, config.base_revision)
    carrier = registry.resolve(config.base_version)
    said = base.refer(folder, config.base_model, config.base_revision, carrier.uri)
    try:
        statement, _ = check_model(carrier)
    except EvidenceError as error:
        raise RecipeError(f"register.base_version: {carrier} has {error}.") from error
    if package.reference(statement) is not None or package.base_files(statement) != said["files"]:
        raise RecipeError(
            f"register.base_version: {carrier} does not carry {hub.label(config.base_model, config.base_revision)}. "
            "Name a version that was registered with base: carried and this base."
        )
    return said


def _scores(folder: Path) -> dict[str, Any]:
    """The verdict, and each gate's name and verdict."""
    from personalize.evaluation.recorded import read_scores, verdict_of

    try:
        scores = read_scores(folder / "scores.json")
        verdict_of(scores)
        gates = [{"name": gate["name"], "verdict": gate["verdict"]} for gate in scores.get("gates", [])]
    except (ValueError, KeyError) as error:
        raise RecipeError(f"{folder / 'scores.json'} has no verdict ({error}); run evaluate again.") from error
    return {"verdict": scores["verdict"], "gates": gates}


def _carries(address: str, adapter_md5: str) -> bool:
    """Whether the model at an address has this very adapter in it."""
    from personalize.serving.package import artifact_in

    return file_digest(artifact_in(address, "adapter") / Path(ADAPTER).name) == adapter_md5


@contextlib.contextmanager
def _going_on(tags: Mapping[str, str]) -> Iterator[str | None]:
    """The id of the logged model of these tags whose upload to a workspace was cut before, where there is one.

    An upload inside that is cut can be gone on with by the next run.
    """
    import mlflow

    from personalize.serving import registry

    if not str(mlflow.get_tracking_uri()).startswith("databricks"):
        yield None
        return
    from personalize.databricks import registration

    begun = registry.logged_with_tag(MADE_AS, tags.get(MADE_AS, ""), "PENDING")
    if begun is not None:
        print(f"{begun.model_uri} is this very model, and its upload was cut; it is gone on with", flush=True)
        mlflow.set_logged_model_tags(begun.model_id, dict(tags))
    with registration.going_on():
        yield begun.model_id if begun else None


def _registered(model_uri: str, name: str, tags: Mapping[str, str]) -> RegisteredVersion:
    """A logged model as the newest version of `name`; into Unity Catalog, an upload that was cut goes on."""
    import mlflow

    from personalize.serving import registry

    if str(mlflow.get_registry_uri()).startswith("databricks-uc"):
        from personalize.databricks import registration

        return registration.register(model_uri, name, tags)
    return registry.register(model_uri, name, tags)


def _gathered(train: Path, folder: Path) -> Path:
    """The adapter and its subjects in one folder, as the package wants them."""
    for name in CARRIED:
        shutil.copyfile(train / name, folder / Path(name).name)
    return folder


def _example(subjects: Sequence[Subject]) -> pd.DataFrame:
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
    from personalize.dreambooth.backbone import shapes
    from personalize.serving.request import Limits

    sizes = shapes(
        config.base_model, config.base_revision, config.dtype, config.resolution, config.aspect_ratio_buckets
    )
    return Limits(
        rows=config.max_rows,
        images=config.max_images,
        steps=config.max_steps,
        sizes=[(size.width, size.height) for size in sizes],
        batch=config.max_batch,
        queue=float(config.max_queue * config.resolution**2 * config.sampling_steps),
    )


def _headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """What evaluate measured over all subjects: not those of one subject (`dino.bcnchr`), nor of its machine."""
    return {name: value for name, value in metrics.items() if "." not in name and not name.startswith("system/")}


def _tags(config: Config, inputs: Inputs, subjects: Sequence[Subject], scores: Mapping[str, Any]) -> dict[str, str]:
    """What a person in the registry must see without opening a run: may it be promoted, what is it, where is it from.

    Unity Catalog takes at most 1000 characters, and none of . , - = / : in a key.
    """
    import mlflow

    run = mlflow.active_run()
    lineage = {k: v for k, v in run.data.tags.items() if k.startswith("lineage.")} if run else {}
    tags = {
        "verdict": scores["verdict"],
        "rights": config.rights,
        "card": inputs["evaluate"].card,
        "fingerprint": inputs["train"].fingerprint,
        MADE_AS: run.data.tags.get("recipe.fingerprint", "") if run else "",
        "subjects": ", ".join(subject.name for subject in subjects),
        "tokens": ", ".join(subject.token for subject in subjects),
        "base_model": config.base_model,
        "base_revision": sources(config)["base model"],
        "base": config.base,
        "adapter_md5": file_digest(inputs["train"].path / ADAPTER),
        "train_run": inputs["train"].run_id,
        "evaluate_run": inputs["evaluate"].run_id,
        "compared_with": _compared_with(inputs["evaluate"].path),
        "earlier_evaluations": _earlier(inputs["evaluate"].path / "diagnostics" / "earlier.json"),
        "commit": lineage.get("lineage.commit", ""),
        "dirty": lineage.get("lineage.dirty", ""),
    }
    return {key: value[:1000].strip() for key, value in tags.items() if value.strip()}


def _compared_with(evaluated: Path) -> str:
    """The version that was the champion when this model was evaluated; empty where none was asked the same."""
    champion = read_json(evaluated / "scores.json").get("settings", {}).get("champion")
    return champion["version"] if champion else ""


def _statement(
    config: Config, inputs: Inputs, tags: Mapping[str, str], subjects: Mapping[str, str], held: Mapping[str, Any]
) -> str:
    """What the model is made of and what it comes from, signed: it carries this itself."""
    import mlflow

    from personalize.evaluation.recorded import read_scores, verdict_of
    from personalize.evidence import keys, package
    from personalize.evidence.statement import write
    from personalize.recipe import provenance
    from personalize.review import approval

    run, evaluated = mlflow.active_run(), inputs["evaluate"].statement
    scores = inputs["evaluate"].path / "scores.json"
    papers = {
        package.CARD: approval.artifact(inputs["evaluate"].card, "evaluation card").sha256,
        package.SCORES: file_digest(scores, "sha256"),
    }
    own = ["register"] if tags.get("dirty") != "false" else []
    made_from = {
        "code": {
            "commits": provenance.commits(evaluated) if evaluated else [],
            "dirty": [*(provenance.dirty(evaluated) if evaluated else []), *own],
        },
        "data": provenance.data(evaluated) if evaluated else {},
        "base": tags["base_revision"],
        "trainer": provenance.trainer(evaluated) if evaluated else "",
        "rights": config.rights,
        "lock": provenance.dependency(evaluated, "lock").get("digest", {}).get("sha256", "") if evaluated else "",
        "verdict": verdict_of(read_scores(scores)),
        "card": inputs["evaluate"].card,
        "runs": {
            "train": inputs["train"].run_id,
            "evaluate": inputs["evaluate"].run_id,
            "register": run.info.run_id if run else "",
        },
    }
    signer = keys.own(config.trust.key)
    if signer is None:
        print("unsigned: there is no signing key, so the model says what it is made of, and not whose word that is")
    return write({**subjects, **papers}, package.KIND, {**held, **made_from}, signer)


def _earlier(file: Path) -> str:
    """How often this very adapter was evaluated before with other questions, judges or gates; empty where never."""
    found = read_json(file) if file.is_file() else []
    return str(len(found) or "")


def _ask(config: Config, model_uri: str, example: pd.DataFrame) -> Prediction:
    """Loads what was logged, from where it was logged to, and draws the example. Raises where it does not answer."""
    import mlflow

    from personalize.serving.endpoint import check_smoke, predictions
    from personalize.serving.package import nothing_compiled

    with nothing_compiled():
        model = mlflow.pyfunc.load_model(model_uri)
    asked = {"width": config.resolution, "height": config.resolution}
    try:
        return check_smoke(lambda _: predictions({"predictions": model.predict(example).to_dict("records")}), asked)
    finally:
        model.unwrap_python_model().close()


def _described(
    tags: Mapping[str, str], gates: Sequence[Mapping[str, str]], metrics: Mapping[str, float], evaluate: Input
) -> str:
    """Markdown for the version's page in the registry, with a link that opens the card there.

    The metrics are repeated in it because MLflow's own registry, unlike Unity Catalog, shows a version none.
    """
    import mlflow

    from personalize.cards.links import card_link, parts

    run_id, path = parts(evaluate.card)
    link = card_link(mlflow.MlflowClient().get_run(run_id).info.experiment_id, run_id, path)
    paragraphs = [
        f"Subjects: {tags['subjects']}",
        f"Verdict: **{tags['verdict']}**",
        "\n".join(f"- {gate['name']}: {gate['verdict']}" for gate in gates),
        "Measured:" if any(f"{name}_base" in metrics for name in metrics) else "",
        "\n".join(
            f"- {name} {value:.3g} (base {metrics[f'{name}_base']:.3g})"
            for name, value in metrics.items()
            if f"{name}_base" in metrics
        ),
        f"[Evaluation card]({link}), the artifact {evaluate.card}",
    ]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
