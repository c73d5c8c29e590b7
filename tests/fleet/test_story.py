"""From a catalogue with good, bad and doubled rows, by the real `mlflow run`, to the fleet's card in a browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import browser
from tests.fleet.conftest import Catalogue


def test_a_catalogue_by_mlflow_run_and_its_card_in_a_browser(
    project: Path, catalogue: Catalogue, outside: dict[str, str]
) -> None:
    pytest.importorskip("ray", reason="FLEET NOT TESTED: Ray is not installed (requirements-dev.txt)")
    path = catalogue(["chair/chra", "sofa/sofm", "chair/failb"])
    with Path(path).open("a") as file:
        file.write("sofm,chair,photographs/chair/chra,\nghost,lamp,nowhere,\n")
    environment = {**outside, "PATH": f"{Path(sys.executable).parent}:{outside['PATH']}"}
    words = [sys.executable, "-m", "mlflow", "run", ".", "--env-manager", "local", "-e", "fleet"]
    done = subprocess.run(
        [*words, "-P", f"catalogue={path}"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 to run, 0 done already, 2 cannot be done" in done.stdout
    assert "row 5: the token 'sofm' is a sofa in row 3 and a chair here" in done.stdout
    assert "3 of 3" in done.stdout

    with browser("FLEET CARD") as chromium:
        page = chromium.new_page()
        page.goto((project / "build/cards/fleet.html").as_uri())
        assert "1 of 3 subjects passed" in page.locator(".verdict").inner_text()
        rows = page.locator(".roster tbody tr:not([hidden])")
        assert [rows.nth(i).locator("td").nth(1).inner_text() for i in range(3)] == [
            "chair/failb",
            "chair/chra",
            "sofa/sofm",
        ]
        page.locator(".roster select").first.select_option(label="passed")
        assert rows.count() == 1
        page.goto(rows.locator("a").evaluate("link => link.href"))
        assert page.locator("h1").inner_text() == "Judge"
