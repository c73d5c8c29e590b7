"""Train the miniature models: `python -m miniature.pretrain all --data build/scenes --minutes 60`.

--data holds what `python -m miniature.scenes` drew: train/ (dataset), judge/ (dataset --seed 1 --views 2), textures/.

Stages, each of which reads what the ones before it left in --work and may be run alone:
    vae      autoencoder                          latents  its moments of every training image
    text     SDXL's two text encoders             letters  made-up words told apart
    decoder  the autoencoder's second half, tuned further
    unet     the denoiser; writes OUT/sdxl        clip, dino   the judges         blip   the captioner
`all` runs them in that order with their shares of --minutes. Kill it at any time: the same command goes on from the
last checkpoint. Finished stages are kept; a larger budget continues them. With --preset gpu everything is moved to
CUDA with larger batches. Metrics go to MLflow (MLFLOW_TRACKING_URI, else a database in --work).
"""

import argparse
import functools
import json
import os
import time
from pathlib import Path

import mlflow
import torch

from . import blip, clip, dino, latents, text, unet, vae
from .loop import Options

# Share of the whole budget each stage is given by `all`, measured on two cores.
SHARES = {"vae": 0.2, "text": 0.03, "letters": 0.01, "latents": 0.02, "decoder": 0.07, "unet": 0.4}
SHARES |= {"clip": 0.16, "dino": 0.06, "blip": 0.06}


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and run one stage or all of them."""
    parser = argparse.ArgumentParser(prog="python -m miniature.pretrain", description=__doc__.split("\n")[0])
    parser.add_argument("stages", nargs="+", choices=[*SHARES, "all"], metavar="stage", help="stages in order, or all")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, judge/ and textures/")
    parser.add_argument("--work", type=Path, default=Path("build/miniature"), help="checkpoints and caches")
    parser.add_argument("--out", type=Path, default=Path("models"), help="the model directories are written here")
    parser.add_argument("--preset", choices=["cpu", "gpu"], help="gpu where CUDA is found, else cpu")
    parser.add_argument("--minutes", type=float, help="budget of training; `all` shares it out")
    parser.add_argument("--steps", type=int, help="budget in steps instead, for each stage")
    parser.add_argument("--plan", default="", help="minutes of single stages for `all`, as vae=18,unet=28")
    parser.add_argument("--batch", type=int, help="images a step, instead of each stage's own")
    parser.add_argument("--start", type=Path, help="model directories from whose weights vae, unet and judges begin")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    if given.minutes is None and given.steps is None and not given.plan:
        parser.error("say how long to train: --minutes M, --steps N or --plan vae=18,unet=28")
    if given.preset == "gpu" and not torch.cuda.is_available():
        parser.error("--preset gpu needs a CUDA device and none is visible")
    device = "cuda" if given.preset != "cpu" and torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    items = [item.partition("=") for item in given.plan.split(",") if item]
    plan = {name: float(minutes) for name, _, minutes in items}
    if unknown := set(plan) - set(SHARES):
        parser.error(f"--plan names no such stage: {', '.join(sorted(unknown))}; stages are {', '.join(SHARES)}")
    stages = given.stages if "all" not in given.stages else list(SHARES)
    given.work.mkdir(parents=True, exist_ok=True)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{(given.work / 'mlflow.db').resolve()}")
    mlflow.set_experiment("miniature")
    with mlflow.start_run(run_name=f"pretrain {' '.join(given.stages)}"):
        for name in stages:
            share = SHARES[name] / sum(SHARES[stage] for stage in stages)
            options = Options(
                data=given.data,
                work=given.work,
                out=given.out,
                minutes=plan.get(name, share * given.minutes if given.minutes else None),
                steps=given.steps,
                device=device,
                batch=given.batch,
                start=given.start,
                seed=given.seed,
            )
            with mlflow.start_run(run_name=name, nested=True):
                mlflow.log_params({key: str(value) for key, value in vars(options).items()})
                run(name, options, mirrored=device == "cuda")


def run(name: str, options: Options, mirrored: bool = False) -> None:
    """Run one stage, write its model directory, and note what was spent in work/ledger.json."""
    began = time.monotonic()
    stages = {
        "vae": vae.train,
        "text": text.train,
        "letters": text.train_letters,
        "latents": functools.partial(latents.cache, mirrored=mirrored),
        "decoder": vae.train_decoder,
        "unet": unet.train,
        "clip": clip.train,
        "dino": dino.train,
        "blip": blip.train,
    }
    facts = stages[name](options)
    writers = {
        "decoder": vae.write_decoder,
        "unet": unet.write,
        "clip": clip.write,
        "dino": dino.write,
        "blip": blip.write,
    }
    if name in writers:
        writers[name](options)
    ledger = options.work / "ledger.json"
    entries = json.loads(ledger.read_text()) if ledger.exists() else {}
    entries[name] = {**facts, "device": options.device, "seconds_here": round(time.monotonic() - began, 1)}
    ledger.write_text(json.dumps(entries, indent=2))
    mlflow.log_metrics({f"final/{key}": value for key, value in facts.items()})


if __name__ == "__main__":
    main()
