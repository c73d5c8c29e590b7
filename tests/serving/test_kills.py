"""An endpoint killed again and again at any moment: its server, its keeper, who deploys, or all at once.

It answers with the version that it served or with the one that was asked for, comes back by itself or by the same
command, and leaves no process: `make test-kills KILLS=500` by night. What callers notice meanwhile: `test_chaos.py`.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from personalize.files import read_json
from personalize.serving.endpoint import EndpointError
from personalize.serving.ports import port_is_free
from tests.serving.test_keeper import (  # noqa: F401  fixtures among them
    SMOKE,
    QuickEndpoint,
    _no_registry,
    endpoint,
    painted_by,
    version,
    wait_for,
)

KILLS = max(4, int(os.environ.get("KILLS", "60")) // 4)
"""The others are those of a recipe and its tracking server."""
VICTIMS = ("server", "keeper", "deployment", "power")
ROOT = Path(__file__).resolve().parents[2]
DEPLOY = """
import sys
from pathlib import Path
from personalize.serving import local
from tests.serving.test_keeper import SMOKE, ModelVersion, QuickEndpoint
local.fetch_files = lambda model, store: Path(model.uri)
QuickEndpoint("easel", root=Path(sys.argv[1]), grace_s=5, startup_timeout_s=60).deploy(
    ModelVersion("easel", sys.argv[2], sys.argv[3]), SMOKE
)
"""


def processes(endpoint: QuickEndpoint) -> list[psutil.Process]:  # noqa: F811
    """Its keeper and its servers, whoever looks after them."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = " ".join(process.info["cmdline"] or ())
        of_server = "easel.py" in words and process.info["cwd"] == str(endpoint.folder)
        if of_server or ("serving.keeper" in words and str(endpoint.folder) in words):
            found.append(process)
    return found


def killed(found: list[psutil.Process]) -> None:
    for process in found:
        process.kill()
    psutil.wait_procs(found, timeout=30)


def asked(endpoint: QuickEndpoint) -> str:  # noqa: F811
    """The version that answers; empty where nobody does."""
    try:
        return painted_by(endpoint)
    except EndpointError:
        return ""


@pytest.mark.slow
def test_whatever_is_killed_it_serves_what_was_deployed_and_leaves_no_process(endpoint, version, capsys):  # noqa: F811
    chance, ended = random.Random(0), Counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    url, serving = endpoint.deploy(version(1), SMOKE).url, 1
    for number in range(2, KILLS + 2):
        victim = chance.choice(VICTIMS)
        if victim == "server":
            os.kill(endpoint.status().pid, chance.choice([signal.SIGKILL, signal.SIGTERM]))
            assert wait_for(lambda: asked(endpoint) == f"v{serving}"), "it is started again"  # noqa: B023
        elif victim == "keeper":
            os.kill(read_json(endpoint.folder / "actual.json")["keeper"]["pid"], signal.SIGKILL)
        elif victim == "power":
            killed(processes(endpoint))
            for log in endpoint.folder.glob("*.log"):
                os.truncate(log, chance.choice([0, log.stat().st_size]))
        else:
            words = [sys.executable, "-c", DEPLOY, str(endpoint.root), str(number), version(number).uri]
            deploying = subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
            time.sleep(chance.uniform(1, 12))
            deploying.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
            ended[f"deployment {'done' if deploying.wait(60) == 0 else 'cut'}"] += 1
            assert wait_for(lambda: asked(endpoint) in (f"v{serving}", f"v{number}")), "one of both serves"  # noqa: B023
        ended[victim] += 1
        status, serving = endpoint.deploy(version(number), SMOKE), number
        assert (status.state, status.url) == ("serving", url)
        assert painted_by(endpoint) == f"v{number}"
    with capsys.disabled():
        print(f"{KILLS} kills: {dict(ended)}")
    endpoint.stop()
    assert wait_for(lambda: not processes(endpoint))
    assert port_is_free("127.0.0.1", int(url.rsplit(":", 1)[1]))
