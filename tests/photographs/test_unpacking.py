"""Archives and addresses from strangers: what is unpacked stays inside, what does not is refused as a whole."""

import gzip
import http.client
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import SplitResult

import pytest

from personalize.photographs.unpacking import Limits, Refused, check_address, download, public_address, unpack

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
    unpack(archive, tmp_path / "fits", Limits(files=5, member_bytes=1000, total_bytes=5000))
    for limits, reason in [
        (Limits(files=4), "members"),
        (Limits(member_bytes=999), "a file may have"),
        (Limits(total_bytes=4999), "unpacked it has more"),
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
        unpack(tmp_path / "bomb.zip", tmp_path / "out", Limits(total_bytes=1000))
    assert contents(tmp_path / "out") == {}


def test_a_gzip_bomb_stops_at_the_limit(tmp_path: Path) -> None:
    """One header announces 8 GB of extended attributes; nothing of it may be kept in memory beyond the limit."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 8_000_000_000
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(64):
            file.write(b"\0" * 1_000_000)
    with pytest.raises(Refused, match="more bytes than allowed"):
        unpack(tmp_path / "bomb.tar.gz", tmp_path / "out", Limits(files=10, total_bytes=1_000_000))


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


class Site(BaseHTTPRequestHandler):
    """/photos.zip is an archive; /moved, /away and /loop redirect; /drip never ends; /cut ends early."""

    archive = b""
    asked: list[str] = []  # noqa: RUF012 - one server a test module

    def do_GET(self) -> None:
        Site.asked.append(self.path)
        moves = {"/moved": "/photos.zip?key=1", "/away": "http://169.254.169.254/latest/meta-data", "/loop": "/loop"}
        if self.path in moves:
            self.send_response(302)
            self.send_header("Location", moves[self.path])
            self.end_headers()
        elif self.path == "/drip":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x" * 100)
                    self.wfile.flush()
            except OSError:
                return
        elif self.path.startswith(("/photos.zip", "/cut")):
            body = Site.archive
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:10] if self.path == "/cut" else body)
        else:
            self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        return


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[[SplitResult, float], http.client.HTTPConnection]]:
    """Opens every address at a server of ours, so that all but the TLS handshake is the real thing."""
    Site.archive, Site.asked = make_zip(tmp_path / "served.zip", MEMBERS).read_bytes(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield lambda parts, timeout: http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=timeout)
    server.shutdown()
    server.server_close()


def test_an_archive_is_downloaded_through_a_redirect(tmp_path: Path, connect) -> None:
    digest = download("https://example.org/moved", tmp_path / "got.zip", connect=connect)
    assert (tmp_path / "got.zip").read_bytes() == Site.archive
    assert len(digest) == 64
    assert Site.asked == ["/moved", "/photos.zip?key=1"]


def test_a_redirect_is_held_to_the_same_rules(tmp_path: Path, connect) -> None:
    with pytest.raises(Refused, match=r"http://169\.254\.169\.254.*only https"):
        download("https://example.org/away", tmp_path / "got.zip", connect=connect)
    with pytest.raises(Refused, match="redirects more than"):
        download("https://example.org/loop", tmp_path / "got.zip", connect=connect)


def test_size_and_time_are_limited(tmp_path: Path, connect) -> None:
    with pytest.raises(Refused, match="more than the"):
        download("https://example.org/photos.zip", tmp_path / "got.zip", Limits(total_bytes=20), connect)
    with pytest.raises(Refused, match="more than the"):
        download("https://example.org/drip", tmp_path / "got.zip", Limits(total_bytes=5000), connect)
    with pytest.raises(Refused, match=r"more than the 0\.3 seconds"):
        download("https://example.org/drip", tmp_path / "got.zip", Limits(seconds=0.3), connect)
    assert not (tmp_path / "got.zip").exists()


def test_a_failed_download_says_so_without_the_addresss_secret(tmp_path: Path, connect) -> None:
    with pytest.raises(Refused, match=r"https://example\.org/none answered 404") as refused:
        download("https://example.org/none?signature=secret", tmp_path / "got.zip", connect=connect)
    assert "secret" not in str(refused.value)
    with pytest.raises(Refused, match=r"ended|could not be downloaded"):
        download("https://example.org/cut", tmp_path / "got.zip", connect=connect)
    assert not (tmp_path / "got.zip").exists()


@pytest.mark.parametrize(
    "url", ["http://example.org/a.zip", "file:///etc/passwd", "ftp://example.org/a.zip", "https://"]
)
def test_only_https_is_fetched(url: str) -> None:
    with pytest.raises(Refused, match="only https"):
        check_address(url)


def test_passwords_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(Refused) as refused:
        check_address("https://user:hunter2@example.org/a.zip")
    assert "hunter2" not in str(refused.value)


INSIDE = """127.0.0.1 localhost 10.1.2.3 192.168.0.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 2130706433
    ::1 fd00::1 fe80::1 ::ffff:127.0.0.1"""


@pytest.mark.parametrize("host", INSIDE.split())
def test_addresses_inside_a_network_are_refused(host: str) -> None:
    with pytest.raises(Refused, match=r"not a public address|cannot be resolved"):
        public_address(host, 443)


def test_a_public_address_is_taken() -> None:
    assert public_address("93.184.215.14", 443) == "93.184.215.14"
