"""The project as a person meets it: a clone, `mlflow run`, a card in a browser, an approval, a picture over HTTP.

One story told in order: each test uses what the one before has left on the tracking server.
"""

import base64
import html
import json
import os
import re
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import checkout, forked
from tests.browser import browser

PROMPT = """it's "my" zwölf chair, on {the} beach; 100 % $HOME"""

pytestmark = pytest.mark.end_to_end


class Project:
    """A fresh clone with its own tracking store, driven through `mlflow run` alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = os.environ | {
            "MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MLFLOW_EXPERIMENT_NAME": "overruled by --experiment-name",
            "HF_HUB_OFFLINE": "1",
        }

    def run(self, entry_point: str = "main", expect: int = 0, **parameters: object) -> str:
        """What `mlflow run . -e entry_point -P name=value ...` prints."""
        words = ["run", ".", "--env-manager", "local", "--experiment-name", "test", "-e", entry_point]
        for name, value in parameters.items():
            words += ["-P", f"{name.replace('__', '.')}={value}"]
        done = forked.mlflow(words, self.root, self.environment, timeout=1500)
        output = done.stdout + done.stderr
        assert (done.returncode == 0) == (expect == 0), output[-6000:]
        return output


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A clone of this checkout, uncommitted changes included, with data and models pulled from its own store."""
    root = checkout.clone(tmp_path_factory.mktemp("front door") / "personalize")
    pulled = subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet"], cwd=root, capture_output=True, text=True)
    assert pulled.returncode == 0, pulled.stderr
    project = Project(root)
    yield project
    project.run("deploy", action="stop")


FEW = ("on the beach", "in the snow", "on green grass", "in a kitchen", "on a dirt road")  # fewer decide nothing
SHORT = {
    "train__max_train_steps": 20,
    "train__validation_every": 20,
    "train__validation_sampling_steps": 4,
    "train__proof_every": 5,
    "prior__images_per_class": 4,
    "prior__sampling_steps": 6,
    "baseline__prompts": json.dumps({"place": {n: f"a photo of a {{token_noun}} {n}" for n in FEW}}),
    "baseline__seeds_per_prompt": 1,
    "baseline__sampling_steps": 6,
    # Twenty steps teach little: this gate asks only that the model was measured, so that the story can go on.
    "evaluate__gates": "[{metric: clip_t, kind: threshold, threshold: -1}]",
}
STEPS = ("ingest", "caption", "prior", "train", "baseline", "draw", "evaluate", "register")


def ran(output: str) -> dict[str, str]:
    """Of the plan that a run prints: each step with `run`, `maybe` or `reuse`."""
    return dict(re.findall(r"^  (\w+) +(run|maybe|reuse) ", output, flags=re.MULTILINE))


def why(output: str, step: str) -> str:
    return re.search(rf"^  {step} +(?:run|maybe|reuse) +(.*)$", output, flags=re.MULTILINE).group(1)


@pytest.fixture(scope="module")
def first(project: Project) -> str:
    """What the main job prints: the demo with fewer steps and pictures."""
    return project.run(**SHORT)


def shown(output: str) -> Path:
    """The card that `inspect` names."""
    return Path(re.search(r"^card +(.*)$", output, flags=re.MULTILINE).group(1))


def card(output: str, step: str) -> Path:
    return Path(re.search(rf"card +{step} +(\S.*)$", output, flags=re.MULTILINE).group(1))


def test_one_command_goes_from_photographs_to_a_registered_model(first: str) -> None:
    assert ran(first) == dict.fromkeys(STEPS, "run")
    assert card(first, "evaluate").is_file()
    assert "-e promote" in first


def test_the_same_again_runs_nothing(project: Project, first: str) -> None:
    assert ran(project.run(**SHORT)) == dict.fromkeys(STEPS, "reuse")


@contextmanager
def edited(path: Path, before: str, after: str) -> Iterator[None]:
    """The file changed for a while."""
    content = path.read_text()
    assert before in content
    path.write_text(content.replace(before, after))
    try:
        yield
    finally:
        path.write_text(content)


@pytest.mark.slow
def test_a_comment_reruns_nothing_and_code_reruns_its_step(project: Project, first: str) -> None:
    step = project.root / "steps" / "caption.py"
    with edited(step, "NEEDS =", "# a remark\nNEEDS ="):
        assert set(ran(project.run(plan="true", **SHORT)).values()) == {"reuse"}
    with edited(step, "NEEDS =", "ANSWER = 42\nNEEDS ="):
        plan = project.run(plan="true", **SHORT)
        output = project.run(**SHORT)
    assert ran(plan) == {"ingest": "reuse", "caption": "run"} | dict.fromkeys(STEPS[2:], "maybe")
    assert "steps/caption.py" in why(plan, "caption")
    assert why(plan, "train") == "only if caption's or prior's result changes"
    assert "1 step run, 7 reused" in output  # the captions came out the same


def test_the_plan_says_which_value_changed(project: Project, first: str) -> None:
    plan = project.run(plan="true", rank=8, **SHORT)
    same = dict.fromkeys(("ingest", "caption", "prior", "baseline"), "reuse")
    assert ran(plan) == same | {"train": "run"} | dict.fromkeys(("draw", "evaluate", "register"), "maybe")
    assert "rank 32 → 8" in why(plan, "train")


@pytest.mark.slow
def test_another_gate_judges_the_pictures_that_are_there(project: Project, first: str) -> None:
    gates = "[{metric: clip_t, kind: threshold, threshold: -0.9}]"
    output = project.run("evaluate", **SHORT | {"evaluate__gates": gates})
    assert ran(output) == dict.fromkeys(STEPS[:-2], "reuse") | {"evaluate": "run"}
    assert why(output, "evaluate").startswith("gates ")


@pytest.mark.slow
def test_a_better_card_is_drawn_of_an_old_result(project: Project, first: str) -> None:
    with edited(project.root / "steps" / "cards" / "train.py", '"steps trained"', '"steps it took"'):
        assert set(ran(project.run(plan="true", **SHORT)).values()) == {"reuse"}
        output = project.run("inspect", step="train", **SHORT)
        assert "steps it took" in shown(output).read_text()
    assert "steps trained" in shown(project.run("inspect", step="train", **SHORT)).read_text()


@pytest.mark.slow
def test_rights_given_later_reach_the_model_and_the_card_without_training(project: Project, first: str) -> None:
    output = project.run(rights="the studio, by letter", **SHORT)
    assert ran(output) == dict.fromkeys(STEPS[:-1], "reuse") | {"register": "run"}
    assert why(output, "register") == 'rights "" → the studio, by letter'
    assert "the studio, by letter" in card(output, "evaluate").read_text()
    assert "the studio, by letter" in card(output, "register").read_text()


@pytest.mark.parametrize("step", STEPS)
def test_each_step_is_an_entry_point_of_its_own(project: Project, first: str, step: str) -> None:
    """The command is the one that `mlflow run` would start; starting MLflow eight times more shows nothing new."""
    from mlflow.projects.utils import load_project

    given = {name.replace("__", "."): str(value) for name, value in SHORT.items()} | {"plan": "true"}
    command = load_project(str(project.root)).get_entry_point(step).compute_command(given, None)
    python, m, module, *words = shlex.split(command)
    assert (python, m, module) == ("python", "-m", "personalize.recipe")
    experiment = project.environment | {"MLFLOW_EXPERIMENT_NAME": "test"}
    done = forked.recipe(words, project.root, experiment, timeout=300)
    assert ran(done.stdout)[step] == "reuse", done.stderr


@pytest.mark.parametrize("until", ["prior", pytest.param("register", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_run_is_made_again_from_its_id(project: Project, first: str, until: str) -> None:
    """Training is made again in stretches below; the whole of it is slow."""
    from mlflow import MlflowClient

    project.run(until=until, **SHORT)
    client = MlflowClient(project.environment["MLFLOW_TRACKING_URI"])
    (experiment,) = client.search_experiments(filter_string="name = 'test'")
    (run, *_) = client.search_runs([experiment.experiment_id], f"tags.`recipe.target` = '{until}'")
    assert "agrees with run" in project.run("reproduce", run=run.info.run_id)


@pytest.mark.slow
def test_two_stretches_of_the_training_are_made_again_to_the_byte(project: Project, first: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(project.environment["MLFLOW_TRACKING_URI"])
    (experiment,) = client.search_experiments(filter_string="name = 'test'")
    (run, *_) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'train'")
    said = project.run("reproduce", run=run.info.run_id, segments=2, seed=3)
    assert len(re.findall(r"holds  steps \d+ to \d+ +came to the same bytes", said)) == 2
    assert "holds where it was looked at, to the byte" in said


@pytest.mark.slow
def test_a_sweep_ends_with_a_command_that_trains_with_the_best_settings(project: Project, first: str) -> None:
    from mlflow import MlflowClient

    tiny = {"max_train_steps": 4, "train__validation_every": 2, "train__validation_sampling_steps": 2}
    prior = {name: value for name, value in SHORT.items() if name.startswith("prior")}
    output = project.run("sweep", trials=2, sweep__warmup_trials=1, sweep__warmup_checkpoints=0, **tiny, **prior)
    assert ran(output) == dict.fromkeys(STEPS[:3], "reuse") | {"sweep": "run"}
    assert card(output, "sweep").is_file()
    client = MlflowClient(project.environment["MLFLOW_TRACKING_URI"])
    (experiment,) = client.search_experiments(filter_string="name = 'test'")
    (sweep,) = client.search_runs([experiment.experiment_id], "tags.`recipe.step` = 'sweep'")
    trials = client.search_runs([experiment.experiment_id], f"tags.mlflow.parentRunId = '{sweep.info.run_id}'")
    states = {trial.info.run_name: trial.data.tags["sweep.state"] for trial in trials}
    assert set(states) == {"trial 1", "trial 2"}
    assert states["trial 1"] == "complete"
    assert states["trial 2"] in ("complete", "pruned")
    (command,) = re.findall(r"^ +(mlflow run \. .*-P train\.rank=.*)$", output, flags=re.MULTILINE)
    given = dict(word.split("=", 1) for word in shlex.split(command) if "=" in word)
    assert {"train.learning_rate", "train.prior_loss_weight", "train.max_train_steps"} <= set(given)
    plan = project.run(plan="true", rights="the studio, by letter", **given)
    assert ran(plan) == dict.fromkeys(STEPS[:3], "reuse") | dict.fromkeys(STEPS[3:-1], "run") | {"register": "maybe"}
    assert f"max_train_steps 20 → {tiny['max_train_steps']}" in why(plan, "train")


def test_every_key_is_described(project: Project) -> None:
    described = project.run("describe")
    assert all(word in described for word in ("max_train_steps", "LoRA rank", "class_noun"))


WIDTHS = """images => Promise.all(images.map(async image => {
    image.loading = "eager";
    await image.decode().catch(() => {});
    return image.naturalWidth;
}))"""


def test_every_step_left_a_card_that_a_browser_shows_whole(project: Project, first: str) -> None:
    with browser("CARDS") as chromium:
        page = chromium.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on(
            "request",
            lambda request: None if request.url.startswith(("file:", "data:")) else problems.append(request.url),
        )
        for step in STEPS:
            page.goto(card(first, step).as_uri())
            assert page.locator("h1").count() == 1, step
            sizes = page.eval_on_selector_all("img", WIDTHS)
            assert all(sizes), f"{step}: a picture does not show"
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1"), f"{step} is too wide"
            if step in ("ingest", "caption", "train", "evaluate"):
                assert len(sizes) >= 10, step
    assert problems == []


def test_a_prompt_with_quotes_braces_and_unicode_becomes_a_picture(project: Project, first: str) -> None:
    project.run("generate", prompt=PROMPT, seed=3, output="pictures and more", generate__sampling_steps=4)
    (picture,) = (project.root / "pictures and more").glob("*.png")
    from PIL import Image

    with Image.open(picture) as image:
        assert image.size == (128, 128)
        xmp = next(value for name, value in image.info.items() if "xmp" in name.lower())
    text = xmp if isinstance(xmp, str) else xmp.decode()
    about = json.loads(html.unescape(re.search(r"<rdf:li[^>]*>(.*?)</rdf:li>", text, flags=re.DOTALL).group(1)))
    assert (about["prompt"], about["seed"]) == (PROMPT, 3)


@pytest.mark.slow
def test_nothing_is_deployed_before_a_person_has_approved(project: Project, first: str) -> None:
    assert "promote" in project.run("deploy", expect=1)
    assert "approved_by" in project.run("promote", expect=1)
    by_number = project.run("deploy", expect=1, deploy__model="models:/personalize/1")
    assert "nobody has approved it" in by_number
    assert "Nothing was deployed" in by_number


def test_an_approved_model_answers_over_http_until_it_is_stopped(project: Project, first: str) -> None:
    project.run("promote", approved_by="a designer", reason="the legs are right")
    assert "already" in project.run("promote", approved_by="a designer", reason="again").lower()
    verified = project.run("verify")
    assert all(f"holds  {link} " in verified for link in ("statement", "files", "ingest", "train", "card", "approval"))
    assert "FAILS" not in verified
    output = project.run("deploy")
    url = re.search(r"http://127\.0\.0\.1:\d+", output).group(0)
    body = {"dataframe_records": [{"prompt": "a photo of a orbchr chair", "seed": 1, "num_inference_steps": 4}]}
    request = urllib.request.Request(
        f"{url}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        (row,) = json.load(response)["predictions"]
    assert (row["width"], row["height"], row["seed"]) == (128, 128, 1)
    (project.root / "answer.webp").write_bytes(base64.b64decode(row["image"]))
    whence = project.run("whence", picture="answer.webp", redraw="true")
    links = ("manifest", "key", "words", "version", "files", "ingest", "train", "approval", "redrawn")
    assert all(f"holds  {link} " in whence for link in links)
    assert "FAILS" not in whence
    assert re.search(r"deploying (\S+ version \d+)", output).group(1) in whence
    assert "healthy" in project.run("deploy", action="status").lower() or url in output
    project.run("deploy", action="stop")
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(f"{url}/health", timeout=5)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"rnak": "8"}, ("rnak", "rank")),
        ({"data": "no such folder"}, ("no such folder",)),
        pytest.param({"profile": "lokal"}, ("lokal", "local"), marks=pytest.mark.slow),
        pytest.param({"rank": "many"}, ("rank", "many"), marks=pytest.mark.slow),
        pytest.param({"train__rnak": "8"}, ("rnak", "rank"), marks=pytest.mark.slow),
        pytest.param({"until": "trian"}, ("trian", "train"), marks=pytest.mark.slow),
    ],
)
def test_wrong_input_is_one_message_that_names_it(project: Project, parameters: dict, words: tuple[str, ...]) -> None:
    output = project.run(expect=2, **parameters)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert all(word in output[output.index(errors[0]) :] for word in words)
    assert "Traceback" not in output.split("error: ")[0]


@pytest.mark.slow
def test_a_cleaned_step_runs_again_and_no_other(project: Project, first: str) -> None:
    project.run("clean", step="prior")
    output = project.run("evaluate", **SHORT)
    assert ran(output)["prior"] == "run"
    assert ran(output)["draw"] == "run"  # there is a champion since
    assert "2 steps run, 5 reused" in output  # the class images came out the same, and the champion is this very model


def test_the_table_of_runs_says_what_was_asked_and_what_it_came_to(project: Project, first: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(project.environment["MLFLOW_TRACKING_URI"])
    (experiment,) = client.search_experiments(filter_string="name = 'test'")
    runs = client.search_runs(
        [experiment.experiment_id], "tags.`recipe.target` = 'register' AND status = 'FINISHED'", order_by=["start_time"]
    )
    run = client.get_run(runs[0].info.run_id)
    assert run.info.run_name.startswith("local · register · max_train_steps=20")
    assert run.data.tags["verdict"] == "passed"
    assert {"gap_closed", "clip_t", "copied"} <= set(run.data.metrics)
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["data"]
    (model,) = run.outputs.model_outputs
    metrics = {metric.key: metric.value for metric in client.get_logged_model(model.model_id).metrics}
    assert metrics["clip_t"] == run.data.metrics["clip_t"]
