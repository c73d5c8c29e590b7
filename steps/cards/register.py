"""The card of register: which version was made, what it drew, and how to use it."""

from __future__ import annotations

import shlex
from pathlib import Path

from personalize.cards import Card
from personalize.files import read_json
from personalize.recipe import Inputs
from personalize.serving.endpoint import curl_line
from personalize.serving.request import INPUTS
from steps.advice import advise, in_brief
from steps.register import Config

PORT = 5001


def show(config: Config, inputs: Inputs, outputs: Path, card: Card) -> None:
    made, speed = read_json(outputs / "model_version.json"), read_json(outputs / "diagnostics/speed.json")
    verdict, answer, prompt = made["verdict"], made["answer"], made["subjects"][0]["instance_prompt"]
    reasons = [f"{gate['name']}: {gate['verdict']}" for gate in made["gates"]]
    card.verdict(verdict, f"{made['name']} version {made['version']} is the challenger", reasons)
    scores, history = read_json(inputs["evaluate"].path / "scores.json"), inputs["train"].path / "history.json"
    advice = in_brief(advise(scores, read_json(history) if history.is_file() else {}))
    words = {"prompt": shlex.quote(f"{prompt} on the beach"), "version": made["version"], "model": made["uri"]}
    card.outcome(verdict, **words, advice=advice)
    if verdict != "passed":
        card.warning(f"The gates say {verdict}: promote will refuse this version.")
    card.facts(
        {
            "model": made["name"],
            "version": made["version"],
            "alias": made["alias"],
            "address": made["uri"],
            "draws": ", ".join(f"{width} x {height}" for width, height in made.get("sizes", ())) or None,
        },
    )
    card.images(
        "Drawn by the registered model, loaded as a server loads it",
        [(outputs / "sample.png", f"{answer['prompt']} · seed {answer['seed']} · {speed['latency_ms']:.0f} ms")],
        columns=1,
        width=320,
    )
    with card.section("Use it"):
        if verdict == "passed":
            promote = card.command("promote", version=made["version"], approved_by="...", reason="...")
            card.code("Promote it", promote)
        card.code("Draw with it", card.command("generate", model=made["uri"], prompt=prompt, seed=7))
        card.code(
            "Serve it here", f"mlflow models serve -m {made['uri']} --env-manager local --port {PORT} --timeout 300"
        )
        card.code(
            "curl",
            curl_line(f"http://127.0.0.1:{PORT}/invocations", {"dataframe_records": [{"prompt": prompt, "seed": 7}]}),
        )
        card.code(
            "Python",
            "import base64, mlflow, pandas as pd\n\n"
            f'model = mlflow.pyfunc.load_model("{made["uri"]}")\n'
            f"rows = pd.DataFrame([{{'prompt': {prompt!r}, 'seed': 7.0}}])  # numbers in a frame are floats\n"
            "row = model.predict(rows).iloc[0]\n"
            "open('picture.' + row['format'], 'wb').write(base64.b64decode(row['image']))",
        )
    with card.section("What a request may say", open=False):
        card.table("Columns of a row", ["column", "meaning"], [[name, meaning] for name, meaning in INPUTS.items()])
    with card.section("Where it comes from", open=False):
        card.table("Tags of the version", ["tag", "value"], [[key, value] for key, value in made["tags"].items()])
