"""The Files API: volumes and model files.

Rules (docs/api/workspace/files): a path is in a volume that exists, or among a model's files; READ VOLUME and WRITE
VOLUME are needed; a directory is made with its parents, a file only in a directory that is there; without overwrite a
file that exists is 409; a stream of 50 MiB and more is sent in parts to presigned addresses that end (SDK
mixins/files.py), and is there when it was completed, not before. `free_bytes` is what the store still takes.
"""

from __future__ import annotations

import json
import secrets
import urllib.parse
from pathlib import Path
from typing import Any

from tests.workspace.catalog import Catalog
from tests.workspace.errors import Refused, denied, exists, invalid, missing


class Files:
    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self.folder, self.catalog = folder, catalog
        self.free_bytes = 10**12
        self.uploads: dict[str, dict[str, Any]] = {}
        self.parts_refused = 0

    def path(self, remote: str) -> Path:
        return self.folder.joinpath("fs", *[part for part in urllib.parse.unquote(remote).split("/") if part])

    def allow(self, remote: str, principal: str, privilege: str) -> None:
        parts = [part for part in urllib.parse.unquote(remote).split("/") if part]
        if parts[:1] == ["Models"]:
            return
        if parts[:1] != ["Volumes"] or len(parts) < 4:
            raise invalid(f"'{remote}' is not a path in a volume")
        volume = ".".join(parts[1:4])
        if volume.lower() not in self.catalog.volumes:
            raise missing(f"Volume '{volume}' does not exist.")
        self.catalog.need(volume, principal, privilege)

    def rest(self, method: str, rest: str, q: dict[str, Any], data: bytes, principal: str, host: str) -> Any:
        """An answer as (status, body), or JSON."""
        kind, _, remote = rest.partition("/")
        if method == "POST" and kind in ("create-upload-part-urls", "create-download-url", "create-abort-upload-url"):
            return self.urls(kind, {**q, **json.loads(data or b"{}")}, principal, host)
        self.allow(remote, principal, "READ_VOLUME" if method in ("GET", "HEAD") else "WRITE_VOLUME")
        target = self.path(remote)
        if kind == "directories":
            return self.directory(method, "/" + remote, target)
        if method == "POST" and q.get("action") == "initiate-upload":
            self.check_new(remote, target, q)
            session = secrets.token_hex(8)
            self.uploads[session] = {"target": target, "parts": {}, "path": remote}
            return {"multipart_upload": {"session_token": session}}
        if method == "POST" and q.get("action") == "complete-upload":
            return self.complete(q["session_token"], json.loads(data))
        if method == "PUT":
            self.check_new(remote, target, q)
            self.write(target, data)
            return 204, b""
        if not target.is_file():
            raise missing(f"'{remote}' does not exist")
        if method == "DELETE":
            target.unlink()
            return 204, b""
        return 200, target.read_bytes()

    def directory(self, method: str, remote: str, target: Path) -> Any:
        if method == "PUT":
            if target.is_file():
                raise exists(f"'{remote}' is a file")
            target.mkdir(parents=True, exist_ok=True)
            return 204, b""
        if not target.is_dir():
            raise missing(f"Directory '{remote}' does not exist")
        if method == "HEAD":
            return 200, b""
        entries = []
        for entry in sorted(target.iterdir()):
            about = {"path": f"{remote.rstrip('/')}/{entry.name}", "name": entry.name, "is_directory": entry.is_dir()}
            entries.append(about if entry.is_dir() else {**about, "file_size": entry.stat().st_size})
        return {"contents": entries}

    def check_new(self, remote: str, target: Path, q: dict[str, Any]) -> None:
        if not remote.lstrip("/").startswith("Models/") and not target.parent.is_dir():
            raise missing(f"The parent directory of '{remote}' does not exist")
        if target.exists() and str(q.get("overwrite", "false")).lower() != "true":
            raise Refused(409, "ALREADY_EXISTS", f"'{remote}' already exists")

    def write(self, target: Path, data: bytes) -> None:
        if len(data) > self.free_bytes:
            raise Refused(507, "RESOURCE_EXHAUSTED", "The volume's storage is full")
        self.free_bytes -= len(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def urls(self, kind: str, q: dict[str, Any], principal: str, host: str) -> dict[str, Any]:
        if kind == "create-upload-part-urls":
            numbers = range(int(q["start_part_number"]), int(q["start_part_number"]) + int(q["count"]))
            urls = [
                {"url": f"{host}/presigned/{q['session_token']}/{number}", "part_number": number, "headers": []}
                for number in numbers
            ]
            return {"upload_part_urls": urls}
        if kind == "create-abort-upload-url":
            self.uploads.pop(q["session_token"], None)
            return {"abort_upload_url": {"url": f"{host}/presigned/aborted/0", "headers": []}}
        self.allow(q["path"], principal, "READ_VOLUME")
        if not self.path(q["path"]).is_file():
            raise missing(f"'{q['path']}' does not exist")
        return {"url": f"{host}/presigned/download{urllib.parse.quote(q['path'])}", "headers": []}

    def presigned(self, method: str, rest: str, data: bytes) -> Any:
        """A cloud store's own address: no token, an ETag for a part."""
        if rest.startswith("download/"):
            return 200, self.path(rest.removeprefix("download")).read_bytes()
        session, _, number = rest.partition("/")
        if session == "aborted":
            return 204, b""
        if session not in self.uploads:
            raise denied("The request has expired")
        self.uploads[session]["parts"][int(number)] = data
        return 200, b"", {"ETag": f"etag-{number}"}

    def complete(self, session: str, body: dict[str, Any]) -> Any:
        upload = self.uploads.pop(session, None)
        if upload is None:
            raise missing("The upload session does not exist")
        numbers = [part["part_number"] for part in body["parts"]]
        if sorted(upload["parts"]) != sorted(numbers):
            raise invalid("the listed parts are not those that were uploaded")
        self.write(upload["target"], b"".join(upload["parts"][number] for number in sorted(numbers)))
        return 200, b"{}"
