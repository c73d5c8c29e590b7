"""Packaging: a trained adapter and its base model become an MLflow model that serves anywhere, with no network.

Or the adapter alone, of some 20 MB, and the digests of a base that the server has or finds (`serving.base`).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from modulefinder import ModuleFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personalize.evidence import package as evidence
from personalize.files import file_digest, tree_files, write_text
from personalize.hub import Device, Dtype
from personalize.serving.request import ANSWER, INPUTS, NUMBERS, PARAMS, Defaults, Limits
from personalize.serving.safety import NONE, Policy, module_of

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo

PROJECT = Path(__file__).resolve().parents[2]
MODEL = PROJECT / "personalize" / "serving" / "model.py"
APP = PROJECT / "personalize" / "serving" / "app.py"

REQUIREMENTS = (
    "mlflow",
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "huggingface-hub",
    "filelock",
    "numpy",
    "pandas",
    "pillow",
    "securesystemslib",
    "cryptography",
    "c2pa-python",
)


def modules(more: str = "") -> list[str]:
    """The files of this project that the served model reaches by imports, at module level or inside functions.

    Relative to the project, sorted; `serving/model.py` itself, which MLflow carries by itself, is not among them.
    more: a module that is asked for by name; where it is not the project's own, the server has to have it installed.
    """
    finder = ModuleFinder([str(PROJECT)])  # nothing else is on its path, so it follows the project's own modules only
    for script in (MODEL, APP):
        finder.run_script(str(script))
    if more:
        with contextlib.suppress(ImportError):
            finder.import_hook(more)
    found = {getattr(module, "__file__", None) for module in finder.modules.values()}  # built-in ones have none
    return sorted(Path(file).relative_to(PROJECT).as_posix() for file in found if file and file != str(MODEL))


def signature(concrete: bool = False) -> ModelSignature:
    """Inputs, outputs and params, spelled out. Numbers come in as they are, and the model itself checks them.

    As `long`, MLflow would fail on a batch where one row has a seed and another has none, and make 1 of 1.5 without a
    word; as `double` it refuses a frame of whole numbers. For Unity Catalog, which wants `concrete` types, they are
    doubles all the same: JSON callers write whole numbers as they like, a pandas frame needs floats (`seed=7.0`).
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    text, number, whole = DataType.string, DataType.double, DataType.long
    inputs: dict[str, Any] = {name: text for name in INPUTS if name not in NUMBERS}
    inputs |= dict.fromkeys(NUMBERS, number if concrete else AnyType())
    inputs["model_version"] = text if concrete else AnyType()
    outputs = {name: {str: text, int: whole, float: number}[kind] for name, kind in ANSWER.items()}
    params = dict.fromkeys(PARAMS, text) | {"timeout_s": number, "partial": DataType.boolean}
    return ModelSignature(
        inputs=Schema([ColSpec(kind, name, required=name == "prompt") for name, kind in inputs.items()]),
        outputs=Schema([ColSpec(kind, name) for name, kind in outputs.items()]),
        params=ParamSchema([ParamSpec(name, kind, None) for name, kind in params.items()]),
    )


def requirements() -> list[str]:
    """The serving environment: the versions at work here, pinned exactly."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]


def log(
    base: Path,
    adapter: Path,
    *,
    input_example: pd.DataFrame,
    fingerprint: str = "",
    device: Device = "auto",
    dtype: Dtype = "float32",
    defaults: Defaults | None = None,
    limits: Limits | None = None,
    safety: str = NONE,
    policy: Policy = "withhold",
    name: str = "model",
    registered_name: str | None = None,
    tags: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    reference: Mapping[str, Any] | None = None,
    state: Callable[[Mapping[str, str], Mapping[str, Any]], str] | None = None,
    model_id: str | None = None,
) -> ModelInfo:
    """Logs the model to the active run, and registers a version of it when `registered_name` is given.

    `base` is a complete SDXL folder (`backbone.local_folder`); `adapter` holds `pytorch_lora_weights.safetensors` and
    `subjects.json`. Both are copied into the model; with a `reference` (`serving.base.refer`) the base is not.

    safety: `module:function` of a check, see `personalize.serving.safety`; a file of this project travels along.
    state: makes the statement that the model carries, from the sha256 of its files by name and from what else is to be
    as it is (`config`, `packages`); without one it is unsigned.
    model_id: of a logged model that is pending, to go on with.
    """
    import mlflow

    defaults, limits = defaults or Defaults(), limits or Limits()
    config = {
        "device": device,
        "dtype": dtype,
        "fingerprint": fingerprint,
        "defaults": {**asdict(defaults.sampling), "format": defaults.format},
        "limits": asdict(limits),
        "safety": {"entry": safety, "policy": policy},
        **({evidence.BASE: dict(reference)} if reference is not None else {}),
    }
    with tempfile.TemporaryDirectory() as scratch:
        made = {
            "artifacts/adapter": _adapter(adapter, Path(scratch) / "adapter"),
            evidence.CODE: _code(Path(scratch) / "code", module_of(safety)),
        }
        if reference is None:
            made["artifacts/base"] = _weights(base, Path(scratch) / "base")
        subjects = {f"{top}/{name}": digest for top, at in made.items() for name, digest in tree_files(at).items()}
        subjects[evidence.SERVED] = file_digest(MODEL, "sha256")
        held = {"config": config, "packages": requirements()}
        statement = state(subjects, held) if state else evidence.unsigned(subjects, held)
        write_text(Path(scratch) / evidence.ARTIFACT / evidence.FILE, statement)
        with nothing_compiled():
            return mlflow.pyfunc.log_model(
                name=name,
                python_model=str(MODEL),
                artifacts={
                    **{top.partition("/")[2]: str(at) for top, at in made.items() if top.startswith("artifacts/")},
                    evidence.ARTIFACT: str(Path(scratch) / evidence.ARTIFACT),
                },
                code_paths=[str(path) for path in sorted(made[evidence.CODE].iterdir())],
                signature=signature(concrete=str(mlflow.get_registry_uri()).startswith("databricks-uc")),
                input_example=input_example,
                pip_requirements=held["packages"],
                model_config=config,
                registered_model_name=registered_name,
                await_registration_for=1800,
                tags=dict(tags or {}),
                metadata=dict(metadata or {}),
                model_id=model_id,
            )


@contextlib.contextmanager
def nothing_compiled() -> Iterator[None]:
    """Python leaves no compiled code beside what it imports: a model holds what was signed, and no more."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def artifact_of(name: str, version: str | int, artifact: str) -> Path:
    """The folder of one artifact that a registered version carries, and nothing else of it.

    `adapter` has weights and `subjects.json`.
    """
    return artifact_in(f"models:/{name}/{version}", artifact)


def artifact_in(address: str, artifact: str) -> Path:
    """The same of a model by the address of its files, where `models:/` has names and versions only."""
    import mlflow

    return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{address}/artifacts/{artifact}"))


def _code(folder: Path, more: str = "") -> Path:
    for module in modules(more):
        (folder / module).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(PROJECT / module, folder / module)
    return folder


def _weights(base: Path, folder: Path) -> Path:
    """The files of `base` that loading needs and no others (a hub folder may hold every weight three times)."""
    from personalize.dreambooth.backbone import files

    for file in files(base):
        _place(base / file, folder / file)
    return folder


def _adapter(adapter: Path, folder: Path) -> Path:
    needed: Sequence[str] = ("pytorch_lora_weights.safetensors", "subjects.json")
    for name in needed:
        if not (adapter / name).is_file():
            raise ValueError(f"adapter folder {str(adapter)!r} has no {name}. The train step writes it.")
        _place(adapter / name, folder / name)
    return folder


def _place(source: Path, target: Path) -> None:
    """A hard link where the disk allows it: MLflow copies the bytes anyway, and SDXL has seven gigabytes of them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
