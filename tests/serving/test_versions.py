"""A server that draws with other versions: whose, by which name, what it refuses; with a real store and registry."""

import base64
import gc
import hashlib
import io
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from personalize.dreambooth.denoising import Denoising
from personalize.dreambooth.sampling import Sampling, load_pipeline, sample
from personalize.evidence import keys, memory
from personalize.evidence.manifest import read
from personalize.evidence.package import base_files, statement_of
from personalize.evidence.statement import PROVENANCE
from personalize.evidence.trust import Trust
from personalize.photographs.prompts import Subject
from personalize.review import approval
from personalize.serving import adapters, versions
from personalize.serving.adapters import AdapterCache
from personalize.serving.call import MODEL_SERVING
from personalize.serving.versions import NotServed, Unreachable, Version, Versions
from tests.random_adapter import random_adapter
from tests.serving.registered import register

WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def shop(saved, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Versions of `chairs` and `sofas`, trained apart on the base of the model that is served."""
    place = tmp_path_factory.mktemp("shop")
    database = next(folder for folder in saved[1].parents if (folder / "mlflow.db").is_file()) / "mlflow.db"
    mlflow.set_tracking_uri(f"sqlite:///{database}")
    mlflow.set_registry_uri(f"sqlite:///{database}")
    base = base_files(statement_of(saved[1]))
    files = {
        name: random_adapter(tiny_models / "sdxl", place / name, rank=rank, alpha=alpha, seed=seed)
        for seed, (name, rank, alpha) in enumerate((("one", 2, 2.0), ("two", 8, 4.0)), start=11)
    }
    one, two = ((folder / WEIGHTS).read_bytes() for folder in files.values())
    stranger = key(place / "stranger.pem")
    lamp = [Subject("lmpchr", "lamp")]

    def made(weights: bytes = one, name: str = "chairs", subjects=lamp, **options) -> str:
        return register(place, name, weights, subjects, base, **options)

    return SimpleNamespace(
        base=base, files=files, made=made, one=one, place=place,
        numbers={
            "approved": made(champion=True),
            "another": made(two),
            "waiting": made(decision=None),
            "rejected": made(decision="rejected"),
            "failed": made(verdict="failed"),
            "dirty": made(dirty=["train"]),
            "stranger's": made(signer=stranger),
            "stranger's approval": made(approver=stranger),
            "other base": register(place, "chairs", one, lamp, {**base, "unet/config.json": "0" * 64}),
        },
        sofa=made(two, "sofas", [Subject("sfachr", "sofa")], champion=True),
    )  # fmt: skip


def key(place: Path):
    keys.make(place)
    return keys._load(place)


POLICY = Trust(makers=("own",)).resolved()


@pytest.fixture(scope="module")
def model(saved, shop):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(versions.NAMES, "chairs, sofas")
        patch.setenv(versions.POLICY, POLICY.model_dump_json())
        patch.setenv(adapters.SETTING, "50000000")
        return mlflow.pyfunc.load_model(str(saved[1]))


@pytest.fixture
def known(shop):
    """What a server with this registry would find, and a clock to move."""
    now = SimpleNamespace(s=0.0)
    own = Version([Subject("bcnchr", "chair")])
    found = Versions(own, shop.base, ("chairs", "sofas"), POLICY, clock=lambda: now.s)
    found.now = now
    return found


def pixels(row: pd.Series) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(row["image"])))).astype(int)


def by_itself(saved, lora: Path | None, seed: int, scale: float = 1.0) -> np.ndarray:
    pipe = load_pipeline(saved[1] / "artifacts" / "base", device="cpu", lora=lora)
    if lora:
        pipe.set_adapters("dreambooth", adapter_weights=scale)
    [picture] = sample(pipe, ["a red chair"], [seed], Sampling(steps=2, width=64, height=64))
    return np.asarray(picture).astype(int)


def test_each_row_is_drawn_with_the_version_it_names(model, saved, shop):
    rows = [
        {"model_version": shop.numbers["approved"]},
        {},
        {"model_version": float(shop.numbers["another"]), "adapter_scale": 0.5},
        {"model": "sofas"},
    ]
    asked = [{"prompt": "a red chair", "seed": n, "format": "png", **row} for n, row in enumerate(rows)]
    answer = model.predict(pd.DataFrame(asked))
    one, two = shop.files.values()
    own = saved[1] / "artifacts" / "adapter"
    expected = [
        by_itself(saved, lora, n, scale) for n, (lora, scale) in enumerate([(one, 1), (own, 1), (two, 0.5), (two, 1)])
    ]
    for (_, row), wanted in zip(answer.iterrows(), expected, strict=True):
        assert np.abs(pixels(row) - wanted).max() <= 2, row["model_version"]
    numbers = shop.numbers
    assert answer["model_version"].tolist() == [
        f"chairs/{numbers['approved']}", "", f"chairs/{numbers['another']}", f"sofas/{shop.sofa}",
    ]  # fmt: skip
    assert answer["fingerprint"].tolist() == ["of chairs", "ab12cd", "of chairs", "of sofas"]
    assert np.abs(expected[2] - expected[3]).max() > 20
    said = [read(base64.b64decode(image), "png").facts for image in answer["image"]]
    assert [(facts.get("registered_model"), facts.get("version")) for facts in said] == [
        ("chairs", numbers["approved"]), (None, None), ("chairs", numbers["another"]), ("sofas", shop.sofa),
    ]  # fmt: skip
    for facts, folder in zip(said, (one, own, two, two), strict=True):
        weights = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        assert facts["adapters"] == {f"artifacts/adapter/{WEIGHTS}": weights}
    assert ["statement" in facts for facts in said] == [False, True, False, False], "this model's is not theirs"


def test_without_a_server_rows_may_name_more_adapters_than_are_held_at_once(model, shop, monkeypatch):
    inner = model.unwrap_python_model()
    most = max((folder / WEIGHTS).stat().st_size for folder in shop.files.values())
    numbers = [shop.numbers["approved"], shop.numbers["another"]] * 2
    asked = pd.DataFrame({"prompt": ["a red chair"] * 4, "seed": range(4), "model_version": numbers})
    known, besides = [], []

    def fetch(version: Version):
        gc.collect()
        besides.append(sum(each() is not None for each in known))
        known.append(weakref.ref(adapter := inner._fetch(version)))
        return adapter

    monkeypatch.setattr(inner, "adapters", AdapterCache(fetch, most))
    assert model.predict(asked)["model_version"].tolist() == [f"chairs/{number}" for number in numbers]
    assert inner.adapters.meter.evicted == 3
    assert besides == [0] * 4, "what went is not in memory any more when the next one comes"
    monkeypatch.setenv(MODEL_SERVING, "true")
    with pytest.raises(MlflowException, match="Ask for fewer versions at once"):
        model.predict(asked)


def test_what_is_asked_for_again_is_held(model, shop):
    meter = model.unwrap_python_model().adapters.meter
    ask = pd.DataFrame([{"prompt": "a red chair", "model_version": shop.numbers["approved"]}])
    model.predict(ask)
    loaded = meter.loaded
    model.predict(ask)
    assert meter.loaded == loaded
    assert model.unwrap_python_model().adapters.held >= 1


def test_a_row_that_cannot_be_drawn_says_so_and_the_others_are_drawn(model, shop):
    asked = [
        {"prompt": "a {subject} in snow", "subject": "bcnchr"},
        {"prompt": "a chair", "model_version": shop.numbers["waiting"]},
        {"prompt": "a chair", "width": 65},
        {"prompt": "a {subject} in snow", "subject": "Sfachr,"},
    ]
    with pytest.raises(MlflowException, match=r"row 1: .*nobody has approved it\.; row 2: 65 x 64 pixels") as refused:
        model.predict(pd.DataFrame(asked))
    assert refused.value.get_http_status_code() == 400
    answer = model.predict(pd.DataFrame(asked), params={"partial": True})
    assert answer["row"].tolist() == [0, 1, 2, 3]
    assert answer["status"].tolist() == [200, 400, 400, 200]
    assert [bool(image) for image in answer["image"]] == [True, False, False, True]
    assert answer["prompt"].tolist() == ["a bcnchr chair in snow", "", "", "a sfachr sofa in snow"]
    assert ["" if not words else words.split()[-1] for words in answer["error"]] == ["", "it.", "96.", ""]


def test_the_engine_fails_a_row_and_partial_keeps_the_rest(model, monkeypatch):
    begin = Denoising.begin

    def sometimes(self, prompt, *args):
        if "marchioness" in prompt:
            raise RuntimeError("no such paint")
        return begin(self, prompt, *args)

    monkeypatch.setattr(Denoising, "begin", sometimes)
    asked = pd.DataFrame([{"prompt": "a marchioness"}, {"prompt": "a chair"}])
    answer = model.predict(asked, params={"partial": True, "request_id": "mine"})
    assert answer["status"].tolist() == [500, 200]
    assert answer["error"][0].endswith("the server's log has it under mine.")
    assert "marchioness" not in answer["error"][0]
    late = model.predict(asked[1:], params={"partial": True, "timeout_s": 1e-6})
    assert late["status"].tolist() == [504]


@pytest.mark.parametrize("priority", ["urgent", 3])
def test_a_priority_that_is_not_known_is_refused(model, priority):
    with pytest.raises(MlflowException, match=r"not one of high, normal, low|Failed to validate"):
        model.predict(pd.DataFrame([{"prompt": "a"}]), params={"priority": priority})


REFUSED = {
    "waiting": "nobody has approved it",
    "rejected": "a tester rejected it",
    "failed": "its gates have not passed",
    "dirty": "uncommitted code made it",
    "stranger's": "it is signed with key .*, whose results do not count here",
    "stranger's approval": "the approval is signed with key .*, which may not approve here",
    "other base": "it was trained on base .*, and this server has",
}


@pytest.mark.parametrize("which", REFUSED)
def test_a_version_that_may_not_be_used_says_why(known, shop, which: str):
    with pytest.raises(NotServed, match=f"chairs version {shop.numbers[which]} is not served here: {REFUSED[which]}"):
        known.find("", shop.numbers[which], "")


@pytest.mark.parametrize(
    ("model", "which", "words"),
    [
        ("lamps", "1", "model 'lamps' is not served here. Served are: chairs, sofas"),
        ("chairs", "999", "there is no chairs version 999"),
        ("chairs", "../../1", "is neither a number nor an alias"),
        ("chairs", "nobody", "'chairs' has no alias 'nobody'"),
    ],
)
def test_what_is_not_there_is_the_callers_error(known, model, which, words):
    with pytest.raises(NotServed, match=words):
        known.find(model, which, "")


def test_without_a_policy_nothing_is_approved(shop):
    found = Versions(Version([]), shop.base, ("chairs",))
    with pytest.raises(NotServed, match="whose results do not count here"):
        found.find("", shop.numbers["approved"], "")


def test_a_subject_is_looked_for_in_the_champions_and_its_own_comes_first(known, shop):
    assert str(known.find("", "", "sfachr")) == f"sofas/{shop.sofa}"
    assert str(known.find("", "champion", "")) == f"chairs/{shop.numbers['approved']}"
    assert known.find("", "", "bcnchr") is known.own
    assert known.find("", "", "nobody knows it") is known.own
    assert known.find("", "", "") is known.own


def test_a_tag_is_not_believed(known, shop):
    """A champion that says it was taught a token, and whose signed subjects say otherwise, does not draw it."""
    client = mlflow.MlflowClient()
    client.set_model_version_tag("sofas", shop.sofa, "tokens", "sfachr, crown")
    assert known.find("", "", "crown") is known.own


def test_a_rejection_is_heard_of_after_a_while_and_silence_changes_nothing(known, shop, monkeypatch):
    number = shop.made()
    found = known.find("", number, "")
    run = statement_of(_place(number)).predicate["runs"]["evaluate"]
    record = approval.in_force(run)
    evidence = approval.gather(run, record["card"]["address"], record["model"]["address"].split("/")[1])
    approval.decide(evidence, "rejected", "a tester", "the legs are wrong", "a test", keys.own())
    assert known.find("", number, "") == found
    known.now.s += versions.RECHECK_S
    with monkeypatch.context() as away:
        away.setattr(versions, "_fetched", _nobody_answers)
        assert known.find("", number, "") == found
        with pytest.raises(Unreachable):
            known.find("", shop.numbers["another"], "")
    known.now.s += versions.REFUSED_S
    with pytest.raises(NotServed, match="a tester rejected it"):
        known.find("", number, "")


def _nobody_answers(*_):
    raise ConnectionError("no route to host")


def _place(number: str) -> Path:
    return Path(mlflow.MlflowClient().get_model_version_download_uri("chairs", number).removeprefix("file://"))


def test_what_is_refused_is_not_asked_for_at_once_again(known, shop, monkeypatch):
    asked = []
    look = Versions._look
    monkeypatch.setattr(Versions, "_look", lambda self, *of: asked.append(of) or look(self, *of))
    for _ in range(5):
        with pytest.raises(NotServed):
            known.find("", shop.numbers["waiting"], "")
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("artifacts/adapter/pytorch_lora_weights.safetensors", "is not as it was registered"),
        ("artifacts/adapter/subjects.json", "subjects other than those that it was registered with"),
        ("artifacts/evidence/statement.intoto.jsonl", "a signature that does not fit|a statement that cannot be read"),
    ],
)
def test_bytes_that_somebody_changed_in_the_store_are_not_drawn_with(known, shop, path, words):
    number = shop.made()
    file = _place(number) / path
    data = file.read_bytes()
    middle = len(data) // 2
    file.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    with pytest.raises(NotServed, match=words):
        known.weights(known.find("", number, ""))


def test_an_approval_of_other_weights_does_not_count(known, shop, tmp_path, monkeypatch):
    number, other = shop.made(), shop.made((shop.files["two"] / WEIGHTS).read_bytes())
    runs = [statement_of(_place(each)).predicate["runs"]["evaluate"] for each in (number, other)]
    artifacts = [Path(mlflow.get_run(run).info.artifact_uri.removeprefix("file://")) for run in runs]
    for name in (approval.APPROVAL, approval.SIGNED):
        shutil.copyfile(artifacts[1] / name, artifacts[0] / name)
    shutil.rmtree(artifacts[0] / approval.DECISIONS)
    shutil.copytree(artifacts[1] / approval.DECISIONS, artifacts[0] / approval.DECISIONS)
    with pytest.raises(NotServed, match="is not the last word"):  # as this machine has seen them given
        known.find("", number, "")
    monkeypatch.setattr(memory, "_place", lambda what: tmp_path / "seen.json")  # another machine's memory
    known.now.s += versions.REFUSED_S
    with pytest.raises(NotServed, match="what was approved is another: model"):
        known.find("", number, "")


def test_who_trained_is_asked_of_the_training_and_not_of_the_version(known, shop, tmp_path):
    other, unknown = key(tmp_path / "other.pem"), key(tmp_path / "unknown.pem")
    other_id = str(other.public_key.keyid)
    known.policy = Trust(makers=("own", other_id), four_eyes=True).resolved()
    assert known.find("", shop.made(trainer=other), "")
    for made, words in (
        ({"says_trainer": other_id}, "both trained and approved"),
        ({"trainer": unknown, "says_trainer": other_id}, "a training that is signed with key .* do not count here"),
    ):
        with pytest.raises(NotServed, match=words):
            known.find("", shop.made(**made), "")
    number = shop.made(trainer=other)
    train = statement_of(_place(number)).predicate["runs"]["train"]
    (Path(mlflow.get_run(train).info.artifact_uri.removeprefix("file://")) / PROVENANCE).unlink()
    with pytest.raises(NotServed, match="no training that shows who trained"):
        known.find("", number, "")


def test_a_policy_travels_without_this_machines_key(monkeypatch, tmp_path):
    here = Trust(makers=("own", "a" * 64), four_eyes=True).resolved()
    assert here.makers == (keys.own_id(), "a" * 64)
    there = type(here).model_validate_json(here.model_dump_json())
    monkeypatch.setenv(keys.SETTING, keys.OFF)
    assert there.against_maker("") == "is unsigned", "a server without a key of its own believes nothing unsigned"
    assert not there.against_maker("a" * 64)
    assert there.against_approver(here.approvers[0], here.approvers[0])
    assert Trust().resolved().takes_unsigned
