"""Configuration is checked before anything runs: one message with file, line and the nearest name; exit status 2."""

import time
from pathlib import Path

import pytest
import yaml

from personalize.recipe import Recipe
from personalize.recipe.config import Override
from personalize.recipe.document import parse, scalar
from personalize.recipe.errors import RecipeError
from personalize.recipe.plan import prepare


@pytest.fixture(autouse=True)
def _there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


def edit(path: Path, before: str, after: str) -> None:
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))


def refused(project: Path, *overrides: tuple[str, str], profile: str = "local", step: str = "") -> str:
    with pytest.raises(RecipeError) as caught:
        prepare(project, profile, [Override(*pair) for pair in overrides], step=step)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "yes",
        "null",
        "~",
        "1e-4",
        "2024-01-01",
        "[a, b]",
        "{a: b}",
        "a: b # c",
        "'q'",
        "*x",
        "ünï 日本",
        " s ",
        "{{ x }}",
        "-- dash",
        "%",
    ],
)
def test_text_stays_text_where_the_key_is_text(project: Path, text: str) -> None:
    prepared = prepare(project, "local", [Override("read.title", text)])
    assert prepared.configs["read"].title == text  # type: ignore[attr-defined]


def test_text_stays_text_in_the_file_and_through_variables(project: Path) -> None:
    edit(project / "recipe.yaml", "title: a title", "title: {{ REVISION }}")
    assert prepare(project, "local").configs["read"].title == "0012345"  # type: ignore[attr-defined]
    edit(project / "recipe.yaml", "title: {{ REVISION }}", 'title: "rev {{ REVISION }}: {{ LANGUAGE }}"')
    assert prepare(project, "local").configs["read"].title == "rev 0012345: English"  # type: ignore[attr-defined]
    edit(project / "recipe.yaml", 'title: "rev {{ REVISION }}: {{ LANGUAGE }}"', "title: no")
    assert prepare(project, "local").configs["read"].title == "no"  # type: ignore[attr-defined]


def test_a_variable_cannot_change_the_shape_of_the_file(project: Path) -> None:
    hostile = 'x"\n  count: {top: 99}\n# {{ SEED }} : ['
    prepared = prepare(project, "local", [Override("LANGUAGE", hostile)])
    assert prepared.configs["report"].heading == f"{hostile} words"  # type: ignore[attr-defined]
    assert prepared.configs["count"].top == 3  # type: ignore[attr-defined]


def test_numbers_are_numbers_and_null_is_nothing_where_that_is_allowed(project: Path) -> None:
    prepared = prepare(
        project, "local", [Override("count.share", "1e-4"), Override("SEED", "11"), Override("read.note", "null")]
    )
    assert prepared.configs["count"].share == 1e-4  # type: ignore[attr-defined]
    assert prepared.configs["count"].seed == 11  # type: ignore[attr-defined]
    assert prepared.configs["read"].note is None  # type: ignore[attr-defined]


def test_an_unknown_profile_names_the_nearest(project: Path) -> None:
    assert "unknown profile 'locla'; did you mean 'local'?" in refused(project, profile="locla")


def test_an_unknown_step_names_the_nearest(project: Path) -> None:
    assert "unknown step 'cuont'; did you mean 'count'?" in refused(project, step="cuont")
    assert "-P reed.title=x: unknown step 'reed'; did you mean 'read'?" in refused(project, ("reed.title", "x"))


def test_an_unknown_key_names_line_and_nearest(project: Path) -> None:
    edit(project / "recipe.yaml", "top: 3", "tpo: 3")
    assert refused(project) == "recipe.yaml:10: step 'count' has no key 'tpo'; did you mean 'top'?"


def test_an_unknown_parameter_names_the_nearest(project: Path) -> None:
    assert "unknown parameter 'topp'; did you mean 'top'?" in refused(project, ("topp", "3"))
    assert "unknown parameter 'heading'; did you mean 'report.heading'?" in refused(project, ("heading", "3"))
    assert "has no variable LANGAUGE; did you mean 'LANGUAGE'?" in refused(project, ("LANGAUGE", "3"))


@pytest.mark.parametrize("text", ["three", "2.5", "yes", "[3]", "", "0", ".nan"])
def test_a_wrong_type_or_range_is_said_with_its_place(project: Path, text: str) -> None:
    message = refused(project, ("count.top", text))
    assert message.startswith(f"-P count.top={text}: count.top: ")
    assert "how many words to keep" in message


def test_all_faults_are_said_at_once(project: Path) -> None:
    """Unknown names, wrong values, and data that are not there, of whichever step."""
    names = ("LANGAUGE", "3"), ("topp", "3"), ("coutn.top", "3"), ("count.sede", "1"), ("read.titel", "x")
    message = refused(project, *names, ("count.top", "x"), ("read.folder", "nowhere"))
    lines = message.splitlines()
    assert len(lines) == 6, "a step with a fault is not asked for its data"
    assert [line.split(":")[0] for line in lines[:3]] == ["-P LANGAUGE=3", "-P topp=3", "-P coutn.top=3"]
    lines = refused(project, ("topp", "3"), ("count.top", "x"), ("read.folder", "nowhere")).splitlines()
    assert len(lines) == 3
    assert lines[-1].startswith("read: ")
    assert "nowhere" in lines[-1]


def test_a_missing_variable_names_line_and_profile(project: Path) -> None:
    edit(project / "profiles" / "local.yaml", "LANGUAGE: English", "LANGUAG: English")
    message = "recipe.yaml:13: variable LANGUAGE has no value; add it to profiles/local.yaml; did you mean 'LANGUAG'?"
    assert refused(project) == message


def test_what_a_comment_mentions_needs_no_value(project: Path) -> None:
    edit(project / "recipe.yaml", "# Counts words", "# {{ NOBODY }} counts words")
    prepare(project, "local")


def test_a_key_given_twice_names_both_lines(project: Path) -> None:
    edit(project / "recipe.yaml", "top: 3", "top: 3\n    top: 4")
    assert refused(project) == "recipe.yaml:11: key 'top' is given twice (first on line 10); keep one"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("top: 3", "top: [3", "recipe.yaml:11: not valid YAML"),
        ("{{ SEED }}", "{{ SEED }", "recipe.yaml:11: "),
        ("card: report", "card: reprot", "recipe.yaml:4: card: unknown step 'reprot'; did you mean 'report'?"),
        ("until:", "untill:", "recipe.yaml:3: unknown key 'untill'; did you mean 'until'?"),
        ("  boom:", "  bomo:", "recipe.yaml:15: step 'bomo' has no file steps/bomo.py; did you mean 'boom'?"),
        ("  boom:", "  boom: 3", "recipe.yaml:15: step 'boom' must hold keys and values"),
        ("{{ SEED }}", "{{ SEED.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_broken_file_is_said_with_its_line(project: Path, before: str, after: str, said: str) -> None:
    edit(project / "recipe.yaml", before, after)
    assert said in refused(project)


def test_a_value_may_be_missing_only_in_steps_that_do_not_run(project: Path) -> None:
    prepare(project, "local")
    message = refused(project, step="announce")
    assert message.startswith("recipe.yaml:14: announce.by has no value (who announces)")
    assert "-P announce.by=…" in message


def test_a_profile_may_change_a_steps_keys(project: Path) -> None:
    with (project / "profiles" / "local.yaml").open("a") as profile:
        profile.write("steps:\n  count:\n    top: 5\n")
    assert prepare(project, "local").configs["count"].top == 5  # type: ignore[attr-defined]
    assert prepare(project, "local", [Override("count.top", "6")]).configs["count"].top == 6  # type: ignore[attr-defined]
    edit(project / "profiles" / "local.yaml", "top: 5", "tip: 5")
    assert refused(project).startswith("profiles/local.yaml:7: step 'count' has no key 'tip'")


def test_next_words_of_an_unknown_step_are_refused(project: Path) -> None:
    edit(project / "recipe.yaml", "  report: python -m", "  reprot: python -m")
    assert "unknown step 'reprot'; did you mean 'report'?" in refused(project)


def test_an_unknown_profile_key_is_refused(project: Path) -> None:
    with (project / "profiles" / "local.yaml").open("a") as profile:
        profile.write("experiment:\n  nmae: x\n")
    assert refused(project) == "profiles/local.yaml:6: unknown key 'experiment.nmae'; did you mean 'name'?"


def test_a_step_that_cannot_be_imported_is_said_with_its_line(project: Path) -> None:
    edit(project / "steps" / "count.py", "import json", "import nothing_of_the_kind")
    assert "steps/count.py:3: cannot be imported: ModuleNotFoundError" in refused(project)
    edit(project / "steps" / "count.py", "import nothing_of_the_kind", "import (")
    assert "steps/count.py:3: cannot be imported: SyntaxError" in refused(project)


def test_steps_out_of_order_are_refused(project: Path) -> None:
    edit(project / "steps" / "read.py", "NEEDS = ()", 'NEEDS = ("report",)')
    assert "step 'read' needs 'report'; put it after 'report' in recipe.yaml" in refused(project)


def test_missing_data_is_said_before_anything_runs(project: Path) -> None:
    assert refused(project, ("read.folder", "nowhere")).startswith("read: nowhere does not exist")


def test_everything_that_was_decided_is_kept(project: Path) -> None:
    resolved = yaml.safe_load(yaml.safe_dump(prepare(project, "local", [Override("count.top", "5")]).resolved()))
    assert resolved["steps"]["count"] == {"top": 5, "share": 0.0, "seed": 7}
    assert resolved["overrides"] == {"count.top": "5"}
    assert resolved["variables"]["LANGUAGE"] == "English"


LOUD = '''"""Loud: the count, louder."""
from pydantic import Field
from steps import count

NEEDS = count.NEEDS

class Config(count.Config):
    marks: int = Field(1, ge=1, description="exclamation marks")

def run(config, inputs, outputs, card):
    pass
'''


def test_a_config_that_extends_anothers_takes_that_steps_values_where_it_says_nothing(project: Path) -> None:
    (project / "steps" / "loud.py").write_text(LOUD)
    edit(project / "recipe.yaml", "  announce:\n", "  loud: {marks: 2}\n  announce:\n")
    loud = prepare(project, "local", [Override("count.top", "5")], step="loud").configs["loud"]
    assert (loud.top, loud.marks) == (5, 2)  # type: ignore[attr-defined]
    both = prepare(project, "local", [Override("count.top", "5"), Override("loud.top", "7")], step="loud").configs
    assert (both["count"].top, both["loud"].top) == (5, 7)  # type: ignore[attr-defined]
    assert "loud.top" in refused(project, ("loud.top", "many"))
    assert "loud" not in refused(project, ("count.top", "many"))


def test_a_profile_extends_another(project: Path) -> None:
    (project / "profiles" / "german.yaml").write_text(
        "extends: local\nLANGUAGE: Deutsch\nsteps:\n  count:\n    top: 4\n"
    )
    with (project / "profiles" / "local.yaml").open("a") as profile:
        profile.write("steps:\n  count:\n    top: 5\n    share: 0.5\n")
    configs = prepare(project, "german").configs
    assert configs["report"].heading == "Deutsch words"  # type: ignore[attr-defined]
    assert (configs["count"].top, configs["count"].share, configs["count"].seed) == (4, 0.5, 7)  # type: ignore[attr-defined]
    edit(project / "profiles" / "local.yaml", "share: 0.5", "shrae: 0.5")
    with pytest.raises(RecipeError, match=r"profiles/local.yaml:8: step 'count' has no key 'shrae'"):
        prepare(project, "german")


def test_a_profile_that_extends_itself_or_nothing_known_is_refused(project: Path) -> None:
    (project / "profiles" / "a.yaml").write_text("extends: b\n")
    (project / "profiles" / "b.yaml").write_text("# of a\nextends: a\n")
    with pytest.raises(RecipeError, match=r"profiles/b.yaml:2: profile 'a' extends itself \(a → b → a\)"):
        prepare(project, "a")
    (project / "profiles" / "b.yaml").write_text("extends: lokal\n")
    with pytest.raises(RecipeError, match=r"profiles/b.yaml:1: unknown profile 'lokal'; did you mean 'local'"):
        prepare(project, "a")


def test_a_short_name_stands_for_a_key_or_a_variable(project: Path) -> None:
    prepared = prepare(project, "local", [Override("top", "5"), Override("language", "Deutsch")])
    assert prepared.configs["count"].top == 5  # type: ignore[attr-defined]
    assert prepared.configs["report"].heading == "Deutsch words"  # type: ignore[attr-defined]
    assert prepared.resolved()["overrides"] == {"count.top": "5", "LANGUAGE": "Deutsch"}
    assert "-P count.top=many" in refused(project, ("top", "many"))


def test_a_command_in_what_is_refused_keeps_the_profile(project: Path) -> None:
    edit(project / "steps" / "read.py", "import Inputs, StepConfig", "import Inputs, RecipeError, StepConfig")
    edit(
        project / "steps" / "read.py",
        '    return {"texts"',
        '    from personalize.cards import command\n\n    raise RecipeError(command("read"))\n    return {"texts"',
    )
    (project / "profiles" / "german.yaml").write_text("extends: local\n")
    with pytest.raises(RecipeError, match=r"-e read -P profile=german"):
        Recipe("german", root=project).plan()


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "holds more than 100,000 values"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply, or a value holds itself|found undefined alias"),
    ],
)
def test_a_file_that_would_fill_the_memory_is_refused_at_once(text: str, words: str) -> None:
    started = time.monotonic()
    with pytest.raises(RecipeError, match=words):
        parse(text, "recipe.yaml")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("text", ["[" * 50_000, "{a: &a [x], b: [*a, *a]}", "*a", "&a [*a]", "!!python/name:os.system"])
def test_what_is_typed_and_is_no_plain_value_stays_text(text: str) -> None:
    assert scalar(text) == text


def test_a_message_repeats_no_endless_word() -> None:
    assert len(str(RecipeError(f"train.rank: not '{'9' * 100_000}'"))) < 400
