"""The served model: logged without pickle, loaded without network and without this checkout, honest about every row."""

import ast
import base64
import gc
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException
from PIL import Image

from personalize.dreambooth.sampling import Sampling, load_pipeline, sample
from personalize.evidence import keys
from personalize.evidence.manifest import read
from personalize.evidence.statement import EvidenceError
from personalize.serving import package
from personalize.serving.call import CURRENT, MODEL_SERVING, SERVER, Call
from personalize.serving.encoding import facts_of
from personalize.serving.request import ANSWER, INPUTS, PARAMS, Limits
from tests.random_adapter import random_adapter
from tests.serving.conftest import EXAMPLE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(saved):
    return mlflow.pyfunc.load_model(str(saved[1]))


@contextmanager
def asked_by_a_server() -> Iterator[None]:
    """What is asked inside the block comes from a server's caller."""
    token = CURRENT.set(Call())
    try:
        yield
    finally:
        CURRENT.reset(token)


def opened(row: pd.Series) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(row["image"], validate=True)))


def test_a_prompt_gives_a_row_with_a_picture(model):
    answer = model.predict(pd.DataFrame([{"prompt": "a photo of a bcnchr chair"}]))
    assert list(answer.columns) == [column.name for column in package.signature().outputs]
    (row,) = (row for _, row in answer.iterrows())
    assert opened(row).size == (64, 64) == (row["width"], row["height"])
    assert opened(row).format == "WEBP"
    assert row["fingerprint"] == "ab12cd"
    assert 0 <= row["seed"] < 2**32
    assert row["latency_ms"] > 0


def test_every_row_is_answered_in_order_with_its_own_settings(model):
    answer = model.predict(
        pd.DataFrame(
            [
                {"prompt": "a red chair", "seed": 1, "num_images": 2},
                {"prompt": "a blue sofa", "width": 96, "format": "png", "seed": 5},
                {"prompt": "a red chair", "format": "jpeg"},
            ]
        )
    )
    assert answer["row"].tolist() == [0, 0, 1, 2]
    assert answer["seed"].tolist()[:3] == [1, 2, 5]
    assert answer["format"].tolist() == ["webp", "webp", "png", "jpeg"]
    assert [opened(row).size for _, row in answer.iterrows()] == [(64, 64), (64, 64), (96, 64), (64, 64)]


def test_a_returned_seed_draws_the_same_picture_again(model):
    first = model.predict(pd.DataFrame([{"prompt": "a red chair", "format": "png"}])).iloc[0]
    again = model.predict(
        pd.DataFrame([{"prompt": "a red chair", "format": "png", "seed": float(first["seed"])}])
    ).iloc[0]
    assert np.array_equal(np.asarray(opened(first)), np.asarray(opened(again)))


def test_the_picture_says_how_it_was_made(model):
    row = model.predict(pd.DataFrame([{"prompt": 'a "red" chair 椅', "seed": 3.0}])).iloc[0]
    facts = facts_of(base64.b64decode(row["image"]))
    assert (facts["prompt"], facts["seed"], facts["fingerprint"]) == ('a "red" chair 椅', 3, "ab12cd")


@pytest.mark.parametrize("encoding", ["webp", "png", "jpeg"])
def test_the_picture_is_signed_by_this_machine(model, saved, encoding: str):
    row = model.predict(pd.DataFrame([{"prompt": "a red chair", "seed": 3, "format": encoding}])).iloc[0]
    manifest = read(base64.b64decode(row["image"]), encoding)
    adapter = "artifacts/adapter/pytorch_lora_weights.safetensors"
    digest = hashlib.sha256((saved[1] / adapter).read_bytes()).hexdigest()
    assert (manifest.key, manifest.generated, manifest.wrong) == (keys.own_id(), True, ())
    assert manifest.facts["adapters"] == {adapter: digest}
    assert (manifest.facts["seed"], manifest.facts["fingerprint"]) == (3, "ab12cd")
    assert "prompt" not in manifest.facts


def test_without_a_key_pictures_are_not_signed_and_it_is_said(saved, monkeypatch, caplog):
    monkeypatch.setenv(keys.SETTING, "off")
    plain = mlflow.pyfunc.load_model(str(saved[1]))
    assert "pictures are not signed" in caplog.text
    assert read(base64.b64decode(plain.predict(EXAMPLE)["image"][0]), "webp") is None


def test_the_adapter_is_heard_at_its_trained_scale_and_can_be_turned_off(model, saved):
    """Against pipelines with and without it, which know nothing of the engine."""
    artifacts = saved[1] / "artifacts"
    for scale, lora in ((0.0, None), (1.0, artifacts / "adapter")):
        pipe = load_pipeline(artifacts / "base", device="cpu", lora=lora)
        [expected] = sample(pipe, ["a red chair"], [1], Sampling(steps=2, width=64, height=64))
        got = np.frombuffer(_picture(model, scale), np.uint8).astype(int)
        assert np.abs(got - np.asarray(expected).ravel()).max() <= 2
    assert _picture(model, 0.0) != _picture(model, 1.0)


def test_what_cannot_be_honoured_is_the_callers_error_with_the_row(model):
    with pytest.raises(MlflowException, match=r"row 1: 65 x 64 pixels .* is not a size") as refused:
        model.predict(pd.DataFrame([{"prompt": "a"}, {"prompt": "a", "width": 65}]))
    assert refused.value.get_http_status_code() == 400


def test_an_answer_that_turns_out_too_large_is_not_sent(saved):
    small = Limits(rows=4, images=4, steps=4, sizes=((96, 64), (64, 96)), response_bytes=30_000)
    strict = mlflow.pyfunc.load_model(str(saved[1]), model_config={"limits": small.__dict__})
    inner = strict.unwrap_python_model()
    with pytest.raises(MlflowException, match=r"may be sent back\. Ask for webp"):
        inner._check_size(["A" * 30_001])
    with asked_by_a_server(), pytest.raises(MlflowException, match="could be"):
        strict.predict(pd.DataFrame([{"prompt": "a", "num_images": 4.0, "format": "png"}]))


def test_whole_numbers_in_a_frame_are_numbers(model):
    answer = model.predict(pd.DataFrame({"prompt": ["a", "b"], "seed": [7, 8], "width": np.array([64, 96])}))
    assert (answer["seed"].tolist(), answer["width"].tolist()) == ([7, 8], [64, 96])
    with pytest.raises(MlflowException, match="row 0: seed must be a number, not 'seven'"):
        model.predict(pd.DataFrame({"prompt": ["a"], "seed": ["seven"]}))


def test_a_request_has_a_name_and_may_say_how_long_it_waits(model):
    answer = model.predict(EXAMPLE, params={"request_id": "mine", "caller": "a studio", "timeout_s": 60.0})
    assert answer["request_id"].tolist() == ["mine"]
    assert 0 <= answer["queue_ms"][0] <= answer["latency_ms"][0]
    with pytest.raises(MlflowException, match="given up") as refused:
        model.predict(EXAMPLE, params={"timeout_s": 1e-6})
    assert refused.value.get_http_status_code() == 504
    with pytest.raises(MlflowException, match="not above 0"):
        model.predict(EXAMPLE, params={"timeout_s": 0.0})


def test_a_full_queue_is_429(saved):
    limits = Limits(rows=4, images=4, steps=4, sizes=((96, 64), (64, 96)), queue=64 * 64 * 5)
    narrow = mlflow.pyfunc.load_model(str(saved[1]), model_config={"limits": limits.__dict__})
    found: list[int] = []

    def ask() -> None:
        try:
            with asked_by_a_server():
                narrow.predict(pd.DataFrame([{"prompt": "a", "num_inference_steps": 4}]))
            found.append(200)
        except MlflowException as refused:
            found.append(refused.get_http_status_code())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(found)) == [200, 429]


def test_without_a_server_any_number_of_rows_is_drawn_in_parts(saved):
    """More than a request may have, and more than the queue holds, which others fill as well."""
    limits = Limits(rows=4, images=4, steps=4, batch=4, queue=64 * 64 * 2 * 10, response_bytes=30_000)
    narrow = mlflow.pyfunc.load_model(str(saved[1]), model_config={"limits": limits.__dict__})
    engine = narrow.unwrap_python_model().engine
    rows = pd.DataFrame({"prompt": [f"chair {i}" for i in range(30)], "seed": range(30)})
    most: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            most.append(sum(engine.waiting))

    threads = [threading.Thread(target=watch), threading.Thread(target=lambda: narrow.predict(rows.head(12)))]
    for thread in threads:
        thread.start()
    answer = narrow.predict(rows)
    over.set()
    for thread in threads:
        thread.join()
    assert answer["seed"].tolist() == answer["row"].tolist() == list(range(30))
    assert answer["prompt"].tolist() == rows["prompt"].tolist()
    assert max(most) <= 16
    with asked_by_a_server(), pytest.raises(MlflowException, match="30 rows; at most 4"):
        narrow.predict(rows)
    with pytest.raises(MlflowException, match="row 29: 65 x 64 pixels"):
        narrow.predict(rows.assign(width=[64] * 29 + [65]))
    assert list(narrow.unwrap_python_model().predict(None, []).columns) == list(ANSWER)


@pytest.mark.parametrize("server", [SERVER, MODEL_SERVING])
def test_mlflows_server_and_model_serving_are_servers(model, monkeypatch, server: str):
    if server == SERVER:
        monkeypatch.setitem(sys.modules, server, object())
    else:
        monkeypatch.setenv(server, "true")
    with pytest.raises(MlflowException, match="5 rows; at most 4"):
        model.predict(pd.DataFrame({"prompt": ["a"] * 5}))


@pytest.mark.parametrize(
    "asked",
    [
        [{"prompt": "a", "seed": 7}, {"prompt": "b", "width": 96}],
        {"prompt": ["a", "b"], "seed": [7, 8], "width": [64, 96]},
        pd.Series(["a", "b"], name="prompt"),
    ],
)
def test_rows_columns_and_a_series_are_taken(model, asked):
    answer = model.predict(asked)
    assert answer["prompt"].tolist() == ["a", "b"]
    if not isinstance(asked, pd.Series):
        assert answer["seed"][0] == 7
        assert answer["width"].tolist() == [64, 96]


def test_one_row_of_plain_values_is_taken(model):
    assert model.predict({"prompt": "a", "seed": 7})["seed"].tolist() == [7]


@pytest.mark.parametrize("asked", ["a", ["a", "b"], ("a", "b"), {"prompt": ["a", "b"]}])
def test_prompts_alone_are_taken_by_the_model_itself(model, asked):
    """MLflow refuses them before the model sees them: the signature has more columns than one."""
    answer = model.unwrap_python_model().predict(None, asked)
    assert answer["prompt"].tolist() == ["a", "b"][: len(answer)]
    with pytest.raises(MlflowException, match="row 1 is neither a prompt nor a row"):
        model.unwrap_python_model().predict(None, ["a", 7])


def test_what_mlflows_server_no_longer_waits_for_is_not_drawn(model, monkeypatch):
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "0.000001")
    with pytest.raises(MlflowException) as refused:
        model.predict(EXAMPLE)
    assert refused.value.get_http_status_code() == 504


def test_a_picture_that_fails_is_an_error_with_a_name_and_without_the_prompt(model, monkeypatch, caplog):
    inner = model.unwrap_python_model()
    monkeypatch.setattr(inner.engine, "_draw", lambda painter, batch: inner.engine._failed(batch, RuntimeError("full")))
    with pytest.raises(MlflowException, match=r"RuntimeError.*log has it under mine") as failed:
        model.predict(pd.DataFrame([{"prompt": "a marchioness"}]), params={"request_id": "mine"})
    assert failed.value.get_http_status_code() == 500
    assert "request mine" in caplog.text
    assert "marchioness" not in caplog.text
    monkeypatch.undo()
    assert len(model.predict(EXAMPLE)) == 1


def test_a_model_that_is_dropped_ends_its_thread(saved):
    before = threading.active_count()
    other = mlflow.pyfunc.load_model(str(saved[1]))
    thread = other.unwrap_python_model().engine._thread
    assert thread.is_alive()
    other.unwrap_python_model().engine.close()
    thread.join(20)
    assert threading.active_count() <= before


def test_a_model_that_was_dropped_makes_room_for_the_next_and_one_that_is_closed_gives_all_back(saved):
    """MLflow itself keeps the one that it has loaded last."""
    mlflow.pyfunc.load_model(str(saved[1]))
    held = _bases()
    gc.disable()
    try:
        second = mlflow.pyfunc.load_model(str(saved[1]))
        assert _bases() == held
        second.unwrap_python_model().close()
        assert _bases() == held - 1
    finally:
        gc.enable()


def _bases() -> int:
    return sum(type(each).__name__ == "UNet2DConditionModel" for each in gc.get_objects())


def test_requests_are_read_while_another_is_drawn_and_change_nothing_in_it(model):
    """A tokenizer keeps how it was last asked to pad; shared, a reader would take the padding from what is drawn."""
    wanted, over = _picture(model, 1.0), threading.Event()

    def read() -> None:
        while not over.is_set():
            with pytest.raises(MlflowException, match="row 1"):
                model.predict(pd.DataFrame([{"prompt": "a"}, {"prompt": "a", "width": 65}]))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        pictures = [_picture(model, 1.0) for _ in range(8)]
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert all(picture == wanted for picture in pictures)


def _of_eight_threads(model) -> list[tuple[float, bytes]]:
    """Pictures of one prompt at two scales, asked for at the same time."""
    got: list[tuple[float, bytes]] = []
    threads = [threading.Thread(target=lambda s=scale: got.append((s, _picture(model, s)))) for scale in (0.0, 1.0) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    return got


def test_requests_from_many_threads_are_drawn_together_and_do_not_mix(model):
    """Beside others a kernel may add in another order, which moves a pixel by a grey level or two and no further."""
    wanted = {scale: np.frombuffer(_picture(model, scale), np.uint8).astype(int) for scale in (0.0, 1.0)}
    meter = model.unwrap_python_model().engine.meter
    steps, rows = meter.steps, meter.rows
    for scale, picture in _of_eight_threads(model):
        assert np.abs(np.frombuffer(picture, np.uint8) - wanted[scale]).max() <= 2
    assert (meter.rows - rows) / (meter.steps - steps) > 1
    assert np.abs(wanted[0.0] - wanted[1.0]).max() > 20


def test_pictures_drawn_one_at_a_time_are_the_same_to_the_byte_whoever_else_is_there(saved):
    """`max_batch: 1`, for whoever wants bytes rather than speed."""
    limits = Limits(rows=4, images=4, steps=4, sizes=((96, 64), (64, 96)), batch=1)
    single = mlflow.pyfunc.load_model(str(saved[1]), model_config={"limits": limits.__dict__})
    wanted = {scale: _picture(single, scale) for scale in (0.0, 1.0)}
    assert all(wanted[scale] == picture for scale, picture in _of_eight_threads(single))


def _picture(model, scale: float) -> bytes:
    rows = pd.DataFrame([{"prompt": "a red chair", "seed": 1.0, "adapter_scale": scale, "format": "png"}])
    return opened(model.predict(rows).iloc[0]).tobytes()


def test_rows_with_and_without_a_seed_pass_through_the_scoring_server(model):
    """The scoring server casts by the signature before the model sees a row; with `long` columns this would fail."""
    from mlflow.pyfunc.scoring_server import _parse_json_data

    body = json.dumps(
        {"dataframe_records": [{"prompt": "a", "seed": 7}, {"prompt": "b"}, {"prompt": "c", "seed": None}]}
    )
    data = _parse_json_data(body, model.metadata, model.metadata.get_input_schema()).data
    answer = model.predict(data)
    assert answer["seed"][0] == 7
    assert len(answer) == 3


def test_the_signature_names_every_input_and_param_and_requires_the_prompt_alone(model):
    inputs = model.metadata.get_input_schema()
    assert set(inputs.input_names()) == set(INPUTS)
    assert inputs.required_input_names() == ["prompt"]
    assert [param.name for param in model.metadata.signature.params] == list(PARAMS)


def test_for_unity_catalog_every_type_is_a_concrete_one():
    inputs = package.signature(concrete=True).inputs
    assert {str(column.type) for column in inputs} == {"DataType.string", "DataType.double"}
    assert inputs.input_names() == package.signature().inputs.input_names()


def test_the_model_holds_its_weights_and_no_pickle(saved, tmp_path: Path):
    folder = Path(mlflow.artifacts.download_artifacts(saved[0], dst_path=str(tmp_path)))  # as nobody has loaded it
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert "artifacts/base/unet/diffusion_pytorch_model.safetensors" in names
    assert "artifacts/adapter/pytorch_lora_weights.safetensors" in names
    assert not [name for name in names if name.endswith((".pkl", ".bin", ".pt", ".pth", ".ckpt", ".pyc"))]
    assert sorted(n for n in names if n.startswith("code/")) == sorted(f"code/{m}" for m in package.modules())


def test_the_code_that_travels_is_closed_under_imports(saved):
    """Whatever a packaged module imports of this project, also in a branch that no test takes, is packaged."""
    code = saved[1] / "code"
    sources = [package.MODEL, *code.rglob("*.py")]
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and module.startswith("personalize"):
                place = code.joinpath(*module.split("."))
                assert (place / "__init__.py").is_file() or place.with_suffix(".py").is_file(), (source, module)


def test_the_serving_environment_is_pinned_to_the_projects_own_pins(saved):
    pins = yaml.safe_load((ROOT / "conda.yaml").read_text())["dependencies"][-1]["pip"]
    required = (saved[1] / "requirements.txt").read_text().split()
    assert required == package.requirements()
    assert all("==" in line for line in required)
    known = dict(pin.split("==") for pin in pins)
    assert {n: v for n, v in (line.split("==") for line in required) if n in known} == {
        n: v for n, v in known.items() if n in package.REQUIREMENTS
    }


def test_it_serves_elsewhere_with_the_network_cut_and_pickle_forbidden(saved, tmp_path: Path):
    """Another process, another folder, no access to this checkout, any attempt to open a connection fatal."""
    script = tmp_path / "serve.py"
    script.write_text(
        "import socket, sys\n"
        "def cut(*_, **__): raise SystemExit('the model tried to reach the network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = cut\n"
        "import mlflow, pandas as pd\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "answer = model.predict(pd.DataFrame([{'prompt': 'a photo of a bcnchr chair', 'seed': 1}]))\n"
        "import personalize\n"
        "print(personalize.__file__, answer['width'][0], len(answer['image'][0]))\n"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_HUB_OFFLINE")}
    done = subprocess.run(
        [sys.executable, str(script), str(saved[1])],
        cwd=tmp_path,
        env={**environment, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "HF_HOME": str(tmp_path / "empty")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    where, width, size = done.stdout.split()[-3:]
    assert where.startswith(str(saved[1]))
    assert int(width) == 64
    assert int(size) > 500


def test_an_adapter_without_its_subjects_is_refused(tiny_models: Path, tmp_path: Path):
    random_adapter(tiny_models / "sdxl", tmp_path)
    with pytest.raises(ValueError, match=r"has no subjects\.json"):
        package.log(tiny_models / "sdxl", tmp_path, input_example=EXAMPLE)


# What was registered is what is loaded.


@pytest.fixture
def copy(saved, tmp_path: Path) -> Path:
    """The model in a folder of its own, to be edited."""
    import shutil

    return Path(shutil.copytree(saved[1], tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("artifacts/adapter/pytorch_lora_weights.safetensors", "pytorch_lora_weights.safetensors was changed"),
        ("artifacts/base/unet/config.json", "artifacts/base/unet/config.json was changed"),
        ("code/personalize/serving/request.py", "code/personalize/serving/request.py was changed"),
        ("code/personalize/new.py", "code/personalize/new.py was added"),
        ("model.py", "model.py was changed"),
        ("artifacts/evidence/statement.intoto.jsonl", "a statement that cannot be read"),
    ],
)
def test_a_model_in_which_anything_was_edited_does_not_load(copy, path, words):
    file = copy / path
    content = file.read_bytes() if file.exists() else b""
    file.write_bytes(content + b"#" if path.endswith(".py") else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(EvidenceError, match=rf"This model is not loaded.*{words}"):
        mlflow.pyfunc.load_model(str(copy))


def test_settings_that_were_edited_in_the_package_are_refused_and_those_of_a_caller_are_not(copy, saved):
    edited = (copy / "MLmodel").read_text().replace("guidance_scale: 30.0", "guidance_scale: 3000.0")
    assert edited != (copy / "MLmodel").read_text()
    (copy / "MLmodel").write_text(edited)
    with pytest.raises(EvidenceError, match="MLmodel names another settings"):
        mlflow.pyfunc.load_model(str(copy))


def test_a_server_that_trusts_certain_keys_loads_no_model_of_others(copy, monkeypatch, tmp_path):
    from personalize.evidence import keys
    from personalize.evidence import package as evidence
    from personalize.evidence.statement import write

    monkeypatch.setenv(evidence.TRUSTED, keys.own_id())
    with pytest.raises(EvidenceError, match=r"signed by nobody \(unsigned\), and not with a key of"):
        mlflow.pyfunc.load_model(str(copy))
    said = evidence.statement_of(copy)
    (copy / evidence.PLACE).write_text(write(said.subjects, said.kind, said.predicate, keys.own()))
    monkeypatch.setenv(evidence.TRUSTED, f"{'0' * 64},{keys.own_id()}")
    evidence.check_before_loading((copy / evidence.PLACE).parent)


def test_an_edited_model_does_not_load_in_a_server_without_this_checkout(copy, tmp_path):
    request = copy / "code/personalize/serving/request.py"
    request.write_text(request.read_text() + "\nSMUGGLED = True\n")
    code = f"import mlflow; mlflow.pyfunc.load_model({str(copy)!r})"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "This model is not loaded, it is not the one that was registered: code/personalize" in done.stderr


def test_of_a_model_that_lies_elsewhere_everything_but_the_base_is_fetched_and_checked(saved, tmp_path):
    from personalize.evidence import package as evidence
    from personalize.serving import checking

    (tmp_path / "fetched").mkdir()
    checking._fetch(saved[0], tmp_path / "fetched")
    names = {path.relative_to(saved[1]).as_posix() for path in saved[1].rglob("*") if path.is_file()}
    wanted = {name for name in names if not name.startswith("artifacts/base/") and "__pycache__" not in name}
    got = {
        path.relative_to(tmp_path / "fetched").as_posix()
        for path in (tmp_path / "fetched").rglob("*")
        if path.is_file()
    }
    assert got >= wanted - {"registered_model_meta"}
    assert not (tmp_path / "fetched/artifacts/base").exists()
    statement, wrong = checking._checked(tmp_path / "fetched", left_out="artifacts/base/")
    assert wrong == []
    (tmp_path / "fetched/code/torch.py").touch()
    assert checking._checked(tmp_path / "fetched", left_out="artifacts/base/")[1] == ["code/torch.py was added"]
    assert len(evidence.parts(statement.subjects)) > len(wanted) - 10
