"""The gpu profile from the first byte to a picture from the registry, with random weights, on a card or without one.

    python -m tests.hub.rehearsal                  SDXL's full sizes, on the CPU: half an hour on two cores, 20 GB of
                                                   memory, 60 of disk
    python -m tests.hub.rehearsal --device cuda    the same on the card, at 1024 px: minutes
    python -m tests.hub.rehearsal --tiny           at toy width

`mlflow run . -P profile=gpu` fetches its models from the double of the hub, goes through every step to a registered
model, and a process of its own loads that from the registry and asks it for a picture. Only what makes it small is
said otherwise: pictures, steps and prompts, and without a card also device, resolution and memory level. The most
memory that all its processes held together is kept for each step: as `rehearsal_peak_memory_gb` of its run, in the
JSON (`--out`) and in a table.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import psutil
import torch
import yaml

from benchmarks import sdxl
from miniature.pretrain import random_models
from personalize.evidence import keys
from personalize.files import write_json
from tests.checkout import clone
from tests.hub import listings
from tests.hub.server import Content, Hub, Repository, serving
from tests.photographs.models import write_chat_model, write_clipseg

ROOT = Path(__file__).resolve().parents[2]
PROFILE = yaml.safe_load((ROOT / "profiles" / "gpu.yaml").read_text(encoding="utf-8"))
STEPS = ("ingest", "caption", "prior", "train", "baseline", "draw", "evaluate", "register")
METRIC = "rehearsal_peak_memory_gb"
PROMPTS = {"place": {name: f"a photo of a {{token_noun}} {name}" for name in ("on the beach", "in the snow")}}
SHORT = {
    "MASKS": "model",
    "PRIOR_IMAGES": 4,
    "max_train_steps": 10,
    "VALIDATION_EVERY": 10,
    "VALIDATION_PROMPTS": 1,
    "baseline.prompts": json.dumps(PROMPTS),
    "SEEDS_PER_PROMPT": 1,
}
SMALL = {
    "DEVICE": "cpu",
    "RESOLUTION": 128,
    "PRIOR_IMAGES": 2,
    "prior.sampling_steps": 1,
    "max_train_steps": 2,
    "BATCH_SIZE": 1,
    "PRIOR_BATCH_SIZE": 1,
    "VALIDATION_EVERY": 2,
    "train.validation_sampling_steps": 1,
    "train.memory": "balanced",
    "EVALUATION_STEPS": 1,
    "register.sampling_steps": 1,
}
"""Without a card, beside what is short everywhere."""
ASK = """
import sys, mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
answer = model.predict(pd.DataFrame([{"prompt": "a photo of a orbchr chair", "seed": 7.0}]))
print(answer["width"][0], answer["height"][0], len(answer["image"][0]))
"""


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m tests.hub.rehearsal", description=__doc__.split("\n\n")[0])
    parser.add_argument("--tiny", action="store_true", help="toy width")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it is computed")
    parser.add_argument("--dtype", help="of the base; the profile's where the device computes in it")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "rehearsal.json")
    given = parser.parse_args(words)
    given.dtype = given.dtype or usual(given.device)
    with tempfile.TemporaryDirectory(prefix="rehearsal-") as folder:
        place = Path(folder)
        print("making models with random weights", flush=True)
        repositories = made(place / "models", sdxl.TINY if given.tiny else sdxl.FULL, given)
        photographs = photographed(place / "photographs")
        with serving(repositories) as hub:
            environment = surroundings(place, hub.endpoint)
            clone(place / "project")
            found = rehearsed(place, photographs, given, environment)
            found["fetched"] = {name: fetched(hub, name) for name in repositories}
    found |= {"sizes": "toy" if given.tiny else "SDXL 1.0", "dtype": given.dtype, "device": given.device}
    write_json(given.out, found)
    print(table(found))
    return found


def usual(device: str) -> str:
    """The profile's, unless the CPU would have to imitate it: that takes some fifty times as long as float32."""
    able = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return str(PROFILE["DTYPE"]) if able else "float32"


def fetched(hub: Hub, name: str) -> int:
    """Bytes of a repository that went over the line."""
    files = hub.repositories[name].files
    return sum(count for path, count in hub.fetched(name).items() if path in files)


# What there is to fetch.


def made(folder: Path, sizes: sdxl.Sizes, given: argparse.Namespace) -> dict[str, Repository]:
    """Every repository that the profile names, at its commit: its real names of files, random weights, clutter."""
    random_models(folder)
    _dinov2(folder / "dinov2", folder / "dino")
    write_chat_model(folder / "chat")
    write_clipseg(folder / "clipseg", folder / "clip")
    judges = {judge["name"]: judge for judge in PROFILE["JUDGES"]}
    of = {
        (PROFILE["CHAT_MODEL"], PROFILE["CHAT_REVISION"]): (listings.CHAT, "chat"),
        (PROFILE["MASK_MODEL"], PROFILE["MASK_REVISION"]): (listings.CLIPSEG, "clipseg"),
        (judges["clip"]["model"], judges["clip"]["revision"]): (listings.CLIP, "clip"),
        (judges["dino"]["model"], judges["dino"]["revision"]): (listings.DINO, "dino"),
        (judges["dinov2"]["model"], judges["dinov2"]["revision"]): (listings.DINOV2, "dinov2"),
    }
    found = {name: _repository(commit, names, _files(folder / here)) for (name, commit), (names, here) in of.items()}
    found[PROFILE["BASE_MODEL"]] = _repository(
        PROFILE["BASE_REVISION"], listings.SDXL, _base(folder / "base", sizes, given)
    )
    return found


def _base(folder: Path, sizes: sdxl.Sizes, given: argparse.Namespace) -> dict[str, Content]:
    """In the one precision that is fetched; of 2023, when tokenizers had no tokenizer.json."""
    sdxl.write(folder, sizes, getattr(torch, given.dtype), given.device)
    files = {name: content for name, content in _files(folder).items() if not name.endswith("tokenizer.json")}
    half = given.dtype != "float32"
    return {
        name.replace(".safetensors", ".fp16.safetensors") if half else name: content for name, content in files.items()
    }


def _dinov2(folder: Path, like: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16, "image_size": 32}
    Dinov2Model(Dinov2Config(**size)).save_pretrained(folder)
    shutil.copyfile(like / "preprocessor_config.json", folder / "preprocessor_config.json")


def _repository(commit: str, names: list[str], files: dict[str, Content]) -> Repository:
    """Configurations that nobody made are not there: an empty one would say something."""
    silent = {name: content for name, content in listings.clutter(names).items() if not name.endswith(".json")}
    return Repository(commit, {**silent, **files})


def _files(folder: Path) -> dict[str, Content]:
    return {path.relative_to(folder).as_posix(): _mapped(path) for path in folder.rglob("*") if path.is_file()}


def _mapped(path: Path) -> Content:
    if path.stat().st_size < 1_000_000:
        return path.read_bytes()
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def photographed(folder: Path) -> Path:
    """Four of the sample photographs of one chair, without their captions: the chat model is asked."""
    subject = folder / "chair" / "orbchr"
    subject.mkdir(parents=True)
    for file in sorted((ROOT / "data" / "chair" / "orbchr").glob("*.jpg"))[:4]:
        shutil.copyfile(file, subject / file.name)
    return folder


# The run.


def surroundings(place: Path, endpoint: str) -> dict[str, str]:
    """A machine that has nothing yet: no cache, no runs, no key, nothing built."""
    ours = ("HF_", "TRANSFORMERS_", "MLFLOW_", "PERSONALIZE_", "PYTHONPATH")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return inherited | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(place / "hub"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        keys.SETTING: str(_key(place / "key.pem")),
    }


def _key(place: Path) -> Path:
    keys.make(place)
    return place


def rehearsed(place: Path, photographs: Path, given: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    client = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"], environment["MLFLOW_TRACKING_URI"])
    experiment = client.create_experiment("rehearsal", artifact_location=str(place / "artifacts"))
    less = SMALL if given.device == "cpu" else {"RESOLUTION": 128} if given.tiny else {}
    said: dict[str, Any] = {**SHORT, **less, "DATA": photographs, "DTYPE": given.dtype, "MODEL_NAME": "rehearsed"}
    command = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local", "--experiment-id", experiment]
    command += ["-P", "profile=gpu"] + [word for name, value in said.items() for word in ("-P", f"{name}={value}")]
    seconds: dict[str, float] = {}
    seen: dict[str, float] = {}
    begun = time.time()
    with watched() as memory:
        _call(command, place / "project", environment)
        for run in client.search_runs([experiment], "tags.`recipe.step` != ''"):
            step, start, end = run.data.tags["recipe.step"], run.info.start_time / 1e3, run.info.end_time / 1e3
            seen[step] = max(held for at, held in memory if start <= at <= end + 1) / 1e9
            seconds[step] = end - start
            client.log_metric(run.info.run_id, METRIC, seen[step])
        asked = time.time()
        shown = _call([sys.executable, "-c", ASK, "models:/rehearsed/1"], place, environment).split()
        seen["a picture from the registry"] = max(held for at, held in memory if at >= asked) / 1e9
        seconds["a picture from the registry"] = time.time() - asked
    if missing := [step for step in STEPS if step not in seen]:
        raise RuntimeError(f"these steps did not run: {', '.join(missing)}")
    if shown[-3:-1] != [str(said.get("RESOLUTION", PROFILE["RESOLUTION"]))] * 2:
        raise RuntimeError(f"the registered model answered with something else than a picture: {shown}")
    order = [*STEPS, "a picture from the registry"]
    return {
        "peak_memory_gb": {step: round(seen[step], 2) for step in order},
        "seconds": {step: round(seconds[step]) for step in order} | {"in all": round(time.time() - begun)},
    }


def _call(command: list[str], cwd: Path, environment: dict[str, str]) -> str:
    """What it prints, which is shown as it comes."""
    printed = []
    with subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            printed.append(line)
            print(line, end="", flush=True)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:5])} ended with {process.returncode}")
    return "".join(printed)


@contextmanager
def watched() -> Iterator[list[tuple[float, int]]]:
    """(time, bytes that all processes below this one hold in memory), five times a second."""
    held: list[tuple[float, int]] = [(time.time(), 0)]
    over = threading.Event()

    def watch() -> None:
        own = psutil.Process()
        while not over.wait(0.2):
            total = 0
            for process in own.children(recursive=True):
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            held.append((time.time(), total))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield held
    finally:
        over.set()
        thread.join()


def table(found: dict[str, Any]) -> str:
    rows = [
        f"| {step} | {held:.1f} | {found['seconds'][step] / 60:.1f} |" for step, held in found["peak_memory_gb"].items()
    ]
    return "\n".join(["| step | peak memory, GB | minutes |", "|---|---|---|", *rows])


if __name__ == "__main__":
    main()
