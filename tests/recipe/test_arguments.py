"""The command line takes every value whole, whatever is in it."""

from pathlib import Path

import pytest
import yaml

from personalize.recipe.__main__ import main, parse
from personalize.recipe.config import Override
from personalize.recipe.errors import RecipeError


def read(*words: str) -> list[Override]:
    return parse(words, ["until"], ["plan"]).overrides


@pytest.mark.parametrize("value", ["a b", "--dashes", "-0.5", "a=b", "", "\"'", "{x}"])
def test_an_undeclared_parameter_takes_the_next_word_whole(value: str) -> None:
    assert read("--train.alpha", value) == [Override("train.alpha", value)]


def test_set_with_nothing_means_not_given() -> None:
    assert read("--set", "train.rank=", "--set", "train.prompt=a = b") == [Override("train.prompt", "a = b")]


def test_a_flag_stands_alone_or_takes_true_or_false() -> None:
    assert parse(["--plan", "--until", "x"], ["until"], ["plan"]).flag("plan")
    assert not parse(["--plan", "false"], [], ["plan"]).flag("plan")
    assert not parse(["--plan", ""], [], ["plan"]).flag("plan")
    with pytest.raises(RecipeError, match="true or false, not 'maybe'"):
        parse(["--plan", "maybe"], [], ["plan"]).flag("plan")


@pytest.mark.parametrize("words", [["stray"], ["--until"], ["--set", "nothing"]])
def test_a_malformed_command_line_is_refused(words: list[str]) -> None:
    with pytest.raises(RecipeError):
        read(*words)


def test_an_unknown_command_exits_with_2_and_help_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspekt"]) == 2
    assert "did you mean 'inspect'?" in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "reproduce" in capsys.readouterr().out


def test_every_entry_point_of_the_project_can_be_spelt_out() -> None:
    from mlflow.projects._project_spec import load_project

    root = Path(__file__).parents[2]
    for name in yaml.safe_load((root / "MLproject").read_text())["entry_points"]:
        entry_point = load_project(str(root)).get_entry_point(name)
        required = {key: "x" for key, parameter in entry_point.parameters.items() if parameter.default is None}
        assert "{" not in entry_point.compute_command(required, None), f"{name}: YAML takes `on` for true"
