"""Generate: a prompt in, a picture file out, from the tuned model or from the base alone."""

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest
from filelock import FileLock
from PIL import Image

from personalize.files import read_rows, write_bytes, write_rows
from personalize.recipe import Inputs, RecipeError
from personalize.serving import table
from personalize.serving.encoding import facts_of, file_stem
from steps import generate
from tests.steps.conftest import perform

FAST = {"name": "chairs", "resolution": 64, "sampling_steps": 2, "device": "cpu", "seed": 7}


@pytest.fixture
def run(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the step in an empty folder against the store that is active; gives what lies in its output folder."""
    monkeypatch.chdir(tmp_path)

    def run(prompt: str, **changes) -> list[Path]:
        config = generate.Config(
            prompt=prompt, **{**FAST, "base_model": str(tiny_models / "sdxl"), "output": "pictures here", **changes}
        )
        with mlflow.start_run():
            perform("generate", config, Inputs({}), tmp_path / "outputs")
        return sorted(Path("pictures here").iterdir())

    return run


@pytest.fixture
def registry(registered):
    """The store in which `chairs` version 1 is the challenger."""
    before = mlflow.get_tracking_uri()
    uri = f"sqlite:///{registered[0]}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    mlflow.set_experiment("steps")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri(before)


def test_the_base_draws_before_anything_is_registered(store, run, capsys):
    (path,) = run("a photo of a red chair", model="base")
    assert path.name == "a-photo-of-a-red-chair-7.png"
    assert "pictures here/a-photo-of-a-red-chair-7.png" in capsys.readouterr().out
    with Image.open(path) as picture:
        assert picture.size == (64, 64)
    facts = facts_of(path.read_bytes())
    assert (facts["prompt"], facts["seed"]) == ("a photo of a red chair", 7)


def test_without_a_registered_model_it_says_what_to_type(store, run):
    with pytest.raises(ValueError, match=r"no tuned model yet.*mlflow run \..*model=base"):
        run("a chair")
    assert not Path("pictures here").exists()


def test_the_challenger_draws_while_there_is_no_champion_and_draws_something_else_than_the_base(registry, run):
    run("a photo of a bcnchr chair", model="base")
    tuned, base = run("a photo of a bcnchr chair", output="pictures here")[::-1]
    assert facts_of(tuned.read_bytes() if "-2" in tuned.name else base.read_bytes())["model"] == "chairs version 1"
    assert Image.open(tuned).tobytes() != Image.open(base).tobytes()


def test_adapter_scale_0_is_the_base(registry, run):
    run("a chair", model="base")
    first, second = run("a chair", adapter_scale=0)
    assert Image.open(first).tobytes() == Image.open(second).tobytes()


def test_a_version_can_be_named(registry, run):
    (path,) = run("a chair", model="models:/chairs/1")
    assert facts_of(path.read_bytes())["model"] == "chairs version 1"
    with pytest.raises(ValueError, match=r"'chairs' has no version '9'\. Versions: 1"):
        run("a chair", model="models:/chairs/9")
    with pytest.raises(RecipeError, match="none of tuned, base"):
        run("a chair", model="best")


def test_prompts_are_lines_of_a_file_and_seeds_count_up(store, run, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red chair\n\n  a blue   sofa \n", encoding="utf-8")
    names = [path.name for path in run("@prompts.txt", model="base", images=2, format="webp")]
    assert names == ["a-blue-sofa-7.webp", "a-blue-sofa-8.webp", "a-red-chair-7.webp", "a-red-chair-8.webp"]
    told = json.loads((tmp_path / "outputs/pictures.json").read_text())
    assert [row["prompt"] for row in told] == ["a red chair", "a red chair", "a blue sofa", "a blue sofa"]


def test_a_size_can_be_given_and_a_seed_is_drawn_where_none_is(store, run):
    (path,) = run("a chair", model="base", seed=None, resolution=128, width=160, height=96)
    with Image.open(path) as picture:
        assert picture.size == (160, 96)
    assert 0 <= facts_of(path.read_bytes())["seed"] < 2**32


def test_a_size_that_is_no_bucket_of_training_is_refused_with_the_nearest(store, run):
    with pytest.raises(
        RecipeError, match=r"150 x 96 .*nearest in aspect ratio is 160 x 96\. It draws 128 x 128, 96 x 160"
    ):
        run("a chair", model="base", resolution=128, width=150, height=96)
    with pytest.raises(RecipeError, match=r"It draws 128 x 128\.$"):
        run("a chair", model="base", resolution=128, width=160, height=96, aspect_ratio_buckets=False)
    assert not Path("pictures here").exists()


def test_nothing_is_overwritten(store, run):
    run("a chair", model="base")
    first = Path("pictures here/a-chair-7.png").read_bytes()
    assert [path.name for path in run("a chair", model="base", guidance_scale=1)] == [
        "a-chair-7-2.png",
        "a-chair-7.png",
    ]
    assert Path("pictures here/a-chair-7.png").read_bytes() == first


def test_the_pictures_are_in_mlflow(store, run):
    run("a chair", model="base")
    last = mlflow.search_runs(output_format="list")[0]
    assert any("generated" in file.path for file in mlflow.MlflowClient().list_artifacts(last.info.run_id, "images"))
    assert last.data.metrics["pictures"] == 1


@pytest.mark.parametrize("prompt", ["", "  \n ", "@nowhere.txt"])
def test_a_prompt_is_needed(store, run, prompt):
    with pytest.raises(RecipeError, match=r"nothing to draw|cannot be read"):
        run(prompt, model="base")


def test_a_prompt_past_77_tokens_is_refused_not_cut(store, run):
    with pytest.raises(ValueError, match="tokens long"):
        run("chair " * 80, model="base")


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("../../etc/passwd", "etc-passwd-1"),
        ("Ein Stuhl, ölig & <b>schön</b>!", "ein-stuhl-ölig-b-schön-b-1"),
        ("椅子の写真", "椅子の写真-1"),
        ("???", "picture-1"),
        ("x" * 500, "x" * 120 + "-1"),
        ("椅" * 200, "椅" * 40 + "-1"),
    ],
)
def test_file_names_come_from_the_prompt_and_stay_in_the_folder(tmp_path: Path, prompt: str, name: str):
    assert file_stem(prompt, 1) == name
    path = tmp_path / f"{file_stem(prompt, 1)}.png"
    path.touch()
    assert [found.name for found in tmp_path.iterdir()] == [f"{name}.png"]


def test_a_missing_base_model_is_named(store, run, tmp_path):
    with pytest.raises(ValueError, match=r"'models/sdxl' does not exist.*dvc pull"):
        run("a chair", model="base", base_model="models/sdxl")


TABLE = (
    "prompt,seed,num_images,width,height,num_inference_steps\n"
    '"a red chair, old",5,2,,,\na blue sofa,,1,160,96,\na lamp,,,,,3\n'
)


def results(folder: Path) -> list[dict]:
    return read_rows(next(folder.glob("*/results.jsonl")))


@pytest.fixture
def lines(tmp_path) -> Path:
    """The table as JSON lines, which tell a number from a text."""
    (tmp_path / "some prompts.csv").write_text(TABLE)
    table.write_table(tmp_path / "some prompts.jsonl", table.read_table(tmp_path / "some prompts.csv"))
    return tmp_path / "some prompts.jsonl"


def test_a_table_gives_a_row_for_each_picture(store, run, lines):
    run(f"@{lines}", model="base", resolution=128, seed=None, format="webp")
    [folder] = Path("pictures here").iterdir()
    rows = results(Path("pictures here"))
    assert [(row["row"], row["width"], row["num_inference_steps"]) for row in rows] == [
        (0, 128, 2),
        (0, 128, 2),
        (1, 160, 2),
        (2, 128, 3),
    ]
    assert [row["seed"] for row in rows[:2]] == [5, 6]
    assert rows[2]["seed"] != rows[3]["seed"]
    for row in rows:
        data = (folder / row["file_name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert (facts_of(data)["seed"], facts_of(data)["prompt"]) == (row["seed"], row["prompt"])
        assert Image.open(folder / row["file_name"]).size == (row["width"], row["height"])
    assert rows[0]["model"].endswith("sdxl")


def test_a_tables_pictures_are_those_that_are_drawn_one_by_one(registry, run, lines):
    """Strengths may differ from row to row; beside others no pixel moves by more than two grey levels."""
    write_rows(lines, [{"prompt": "a chair", "seed": 1, "adapter_scale": s} for s in (0, 0.5, 1)])
    run(f"@{lines}")
    rows = results(Path("pictures here"))
    assert [(row["model"], row["version"]) for row in rows] == [("chairs", "1")] * 3
    folder = next(Path("pictures here").iterdir())
    for row in rows:
        run("a chair", seed=1, adapter_scale=row["adapter_scale"], output=f"alone {row['adapter_scale']}")
        alone = np.asarray(Image.open(f"alone {row['adapter_scale']}/a-chair-1.png")).astype(int)
        assert np.abs(alone - np.asarray(Image.open(folder / row["file_name"]))).max() <= 2


def test_a_killed_batch_goes_on_where_it_ended(store, run, lines, monkeypatch):
    """No picture is drawn twice, none is missing, and rows without a seed keep the one that they were given."""
    drawn: list[str] = []

    def dying(path, data, after=3):
        write_bytes(path, data)
        if Path(path).is_relative_to("pictures here"):  # the rest are copies for the run
            drawn.append(Path(path).name)
            if len(drawn) == after:
                raise KeyboardInterrupt

    monkeypatch.setattr(generate, "write_bytes", dying)
    with pytest.raises(KeyboardInterrupt):
        run(f"@{lines}", model="base", resolution=128, seed=None, batch_size=1)
    assert not list(Path("pictures here").glob("*/results.*"))
    monkeypatch.setattr(generate, "write_bytes", lambda path, data: dying(path, data, after=10**9))
    run(f"@{lines}", model="base", resolution=128, seed=None, batch_size=1)
    [folder] = Path("pictures here").iterdir()
    made = {row["file_name"] for row in results(Path("pictures here"))}
    assert len(made) == 4
    assert made == {file.name for file in folder.glob("*.png")}
    assert sorted(drawn) == sorted(made)
    drawn.clear()
    run(f"@{lines}", model="base", resolution=128, seed=None, batch_size=1)
    assert not drawn, "what is done is not drawn again"


def test_another_setting_is_another_batch(store, run, lines):
    run(f"@{lines}", model="base", resolution=128)
    run(f"@{lines}", model="base", resolution=128, guidance_scale=1)
    assert len(list(Path("pictures here").iterdir())) == 2


def test_two_processes_do_not_draw_the_same_batch(store, run, lines):
    run(f"@{lines}", model="base", resolution=128)
    [folder] = Path("pictures here").iterdir()
    with FileLock(folder / ".lock"), pytest.raises(RecipeError, match="another process is drawing this batch"):
        run(f"@{lines}", model="base", resolution=128)


def test_a_wrong_row_is_named_before_anything_is_drawn(store, run, lines):
    with lines.open("a") as stream:
        stream.write('{"prompt": "a", "width": 65}\n')
    with pytest.raises(RecipeError, match=r"row 3: 65 x 128 pixels .* is not a size"):
        run(f"@{lines}", model="base", resolution=128)
    assert not Path("pictures here").exists()


def test_the_run_keeps_the_first_pictures_of_a_table(store, run, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "SHOWN", 2)
    run(f"@{lines}", model="base", resolution=128)
    kept = json.loads((tmp_path / "outputs/pictures.json").read_text())
    assert [row["seed"] for row in kept] == [5, 6]
    assert len(list((tmp_path / "outputs").glob("*.png"))) == 2
    assert len(read_rows(tmp_path / "outputs/results.jsonl")) == 4
    assert mlflow.search_runs(output_format="list")[0].data.metrics["pictures"] == 4


def test_a_tables_subject_is_one_that_the_model_was_taught(registry, run, lines):
    write_rows(lines, [{"prompt": "a photo of a {subject}", "seed": 1, "subject": "bcnchr"}])
    run(f"@{lines}")
    assert results(Path("pictures here"))[0]["prompt"] == "a photo of a bcnchr chair"
    write_rows(lines, [{"prompt": "a {subject}", "subject": "lmpchr"}])
    with pytest.raises(RecipeError, match=r"row 0: subject 'lmpchr' is not known.*bcnchr"):
        run(f"@{lines}")


@pytest.mark.parametrize("column", ["model", "model_version"])
def test_one_model_draws_a_table(store, run, lines, column):
    write_rows(lines, [{"prompt": "a"}, {"prompt": "a", column: "3"}])
    with pytest.raises(RecipeError, match=f"column '{column}' is for a server; one model draws a table"):
        run(f"@{lines}", model="base")


def test_how_many_workers_draw_makes_no_other_batch(store, run, lines, monkeypatch):
    run(f"@{lines}", model="base", resolution=128)

    def idle(*_):
        raise AssertionError("all is drawn")

    monkeypatch.setattr(generate.workers, "hired", idle)
    run(f"@{lines}", model="base", resolution=128, workers=2, gpus=0)
    assert len(list(Path("pictures here").iterdir())) == 1


def test_without_ray_workers_are_refused_before_anything_is_read(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RecipeError, match="Ray is not installed: uv pip install ray"):
        generate.check(generate.Config(prompt="a chair", workers=2))
    generate.check(generate.Config(prompt="a chair"))


def test_workers_on_other_machines_are_refused_where_models_lie_in_a_file_of_this_one(store, run, monkeypatch):
    crew = generate.workers.Crew(2, 0, elsewhere=True, owned=False)

    @contextmanager
    def hired(*_):
        yield generate.workers.Hired(crew, 1, ".", {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()})

    monkeypatch.setattr(generate.workers, "hired", hired)
    with pytest.raises(RecipeError, match=r"a file that other machines of the cluster do not have; start a tracking"):
        run("a chair\na lamp", model="base", workers=2, batch_size=1)


def test_no_more_workers_are_started_than_have_something_to_draw(store, run, monkeypatch):
    asked: list[int] = []

    def hired(count, *_):
        asked.append(count)
        raise RecipeError("that many")

    monkeypatch.setattr(generate.workers, "hired", hired)
    with pytest.raises(RecipeError, match="that many"):
        run("a chair\na lamp\na sofa", model="base", workers=200, batch_size=1)
    assert asked == [3]
    assert run("a chair", model="base", workers=200), "one part is drawn here"


@pytest.mark.slow
def test_workers_draw_a_table_at_once_and_one_that_is_killed_costs_no_picture(registry, run, lines, monkeypatch):
    """As one process of one thread draws it, to the last bit; the adapter comes from the registry in each process."""
    pytest.importorskip("ray", reason="GENERATE ON WORKERS NOT TESTED: Ray is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_rows(lines, [{"prompt": f"a chair {i}", "seed": i} for i in range(12)])
    Path("pictures here").mkdir()
    run(f"@{lines}", batch_size=2, output="alone")
    killed: list[int] = []

    def killing(path, data):
        write_bytes(path, data)
        for process in _drawing() if not killed and Path(path).is_relative_to("pictures here") else ():
            process.kill()
            killed.append(process.pid)

    monkeypatch.setattr(generate, "write_bytes", killing)
    run(f"@{lines}", batch_size=2, workers=2, gpus=0)
    assert killed
    alone, at_once = (
        {row["file_name"]: row["sha256"] for row in results(Path(where))} for where in ("alone", "pictures here")
    )
    pixels = [
        {file.name: Image.open(file).tobytes() for file in Path(where).glob("*/*.png")}
        for where in ("alone", "pictures here")
    ]
    assert len(at_once) == 12
    assert alone.keys() == at_once.keys()
    assert pixels[0] == pixels[1]


def _drawing() -> list[psutil.Process]:
    """Processes of Ray's that carry a part out."""
    return [process for process in psutil.Process().children(recursive=True) if "draw_there" in _title(process)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
