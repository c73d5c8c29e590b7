"""The part of the Hugging Face hub's API that huggingface_hub uses to fetch a model, on the loopback.

    GET  /api/models/OWNER/NAME/revision/REVISION          which commit a revision is
    GET  /api/models/OWNER/NAME/tree/REVISION              its files, in pages (`Link`), with the sha256 of large ones
    HEAD, GET  /OWNER/NAME/resolve/REVISION/PATH           ETag, X-Repo-Commit; a large file is a redirect to the store
    GET  /store/SHA256                                     its bytes, whole or by Range, from a host of another name

Errors carry X-Error-Code as the hub's do. What is asked and answered stands in `log`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

Content = bytes | mmap.mmap
"""A file's, in memory or, where it is too large for that, on disk."""
LARGE = (".safetensors", ".bin", ".msgpack", ".onnx", ".onnx_data", ".h5", ".png")
PAGE = 20


@dataclass(frozen=True)
class Repository:
    """A model at its only commit. token: who must ask for it, where it is gated."""

    commit: str
    files: Mapping[str, Content]
    token: str = ""


@dataclass(frozen=True)
class Answer:
    """What was asked, and what was sent."""

    method: str
    path: str
    status: int
    range: str = ""
    sent: int = 0
    authorised: bool = False


@dataclass
class Hub:
    repositories: dict[str, Repository]
    log: list[Answer] = field(default_factory=list)
    fault: Callable[[str, str], int | None] = lambda method, path: None
    """(method, path) -> a status to answer with instead, or none"""
    cut: dict[str, int] = field(default_factory=dict)
    """sha256 of a large file -> after how many bytes the line goes dead, once"""
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def store(self) -> str:
        """Another host than the hub's, as for real: it must not be told the token."""
        return f"http://localhost:{self.port}/store"

    def fetched(self, name: str) -> dict[str, int]:
        """Bytes sent of each file of a repository."""
        files = self.repositories[name].files
        by_sha = {sha256(content): path for path, content in files.items()}
        sent: dict[str, int] = {}
        for answer in self.log:
            place = re.fullmatch(rf"/(?:{name}/resolve/\w+|store)/(.+)", answer.path)
            if place and answer.sent:
                path = by_sha.get(place[1], place[1])
                sent[path] = sent.get(path, 0) + answer.sent
        return sent


@functools.cache
def sha256(content: Content) -> str:
    return hashlib.sha256(content).hexdigest()


@functools.cache
def blob(content: Content) -> str:
    """git's name of a file's content, which is the ETag of a small one."""
    digest = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    digest.update(content)
    return digest.hexdigest()


@contextmanager
def serving(repositories: Mapping[str, Repository]) -> Iterator[Hub]:
    hub = Hub(dict(repositories))

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if status := self.hub.fault(self.command, path):
            self.refuse(status, "", "the hub is having a bad day")
        elif match := re.fullmatch(r"/store/([0-9a-f]{64})", path):
            self.from_store(match[1])
        elif match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/(revision|tree)/(\w+)", path):
            self.of_repository(match[1], match[3], self.tree if match[2] == "tree" else self.revision)
        elif match := re.fullmatch(r"/([\w.-]+/[\w.-]+)/resolve/(\w+)/(.+)", path):
            self.of_repository(match[1], match[2], lambda found: self.resolve(found, match[3]))
        else:
            self.refuse(404, "", f"this double does not answer {path}")

    def of_repository(self, name: str, revision: str, then: Callable[[Repository], None]) -> None:
        found = self.hub.repositories.get(name)
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if found is None:
            self.refuse(401, "RepoNotFound", "Repository not found")
        elif found.token and given != found.token:
            self.refuse(403 if given else 401, "GatedRepo", f"Access to model {name} is restricted.")
        elif revision not in (found.commit, "main"):
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            then(found)

    def revision(self, found: Repository) -> None:
        siblings = [{"rfilename": path} for path in found.files]
        self.say({"id": "a/model", "sha": found.commit, "siblings": siblings, "gated": bool(found.token)})

    def tree(self, found: Repository) -> None:
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        folders = sorted({path.rsplit("/", 1)[0] for path in found.files if "/" in path})
        rows: list[dict[str, object]] = [{"type": "directory", "oid": blob(b""), "size": 0, "path": p} for p in folders]
        for path, content in found.files.items():
            rows.append({"type": "file", "oid": blob(content), "size": len(content), "path": path})
            if path.endswith(LARGE):
                rows[-1]["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 135}
        link = {}
        if start + PAGE < len(rows):
            query = f"recursive=true&expand=false&cursor={start + PAGE}"
            link = {"Link": f'<{self.hub.endpoint}{urlsplit(self.path).path}?{query}>; rel="next"'}
        self.say(rows[start : start + PAGE], link)

    def resolve(self, found: Repository, path: str) -> None:
        content = found.files.get(path)
        if content is None:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        about = {"X-Repo-Commit": found.commit}
        if path.endswith(LARGE):
            about |= {"X-Linked-Etag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content))}
            self.send(302, b"", {**about, "Location": f"{self.hub.store}/{sha256(content)}"})
        else:
            self.send(200, content, {**about, "ETag": f'"{blob(content)}"'})

    def from_store(self, wanted: str) -> None:
        every = (content for repository in self.hub.repositories.values() for content in repository.files.values())
        content = next((content for content in every if sha256(content) == wanted), None)
        if content is None:
            self.refuse(404, "", "no such object")
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        about = {"ETag": f'"{wanted}"', "Accept-Ranges": "bytes"}
        if asked:
            about["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206 if asked else 200, memoryview(content)[start:], about, self.hub.cut.pop(wanted, None))

    def say(self, answer: object, headers: Mapping[str, str] | None = None) -> None:
        self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json", **(headers or {})})

    def refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.send(status, json.dumps({"error": message}).encode(), headers)

    def send(self, status: int, body: Content | memoryview, headers: Mapping[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        sent = memoryview(body)[:cut] if self.command == "GET" else b""
        path = unquote(urlsplit(self.path).path)
        told = "Authorization" in self.headers
        moved = len(sent) if status < 300 else 0
        self.hub.log.append(Answer(self.command, path, status, self.headers.get("Range", ""), moved, told))
        self.wfile.write(sent)
        if cut is not None:
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True
