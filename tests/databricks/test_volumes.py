"""Folders to and from Unity Catalog volumes."""

import pytest

from personalize.databricks.volumes import check_volume, download, upload
from personalize.databricks.workspace import WorkspaceError, connect

VOLUME = "/Volumes/main/personalize/files"


@pytest.fixture
def photographs(tmp_path):
    folder = tmp_path / "data"
    for name, content in {
        "chair/zwv/front view.jpg": b"one",
        "chair/zwv/häßlich.jpg": b"two",
        "notes.txt": b"",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_comes_back_as_it_went(workspace, photographs, tmp_path):
    client = connect()
    upload(client, photographs, f"{VOLUME}/data")
    download(client, f"{VOLUME}/data", tmp_path / "back")
    here = {path.relative_to(photographs): path.read_bytes() for path in photographs.rglob("*") if path.is_file()}
    back = tmp_path / "back"
    assert {path.relative_to(back): path.read_bytes() for path in back.rglob("*") if path.is_file()} == here


def test_what_is_there_already_is_not_sent_again(workspace, photographs, tmp_path):
    client = connect()
    upload(client, photographs, f"{VOLUME}/again")
    assert upload(client, photographs, f"{VOLUME}/again") == []
    (photographs / "notes.txt").write_text("changed")
    assert upload(client, photographs, f"{VOLUME}/again") == [f"{VOLUME}/again/notes.txt"]
    assert len(download(client, f"{VOLUME}/again", tmp_path / "back")) == 3
    assert download(client, f"{VOLUME}/again", tmp_path / "back") == []


def test_a_link_out_of_the_folder_is_not_followed(workspace, photographs, tmp_path):
    (tmp_path / "secret").write_text("not yours")
    (photographs / "link.txt").symlink_to(tmp_path / "secret")
    assert f"{VOLUME}/links/link.txt" not in upload(connect(), photographs, f"{VOLUME}/links")


@pytest.mark.parametrize("path", ["data", "/Volumes/main/personalize", "dbfs:/data", "/Volumes/a/b/c/../../x"])
def test_what_is_not_a_volume_path_is_refused_with_an_example(path):
    with pytest.raises(WorkspaceError, match="/Volumes/<catalog>/<schema>/<volume>"):
        check_volume(path)


def test_nothing_to_copy_is_said(workspace, tmp_path):
    with pytest.raises(WorkspaceError, match="nothing at /Volumes/main/personalize/files/none"):
        download(connect(), f"{VOLUME}/none", tmp_path)
    with pytest.raises(WorkspaceError, match="no folder"):
        upload(connect(), tmp_path / "none", VOLUME)
