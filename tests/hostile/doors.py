"""The doors that things from outside come in by, each as a person or the recipe opens it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

WORDS = Path(__file__).parents[1] / "recipe" / "words"


class Said(Exception):
    """What the command line answered, and with which exit status."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


def recipe(given: dict[str, Any]) -> None:
    """`python -m personalize.recipe run --plan` in a small project. given: its files by name, and words to add."""
    from personalize.recipe.__main__ import main

    shutil.copytree(WORDS, "project", ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir("project")
    for name, content in given.get("files", {}).items():
        _put(Path(name), content)
    out = io.StringIO()
    with contextlib.redirect_stderr(out), contextlib.redirect_stdout(out):
        status = main(["run", "--plan", "true", *given.get("words", ())])
    raise Said(status, out.getvalue())


def _put(path: Path, content: Any) -> None:
    if path.exists():
        path.unlink()
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def ingest(given: dict[str, Any]) -> None:
    """The ingest step, its digest first, as the plan asks for it."""
    import mlflow

    from personalize.recipe import Inputs
    from steps import ingest

    config = ingest.Config(resolution=64, **{"data": "given", **given})
    ingest.sources(config)
    with mlflow.start_run():
        ingest.run(config, Inputs({}), Path("outputs"))


def caption(file: Path) -> None:
    """Captions that a person has edited, for a photograph `1.png`."""
    from steps import caption

    config = caption.Config.model_construct(captions=str(file), captioner="template")
    caption._written_by_the_user([{"file_name": "chair/zwvchr/1.png", "caption": ""}], config)


def own_caption(text: str) -> None:
    """A caption that lay beside a photograph, as the caption step takes it word for word."""
    from personalize.photographs.captions import as_written
    from personalize.photographs.prompts import Subject

    as_written(text, "yours", Subject("zwvchr", "chair"), [_tokenizer()])


def _tokenizer() -> Any:
    """Splits at blanks, as slowly as a real one: what it is given it has to read."""
    from types import SimpleNamespace

    class Tokenizer:
        def __call__(self, text: str, **options: Any) -> Any:
            return SimpleNamespace(input_ids=[0, *range(len(text.split())), 1])

        def decode(self, ids: Any, **options: Any) -> str:
            return " ".join(map(str, ids))

    return Tokenizer()


def prompts(text: str) -> None:
    """`-e generate -P prompt=...`"""
    from steps import generate

    generate.read_prompts(text)


def request(rows: Any) -> None:
    """Rows as MLflow's server hands them to the model."""
    from personalize.photographs.prompts import Subject
    from personalize.serving.request import Defaults, Limits, RequestError, all_of, orders
    from personalize.serving.versions import Version, Versions

    served = Versions(Version([Subject("zwvchr", "chair")]), {})
    _, faults = orders(rows, Defaults(), Limits(), served.find, [_tokenizer()], lambda: 7)
    if faults:
        raise RequestError(all_of(faults))


def body(content: bytes) -> None:
    """A body at the endpoint's door, before anything else has looked at it."""
    from personalize.serving.app import _unknown

    if said := _unknown(content):
        raise ValueError(said)


def adapter(file: Path) -> None:
    from personalize.dreambooth.sampling import check_scale_is_known

    check_scale_is_known(file)


def subjects(file: Path) -> None:
    from personalize.photographs.prompts import load_subjects

    load_subjects(file)


def judge(given: dict[str, Any]) -> None:
    """A judge of the recipe, as the plan asks which one it is."""
    from personalize.evaluation import judges

    judges.identity(judges.JudgeConfig(**given))


def scores(content: bytes) -> None:
    from personalize.evaluation.recorded import parse_scores, verdict_of

    verdict_of(parse_scores(content))


def statement(text: str) -> None:
    from personalize.evidence.statement import read

    read(text)


def model(folder: Path) -> None:
    """A model's folder, as it is looked at before anything in it is run."""
    from personalize.serving.checking import check_folder

    if wrong := check_folder(folder):
        raise ValueError("; ".join(wrong))


def drawings(folder: Path) -> None:
    from personalize.evaluation.drawings import load

    load(folder)


def envelope(payload: Any) -> str:
    """A statement that nobody signed."""
    import base64

    text = payload if isinstance(payload, str) else json.dumps(payload)
    encoded = base64.b64encode(text.encode()).decode()
    kind = "application/vnd.in-toto+json"
    return json.dumps({"payload": encoded, "payloadType": kind, "signatures": [], "keys": []})


def picture(file: str) -> None:
    """`-e whence -P picture=... -P redraw=true`"""
    from personalize.recipe import Inputs
    from steps import whence

    whence.run(whence.Config(picture=file, redraw=True), Inputs({}), Path("outputs"))
