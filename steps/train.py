"""Train: teach the base model the subjects.   needs: ingest, caption, prior   gives: lora/, samples/, history.json

One adapter for all subjects. Every few steps the model draws the same prompts from the same seeds and the judges
score them; what is kept is the checkpoint most like the photographs among those that still hear the rest of the prompt.
"""

from __future__ import annotations

import gc
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from personalize import hub
from personalize.dreambooth.settings import HOW_NOT_WHAT, TrainSettings
from personalize.evaluation.judges import JudgeConfigs, identity
from personalize.files import read_json, write_json
from personalize.recipe import Inputs, RecipeError, StepConfig

if TYPE_CHECKING:
    from personalize.dreambooth.examples import Example
    from personalize.dreambooth.train import Result
    from personalize.dreambooth.validation import Preview, Sample

NEEDS = ("ingest", "caption", "prior")
MEMORY_WAS_SHORT = "the card's memory was not enough"
LESS_MEMORY = (
    "Less is taken by `-P train.memory=balanced` or `low`, a smaller train.batch_size with more "
    "train.gradient_accumulation, or a smaller resolution (docs/training.md)."
)
STATES = "states"
"""Artifact of the run: the states that stretches of the training are replayed from."""


class Config(StepConfig, TrainSettings):
    base_model: str = Field("models/sdxl", description="folder of the SDXL base, or its Hugging Face name")
    base_revision: str = Field("", description="commit of a Hugging Face base (40 hexadecimal digits)")
    judges: JudgeConfigs = Field(
        (),
        description="models that judge checkpoints, those that decide; one must read prompts. None: the last is kept",
    )
    device: hub.Device = Field("auto", description="where to train", json_schema_extra=HOW_NOT_WHAT)
    dtype: hub.Dtype = Field("bfloat16", description="precision of the frozen base; what learns is float32")
    processes: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1, description="processes to train with, one a GPU; auto: one for each GPU there is"
    )
    work: str = Field(
        "output/training",
        description="where latents are kept, and the state from which a killed run goes on",
        json_schema_extra=HOW_NOT_WHAT,
    )

    @field_validator("judges")
    @classmethod
    def _deciding(cls, judges: JudgeConfigs) -> JudgeConfigs:
        """A second opinion chooses no checkpoint, so it is no part of a training."""
        deciding = tuple(judge for judge in judges if judge.decides)
        if judges and not deciding:
            raise ValueError("none of the judges decides; leave `decides: false` out for one of them")
        return deciding

    @property
    def judged(self) -> bool:
        """Whether checkpoints are scored."""
        return bool(self.judges) and self.validation_every > 0


def sources(config: Config) -> Mapping[str, str]:
    """The base and the judges, by content or by commit."""
    judges = {f"judge {judge.name}": identity(judge) for judge in config.judges if config.judged}
    counted = {"processes": str(processes(config))} if config.processes == "auto" else {}
    return {"base model": hub.identity(config.base_model, config.base_revision), **judges, **counted}


def processes(config: Config) -> int:
    """How many processes train: those asked for, or one for each GPU of this machine."""
    if config.processes != "auto":
        return config.processes
    import torch

    return max(1, torch.cuda.device_count())


def run(config: Config, inputs: Inputs, outputs: Path) -> None:
    import mlflow

    active, folders = mlflow.active_run(), read_from(config, inputs)
    job = {
        "config": config.model_dump(mode="json"),
        "folders": {name: str(folder) for name, folder in folders.items()},
        "outputs": str(outputs.absolute()),
        "run_id": active.info.run_id if active else "",
    }
    if processes(config) == 1:
        teach(job)
    else:
        launch("steps.train", job, config, outputs)
    shutil.copyfile(folders["captions"] / "subjects.json", outputs / "subjects.json")


def read_from(config: Config, inputs: Inputs) -> dict[str, Path]:
    """The folders that a training reads."""
    folders = {"images": inputs["ingest"].path / "images", "captions": inputs["caption"].path}
    if config.class_images_a_step:
        folders["prior"] = inputs["prior"].path
    return {name: folder.absolute() for name, folder in folders.items()}


def teach(job: Mapping[str, Any]) -> None:
    """Trains; in each of several processes where there are several."""
    import mlflow
    import torch

    config = Config(**job["config"])
    folders = {name: Path(folder) for name, folder in job["folders"].items()}
    watch = Watch(config, job["run_id"])
    try:
        result = learn(config, folders, Path(job["outputs"]), watch)
    except torch.OutOfMemoryError as error:
        raise RecipeError(f"train: {MEMORY_WAS_SHORT} (memory: {config.memory}). {error}\n{LESS_MEMORY}") from None
    watch.close()
    if watch.listens and job["run_id"]:
        found = {**result.speed, "chosen_step": result.choice.step, "steps": result.steps}
        mlflow.log_metrics({f"total_{name}": value for name, value in found.items()}, run_id=job["run_id"])
        mlflow.flush_async_logging()


def learn(config: Config, folders: Mapping[str, Path], outputs: Path, watch: Watch) -> Result:
    """One training, from photographs on disk to an adapter; with `memory: auto` at the level at which it fits in.

    Raises progress.Diverged, torch.OutOfMemoryError, what `watch` raises, and ValueError where a judge is not whole,
    before anything is learnt.
    """
    import torch

    from personalize.dreambooth.hardware import release_memory
    from personalize.dreambooth.setup import Base
    from personalize.dreambooth.train import Observer, train
    from personalize.evaluation import judges

    if config.judged:
        judges.reader(judges.load(config.judges, "cpu"))
    taught = taught_from(config, folders)
    settings, *sparing = attempts(config, len(taught.learnt))
    watch.begins(settings.steps)
    while True:
        try:
            return train(
                settings,
                Base(config.base_model, config.base_revision or None, config.device, config.dtype),
                taught.learnt,
                taught.class_images,
                outputs,
                work=Path(config.work),
                held_out=taught.held_out,
                previews=taught.previews,
                score=judge(config, taught.learnt, taught.held_out) if config.judged else None,
                observer=Observer(watch.phase, watch.logged, watch.scored, watch.states),
            )
        except torch.OutOfMemoryError:
            if not sparing:
                raise
        settings, *sparing = sparing  # outside of the handler, whose traceback holds what fills the memory
        gc.collect()
        release_memory()
        print(f"  mind: {MEMORY_WAS_SHORT}; once more from the start with memory: {settings.memory}", flush=True)


def attempts(config: Config, photographs: int) -> list[TrainSettings]:
    """The settings, and with `memory: auto` in one process those that take less memory, should it not be enough."""
    asked = settings_of(config).for_photographs(photographs, processes(config))
    if config.memory != "auto" or processes(config) > 1:
        return [asked]
    levels = ("balanced",) if config.use_dora else ("balanced", "low")
    return [asked, *(asked.model_copy(update={"memory": level}) for level in levels)]


@dataclass(frozen=True)
class Taught:
    """What a training is taught from, and the pictures that are drawn on its way."""

    learnt: Sequence[Example]
    held_out: Sequence[Example]
    class_images: Sequence[Example]
    previews: Sequence[Preview]


def taught_from(config: Config, folders: Mapping[str, Path]) -> Taught:
    """Read from the folders of `read_from`."""
    from personalize.dreambooth.examples import hold_out, read_class_images, read_photographs
    from personalize.dreambooth.validation import previews
    from personalize.photographs.prompts import load_subjects

    photographs = read_photographs(folders["images"], folders["captions"] / "metadata.jsonl")
    class_images = read_class_images(folders["prior"]) if "prior" in folders else []
    learnt, held_out = hold_out(photographs, config.validation_photographs, config.seed)
    subjects = load_subjects(folders["captions"])
    wanted = previews(subjects, config.validation_prompts, config.validation_seeds, config.seed)
    return Taught(learnt, held_out, class_images, wanted)


def settings_of(config: Config) -> TrainSettings:
    return TrainSettings(**config.model_dump(include=set(TrainSettings.model_fields)))


def judge(
    config: Config, learnt: Sequence[Example], held_out: Sequence[Example]
) -> Callable[[int, Sequence[Sample]], dict[str, float]]:
    """What a checkpoint's pictures are worth. Likeness is to held-out photographs of subjects that have any."""
    from personalize.evaluation.checkpoint_scores import CheckpointScorer, Photographed
    from personalize.evaluation.judges import load

    def of(token: str, examples: Sequence[Example]) -> list[Path]:
        return [example.path for example in examples if example.token == token]

    nouns = {example.token: example.class_noun for example in learnt}
    subjects = [Photographed(token, noun, of(token, learnt), of(token, held_out)) for token, noun in nouns.items()]
    scorer = CheckpointScorer(subjects, lambda: load(config.judges, config.device))
    return lambda step, samples: scorer([sample.image for sample in samples], [sample.preview for sample in samples])


class Watch:
    """What a person sees while it trains: a bar with loss, speed and time left, and everything live in MLflow."""

    def __init__(self, config: Config, run_id: str, name: str = "train") -> None:
        import mlflow
        from tqdm import tqdm

        self.run_id, self.name = run_id, name
        self.client = mlflow.MlflowClient() if run_id else None
        self.listens = False
        self.bar = tqdm(desc=name, unit="step", disable=None, leave=True)

    def begins(self, steps: int) -> None:
        """How many steps there will be at most."""
        self.bar.reset(total=steps)

    def phase(self, text: str) -> None:
        self.bar.set_description_str(self.name if text == "training" else text)

    def logged(self, step: int, metrics: Mapping[str, float]) -> None:
        import mlflow

        self.listens = True
        self.bar.update(step - self.bar.n)
        speed = metrics.get("images_per_second")
        shown = {"loss": f"{metrics['loss']:.4f}"} | ({"images/s": f"{speed:.1f}"} if speed else {})
        self.bar.set_postfix(shown)
        if self.run_id:
            mlflow.log_metrics(dict(metrics), step=step, run_id=self.run_id, synchronous=False)

    def scored(self, step: int, scores: Mapping[str, float], samples: Sequence[Sample]) -> None:
        import mlflow

        found = ", ".join(f"{name} {scores[name]:.3f}" for name in ("fidelity", "prompt", "drift"))
        self.bar.write(f"step {step}: {found}", file=sys.stderr)
        if not self.run_id or self.client is None:
            return
        validation = {f"validation_{name.removeprefix('validation_')}": value for name, value in scores.items()}
        mlflow.log_metrics(validation, step=step, run_id=self.run_id, synchronous=False)
        for sample in samples:
            self.client.log_image(self.run_id, sample.image, key=sample.preview.name, step=step, synchronous=False)

    def states(self, folder: Path) -> None:
        """Keeps the states of the proof with the run, beside its outputs: whoever uses the adapter fetches none."""
        if self.run_id and self.client is not None:
            self.client.log_artifacts(self.run_id, str(folder), STATES)

    def close(self) -> None:
        self.bar.close()


def launch(module: str, job: Mapping[str, Any], config: Config, place: Path) -> None:
    """A job in several processes, one a GPU (or side by side on a CPU, through gloo).

    module: run with the job's file, which lies in `place` meanwhile. Raises RecipeError where a process fails.
    """
    file = place / "job.json"
    write_json(file, job)
    # torchrun is what `accelerate launch` starts on GPUs; on a CPU that would start one process whatever it is told
    count = str(processes(config))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", count]
    command += ["--local_addr", "127.0.0.1"]  # a laptop's own host name often resolves to nothing
    finished = subprocess.run([*command, "--module", module, str(file)], check=False)
    file.unlink()
    if finished.returncode:
        raise RecipeError(
            f"train: one of the {count} processes stopped with exit code {finished.returncode}; its message "
            f"is above. Try again (it goes on where it was), or with processes: 1."
        )


if __name__ == "__main__":
    teach(read_json(sys.argv[1]))
