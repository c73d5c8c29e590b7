"""The same clients against a double that is not ours: minilake (PyPI, MIT), in an environment of its own.

It has catalogs, schemas, volumes and files; no models, no serving, no permissions that it enforces. Where it and
`tests/workspace` disagree the documentation decides: minilake has no /.well-known/databricks-config, where the SDK
looks for a workspace's sign-in (oauth.py), and lists no effective permissions; ours has both.
"""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from databricks.sdk.errors import NotFound

from personalize.databricks import setup
from personalize.databricks.volumes import download
from personalize.databricks.workspace import connect
from tests.databricks.conftest import ROOT

MINILAKE = "minilake==1.9.0"
STUDIO = "/Volumes/studio/chairs/files"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Its address. uv keeps its environment apart, so that nothing of it is seen by ours."""
    folder = tmp_path_factory.mktemp("lake")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tool = [uv, "tool", "run", "--quiet", "--python", sys.executable, "--from", MINILAKE, "minilake"]
    had = subprocess.run([*tool, "--help"], capture_output=True, text=True, check=False)
    if had.returncode:
        pytest.skip(f"NOT TESTED against {MINILAKE}, which cannot be had here: {had.stderr.strip()[-200:]}")
    with open(folder / "log", "wb") as log, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILAKE_DATA_DIR", str(folder / "data"))
        process = subprocess.Popen([*tool, "--port", str(port)], cwd=folder, stdout=log, stderr=log)
        try:
            begun = time.monotonic()
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                assert time.monotonic() - begun < 120, "it does not answer"
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def signed_in(lake, monkeypatch, tmp_path):
    """The environment leads there; the working directory is a project with a photograph."""
    for name, value in {"HOST": lake, "TOKEN": "any", "CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(f"DATABRICKS_{name}", value)
    monkeypatch.setenv("NO_PROXY", "*")
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    (tmp_path / "data" / "chair" / "zwvchr").mkdir(parents=True)
    (tmp_path / "data" / "chair" / "zwvchr" / "front.jpg").write_bytes(b"front")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_setup_makes_and_fills_a_workspace_that_others_wrote(signed_in, capsys):
    words = ["--profile", "databricks", "--VOLUME", STUDIO, "--DATA", f"{STUDIO}/photographs"]
    assert setup.main([*words, "--MODEL_NAME", "studio.chairs.chair"]) == 0
    assert "volume studio.chairs.files made" in capsys.readouterr().out
    assert setup.main([*words, "--MODEL_NAME", "studio.chairs.chair"]) == 0
    assert "0 files sent" in capsys.readouterr().out
    client = connect()
    [back] = download(client, f"{STUDIO}/photographs", signed_in / "back")
    assert back.read_bytes() == b"front"
    with pytest.raises(NotFound):
        client.catalogs.get("nothing")
