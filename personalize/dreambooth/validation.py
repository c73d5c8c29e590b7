"""Validation: at a checkpoint the model draws, the caller judges, and from the scores one checkpoint is chosen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from personalize.dreambooth import checkpoints, choice, latents, optimisers, previews
from personalize.dreambooth.denoiser import Denoiser
from personalize.dreambooth.previews import Sample
from personalize.dreambooth.settings import TrainSettings
from personalize.dreambooth.setup import Setup, working_on

Score = Callable[[int, Sequence[Sample]], Mapping[str, float]]
"""Judges a checkpoint's pictures: gives `fidelity`, `prompt` (more is better), `drift` (less is better) ...

With `ceiling`, the photographs' own fidelity, the choice can also say when training ended far from them.
"""


class Validation:
    """Draws, judges and keeps checkpoints. Scores go to `history["scores"]`, pictures and weights to the run's folder.

    Without `score`, or without anything to draw, no step is due and the last step is chosen.
    """

    def __init__(
        self,
        run: Setup,
        score: Score | None,
        average: Mapping[str, Tensor],
        history: dict[str, Any],
        scored: Callable[[int, dict[str, float], list[Sample]], None],
    ) -> None:
        self.run, self.score, self.average, self.history, self.scored = run, score, average, history, scored
        self.wanted = run.settings.validation_every > 0 and score is not None and bool(run.previews)

    def due(self, step: int) -> bool:
        s = self.run.settings
        return self.wanted and (step == s.max_train_steps or step % s.validation_every == 0)

    def at(self, step: int) -> None:
        """Scores the weights as they are now."""
        run, main = self.run, self.run.accelerator.is_main_process
        with evaluating(run, self.average):
            samples = self._draw()
            scores = self._judge(step, samples)
            if main and step:
                weights = {name: p.detach() for name, p in run.params.items()}
                checkpoints.save_weights(run.folder / "scored" / f"step-{step:06d}.safetensors", weights)
        self.history["scores"].append({"step": step, **scores})
        if main:
            for sample in samples:
                file = run.folder / "samples" / f"step-{step:06d}" / f"{sample.preview.name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                sample.image.save(file)
            self.scored(step, scores, samples)

    def stop_reason(self) -> str:
        """Why to stop now, or nothing."""
        patience = self.run.settings.patience
        base, *points = self._points()
        if choice.stalled(points, base, margins(self.run.settings), patience):
            return f"no gain in likeness that kept the prompt in the last {patience} checkpoints"
        return ""

    def choose(self, last: int) -> choice.Choice:
        """The checkpoint to keep."""
        if not self.history["scores"]:
            return choice.Choice(last, "knee", f"checkpoints were not scored; the last step, {last}, is kept.")
        base, *points = self._points()
        ceiling = self.history["scores"][0].get("ceiling")
        return choice.choose(points, base, margins(self.run.settings), ceiling)

    def _points(self) -> list[choice.Point]:
        """The base (step 0) first."""
        return [choice.Point.of(int(row["step"]), row) for row in self.history["scores"]]

    @torch.no_grad()
    def _draw(self) -> list[Sample]:
        """This checkpoint's pictures, dealt over the processes and gathered in the previews' order."""
        from accelerate.utils import gather_object

        run, s, accelerator = self.run, self.run.settings, self.run.accelerator
        if s.train_text_encoder:
            run.text.encode([run.parts["text_encoder"], run.parts["text_encoder_2"]])
        mine = list(run.previews)[accelerator.process_index :: accelerator.num_processes]
        with working_on(accelerator.device, run.pipe.vae), accelerator.autocast():
            drawn = previews.draw(
                run.pipe,
                run.text,
                mine,
                size=s.resolution,
                steps=s.validation_sampling_steps,
                guidance=s.validation_guidance,
                batch_size=s.pictures_at_a_time,
            )
        order = {preview: index for index, preview in enumerate(run.previews)}
        return sorted(gather_object(drawn), key=lambda sample: order[sample.preview])

    @torch.no_grad()
    def _judge(self, step: int, samples: list[Sample]) -> dict[str, float]:
        """The caller's scores and the fixed loss, found by the first process and told to the others."""
        from accelerate.utils import broadcast_object_list

        answer: list[dict[str, float]] = [{}]
        if self.run.accelerator.is_main_process and self.score is not None:
            scores = {name: float(value) for name, value in self.score(step, samples).items()}
            answer = [scores | self._fixed_losses()]
        broadcast_object_list(answer)
        return answer[0]

    def _fixed_losses(self) -> dict[str, float]:
        run = self.run
        if run.held_out is None:
            return {}

        def denoise(noisy: Tensor, t: Tensor, ids: Tensor, hidden: Tensor, pooled: Tensor) -> Tensor:
            return cast(Tensor, Denoiser(run.parts["unet"])(noisy, t, ids, hidden, pooled))

        with run.accelerator.autocast():
            return previews.fixed_losses(
                denoise,
                [cuts[0] for cuts in run.held_out.moments],
                [run.text.row(example.caption) for example in run.held_out.examples],
                [cuts[0].time_ids(run.settings.size_conditioning) for cuts in run.held_out.cuts],
                run.text,
                vae_config=run.pipe.vae.config,
                alphas_cumprod=run.alphas_cumprod,
                prediction_type=run.prediction_type,
                seed=run.settings.seed,
                device=run.accelerator.device,
                scale=latents.scale_latents,
            )


def margins(settings: TrainSettings) -> choice.Margins:
    """How much prompt following and class drift a checkpoint may cost."""
    s = settings
    return choice.Margins(s.prompt_margin, s.drift_margin, s.fidelity_gain, s.fidelity_reach)


@contextlib.contextmanager
def evaluating(run: Setup, average: Mapping[str, Tensor]) -> Iterator[None]:
    """The weights that are drawn from and saved: the EMA or schedule-free average where there is one; no dropout."""
    run.denoiser.eval()
    optimisers.evaluation_weights(run.optimizer, True)
    trained = {name: p.detach().clone() for name, p in run.params.items()} if average else {}
    checkpoints.load_weights(run.params if average else {}, average)
    try:
        yield
    finally:
        checkpoints.load_weights(run.params if average else {}, trained)
        optimisers.evaluation_weights(run.optimizer, False)
