"""Bisect: which commit moved a number, by running the recipe at the commits that git asks for."""

import json
import shutil
from pathlib import Path

import mlflow
import pytest

from tests.recipe.conftest import REPOSITORY, Run, git
from tests.recipe.test_provenance import folder, run_of
from tests.recipe.test_reuse import edit
from tests.recipe.test_runs import runs_of


@pytest.fixture
def work(run: Run, project: Path, monkeypatch: pytest.MonkeyPatch) -> "Work":
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return Work(run, project)


class Work:
    """A history of commits, of which some are run."""

    def __init__(self, run: Run, project: Path) -> None:
        self.run, self.project = run, project

    def commit(self, message: str, file: str = "counting/tally.py", before: str = "", after: str = "") -> str:
        """A commit that edits a file, or adds a line to it."""
        path = self.project / file
        if before:
            edit(path, before, after)
        else:
            path.write_text(path.read_text() + (after or f"# {message}\n"))
        git(self.project, "commit", "-q", "-a", "-m", message)
        return git(self.project, "rev-parse", "HEAD").strip()

    def made(self, *words: str) -> str:
        """Runs the recipe; the id of the project run."""
        status, said = self.run("run", *words)
        assert status == 0, said
        (newest, *_) = mlflow.search_runs(
            filter_string="tags.`recipe.target` != ''", output_format="list", order_by=["start_time DESC"]
        )
        return newest.info.run_id

    def bisect(self, good: str, bad: str, *words: str, metric: str = "words") -> tuple[int, str]:
        return self.run("bisect", "--good", good, "--bad", bad, "--metric", metric, *words)


@pytest.mark.slow
def test_the_commit_that_moved_a_number_is_found_and_what_is_known_is_not_made_again(work: Work) -> None:
    good = work.made()
    for number in range(3):
        work.commit(f"nothing {number}")
    culprit = work.commit("split at every a", before="text.lower()", after='text.lower().replace("a", " ")')
    work.commit("a remark", file="recipe.yaml", after="# a remark\n")
    broken = work.commit("does not run", file="steps/read.py", after="\nraise ImportError('of what?')\n")
    work.commit("runs again", file="steps/read.py", before="\nraise ImportError('of what?')\n", after="")
    bad = work.made()
    counted = len(runs_of("count"))
    status, said = work.bisect(good, bad)
    assert status == 0, said
    assert "words of count: 5, then 6, 7 commits later" in said
    assert f"words 5 → 6, first in\n  {culprit[:7]}" in said
    assert "split at every a" in said
    assert "counting/tally.py" in said
    assert len(runs_of("count")) == counted, "the same code on the same text was found, not run"
    if broken[:8] in said:
        assert f"{broken[:8]}  skip" in said
    assert git(work.project, "worktree", "list").count("\n") == 1
    assert "bisect" not in git(work.project, "for-each-ref")
    tried = mlflow.search_runs(filter_string="tags.bisects != ''", output_format="list")
    assert {run.info.status for run in tried} <= {"FINISHED", "FAILED"}
    assert {run.data.tags["bisects"] for run in tried} == {"words of count"}


@pytest.mark.slow
def test_commits_that_cannot_be_run_may_hide_it(work: Work) -> None:
    good = work.made()
    broken = work.commit("does not run", file="steps/read.py", after="\nraise ImportError('of what?')\n")
    both = work.commit("and counts otherwise", before="text.lower()", after='text.lower().replace("a", " ")')
    mended = work.commit("runs again", file="steps/read.py", before="\nraise ImportError('of what?')\n", after="")
    bad = work.made()
    status, said = work.bisect(good, bad)
    assert status == 1, said
    assert f"{both[:8]}  skip" in said
    told = said[said.index("words moved in one of these, of which all but the last cannot be run") :]
    assert all(commit[:7] in told for commit in (broken, both, mended))


@pytest.mark.slow
def test_what_is_in_no_commit_comes_from_this_checkout_and_must_be_as_it_was(work: Work) -> None:
    """Photographs, say, that git does not know."""
    (work.project / ".gitignore").write_text("/build/\n__pycache__\n/texts/\n")
    git(work.project, "rm", "-q", "-r", "--cached", "texts")
    git(work.project, "commit", "-q", "-a", "-m", "texts of my own")
    good = work.made()
    work.commit("nothing")
    culprit = work.commit("counts otherwise", before="text.lower()", after='text.lower().replace("a", " ")')
    bad = work.made()
    status, said = work.bisect(good, bad)
    assert status == 0, said
    assert culprit[:7] in said
    assert (work.project / "texts" / "a.txt").is_file()
    (work.project / "texts" / "a.txt").write_text("another text")
    status, said = work.bisect(good, bad)
    assert status == 2, said
    assert f"the good run ({good[:8]}) was made from something that is not here: texts changed" in said


def test_there_is_nothing_to_search_where_not_only_commits_differ(work: Work, project: Path) -> None:
    good = work.made()
    same = work.made("--read.title", "another")
    assert "so no commit moved words; what differs between them: title a title → another" in work.bisect(good, same)[1]
    work.commit("nothing")
    alike = work.made()
    assert "words is 5 in the good run and 5 in the bad one: no more than noise" in work.bisect(good, alike)[1]
    work.commit("counts otherwise", before="text.lower()", after='text.lower().replace("a", " ")')
    other = work.made("--count.top", "2")
    status, said = work.bisect(good, other)
    assert status == 2
    assert "not only commits differ: count.top (not given), then 2" in said
    bad = work.made()
    assert "6 in the bad one: no more than noise (3)" in work.bisect(good, bad, "--noise", "3")[1]
    assert "noise is 0 or more, not -1" in work.bisect(good, bad, "--noise", "-1")[1]
    assert "comes before the good one's; give them the other way round" in work.bisect(bad, good)[1]
    assert "the good run has no metric 'wrods'; did you mean 'words'?" in work.bisect(good, bad, metric="wrods")[1]
    assert "run 00000000000000000000000000000000 is not in " in work.bisect(good, "0" * 32)[1]
    assert "bisect needs bad: mlflow run . --env-manager local -e bisect" in work.run("bisect", "--good", good)[1]
    (project / "counting" / "tally.py").write_text((project / "counting" / "tally.py").read_text() + "MORE = 1\n")
    dirty = work.made("--fresh")
    assert "was made with changes that no commit holds" in work.bisect(good, dirty)[1]
    assert not mlflow.search_runs(filter_string="tags.bisects != ''", output_format="list"), "nothing was run for that"


def test_commits_that_are_not_here_or_not_of_one_line_are_said(work: Work, project: Path) -> None:
    good = work.made()
    start = git(project, "rev-parse", "HEAD").strip()
    git(project, "checkout", "-q", "-b", "aside")
    work.commit("one way", before="text.lower()", after='text.lower().replace("a", " ")')
    bad = work.made()
    git(project, "checkout", "-q", "-b", "another", start)
    work.commit("another way", before="text.lower()", after='text.lower().replace("o", "o o ")')
    third = work.made()
    assert "they lie on branches of their own" in work.bisect(third, bad)[1]
    git(project, "branch", "-q", "-D", "aside")
    git(project, "reflog", "expire", "--expire=now", "--all")
    git(project, "gc", "-q", "--prune=now")
    assert f"of the bad run ({bad[:8]}) is not in this clone: git fetch" in work.bisect(good, bad)[1]


@pytest.mark.slow
def test_a_number_that_its_own_commit_does_not_come_to_is_said_before_the_search(work: Work) -> None:
    good = work.made()
    work.commit("counts otherwise", before="text.lower()", after='text.lower().replace("a", " ")')
    bad = work.made()
    run = run_of("count")
    mlflow.MlflowClient().log_metric(run.info.run_id, "words", 9)
    made = folder(run) / "outputs" / "about.json"
    made.write_text(json.dumps({"words": 9}))
    status, said = work.bisect(good, bad)
    assert status == 2, said
    assert "comes to 6 here, and the run to 9: more than noise" in said


def test_a_step_that_acts_outside_is_not_run_again_and_again(work: Work, project: Path) -> None:
    announce = "steps/announce.py"
    work.commit("says how loud", announce, "    if config.by", "    import mlflow\n\n    mlflow.log_metric('loud', 1)\n"
                "    if config.by")  # fmt: skip
    good = work.made("--until", "announce", "--announce.by", "me")
    work.commit("louder", announce, "'loud', 1", "'loud', 2")
    bad = work.made("--until", "announce", "--announce.by", "me")
    status, said = work.bisect(good, bad, metric="loud")
    assert status == 2
    assert "loud is of step 'announce', which acts outside" in said
    shutil.rmtree(project / "build", ignore_errors=True)
