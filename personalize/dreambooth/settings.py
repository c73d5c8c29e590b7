"""Settings: everything a training run can be told, typed and described once. Imports no torch.

Wrong combinations are refused here, before a model is loaded.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

OptimizerName = Literal["adamw", "adamw-8bit", "prodigy", "schedule-free"]
ScheduleName = Literal["constant", "cosine", "linear"]
SizeConditioning = Literal["true", "as sampled"]
PriorTarget = Literal["picture", "base"]
Targets = Literal["attention", "attention+feed-forward", "all"]

PACKAGES = {"adamw-8bit": "bitsandbytes", "prodigy": "prodigyopt", "schedule-free": "schedulefree"}
"""The package each optimiser lives in, imported only when asked for. AdamW is torch's own."""

HOW_NOT_WHAT: dict[str, JsonValue] = {"affects_result": False}
"""Marks a setting that changes how a run goes and not what it makes."""


class TrainSettings(BaseModel):
    """The method. The defaults are the best known SDXL recipe on a 24 GB card; each field says what it does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # what learns
    rank: int = Field(16, ge=1, le=512, description="LoRA rank")
    alpha: float | None = Field(
        None, gt=0, description="LoRA alpha, strength is alpha / rank; empty means alpha = rank"
    )
    targets: Targets = Field(
        "attention+feed-forward", description="UNet layers that get an adapter; all adds the convolutions"
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout inside the adapter")
    use_dora: bool = Field(False, description="weight-decomposed LoRA: a little better at low rank, slower")
    use_rslora: bool = Field(False, description="rank-stabilised LoRA: strength is alpha / sqrt(rank)")
    train_text_encoder: bool = Field(False, description="give both text encoders an adapter as well")
    text_encoder_learning_rate: float | None = Field(
        None, gt=0, description="learning rate of the text encoders' adapters; empty means a tenth of learning_rate"
    )

    # how it learns
    num_train_epochs: int = Field(
        200, ge=1, description="passes over the photographs at most: so many subjects, so many steps"
    )
    max_train_steps: int | None = Field(
        None, ge=1, description="optimiser steps at most, in place of num_train_epochs; early stopping may need fewer"
    )
    batch_size: int = Field(4, ge=1, description="photographs a step and process")
    prior_batch_size: int | None = Field(
        None, ge=0, description="class images a step and process; empty means as many as photographs, 0 means none"
    )
    gradient_accumulation: int = Field(
        1, ge=1, description="micro-batches an optimiser step; N of B equal one of N x B"
    )
    optimizer: OptimizerName = Field("adamw", description="optimiser")
    learning_rate: float = Field(1e-4, gt=0, description="learning rate; prodigy wants 1.0")
    lr_scheduler: ScheduleName = Field("cosine", description="learning rate after warm-up")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which the learning rate rises linearly")
    weight_decay: float = Field(1e-2, ge=0, description="decoupled weight decay")
    adam_betas: tuple[float, float] = Field((0.9, 0.99), description="decay of the optimiser's two averages")
    adam_eps: float = Field(1e-8, gt=0, description="the optimiser's epsilon")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="decay of an average over steps that is sampled and saved; 0 = off"
    )

    # the loss
    prior_loss_weight: float = Field(
        1.0, ge=0, description="weight of prior preservation; 0 trains without class images"
    )
    prior_target: PriorTarget = Field(
        "picture",
        description="what a class image teaches: picture, itself; base, what the base makes of it (distillation): then "
        "none is learnt by heart, however few there are; a fifth slower",
    )
    prior_surroundings: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of class images, with prior_target: base, that are asked for with a subject's token, and "
        "whose frame is to stay what the base makes of it without: a subject then leaves its surroundings alone",
    )
    snr_gamma: float | None = Field(5.0, gt=0, description="min-SNR gamma; empty weighs all timesteps alike")
    noise_offset: float = Field(
        0.0, ge=0, le=0.5, description="noise that is constant over a picture, for darks and lights"
    )
    mask_weight: float = Field(
        0.1, ge=0, le=1, description="weight of a masked photograph's surroundings beside its subject; 1 ignores masks"
    )
    caption_dropout: float = Field(0.05, ge=0, le=1, description="share of photographs trained without their caption")
    prior_caption_dropout: float = Field(
        0.2,
        ge=0,
        le=1,
        description="the same of class images with prior_target: base; keeps what guidance leads away from as it was",
    )

    # the photographs
    resolution: int = Field(1024, ge=32, multiple_of=8, description="side in pixels of the square with a bucket's area")
    aspect_ratio_buckets: bool = Field(
        True, description="keep aspect ratios in buckets; otherwise centre-crop to squares"
    )
    variants: int = Field(4, ge=1, le=64, description="cuts kept of each photograph, the whole one among them")
    zoom: float = Field(1.15, ge=1, le=2, description="how much a cut may be enlarged before it is cropped")
    flip: bool = Field(False, description="mirror every second cut; not for lettering or lopsided subjects")
    size_conditioning: SizeConditioning = Field(
        "true",
        description="size and crop told to the UNet: the photograph's own, or (for a base that never learnt these) "
        "those of an uncut picture",
    )

    # the machine
    memory: Literal["auto", "fast", "balanced", "low"] = Field(
        "auto",
        description="fast: 24 GB; balanced: 16 GB, recomputes activations; low: 8 GB, int8 base too; auto: by the card",
    )
    compile: bool | Literal["blocks"] = Field(
        False,
        description="compile the UNet: minutes to start, then faster; blocks: its transformer blocks alone, sooner",
    )
    seed: int = Field(0, ge=0, description="decides everything random in the run")

    # checkpoints and their choice
    validation_every: int = Field(
        100, ge=0, description="steps between scored checkpoints; 0 scores none and keeps the last"
    )
    validation_photographs: int = Field(
        1, ge=0, description="photographs of each subject with 4 or more that are kept for scoring and not trained on"
    )
    validation_prompts: int = Field(2, ge=1, description="prompts drawn for each subject at a checkpoint")
    validation_seeds: int = Field(1, ge=1, description="pictures a prompt")
    validation_sampling_steps: int = Field(12, ge=1, le=1000, description="sampler steps of these pictures")
    validation_guidance: float = Field(5.0, ge=1, description="guidance of these pictures")
    prompt_margin: float = Field(0.03, ge=0, description="prompt following (CLIP-T) that may be lost against the base")
    drift_margin: float = Field(0.1, ge=0, description="likeness to the subject that class pictures may gain")
    fidelity_gain: float = Field(0.005, ge=0, description="rise in likeness to the subject that counts as one")
    fidelity_reach: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the way from base to photographs below which training is called too short",
    )
    patience: int = Field(3, ge=0, description="stop after so many checkpoints without a gain; 0 never stops early")
    resume_every: int = Field(
        100,
        ge=0,
        description="steps between states from which a killed run goes on; 0 keeps none",
        json_schema_extra=HOW_NOT_WHAT,
    )
    proof_every: int = Field(
        100, ge=0, description="steps between links of the proof of training, a chain of digests; 0 makes none"
    )
    proof_states: int = Field(
        5,
        ge=0,
        description="states kept with the run, from which `reproduce` replays stretches of it; each is three times the "
        "adapter (AdamW)",
        json_schema_extra=HOW_NOT_WHAT,
    )
    log_every: int = Field(
        10, ge=1, description="steps between reads of the loss from the device", json_schema_extra=HOW_NOT_WHAT
    )

    @property
    def lora_alpha(self) -> float:
        return float(self.rank if self.alpha is None else self.alpha)

    @property
    def steps(self) -> int:
        """Optimiser steps at most. Raises ValueError before it is known of how many photographs."""
        if self.max_train_steps is None:
            raise ValueError("how many steps there are follows from the photographs: for_photographs(count)")
        return self.max_train_steps

    @property
    def warmup_steps(self) -> int:
        return round(self.warmup * self.steps)

    def for_photographs(self, count: int, processes: int = 1) -> TrainSettings:
        """The same with its number of steps: `num_train_epochs` passes over so many photographs, if it is not given."""
        if self.max_train_steps is not None:
            return self
        a_step = self.batch_size * self.gradient_accumulation * processes
        return self.model_copy(update={"max_train_steps": math.ceil(self.num_train_epochs * count / a_step)})

    @property
    def pictures_at_a_time(self) -> int:
        """How many pictures the VAE encodes, or the sampler draws, together."""
        return 8 if self.resolution <= 256 else 2

    @property
    def class_images_a_step(self) -> int:
        if self.prior_loss_weight == 0:
            return 0
        return self.batch_size if self.prior_batch_size is None else self.prior_batch_size

    @property
    def distils(self) -> bool:
        """Whether class images teach what the base makes of them."""
        return self.prior_target == "base" and self.class_images_a_step > 0

    @property
    def class_caption_dropout(self) -> float:
        """Class images that are their own targets keep captions: the unconditional model would learn the class."""
        return self.prior_caption_dropout if self.distils else 0.0

    @property
    def surroundings_share(self) -> float:
        """The share of class images that teach tokens to leave the surroundings alone."""
        return self.prior_surroundings if self.distils else 0.0

    def deciding(self) -> dict[str, JsonValue]:
        """The settings that decide what a run makes."""
        return self.model_dump(mode="json", exclude=set(NOT_THE_RESULT))

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.prior_loss_weight > 0 and self.prior_batch_size == 0:
            raise ValueError(
                "prior_batch_size: 0 leaves no class images for prior_loss_weight > 0; set that to 0 as well."
            )
        if self.optimizer == "prodigy" and self.learning_rate < 0.1:
            raise ValueError(
                f"optimizer: prodigy finds the rate itself; learning_rate {self.learning_rate:g} must be 1.0."
            )
        if self.optimizer != "prodigy" and self.learning_rate >= 0.1:
            raise ValueError(f"learning_rate: {self.learning_rate:g} is far too high for {self.optimizer}; try 1e-4.")
        if self.optimizer == "schedule-free" and self.lr_scheduler != "constant":
            raise ValueError("optimizer: schedule-free replaces the schedule; set lr_scheduler: constant.")
        if self.optimizer == "schedule-free" and self.ema_decay:
            raise ValueError("optimizer: schedule-free averages weights itself; set ema_decay: 0.")
        if (
            self.optimizer == "prodigy"
            and self.train_text_encoder
            and self.text_encoder_learning_rate not in (None, 1.0)
        ):
            raise ValueError("text_encoder_learning_rate: prodigy has one rate for all; leave it empty.")
        if self.text_encoder_learning_rate is not None and not self.train_text_encoder:
            raise ValueError("text_encoder_learning_rate: has no effect without train_text_encoder: true.")
        if self.use_dora and self.train_text_encoder:
            raise ValueError(
                "use_dora: transformers cannot reload DoRA in text encoders; set train_text_encoder: false."
            )
        if self.use_dora and self.memory == "low":
            raise ValueError(
                "use_dora: needs the base in full precision, memory: low quantises it; use memory: balanced."
            )
        package = PACKAGES.get(self.optimizer)
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"optimizer: {self.optimizer} needs the package {package}, which is not installed. Install it (`pip "
                f"install {package}`) or set `optimizer: adamw`."
            )
        return self


NOT_THE_RESULT = tuple(n for n, field in TrainSettings.model_fields.items() if field.json_schema_extra == HOW_NOT_WHAT)
"""Settings that change how a run goes and not what it makes."""
