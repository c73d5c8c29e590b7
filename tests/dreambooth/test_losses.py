"""The arithmetic of diffusion training, against the papers' equations and diffusers' own scheduler."""

import pytest
import torch

from personalize.dreambooth import losses
from tests.dreambooth.training import SCHEDULER

ALPHAS = SCHEDULER.alphas_cumprod
TIMESTEPS = torch.tensor([0, 1, 20, 500, 999])


def test_noise_is_added_as_the_scheduler_adds_it():
    latents, noise = torch.randn(2, 5, 4, 8, 8).unbind(0)
    ours = losses.add_noise(latents, noise, TIMESTEPS, ALPHAS)
    torch.testing.assert_close(ours, SCHEDULER.add_noise(latents, noise, TIMESTEPS))


def test_the_first_timestep_gets_its_little_noise_which_bfloat16_would_round_away():
    latents, noise = torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)
    noisy = losses.add_noise(latents, noise, torch.tensor([0]), ALPHAS)
    assert noisy.mean().item() == pytest.approx(0.0292, abs=1e-3)
    in_half = (1 - ALPHAS.to(torch.bfloat16)[0]).sqrt()
    assert in_half.item() == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_latents_are_refused(dtype):
    half = torch.zeros(1, 4, 8, 8, dtype=dtype)
    with pytest.raises(TypeError, match="float32"):
        losses.add_noise(half, half, torch.tensor([0]), ALPHAS)


def test_v_prediction_target_is_the_schedulers_velocity():
    latents, noise = torch.randn(2, 5, 4, 8, 8).unbind(0)
    ours = losses.prediction_target(latents, noise, TIMESTEPS, ALPHAS, "v_prediction")
    torch.testing.assert_close(ours, SCHEDULER.get_velocity(latents, noise, TIMESTEPS))
    assert losses.prediction_target(latents, noise, TIMESTEPS, ALPHAS, "epsilon") is noise
    assert losses.prediction_target(latents, noise, TIMESTEPS, ALPHAS, "sample") is latents


def test_min_snr_weights_follow_the_paper_for_every_prediction_type():
    snr, gamma = torch.tensor([0.1, 5.0, 20.0]), 5.0
    capped = torch.tensor([0.1, 5.0, 5.0])
    torch.testing.assert_close(losses.min_snr_weights(snr, gamma, "epsilon"), capped / snr)
    torch.testing.assert_close(losses.min_snr_weights(snr, gamma, "v_prediction"), capped / (snr + 1))
    torch.testing.assert_close(losses.min_snr_weights(snr, gamma, "sample"), capped)


def test_min_snr_weights_weigh_the_same_error_alike_whatever_is_predicted():
    """ε, v and x₀ are the same prediction in other words: errors in x₀ of one size must cost the same."""
    snr = losses.signal_to_noise(TIMESTEPS, ALPHAS)
    error_in_x0 = 1.0
    error_in_noise = error_in_x0 * snr
    error_in_velocity = error_in_x0 * (snr + 1)
    cost = losses.min_snr_weights(snr, 5.0, "sample") * error_in_x0
    torch.testing.assert_close(losses.min_snr_weights(snr, 5.0, "epsilon") * error_in_noise, cost)
    torch.testing.assert_close(losses.min_snr_weights(snr, 5.0, "v_prediction") * error_in_velocity, cost)


def test_a_terminal_timestep_without_signal_has_a_finite_weight():
    assert losses.min_snr_weights(torch.tensor([0.0]), 5.0, "epsilon").item() == 1.0


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_velocity_weights_cost_what_the_error_of_v_is_whatever_is_predicted(prediction_type):
    """Two opinions about the same noisy latents, said as ε, v or x₀."""
    said, other, latents = torch.randn(3, 5, 4, 8, 8, dtype=torch.float64)
    timesteps = torch.tensor([100, 200, 300, 500, 600])
    a = ALPHAS.double()[timesteps][:, None, None, None]

    def as_said(noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x0 = (latents - (1 - a).sqrt() * noise) / a.sqrt()
        predicted, v = (
            losses.prediction_target(x0, noise, timesteps, ALPHAS, kind) for kind in (prediction_type, "v_prediction")
        )
        return predicted, v

    (predicted, v), (rival, rival_v) = as_said(said), as_said(other)
    snr = losses.signal_to_noise(timesteps, ALPHAS)
    errors = losses.squared_error(predicted, rival) * losses.velocity_weights(snr, prediction_type)
    torch.testing.assert_close(errors, losses.squared_error(v, rival_v), rtol=1e-3, atol=1e-3)


def test_no_timestep_takes_all_the_weight():
    snr = torch.tensor([0.0, 1e-3, 1e3])
    assert losses.velocity_weights(snr, "epsilon").tolist() == pytest.approx([20, 20, 1.001])
    assert losses.velocity_weights(snr, "sample").tolist() == pytest.approx([1, 1.001, 20])


@pytest.mark.parametrize("size", [(3, 3), (16, 16), (96, 160), (128, 128)])
def test_a_frame_counts_as_much_as_a_picture_and_its_middle_nothing(size):
    weights = losses.frame_weights(*size)
    assert weights.shape == size
    assert weights.mean().item() == pytest.approx(1)
    assert (weights[size[0] // 2, size[1] // 2], weights[0, 0] > 1) == (0, True)
    assert torch.equal(weights, weights.flip(0, 1))


def test_min_snr_weights_apply_to_class_images_as_to_photographs():
    errors = torch.tensor([1.0, 2.0, 3.0, 4.0])
    weights = torch.tensor([0.5, 0.25, 0.1, 1.0])
    loss = losses.dreambooth_loss(errors, weights, instances=2, prior_loss_weight=0.5)
    assert loss.item() == pytest.approx((0.5 + 0.5) / 2 + 0.5 * (0.3 + 4.0) / 2)


def test_one_photograph_and_one_class_image_are_weighted_each_by_its_own_timestep():
    """At batch one the diffusers script multiplies one loss with both weights and averages."""
    loss = losses.dreambooth_loss(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0]), 1, 1.0)
    assert loss.item() == 1.0


def test_photographs_alone_need_no_class_images():
    assert losses.dreambooth_loss(torch.tensor([1.0, 3.0]), torch.ones(2), 2, 1.0).item() == 2.0


def test_errors_are_measured_in_float32_for_a_half_precision_prediction():
    prediction = torch.full((1, 4, 8, 8), 1.0, dtype=torch.bfloat16)
    error = losses.squared_error(prediction, torch.full((1, 4, 8, 8), 1.001))
    assert error.dtype == torch.float32
    assert error.item() == pytest.approx(1e-6, rel=1e-2)
