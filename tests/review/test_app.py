"""The review as a process: in a browser, by keyboard and without scripts, and as the platform of app.yaml starts it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import mlflow
import pytest
import yaml
from axe_playwright_python.sync_playwright import Axe

from personalize.databricks.apps import app_place
from personalize.serving.ports import free_port
from tests.browser import browser
from tests.review.browsing import Person, serving
from tests.review.world import evaluation, version

ROOT = Path(__file__).parents[2]


UNNAMED = """[...document.querySelectorAll("input:not([type=hidden]), textarea")]
    .filter(field => !field.labels.length).length"""


def test_in_a_browser_it_works_by_keyboard_on_a_phone_and_without_scripts(open_review):
    opened = open_review()
    problems: list[str] = []
    with serving(opened) as url, browser("REVIEW") as chromium:
        for width, scripts in ((390, True), (1440, False)):
            context = chromium.new_context(viewport={"width": width, "height": 844}, java_script_enabled=scripts)
            page = context.new_page()
            page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
            page.on("request", lambda request: None if request.url.startswith(url) else problems.append(request.url))
            page.goto(url)
            page.fill("#name", f"Ada {width}")
            page.keyboard.press("Enter")
            page.wait_for_selector(".progress:has-text('0 answered')", timeout=60_000)
            assert page.locator("main img:not([alt])").count() == 0
            for answered in (1, 2):
                page.wait_for_load_state()  # a key that is pressed before the script is there is nobody's
                if scripts:
                    page.keyboard.press("ArrowLeft" if answered == 1 else "ArrowRight")
                else:
                    page.get_by_role("button", name="A is better" if answered == 1 else "B is better").press("Enter")
                page.wait_for_selector(f".progress:has-text('{answered} answered')", timeout=60_000)
            page.wait_for_load_state()  # buttons have their height once the stylesheet is there
            boxes = [page.locator(f"button[value={side}]").bounding_box() for side in ("left", "right", "neither")]
            assert all(box["height"] >= 44 for box in boxes), "a thumb finds it"
            for path in ("vote", "results", ""):
                page.goto(url + path)
                if scripts:
                    width_needed = page.evaluate("document.documentElement.scrollWidth")
                    assert width_needed <= width, f"/{path} is {width_needed} px wide"
                    assert page.evaluate(UNNAMED) == 0
                    axe = Axe().run(page).response
                    assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in axe["violations"]] == []
            context.close()
    assert problems == []
    assert [vote.choice for vote in opened.counted()[0]] == ["left", "right"] * 2


def test_the_environment_of_the_app_is_a_part_of_the_projects():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    (pip,) = [
        part["pip"]
        for part in yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"]
        if isinstance(part, dict)
    ]
    assert lines
    assert set(lines) <= set(pip)


def test_a_port_that_is_none_is_named(monkeypatch):
    monkeypatch.delenv("DATABRICKS_APP_PORT", raising=False)
    assert app_place() is None
    monkeypatch.setenv("DATABRICKS_APP_PORT", "8000")
    assert (app_place().host, app_place().port) == ("0.0.0.0", 8000)
    for wrong in ("0", "99999", "http"):
        monkeypatch.setenv("DATABRICKS_APP_PORT", wrong)
        with pytest.raises(ValueError, match="DATABRICKS_APP_PORT is a port"):
            app_place()


def test_app_yaml_starts_it_where_the_platform_says_and_a_stop_is_its_ordinary_end(store, tmp_path):
    made = evaluation(store / "made")
    version(made, store / "made")
    project = tmp_path / "project"
    project.mkdir()
    for name in ("steps", "personalize", "profiles"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("recipe.yaml", "conda.yaml"):
        shutil.copy(ROOT / name, project)
    app = yaml.safe_load((ROOT / "app.yaml").read_text())
    assert {"name": "MLFLOW_TRACKING_URI", "value": "databricks"} in app["env"]
    command = ["local" if word == "databricks" else word for word in app["command"]]  # there is no workspace here
    port = free_port()
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "MLFLOW_EXPERIMENT_NAME": "steps",
        "DATABRICKS_APP_PORT": str(port),
    }
    process = subprocess.Popen(
        [sys.executable, *command[1:], "--MODEL_NAME", "chairs"], cwd=project, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    person = _first_page(f"http://127.0.0.1:{port}/", process)
    assert "ada@example.org" in person.page
    person.get("vote")
    person.vote()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    (run,) = mlflow.search_runs(filter_string="tags.`recipe.step` = 'review'", output_format="list")
    assert run.info.status == "FINISHED"
    assert len(mlflow.MlflowClient().list_artifacts(made.evaluate, "review/votes")) == 1


def _first_page(url: str, process: subprocess.Popen[str]) -> Person:
    deadline = time.monotonic() + 180
    while True:
        try:
            return Person(url, **{"X-Forwarded-Email": "ada@example.org", "Host": "review.databricksapps.com"})
        except urllib.error.URLError:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.5)
