"""Validation: at a checkpoint the model draws, the caller judges, and from the scores one checkpoint is chosen.

Drawn are a few prompts from fixed seeds, with few steps; beside them the loss is followed on fixed noise.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from personalize.dreambooth import choice, conditioning, hardware, losses, optimisers, sampling, tensorfile
from personalize.dreambooth.conditioning import Denoiser, TextTable
from personalize.dreambooth.latents import scale_latents
from personalize.dreambooth.randomness import derive, generator
from personalize.dreambooth.setup import Setup
from personalize.dreambooth.training_state import load_weights
from personalize.photographs.prompts import Subject

SCENES = ("on a red rug", "on a dirt road", "in a kitchen", "in a studio")
"""Where subjects are put to see whether the prompt is still heard. Evaluation asks for other places."""

BINS = 4
"""Ranges of timesteps whose loss is followed apart: the highest noise levels overfit first (Soboleva et al. 2025)."""

Score = Callable[[int, Sequence["Sample"]], Mapping[str, float]]
"""Judges a checkpoint's pictures: gives `fidelity`, `prompt` (more is better), `drift` (less is better) ...

With `ceiling`, the photographs' own fidelity, the choice can also say when training ended far from them.
"""


@dataclass(frozen=True)
class Preview:
    """A picture to be drawn at every checkpoint. `plain` is its prompt without the token, which CLIP can judge."""

    kind: Literal["subject", "class"]
    prompt: str
    plain: str
    seed: int
    class_noun: str
    token: str = ""

    @property
    def name(self) -> str:
        words = re.sub(r"[^\w]+", "-", f"{self.token or 'class'} {self.prompt}", flags=re.UNICODE).strip("-").lower()
        return f"{words[:80]}-{self.seed}"


@dataclass(frozen=True)
class Sample:
    preview: Preview
    image: Image.Image


def previews(subjects: Sequence[Subject], prompts: int, seeds: int, seed: int) -> list[Preview]:
    """For each subject `prompts` scenes with `seeds` pictures each, and for each class noun its plain class prompt."""
    wanted = []
    for number, subject in enumerate(subjects):
        for turn in range(prompts):
            scene = SCENES[(number + turn) % len(SCENES)]
            for index in range(seeds):
                wanted.append(
                    Preview(
                        "subject",
                        f"{subject.instance_prompt} {scene}",
                        f"{subject.class_prompt} {scene}",
                        _seed(seed, "subject", turn, index),
                        subject.class_noun,
                        subject.token,
                    )
                )
    for noun in dict.fromkeys(subject.class_noun for subject in subjects):
        prompt = next(s.class_prompt for s in subjects if s.class_noun == noun)
        for index in range(2 * seeds):
            wanted.append(Preview("class", prompt, prompt, _seed(seed, "class", 0, index), noun))
    return wanted


def _seed(seed: int, kind: str, prompt: int, index: int) -> int:
    """Below 2³¹, so that a seed can be typed again anywhere. Evaluation's seeds are derived under other names."""
    return derive(seed, "preview", kind, prompt, index) % 2**31


class Validation:
    """Draws, judges and keeps checkpoints. Scores go to `history["scores"]`, pictures and weights to the run's folder.

    Without `score`, or without anything to draw, no step is due and the last step is chosen.
    """

    def __init__(
        self,
        run: Setup,
        wanted: Sequence[Preview],
        score: Score | None,
        average: Mapping[str, Tensor],
        history: dict[str, Any],
        scored: Callable[[int, dict[str, float], list[Sample]], None],
    ) -> None:
        self.run, self.score, self.average, self.history, self.scored = run, score, average, history, scored
        self.previews = list(wanted) if run.settings.validation_every > 0 and score is not None else []

    def due(self, step: int) -> bool:
        s = self.run.settings
        return bool(self.previews) and (step == s.steps or step % s.validation_every == 0)

    def at(self, step: int) -> None:
        """Scores the weights as they are now."""
        run, main = self.run, self.run.place.accelerator.is_main_process
        with evaluating(run, self.average):
            text = self._text()
            samples = self._draw(text)
            scores = self._judge(step, samples, text)
            if main and step:
                tensorfile.save(run.place.folder / "scored" / f"step-{step:06d}.safetensors", run.model.params)
        self.history["scores"].append({"step": step, **scores})
        if main:
            for sample in samples:
                file = run.place.folder / "samples" / f"step-{step:06d}" / f"{sample.preview.name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                sample.image.save(file)
            self.scored(step, scores, samples)

    def stop_reason(self) -> str:
        """Why to stop now, or nothing."""
        patience = self.run.settings.patience
        base, *points = self._points()
        if choice.stalled(points, base, choice.margins(self.run.settings), patience):
            return f"no gain in likeness that kept the prompt in the last {patience} checkpoints"
        return ""

    def choose(self, last: int) -> choice.Choice:
        """The checkpoint to keep."""
        if not self.history["scores"]:
            return choice.Choice(last, "knee", f"checkpoints were not scored; the last step, {last}, is kept.")
        base, *points = self._points()
        ceiling = self.history["scores"][0].get("ceiling")
        return choice.choose(points, base, choice.margins(self.run.settings), ceiling)

    def _points(self) -> list[choice.Point]:
        """The base (step 0) first."""
        return [choice.Point.of(int(row["step"]), row) for row in self.history["scores"]]

    def _text(self) -> TextTable:
        """The captions as the text encoders read them by now."""
        run, parts = self.run, self.run.model.parts
        if not run.settings.train_text_encoder:
            return run.data.text
        return run.data.text.encoded_by([parts["text_encoder"], parts["text_encoder_2"]])

    def _draw(self, text: TextTable) -> list[Sample]:
        """This checkpoint's pictures, dealt over the processes and gathered in the previews' order."""
        from accelerate.utils import gather_object

        s, accelerator, pipe = self.run.settings, self.run.place.accelerator, self.run.model.pipe
        mine = self.previews[accelerator.process_index :: accelerator.num_processes]
        with hardware.working_on(accelerator.device, pipe.vae), accelerator.autocast():
            drawn = draw(
                pipe,
                text,
                mine,
                size=s.resolution,
                steps=s.validation_sampling_steps,
                guidance=s.validation_guidance,
                batch_size=s.pictures_at_a_time,
            )
        order = {preview: index for index, preview in enumerate(self.previews)}
        return sorted(gather_object(drawn), key=lambda sample: order[sample.preview])

    @torch.no_grad()
    def _judge(self, step: int, samples: list[Sample], text: TextTable) -> dict[str, float]:
        """The caller's scores and the fixed losses, found by the first process and told to the others."""
        from accelerate.utils import broadcast_object_list

        answer: list[dict[str, float]] = [{}]
        if self.run.place.accelerator.is_main_process and self.score is not None:
            scores = {name: float(value) for name, value in self.score(step, samples).items()}
            with self.run.place.accelerator.autocast():
                answer = [scores | fixed_losses(self.run, text)]
        broadcast_object_list(answer)
        return answer[0]


@torch.no_grad()
def draw(
    pipe: Any,
    text: TextTable,
    wanted: Sequence[Preview],
    *,
    size: int,
    steps: int,
    guidance: float,
    batch_size: int = 8,
) -> list[Sample]:
    """The pictures of `wanted` from a pipeline whose text encoders may be gone: captions come from `text`."""
    drawn: list[Sample] = []
    channels, side = pipe.unet.config.in_channels, size // pipe.vae_scale_factor
    for start in range(0, len(wanted), batch_size):
        batch = wanted[start : start + batch_size]
        rows = torch.tensor([text.rows[p.prompt] for p in batch], device=text.hidden.device)
        hidden, pooled = text.lookup(rows)
        no_hidden, no_pooled = text.lookup(torch.full_like(rows, conditioning.NO_CAPTION))
        noise = sampling.initial_noise([p.seed for p in batch], channels, side, side)
        latents = pipe(
            prompt_embeds=hidden,
            pooled_prompt_embeds=pooled,
            negative_prompt_embeds=no_hidden,
            negative_pooled_prompt_embeds=no_pooled,
            num_inference_steps=steps,
            guidance_scale=guidance,
            width=size,
            height=size,
            latents=noise.to(pipe.device, pipe.unet.dtype),
            output_type="latent",
        ).images
        images = sampling.decode(pipe, latents)
        drawn += [Sample(preview, image) for preview, image in zip(batch, images, strict=True)]
    return drawn


@torch.no_grad()
def fixed_losses(run: Setup, text: TextTable) -> dict[str, float]:
    """Mean error by range of timesteps on the same pictures, noise and timesteps each time: `validation_loss_0`...

    Unlike the training loss it is free of the noise of sampling, so it tells whether learning goes on
    (DVAR, Voronov et al. 2023).
    """
    s, model, watched, device = run.settings, run.model, run.data.watched, run.place.accelerator.device
    denoise = Denoiser(model.parts["unet"])
    total = len(model.alphas_cumprod)
    found = {}
    for part in range(BINS):
        errors = []
        for index, (example, cuts, moments, weights) in enumerate(
            zip(watched.examples, watched.cuts, watched.moments, watched.weights, strict=True)
        ):
            g = generator(s.seed, "validation loss", part, index)
            latents = scale_latents(moments[0][0], model.pipe.vae.config)[None].to(device)
            noise = torch.randn(latents.shape, generator=g).to(device)
            low, high = part * total // BINS, (part + 1) * total // BINS
            t = torch.randint(low, high, (1,), generator=g).to(device)
            noisy = losses.add_noise(latents, noise, t, model.alphas_cumprod)
            size_ids = cuts[0].time_ids(s.size_conditioning)[None].to(device)
            hidden, pooled = text.lookup(torch.tensor([text.rows[example.caption]], device=text.hidden.device))
            target = losses.prediction_target(latents, noise, t, model.alphas_cumprod, model.prediction_type)
            counts = None if weights[0] is None else weights[0].to(device)
            errors.append(losses.squared_error(denoise(noisy, t, size_ids, hidden, pooled), target, counts))
        found[f"validation_loss_{part}"] = float(torch.cat(errors).mean())
    return found


@contextlib.contextmanager
def evaluating(run: Setup, average: Mapping[str, Tensor]) -> Iterator[None]:
    """The weights that are drawn from and saved: the EMA or schedule-free average where there is one; no dropout.

    Afterwards the weights are to the bit what they were, so looking at a training does not change it.
    """
    run.model.denoiser.eval()
    swaps = bool(average) or hasattr(run.model.optimizer, "eval")
    trained = {name: p.detach().clone() for name, p in run.model.params.items()} if swaps else {}
    optimisers.evaluation_weights(run.model.optimizer, True)
    load_weights(run.model.params if average else {}, average)
    try:
        with torch.compiler.set_stance("force_eager"):  # pictures have shapes of their own: not worth compiling for
            yield
    finally:
        optimisers.evaluation_weights(run.model.optimizer, False)
        load_weights(run.model.params if swaps else {}, trained)  # a schedule-free swap there and back rounds
