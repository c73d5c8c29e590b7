"""Archives from strangers: what is unpacked stays inside, what does not is refused as a whole."""

import gzip
import io
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from personalize.photographs.unpacking import ArchiveLimits, Refused, unpack

MODES = {"plain.tar": "w", "gz.tar.gz": "w:gz", "bz2.tar.bz2": "w:bz2", "xz.tar.xz": "w:xz"}


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def make_tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MEMBERS = {"chair/zwvchr/1.jpg": b"one", "chair/zwvchr/Stühle <b>&.jpg": b"two", "./a..b.jpg": b"three"}
UNPACKED = {"chair/zwvchr/1.jpg": b"one", "chair/zwvchr/Stühle <b>&.jpg": b"two", "a..b.jpg": b"three"}


@pytest.mark.parametrize("name", MODES)
def test_tars_of_every_compression_are_unpacked(tmp_path: Path, name: str) -> None:
    unpack(make_tar(tmp_path / name, MEMBERS, MODES[name]), tmp_path / "out")
    assert contents(tmp_path / "out") == UNPACKED


def test_zips_are_unpacked(tmp_path: Path) -> None:
    unpack(make_zip(tmp_path / "photos.zip", MEMBERS), tmp_path / "out")
    assert contents(tmp_path / "out") == UNPACKED


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/cron.d/evil.jpg", "absolute"),
        ("../evil.jpg", "leads out"),
        ("chair/../../evil.jpg", "leads out"),
        ("..\\evil.jpg", "leads out"),
        ("C:\\evil.jpg", "absolute"),
        ("\\\\server\\evil.jpg", "absolute"),
    ],
)
def test_a_path_that_leads_out_refuses_the_whole_archive(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path], name: str, reason: str
) -> None:
    archive = make(tmp_path / "evil.zip", {"chair/zwvchr/good.jpg": b"good", name: b"evil"})
    with pytest.raises(Refused, match=f"evil.zip: .*evil.jpg.*{reason}"):
        unpack(archive, tmp_path / "deep" / "out")
    assert contents(tmp_path / "deep") == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "evil.zip"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "links.tar", "w") as archive:
        member = tarfile.TarInfo("photo.jpg")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(Refused, match="link or special file"):
        unpack(tmp_path / "links.tar", tmp_path / "out")


def test_a_symlink_in_a_zip_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("photo.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(Refused, match="link or special file"):
        unpack(tmp_path / "links.zip", tmp_path / "out")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_too_many_or_too_large_members_are_refused(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    archive = make(tmp_path / "a.zip", {f"{index}.jpg": b"x" * 1000 for index in range(5)})
    unpack(archive, tmp_path / "fits", ArchiveLimits(files=5, member_bytes=1000, total_bytes=5000))
    for limits, reason in [
        (ArchiveLimits(files=4), "members"),
        (ArchiveLimits(member_bytes=999), "a file may have"),
        (ArchiveLimits(total_bytes=4999), "unpacked it has more"),
    ]:
        with pytest.raises(Refused, match=reason):
            unpack(archive, tmp_path / "out", limits)
        assert contents(tmp_path / "out") == {}


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    make_zip(tmp_path / "bomb.zip", {"photo.jpg": b"\0" * 1_000_000})
    honest = (1_000_000).to_bytes(4, "little")
    assert (tmp_path / "bomb.zip").read_bytes().count(honest) == 2
    (tmp_path / "bomb.zip").write_bytes(
        (tmp_path / "bomb.zip").read_bytes().replace(honest, (10).to_bytes(4, "little"))
    )
    with pytest.raises(Refused):
        unpack(tmp_path / "bomb.zip", tmp_path / "out", ArchiveLimits(total_bytes=1000))
    assert contents(tmp_path / "out") == {}


def test_a_gzip_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    """One header announces 8 GB of extended attributes, which tarfile would read into memory."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 8_000_000_000
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            file.write(b"\0" * 1_000_000)
    with pytest.raises(Refused, match="the header of a member has 8000 MB"):
        unpack(tmp_path / "bomb.tar.gz", tmp_path / "out")
    header.type, header.size = tarfile.REGTYPE, 100
    header.name = "x" * 5000  # a long name of its own is no bomb
    with tarfile.open(tmp_path / "long.tar", "w") as archive:
        archive.addfile(header, io.BytesIO(b"y" * 100))
    with pytest.raises(Refused, match="longer name than a disk takes"):
        unpack(tmp_path / "long.tar", tmp_path / "out")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_what_unpacks_to_a_multiple_of_itself_holds_no_photographs(
    tmp_path: Path, make: Callable[[Path, dict[str, bytes]], Path]
) -> None:
    name = "bomb.zip" if make is make_zip else "bomb.tar.gz"
    archive = make(tmp_path / name, {f"{index}.jpg": b"\0" * 30_000_000 for index in range(8)})
    assert archive.stat().st_size < 2_000_000
    started = time.monotonic()
    with pytest.raises(Refused, match=r"more than 50 times|more bytes than allowed"):
        unpack(archive, tmp_path / "out")
    assert time.monotonic() - started < 30
    assert contents(tmp_path / "out") == {}


def test_the_same_name_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "twice.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("1.jpg"))
        archive.addfile(tarfile.TarInfo("./1.jpg"))
    with pytest.raises(Refused, match="twice"):
        unpack(tmp_path / "twice.tar", tmp_path / "out")


@pytest.mark.parametrize("name", ["cut.zip", "cut.tar.gz", "cut.tar"])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str) -> None:
    make = make_zip if name.endswith("zip") else make_tar
    whole = make(tmp_path / name, {"1.jpg": bytes(range(256)) * 99}).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(Refused, match="not a whole"):
        unpack(tmp_path / name, tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_a_text_named_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.zip").write_text("not an archive")
    with pytest.raises(Refused, match="not a whole"):
        unpack(tmp_path / "notes.zip", tmp_path / "out")
