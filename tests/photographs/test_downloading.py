"""Addresses from strangers: https to a public host alone, bounded, and never shown with their secret."""

import hashlib
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from personalize.photographs.downloading import check_address, download
from personalize.photographs.unpacking import Refused

PLENTY = 100_000_000
SECRET = "".join(["q7", "x1", "zz"])  # in no line of code, as a traceback shows those


class Site(BaseHTTPRequestHandler):
    """/photos.zip is an archive; /moved, /away and /loop redirect; /drip never ends; /cut ends early; /silent waits."""

    archive = b""
    asked: list[str] = []  # noqa: RUF012 - one server a test module

    def do_GET(self) -> None:
        Site.asked.append(self.path)
        moves = {"/moved": "/photos.zip?key=1", "/away": "http://169.254.169.254/latest/meta-data", "/loop": "/loop"}
        moves["/inside"] = "https://10.1.2.3/secrets.zip"
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
        elif self.path == "/silent":
            time.sleep(1)
        elif self.path.startswith(("/photos.zip", "/cut")):
            body = Site.archive
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:10] if self.path.startswith("/cut") else body)
        else:
            self.send_error(404)

    def log_message(self, *arguments: object) -> None:
        return


@pytest.fixture(autouse=True)
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Answers every https address from a server of ours, so that all but the TLS handshake is the real thing."""
    Site.archive, Site.asked = bytes(range(256)) * 100, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    class Ours(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
            asked, request.url = request.url, f"http://127.0.0.1:{server.server_port}{request.path_url}"
            try:
                response = super().send(request, *args, **kwargs)
            finally:
                request.url = asked
            response.url = asked
            return response

    def adapter(session: requests.Session, url: str) -> HTTPAdapter:
        assert url.startswith("https://"), f"{url} was asked for"
        return Ours()

    monkeypatch.setattr(requests.Session, "get_adapter", adapter)
    yield
    server.shutdown()
    server.server_close()


def test_an_archive_is_downloaded_through_a_redirect(tmp_path: Path) -> None:
    digest = download("https://example.org/moved", tmp_path / "got.zip", PLENTY)
    assert (tmp_path / "got.zip").read_bytes() == Site.archive
    assert digest == hashlib.sha256(Site.archive).hexdigest()
    assert Site.asked == ["/moved", "/photos.zip?key=1"]


def test_a_redirect_is_held_to_the_same_rules(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"http://169\.254\.169\.254.*only https"):
        download("https://example.org/away", tmp_path / "got.zip", PLENTY)
    with pytest.raises(Refused, match=r"10\.1\.2\.3, which is not a public address"):
        download("https://example.org/inside", tmp_path / "got.zip", PLENTY)
    with pytest.raises(Refused, match=r"30 redirects"):
        download("https://example.org/loop", tmp_path / "got.zip", PLENTY)
    assert list(tmp_path.iterdir()) == []


def test_the_size_is_limited(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="more than the"):
        download("https://example.org/photos.zip", tmp_path / "got.zip", 20)
    with pytest.raises(Refused, match="more than the"):
        download("https://example.org/drip", tmp_path / "got.zip", 5000)
    assert list(tmp_path.iterdir()) == []


def test_silence_ends_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("personalize.photographs.downloading.SECONDS_OF_SILENCE", 0.2)
    with pytest.raises(Refused, match=r"could not be downloaded.*timed out"):
        download("https://example.org/silent", tmp_path / "got.zip", PLENTY)


@pytest.mark.parametrize(
    ("path", "reason"), [("none", r"https://example\.org/none answered 404"), ("cut", "could not be downloaded")]
)
def test_a_failed_download_says_so_without_the_addresss_secret(tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as refused:
        download(f"https://example.org/{path}?signature={SECRET}", tmp_path / "got.zip", PLENTY)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_nobody_knows_is_named_without_the_addresss_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the real adapters
    with pytest.raises(Refused, match=r"https://nowhere\.invalid/a\.zip could not be downloaded") as refused:
        download(f"https://nowhere.invalid/a.zip?signature={SECRET}", tmp_path / "got.zip", PLENTY)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


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
    [::1] [fd00::1] [fe80::1] [::ffff:127.0.0.1]"""


@pytest.mark.parametrize("host", INSIDE.split())
def test_addresses_inside_a_network_are_refused(host: str) -> None:
    with pytest.raises(Refused, match="not a public address"):
        check_address(f"https://{host}/a.zip")


def test_a_public_address_is_taken() -> None:
    check_address("https://93.184.215.14/a.zip")
