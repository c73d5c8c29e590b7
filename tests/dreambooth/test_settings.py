"""Wrong combinations are refused with a reason before a model is loaded."""

import pytest
from pydantic import ValidationError

from personalize.dreambooth import optimisers, settings
from personalize.dreambooth.settings import TrainSettings


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"optimizer": "prodigy", "learning_rate": 1e-4}, "must be 1.0"),
        ({"learning_rate": 1.0}, "far too high"),
        ({"prior_batch_size": 0}, "no class images"),
        ({"use_dora": True, "train_text_encoder": True}, "cannot reload DoRA"),
        ({"use_dora": True, "memory": "low"}, "memory: balanced"),
        ({"text_encoder_learning_rate": 1e-5}, "no effect without train_text_encoder"),
        ({"rank": 0}, "greater than or equal to 1"),
        ({"rnak": 8}, "Extra inputs"),
    ],
)
def test_wrong_combinations_say_why(wrong, reason):
    with pytest.raises(ValidationError, match=reason):
        TrainSettings(**wrong)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"lr_scheduler": "cosine"}, "replaces the schedule"),
        ({"lr_scheduler": "constant", "ema_decay": 0.99}, "averages weights itself"),
    ],
)
def test_schedule_free_takes_the_place_of_schedule_and_average(wrong, reason):
    with pytest.raises(ValidationError, match=reason):
        TrainSettings(optimizer="schedule-free", **wrong)


def test_an_optimiser_that_is_not_installed_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setitem(settings.PACKAGES, "adamw-8bit", "no_such_package")
    with pytest.raises(ValidationError, match="pip install no_such_package"):
        TrainSettings(optimizer="adamw-8bit")


def test_every_setting_is_described():
    assert [name for name, field in TrainSettings.model_fields.items() if not field.description] == []


def test_alpha_is_the_rank_and_class_images_as_many_as_photographs_unless_said():
    chosen = TrainSettings(rank=8, batch_size=3)
    assert (chosen.lora_alpha, chosen.class_images_a_step) == (8.0, 3)
    assert TrainSettings(prior_loss_weight=0).class_images_a_step == 0


def test_the_rate_warms_up_and_then_falls():
    rates = [optimisers.learning_rate_factor(step, "cosine", 2, 10) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates == sorted(rates[:2]) + sorted(rates[2:], reverse=True)
    assert 0 < rates[-1] < 0.1


@pytest.mark.parametrize(
    ("asked", "photographs", "processes", "steps"),
    [
        ({"num_train_epochs": 150, "batch_size": 4}, 20, 1, 750),
        ({"num_train_epochs": 150, "batch_size": 4}, 4, 1, 150),
        ({"num_train_epochs": 150, "batch_size": 4}, 4, 2, 75),
        ({"num_train_epochs": 3, "batch_size": 4, "gradient_accumulation": 2}, 5, 1, 2),
        ({"num_train_epochs": 1, "batch_size": 64}, 1, 1, 1),
        ({"num_train_epochs": 150, "max_train_steps": 33}, 20, 1, 33),
    ],
)
def test_steps_follow_from_photographs_unless_they_are_given(asked, photographs, processes, steps):
    assert TrainSettings(**asked).for_photographs(photographs, processes).steps == steps


def test_steps_that_are_not_known_yet_are_nobodys_guess():
    with pytest.raises(ValueError, match="follows from the photographs"):
        TrainSettings().steps  # noqa: B018
