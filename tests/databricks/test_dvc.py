"""A volume as DVC's remote through the package `dvc-databricks`, which leaves our pins as they are.

It is no part of conda.yaml: it imports DVC's file systems at the start of every Python process there is (a .pth file).
"""

import shutil
import subprocess
import sys
from importlib.metadata import PathDistribution, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.databricks.conftest import VOLUME

PACKAGE = "dvc-databricks==1.3.0"
STORY = """
import shutil, site, sys
from pathlib import Path

site.addsitedir(sys.argv[1])
from dvc.repo import Repo

repo = Repo.init(no_scm=True)
with repo.config.edit() as config:
    config["remote"]["volume"] = {"url": "dbvol://" + sys.argv[2]}
    config["core"]["remote"] = "volume"
repo = Repo()
repo.add("data")
assert repo.push() == 3, "two photographs and their folder"
shutil.rmtree("data")
shutil.rmtree(".dvc/cache")
repo.pull()
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory):
    """A folder with the package alone."""
    folder = tmp_path_factory.mktemp("plugin")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    install = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", folder, PACKAGE]
    got = subprocess.run(install, capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"NOT TESTED: {PACKAGE} cannot be had here: {got.stderr.strip()[-200:]}")
    return folder


def test_it_asks_for_nothing_that_we_have_not_pinned(plugin):
    [found] = plugin.glob("*.dist-info")
    needs = [Requirement(line) for line in PathDistribution(found).requires or []]
    ours = [one for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})]
    assert {one.name for one in ours} >= {"dvc", "databricks-sdk"}
    for one in ours:
        assert version(one.name) in one.specifier, f"{one} is not what requirements.lock has"


def test_photographs_go_to_a_volume_and_come_back(workspace, plugin, tmp_path):
    for name in ("front", "back"):
        (tmp_path / "data" / "chair").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "chair" / f"{name}.jpg").write_bytes(name.encode())
    words = [sys.executable, "-c", STORY, str(plugin), f"{VOLUME}/dvc"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "data" / "chair" / "front.jpg").read_bytes() == b"front"
    assert len([one for one in workspace.path(f"{VOLUME}/dvc").rglob("*") if one.is_file()]) == 3
