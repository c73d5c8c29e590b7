"""Commands are written in one place, as they can be typed, under the profile that a person works under."""

import shlex

import pytest

from personalize.cards import Card, command
from personalize.cards.commands import under_profile


def test_a_command_can_be_typed_as_it_stands() -> None:
    typed = command("promote", approved_by="O'Neill & co", reason="the legs $HOME", **{"train.rank": 8}, seed=None)
    words = shlex.split(typed)
    assert words[:7] == ["mlflow", "run", ".", "--env-manager", "local", "-e", "promote"]
    assert words[7:] == ["-P", "approved_by=O'Neill & co", "-P", "reason=the legs $HOME", "-P", "train.rank=8"]


def test_the_whole_recipe_has_no_entry_point_and_a_flag_small_letters() -> None:
    assert command(plan=True) == "mlflow run . --env-manager local -P plan=true"


def test_a_command_keeps_the_profile() -> None:
    with under_profile("databricks"):
        assert Card().command("deploy", action="stop") == (
            "mlflow run . --env-manager local -e deploy -P profile=databricks -P action=stop"
        )
        assert "-P profile=gpu" in command("train", profile="gpu")
    assert "profile" not in command("deploy")


@pytest.mark.parametrize("yours", ["...", "<your name>", "{prompt}"])
def test_what_a_person_has_to_fill_in_is_not_quoted(yours: str) -> None:
    assert command("generate", prompt=yours).endswith(f"-P prompt={yours}")
