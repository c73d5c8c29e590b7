"""The ingest step as a user meets it: folders, archives and addresses in; clean images, a table and a card out."""

import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image, ImageFilter
from pydantic import ValidationError

from personalize.cards import Card
from personalize.files import tree_digest
from personalize.photographs import source
from personalize.recipe import Inputs, RecipeError
from steps import ingest
from steps.cards.ingest import show
from tests.dreambooth.drawings import drawing, photograph, subject_folder
from tests.steps.conftest import perform

SMALL = {"resolution": 80}


class Ingested:
    """What one run of the step left: outputs, card and MLflow run."""

    def __init__(self, outputs: Path, card: Card, run_id: str) -> None:
        self.outputs, self.card = outputs, card
        self.run = mlflow.get_run(run_id)
        self.metadata = [json.loads(line) for line in (outputs / "images/metadata.jsonl").read_text().splitlines()]
        self.qa = json.loads((outputs / "qa.json").read_text())
        self.verdicts = {row["source"]: row["verdict"] for row in self.qa["files"]}


@pytest.fixture(scope="module", autouse=True)
def tracking(tmp_path_factory: pytest.TempPathFactory) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path_factory.mktemp('tracking') / 'mlflow.db'}")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ingested]:
    monkeypatch.chdir(tmp_path)

    def run_step(data: object, **options: object) -> Ingested:
        outputs = tmp_path / "outputs"
        shutil.rmtree(outputs, ignore_errors=True)
        with mlflow.start_run() as active:
            card = perform("ingest", ingest.Config(data=str(data), **{**SMALL, **options}), Inputs({}), outputs)
        return Ingested(outputs, card, active.info.run_id)

    return run_step


def two_subjects(root: Path) -> Path:
    subject_folder(root, "chair", "zwvchr", 3)
    return subject_folder(root, "desk_lamp", "qpdlmp", 3, seed=50)


def test_the_result_is_an_image_folder_that_datasets_readers_understand(run, tmp_path: Path) -> None:
    result = run(two_subjects(tmp_path / "data"))
    assert len(result.metadata) == 6
    for row in result.metadata:
        image = Image.open(result.outputs / "images" / row["file_name"])
        assert (image.format, image.mode, image.info) == ("PNG", "RGB", {})
        assert image.size == (row["width"], row["height"]) == (213, 160)
        assert row["file_name"].startswith(f"{row['class_noun']}/{row['token']}/")
    assert {(row["token"], row["class_noun"]) for row in result.metadata} == {
        ("zwvchr", "chair"),
        ("qpdlmp", "desk lamp"),
    }
    assert result.metadata[0]["source"] == "chair/zwvchr/0.jpg"


def test_the_first_warning_says_how_many_files_were_not_used_and_why(run, tmp_path: Path) -> None:
    """Which is what the terminal shows of it."""
    data = two_subjects(tmp_path / "data")
    assert warnings(run(data)) == []
    photograph(data / "chair/zwvchr/0 again.jpg", 0, quality=60)
    photograph(data / "chair/zwvchr/1 again.jpg", 1, quality=60)
    (data / "chair/zwvchr/empty.heic").touch()
    (data / "chair/zwvchr/live.mov").write_bytes(b"a film")
    assert warnings(run(data))[0] == (
        "4 of 10 files were not used: 2 nearly the same, 1 the file is empty, 1 not a photograph; "
        "the table on the card says which."
    )


def test_masks_are_kept_beside_the_images_counted_and_shown(run, tmp_path: Path) -> None:
    data = two_subjects(tmp_path / "data")
    mask = Image.new("L", (320, 240), 0)
    mask.paste(255, (80, 60, 240, 180))
    mask.save(data / "chair/zwvchr/0.mask.png")
    cutout = drawing(9)
    cutout.putalpha(mask)
    cutout.save(data / "chair/zwvchr/9.png")
    result = run(data)
    assert sorted(path.relative_to(result.outputs).as_posix() for path in (result.outputs / "masks").rglob("*.*")) == [
        "masks/chair/zwvchr/0.png",
        "masks/chair/zwvchr/9.png",
    ]
    assert len(result.metadata) == 7  # a mask is no photograph
    assert result.run.data.metrics["photographs_masked"] == 2
    facts = next(block for block in result.card.as_dict()["blocks"] if block["kind"] == "facts")
    assert "2 of 7: 1 file beside it, 1 alpha channel" in json.dumps(facts)
    assert "zwvchr chair: the subject by its mask" in result.card.html()


def test_a_mask_model_that_is_not_there_is_one_message_before_anything_is_read(run, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"ingest.mask_model: there is no segmentation model at nowhere"):
        run(two_subjects(tmp_path / "data"), masks="model", mask_model="nowhere")
    given = ingest.Config(data=str(tmp_path / "data"), masks="model", mask_model="a/model", mask_revision="0" * 40)
    assert ingest.sources(given)["mask model"] == "a/model@" + "0" * 40


def warnings(ingested: Ingested) -> list[str]:
    return [block["text"] for block in ingested.card.as_dict()["blocks"] if block["kind"] == "warning"]


def test_who_allowed_the_use_of_the_photographs_is_on_the_card_where_it_is_given(run, tmp_path: Path) -> None:
    data = two_subjects(tmp_path / "data")
    assert "rights" not in run(data).card.html()
    given = run(data, rights=" the museum <2026> ")
    assert "the museum &lt;2026&gt;" in given.card.html()
    assert "rights" not in ingest.Config.result_keys()  # words: new ones are no reason to read the photographs again


def test_the_same_photographs_give_the_same_bytes(run, tmp_path: Path) -> None:
    data = two_subjects(tmp_path / "data")
    photograph(data / "chair/zwvchr/0 again.jpg", 0, quality=60)
    result = run(data, rights="the museum")
    assert list(result.outputs.glob("thumbnails/*.png"))
    first = tree_digest(result.outputs, leave_out="diagnostics")
    (tmp_path / "data.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n")
    data.rename(tmp_path / "moved")
    assert tree_digest(run(tmp_path / "moved").outputs, leave_out="diagnostics") == first


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar"])
def test_an_archive_is_the_same_as_the_folder_in_it(run, tmp_path: Path, kind: str) -> None:
    data = two_subjects(tmp_path / "my photographs")
    from_folder = run(data)
    archive = shutil.make_archive(str(tmp_path / "packed"), {"tar.gz": "gztar"}.get(kind, kind), tmp_path, data.name)
    from_archive = run(archive)
    assert from_archive.metadata == from_folder.metadata


def test_a_flat_folder_with_token_and_class_noun(run, tmp_path: Path) -> None:
    for seed in range(3):
        photograph(tmp_path / "teapot" / f"{seed}.jpg", seed)
    result = run(tmp_path / "teapot", token="tqpot", class_noun="teapot")
    assert [row["file_name"] for row in result.metadata] == [f"teapot/tqpot/{index}.png" for index in range(3)]


def test_the_dataset_is_logged_with_the_digest_that_dvc_would_pin(run, tmp_path: Path) -> None:
    data = subject_folder(two_subjects(tmp_path / "data"), "vase", "qvase", 3, seed=700)  # MLflow keeps one per digest
    result = run(data)
    (logged,) = result.run.inputs.dataset_inputs
    digest = tree_digest(data)
    assert logged.dataset.digest == digest == ingest.sources(ingest.Config(data=str(data)))["data"]
    assert len(digest) == 36  # MLflow keeps no more
    assert logged.dataset.name == "data"
    assert json.loads(logged.dataset.source) == {"uri": str(data)}
    assert result.run.data.metrics == {
        "subjects": 3, "photographs_kept": 9, "photographs_warned": 0, "photographs_rejected": 0,
        "photographs_masked": 0,
    }  # fmt: skip


def test_moving_the_folder_changes_nothing_and_touching_a_photograph_does(tmp_path: Path) -> None:
    data = two_subjects(tmp_path / "data")
    before = ingest.sources(ingest.Config(data=str(data)))
    data.rename(tmp_path / "elsewhere")
    assert ingest.sources(ingest.Config(data=str(tmp_path / "elsewhere"))) == before
    photograph(tmp_path / "elsewhere/chair/zwvchr/0.jpg", 99)
    assert ingest.sources(ingest.Config(data=str(tmp_path / "elsewhere"))) != before
    assert "data" not in ingest.Config.result_keys()


def test_every_bad_file_is_listed_and_the_users_folder_is_left_alone(run, tmp_path: Path) -> None:
    data = subject_folder(tmp_path / "data", count=4)
    folder = data / "chair/zwvchr"
    (folder / "notes.jpg").write_text("buy milk")
    (folder / "zero.png").touch()
    (folder / "clip.mov").write_bytes(b"movie")
    drawing(60).filter(ImageFilter.GaussianBlur(6)).save(folder / "shaky.png")
    (folder / "half.jpg").write_bytes((folder / "0.jpg").read_bytes()[:3000])
    photograph(folder / "copy of 1.jpg", 1, quality=60)
    photograph(data / "loose.jpg", 70)
    before = tree_digest(data)

    result = run(data)
    assert tree_digest(data) == before
    assert len(result.metadata) == 4
    assert {name: verdict for name, verdict in result.verdicts.items() if verdict != "kept"} == {
        "chair/zwvchr/notes.jpg": "rejected",
        "chair/zwvchr/zero.png": "rejected",
        "chair/zwvchr/shaky.png": "rejected",
        "chair/zwvchr/half.jpg": "rejected",
        "chair/zwvchr/copy of 1.jpg": "rejected",
        "chair/zwvchr/clip.mov": "left out",
        "loose.jpg": "left out",
    }
    assert all(row["reasons"] for row in result.qa["files"] if row["verdict"] != "kept")
    html = result.card.html()
    assert "it is not an image but a text file" in html
    assert "7 of 11 files were not used" in html
    pictures = {row["source"]: row["picture"] for row in result.qa["files"]}
    assert pictures["chair/zwvchr/notes.jpg"] == ""
    with Image.open(result.outputs / pictures["chair/zwvchr/shaky.png"]) as small:  # so that one sees what was wrong
        assert small.size == (213, 160)


def test_names_with_html_reach_the_card_as_text(run, tmp_path: Path) -> None:
    data = subject_folder(tmp_path / "data", count=3)
    name = "<img src=x onerror=alert(1)> & 'Stühle' ..jpg"
    photograph(data / "chair/zwvchr" / name, 80)
    result = run(data)
    row = next(row for row in result.metadata if row["source"].endswith(name))
    assert row["file_name"] == "chair/zwvchr/img-src-x-onerror-alert-1-Stuhle.png"
    html = result.card.html()
    assert "<img src=x" not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html


def test_captions_of_the_user_travel_with_the_photographs(run, tmp_path: Path) -> None:
    data = subject_folder(tmp_path / "data", count=3)
    (data / "chair/zwvchr/1.txt").write_text("a zwvchr chair by a pond")
    captions = {row["file_name"]: row["caption"] for row in run(data).metadata}
    assert captions == {
        "chair/zwvchr/0.png": None,
        "chair/zwvchr/1.png": "a zwvchr chair by a pond",
        "chair/zwvchr/2.png": None,
    }


def refused(run, data: object, **options: object) -> str:
    with pytest.raises(RecipeError) as error:
        run(data, **options)
    return str(error.value)


def test_too_few_photographs_are_named_with_the_reasons_of_the_rejected(run, tmp_path: Path) -> None:
    data = subject_folder(two_subjects(tmp_path / "data"), "vase", "qvase", 1)
    (data / "vase/qvase/bad.jpg").touch()
    message = refused(run, data)
    assert "3 of each subject are needed" in message
    assert "qvase vase: 1 usable of 2 found" in message
    assert "vase/qvase/bad.jpg: the file is empty" in message
    assert "zwvchr" not in message
    assert len(run(data, min_photographs=1).metadata) == 7


def test_a_failed_ingest_still_shows_what_it_saw(tmp_path: Path) -> None:
    data = subject_folder(tmp_path / "data", count=1)
    config, outputs, card = ingest.Config(data=str(data), **SMALL), tmp_path / "outputs", Card("ingest")
    with mlflow.start_run(), pytest.raises(RecipeError):
        ingest.run(config, Inputs({}), outputs)
    show(config, Inputs({}), outputs, card)
    assert "chair/zwvchr/0.jpg" in card.html()


def test_missing_data_says_how_to_get_them(run, tmp_path: Path) -> None:
    assert "photographs does not exist" in refused(run, "photographs")
    (tmp_path / "data.dvc").write_text("outs:\n- md5: 0123456789abcdef0123456789abcdef.dir\n  path: data\n")
    message = refused(run, "data")
    assert "dvc pull data.dvc" in message
    with pytest.raises(RecipeError, match=r"dvc pull data\.dvc"):  # the plan says so too
        ingest.sources(ingest.Config(data="data"))


def test_the_card_says_whether_the_photographs_are_those_that_dvc_pins(run, tmp_path: Path) -> None:
    data = subject_folder(tmp_path / "data", count=3)
    (tmp_path / "data.dvc").write_text(f"outs:\n- md5: {tree_digest(data)}\n  path: data\n")
    assert "(pinned by DVC)" in run("data").card.html()
    photograph(data / "chair/zwvchr/new.jpg", 90)
    html = run("data").card.html()
    assert "(pinned by DVC)" not in html
    assert "dvc add data" in html


def test_an_empty_folder_a_single_photograph_and_a_wrong_layout_are_explained(run, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    assert "no photograph" in refused(run, tmp_path / "nothing")
    photograph(tmp_path / "flat/1.jpg", 1)
    assert "neither zip nor tar" in refused(run, tmp_path / "flat/1.jpg")
    message = refused(run, tmp_path / "flat")
    assert "-P token=zwvchr -P class_noun=chair" in message
    assert "<class noun>/<token>/" in message


def test_an_archive_with_a_path_that_leads_out_is_refused(run, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("../../evil.jpg", b"evil")
    message = refused(run, tmp_path / "evil.zip")
    assert "evil.zip: '../../evil.jpg' leads out of the archive" in message
    assert not list(tmp_path.parent.glob("evil.jpg"))


def test_messages_about_an_archive_name_the_archive_and_not_its_temporary_folder(run, tmp_path: Path) -> None:
    photograph(tmp_path / "src/1.jpg", 1)
    with tarfile.open(tmp_path / "flat.tar", "w") as archive:
        archive.add(tmp_path / "src/1.jpg", "1.jpg")
    message = refused(run, tmp_path / "flat.tar")
    assert str(tmp_path / "flat.tar") in message
    assert "unpacked" not in message


def test_only_public_https_addresses_are_fetched(run) -> None:
    message = refused(run, "http://example.org/photos.zip?key=secret")
    assert "only https" in message
    assert "secret" not in message
    assert "not a public address" in refused(run, "https://127.0.0.1/photos.zip")


@pytest.mark.parametrize("gone", ["allow_urls", "download_seconds", "max_files", "max_archive_megabytes"])
def test_a_key_that_is_no_more_is_not_taken_in_silence(gone: str) -> None:
    with pytest.raises(ValidationError, match=gone):
        ingest.Config(**{gone: 1})


def test_an_archive_from_an_address_is_held_to_its_sha256(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", subject_folder(tmp_path / "data", count=3))
    fetched: list[str] = []

    def download(url: str, target: Path, most_bytes: int) -> str:
        fetched.append(url)
        shutil.copy(packed, target)
        return "a" * 64

    monkeypatch.setattr(source, "download", download)
    address = "https://example.org/photos.zip?signature=secret"
    result = run(address)
    assert fetched == [address]
    assert len(result.metadata) == 3
    html = result.card.html()
    assert "secret" not in html + json.dumps(result.qa) + result.run.inputs.dataset_inputs[0].dataset.source
    assert f"ingest.data_sha256 to {'a' * 64}" in html
    assert "was changed since" in refused(run, address, data_sha256="b" * 64)
    assert ingest.sources(ingest.Config(data=address, data_sha256="b" * 64)) == {"data": "b" * 64}


@pytest.mark.real_photographs
def test_the_real_chairs_are_all_kept(run, real_photographs: Path) -> None:
    result = run(real_photographs / "chairs", resolution=128)
    assert len(result.metadata) == 25
    assert set(result.verdicts.values()) == {"kept"}
    assert all("Display P3 converted to sRGB" in row["notes"] for row in result.qa["files"])
    image = np.asarray(Image.open(result.outputs / "images" / result.metadata[0]["file_name"]))
    assert image.shape == (256, 256, 3)


@pytest.mark.real_photographs
def test_a_real_flat_folder_is_kept(run, real_photographs: Path) -> None:
    result = run(real_photographs / "dreambooth/teapot", token="tqpot", class_noun="teapot", resolution=128)
    assert len(result.metadata) == 5
    message = refused(run, real_photographs / "dreambooth")
    assert "backpack/00.jpg   (photographs there: 6)" in message
