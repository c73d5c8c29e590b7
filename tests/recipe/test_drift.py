"""What is installed decides results, whatever is locked: it counts, it is said, and the statement has it."""

from collections.abc import Callable
from pathlib import Path

from personalize.recipe import provenance
from personalize.recipe.fingerprint import environment, unlocked
from tests.recipe.conftest import Run
from tests.recipe.test_provenance import statement
from tests.recipe.test_reuse import plan


def test_what_is_installed_counts_and_not_what_is_locked(
    run: Run, project: Path, installs: Callable[..., None]
) -> None:
    (project / "requirements.lock").write_text("numpy==2.4.6 \\\n    --hash=sha256:aa\nhttpx==0.28.1\n")
    installs(numpy="2.4.6", httpx="0.28.1")
    assert "not installed as locked" not in run("run")[1]
    installs(numpy="2.5.0", httpx="0.28.1")
    status, said = run("run", "--plan", "true")
    assert status == 0
    assert "  not installed as locked: numpy 2.5.0 and not 2.4.6; what is installed counts\n" in said
    assert plan(run)["read"] == "run: environment changed: numpy 2.4.6 → 2.5.0 and not 2.4.6 as locked"
    assert run("run")[0] == 0
    (drifted,) = [each for each in provenance.of(statement("read")) if each["name"] == "environment"]
    assert drifted["annotations"] == {"unlocked": ["numpy 2.5.0 and not 2.4.6"]}
    assert provenance.drifted(statement("report")) == ["numpy 2.5.0 and not 2.4.6"]
    installs(numpy="2.4.6", httpx="0.28.1")
    assert set(plan(run).values()) == {"reuse"}, "those of before are found again"


def test_a_build_of_ones_own_and_a_package_for_other_machines_are_as_locked(
    project: Path, installs: Callable[..., None]
) -> None:
    (project / "requirements.lock").write_text("numpy==2.4.6\nno-such-package==1 ; sys_platform == 'win32'\n")
    (project / "requirements-torch.lock").write_text("torch==2.13.0\nno-such-library==1\n")
    installs(numpy="2.4.6", torch="2.13.0+cpu")
    assert unlocked(environment(project)) == []
    (project / "requirements.lock").write_text("numpy==2.4.6\nno-such.package==1\n")
    assert unlocked(environment(project)) == ["no-such.package nothing and not 1"]
