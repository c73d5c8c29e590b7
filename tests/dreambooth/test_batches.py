"""What a micro-batch holds: every latent beside its own caption, size and noise, however the step is split."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.configuration_utils import FrozenDict
from PIL import Image
from torch import Tensor

from personalize.dreambooth.batches import Batch, BatchMaker, Epochs, prefetch, timesteps_of
from personalize.dreambooth.buckets import Cuts, cut_class_images, cut_photographs
from personalize.dreambooth.conditioning import NO_CAPTION, caption_rows
from personalize.dreambooth.examples import about_subjects
from personalize.dreambooth.latents import Encoded
from personalize.dreambooth.masks import loss_weights
from personalize.dreambooth.settings import TrainSettings
from tests.dreambooth import training

VAE_CONFIG = FrozenDict(scaling_factor=1.0)
ALPHAS = training.SCHEDULER.alphas_cumprod


def maker(tmp_path: Path, s: TrainSettings, rank: int = 0, processes: int = 1, **size: int) -> BatchMaker:
    """Moments tell the picture they are of: photograph i has mean i + 1, class image i has mean -(i + 1); no spread."""
    photographs = training.photographs(tmp_path, 3, **size)
    others = [
        training.Example(e.path, e.size, f"a photo of a chair, {i}", "chair")
        for i, e in enumerate(training.class_images(tmp_path))
    ]
    shown = cut_photographs(photographs, s, 32)
    regular = told(cut_class_images(others, shown, s), -1.0) if s.class_images_a_step else None
    asked = about_subjects(others, photographs) if s.surroundings_share else {}
    rows = caption_rows(
        [*(e.caption for e in (*photographs, *others)), *(text for of in asked.values() for text in of)]
    )
    timesteps = timesteps_of(s, ALPHAS, "epsilon")
    return BatchMaker(s, told(shown, 1.0), regular, rows, VAE_CONFIG, timesteps, asked, rank, processes)


def told(cuts: Cuts, sign: float) -> Encoded:
    numbers = [int(e.path.stem) + 1 for e in cuts.examples]
    moments = tuple(
        tuple(torch.stack([torch.full((4, 8, 8), sign * n), torch.zeros(4, 8, 8)]) for _ in own)
        for n, own in zip(numbers, cuts.cuts, strict=True)
    )
    weights = tuple(
        loss_weights(example, own, [(8, 8)] * len(own), 0.25)
        for example, own in zip(cuts.examples, cuts.cuts, strict=True)
    )
    return Encoded(**vars(cuts), moments=moments, weights=weights)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_every_latent_stands_beside_its_own_caption(tmp_path, batch_size):
    """Latents i, i, c, c beside captions i, c, i, c is how the diffusers script mislabels half of them."""
    made = maker(tmp_path, training.settings(batch_size=batch_size, caption_dropout=0.0))
    for step in range(5):
        batch = made.batch(step, 0)
        captions = [list(made.caption_rows)[row] for row in batch.captions]
        means = batch.latents.mean((1, 2, 3)).round().int().tolist()
        wanted = [f"a photo of a bcnchr chair, {m - 1}" if m > 0 else f"a photo of a chair, {-m - 1}" for m in means]
        assert captions == wanted
        assert [m > 0 for m in means] == [True] * batch_size + [False] * batch_size
        assert batch.instances == batch_size


def test_class_images_keep_their_own_size_and_crop_conditioning(tmp_path):
    s = training.settings(aspect_ratio_buckets=False, variants=1)
    batch = maker(tmp_path, s, width=200, height=100).batch(0, 0)
    assert batch.time_ids[:2].tolist() == [[100, 200, 0, 32, 64, 64]] * 2
    assert batch.time_ids[2:].tolist() == [[72, 72, 0, 0, 64, 64]] * 2


def test_a_masks_weights_stand_beside_their_own_photograph(tmp_path):
    """Photograph 1 alone has a mask: its left half."""
    s = training.settings(batch_size=3, variants=1, aspect_ratio_buckets=False)
    made = maker(tmp_path, s)
    assert made.batch(0, 0).weights is None
    Image.fromarray(np.repeat([[255, 0]], 72, 0).repeat(36, 1).astype(np.uint8)).save(tmp_path / "mask.png")
    examples = [replace(e, mask=tmp_path / "mask.png") if e.path.stem == "1" else e for e in made.photographs.examples]
    cuts = Cuts(tuple(examples), made.photographs.shapes, made.photographs.bucket_of, made.photographs.cuts)
    batch = replace(made, photographs=told(cuts, 1.0)).batch(0, 0)
    half = torch.tensor([1.6, 0.4]).repeat_interleave(4).repeat(8, 1)
    assert batch.weights.shape == (6, 1, 8, 8)
    for mean, weights in zip(batch.latents.mean((1, 2, 3)).round().tolist(), batch.weights[:, 0], strict=True):
        assert torch.allclose(weights, half if mean == 2 else torch.ones(8, 8), atol=0.05)


def rows(batches: list[Batch], field: str) -> Tensor:
    """The photographs' rows of several micro-batches, then the class images', in sample order."""
    shown = [getattr(batch, field)[: batch.instances] for batch in batches]
    regular = [getattr(batch, field)[batch.instances :] for batch in batches]
    return torch.cat(shown + regular)


@pytest.mark.parametrize("field", ["latents", "noise", "timesteps", "captions", "time_ids"])
def test_a_step_holds_the_same_samples_however_it_is_split(tmp_path, field):
    whole = maker(tmp_path, training.settings(batch_size=4))
    micro = maker(tmp_path, training.settings(batch_size=1, gradient_accumulation=4))
    ranks = [maker(tmp_path, training.settings(batch_size=2), rank, processes=2) for rank in range(2)]
    for step in range(3):
        want = rows([whole.batch(step, 0)], field)
        assert torch.equal(rows([micro.batch(step, m) for m in range(4)], field), want)
        assert torch.equal(rows([made.batch(step, 0) for made in ranks], field), want)


def test_processes_draw_different_noise(tmp_path):
    first, second = (maker(tmp_path, training.settings(), rank, processes=2).batch(0, 0) for rank in range(2))
    assert not torch.equal(first.noise, second.noise)
    assert not torch.equal(first.timesteps, second.timesteps)


def test_no_two_samples_of_a_run_share_their_noise(tmp_path):
    made = maker(tmp_path, training.settings(batch_size=3))
    noise = torch.cat([made.batch(step, 0).noise for step in range(5)]).flatten(1)
    cosines = torch.nn.functional.normalize(noise) @ torch.nn.functional.normalize(noise).T
    assert (cosines - torch.eye(len(noise))).abs().max() < 0.4


def test_a_batch_depends_on_the_seed_and_on_nothing_else(tmp_path):
    torch.manual_seed(1)
    first = maker(tmp_path, training.settings()).batch(3, 0)
    torch.manual_seed(2)
    again = maker(tmp_path, training.settings()).batch(3, 0)
    other = maker(tmp_path, training.settings(seed=1)).batch(3, 0)
    assert torch.equal(first.noise, again.noise)
    assert not torch.equal(first.noise, other.noise)


@pytest.mark.parametrize(("target", "of_class_images"), [("picture", 0.0), ("base", 0.6)])
def test_captions_are_dropped_at_the_asked_rates_and_never_of_class_images_that_are_targets(
    tmp_path, target, of_class_images
):
    asked = {"caption_dropout": 0.3, "prior_caption_dropout": 0.6, "prior_target": target}
    made = maker(tmp_path, training.settings(batch_size=20, max_train_steps=10, **asked))
    dropped = torch.stack([made.batch(step, 0).captions for step in range(10)]) == NO_CAPTION
    assert dropped[:, :20].float().mean().item() == pytest.approx(0.3, abs=0.1)
    assert dropped[:, 20:].float().mean().item() == pytest.approx(of_class_images, abs=0.1 * of_class_images)


def test_class_images_asked_for_with_a_token_teach_the_frame_that_the_base_gives_them_without(tmp_path):
    kept = {"prior_target": "base", "prior_surroundings": 0.5, "prior_caption_dropout": 0.25}
    made = maker(tmp_path, training.settings(batch_size=20, max_train_steps=10, **kept))
    texts, asked = list(made.caption_rows), 0
    for batch in (made.batch(step, 0) for step in range(10)):
        assert torch.equal(batch.captions[:20], batch.of_base[:20])
        assert (batch.weights[:20] == 1).all()
        for caption, of_base, weights in zip(
            batch.captions[20:], batch.of_base[20:], batch.weights[20:, 0], strict=True
        ):
            if caption == of_base:
                assert (weights == 1).all()
            else:
                asked += 1
                assert texts[caption] == texts[of_base].replace("chair", "bcnchr chair")
                assert weights.mean().item() == pytest.approx(1)
                assert (weights[1:-1, 1:-1] == 0).all()
    assert asked / 200 == pytest.approx(0.5 * 0.75, abs=0.08), "captions that are dropped stay dropped"


def test_without_the_base_as_target_no_class_image_is_asked_for_with_a_token(tmp_path):
    batch = maker(tmp_path, training.settings(batch_size=20, prior_surroundings=1.0)).batch(0, 0)
    assert torch.equal(batch.captions, batch.of_base)
    assert batch.weights is None


@pytest.mark.parametrize(("target", "late"), [("picture", 0.5), ("base", 0.89)])
def test_what_the_base_makes_of_class_images_is_asked_where_a_picture_is_decided(tmp_path, target, late):
    """`late`: share in the noisier half, where 89 % of the weight lies that errors of epsilon have as errors of v."""
    s = training.settings(batch_size=20, max_train_steps=40, prior_target=target)
    made = maker(tmp_path, s)
    timesteps = torch.stack([made.batch(step, 0).timesteps for step in range(40)])
    assert timesteps.min() >= 0
    assert timesteps.max() < 1000
    photographs, class_images = (timesteps[:, rows] >= 500 for rows in (slice(20), slice(20, None)))
    assert photographs.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert class_images.float().mean().item() == pytest.approx(late, abs=0.05)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_every_timestep_can_be_drawn_and_none_that_there_is_not(prediction_type):
    for cumulated in timesteps_of(TrainSettings(prior_target="base"), ALPHAS, prediction_type).values():
        assert cumulated[-1] == 1.0
        assert (cumulated.diff() > 0).all()
        assert cumulated[0] > 0


def test_without_prior_preservation_there_are_photographs_only(tmp_path):
    made = maker(tmp_path, training.settings(prior_loss_weight=0))
    assert len(made.batch(0, 0).latents) == made.batch(0, 0).instances == 2


def test_tall_and_wide_photographs_share_no_batch_and_class_images_follow_them(tmp_path):
    s = training.settings(resolution=128)
    tall = training.photographs(tmp_path / "tall", 2, width=60, height=120)
    wide = training.photographs(tmp_path / "wide", 2, width=120, height=60)
    shown = cut_photographs([*tall, *wide], s, 32)
    regular = cut_class_images(training.class_images(tmp_path, 4), shown, s)
    assert len(shown.shapes) == 2
    assert [len(group) for group in regular.groups()] == [2, 2]
    assert {cut.target for cuts in regular.cuts for cut in cuts} == set(shown.shapes)


def test_every_picture_is_shown_equally_often():
    epochs = Epochs(((0, 1, 2), (3, 4, 5, 6, 7, 8, 9)), samples_a_step=4, steps=100, seed=0)
    shown = Counter(i for _, pictures in epochs.plan() for i in pictures)
    for group in epochs.groups:
        counts = [shown[i] for i in group]
        assert max(counts) - min(counts) <= 1
    assert sum(shown[i] for i in epochs.groups[0]) == pytest.approx(120, abs=4)


def test_a_step_shows_pictures_of_one_bucket():
    epochs = Epochs(((0, 1), (2, 3, 4)), samples_a_step=3, steps=30, seed=1)
    assert all(set(pictures) <= set(epochs.groups[bucket]) for bucket, pictures in epochs.plan())


def test_a_longer_run_begins_like_a_shorter_one():
    short, long = (Epochs(((0, 1, 2),), 2, steps, seed=5).plan() for steps in (10, 40))
    assert long[:10] == short


def test_another_seed_shows_another_order():
    assert Epochs((tuple(range(20)),), 4, 5, seed=1).plan() != Epochs((tuple(range(20)),), 4, 5, seed=2).plan()


def test_an_error_while_making_a_batch_reaches_the_loop():
    def make(item: int) -> Batch:
        raise ValueError(f"no picture {item}")

    with pytest.raises(ValueError, match="no picture 0"):
        list(prefetch(make, range(3)))


def test_batches_arrive_in_order_and_the_thread_ends():
    made = prefetch(lambda item: item, range(20))  # type: ignore[arg-type,return-value]
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    made.close()
