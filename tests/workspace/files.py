"""The Files API: volumes, model files, artifacts of runs and logged models.

Rules (docs/api/workspace/files): a path is in a volume that exists, or among a model's files or MLflow's artifacts;
READ VOLUME and WRITE VOLUME are needed, EXECUTE to read a model's files, and to write them what a version of it needs;
a directory is made with its parents, a file only in a directory that is there (MLflow makes none for models and
artifacts); without overwrite a file that exists is 409; a stream of 50 MiB and more is sent in parts to presigned
addresses that end (SDK mixins/files.py), and is there when it was completed, not before. The parts of a session stay
until it is completed or aborted (docs.aws.amazon.com, mpuoverview); of a session that has ended there is nothing to be
had. On Google Cloud (`resumable`) a session is one address, which takes bytes in order, in multiples of 256 KiB but for
the last, answers 308 with the range that it has, and says so when asked without any (cloud.google.com,
performing-resumable-uploads). `free_bytes` is what the store still takes, `taken` counts what it was sent by path.
"""

from __future__ import annotations

import json
import re
import secrets
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any

from tests.workspace.catalog import Catalog
from tests.workspace.errors import Refused, denied, exists, invalid, missing

OF_MLFLOW = (["Models"], ["WorkspaceInternal"])


class Files:
    def __init__(self, folder: Path, catalog: Catalog) -> None:
        self.folder, self.catalog = folder, catalog
        self.free_bytes = 10**12
        self.uploads: dict[str, dict[str, Any]] = {}
        self.resumable = False
        self.taken: Counter[str] = Counter()

    def path(self, remote: str) -> Path:
        return self.folder.joinpath("fs", *[part for part in urllib.parse.unquote(remote).split("/") if part])

    def allow(self, remote: str, principal: str, privilege: str) -> None:
        parts = [part for part in urllib.parse.unquote(remote).split("/") if part]
        if parts[:1] == ["Models"]:
            return self.catalog.model(".".join(parts[1:4]), principal, "READ" in privilege)
        if parts[:1] in OF_MLFLOW:
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
        if method == "POST" and kind.startswith("create-"):
            return self.urls(kind, {**q, **json.loads(data or b"{}")}, principal, host)
        self.allow(remote, principal, "READ_VOLUME" if method in ("GET", "HEAD") else "WRITE_VOLUME")
        target = self.path(remote)
        if kind == "directories":
            return self.directory(method, "/" + remote, target)
        if method == "POST" and q.get("action") == "initiate-upload":
            self.check_new(remote, target, q)
            session = secrets.token_hex(8)
            self.uploads[session] = {"target": target, "parts": {}, "path": "/" + remote.lstrip("/"), "bytes": b""}
            return {"resumable_upload" if self.resumable else "multipart_upload": {"session_token": session}}
        if method == "POST" and q.get("action") == "complete-upload":
            return self.complete(q["session_token"], json.loads(data))
        if method == "PUT":
            self.check_new(remote, target, q)
            self.taken["/" + remote.lstrip("/")] += len(data)
            self.write(target, data)
            return 204, b""
        if not target.is_file():
            raise Refused(404, "NOT_FOUND", "The file being accessed is not found.")
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
            raise Refused(404, "NOT_FOUND", "The directory being accessed is not found.")
        if method == "HEAD":
            return 200, b""
        entries = []
        for entry in sorted(target.iterdir()):
            about = {"path": f"{remote.rstrip('/')}/{entry.name}", "name": entry.name, "is_directory": entry.is_dir()}
            entries.append(about if entry.is_dir() else {**about, "file_size": entry.stat().st_size})
        return {"contents": entries}

    def check_new(self, remote: str, target: Path, q: dict[str, Any]) -> None:
        if remote.lstrip("/").split("/")[:1] not in OF_MLFLOW and not target.parent.is_dir():
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
        if "session_token" in q and q["session_token"] not in self.uploads:
            raise missing("The upload session does not exist")
        if kind == "create-resumable-upload-url":
            return {"resumable_upload_url": {"url": f"{host}/presigned/{q['session_token']}/0", "headers": []}}
        if kind == "create-upload-part-urls":
            numbers = range(int(q["start_part_number"]), int(q["start_part_number"]) + int(q["count"]))
            urls = [
                {"url": f"{host}/presigned/{q['session_token']}/{number}", "part_number": number, "headers": []}
                for number in numbers
            ]
            return {"upload_part_urls": urls}
        if kind == "create-abort-upload-url":
            return {"abort_upload_url": {"url": f"{host}/presigned/{q['session_token']}/0", "headers": []}}
        self.allow(q["path"], principal, "READ_VOLUME")
        if not self.path(q["path"]).is_file():
            raise Refused(404, "NOT_FOUND", "The file being accessed is not found.")
        return {"url": f"{host}/presigned/download{urllib.parse.quote(q['path'])}", "headers": []}

    def presigned(self, method: str, rest: str, data: bytes, covers: str) -> Any:
        """A cloud store's own address: no token, an ETag for a part. covers: the Content-Range."""
        if rest.startswith("download/"):
            return 200, self.path(rest.removeprefix("download")).read_bytes()
        session, _, number = rest.partition("/")
        if session not in self.uploads:
            raise denied("The request has expired")
        if method == "DELETE":
            del self.uploads[session]
            return 204, b""
        upload = self.uploads[session]
        self.taken[upload["path"]] += len(data)
        if covers:
            return self.in_order(session, covers, data)
        upload["parts"][int(number)] = data
        return 200, b"", {"ETag": f"etag-{number}"}

    def in_order(self, session: str, covers: str, data: bytes) -> Any:
        """Google Cloud's: the next bytes, or the question how many there are."""
        upload = self.uploads[session]
        begin, size = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", covers).groups()
        if begin is not None:
            if int(begin) != len(upload["bytes"]):
                raise invalid(f"the next byte is {len(upload['bytes'])}, not {begin}")
            last = size != "*" and len(upload["bytes"]) + len(data) == int(size)
            if len(data) % (256 * 1024) and not last:
                raise invalid("every chunk but the last is a multiple of 256 KiB")
            upload["bytes"] += data
            if last:
                del self.uploads[session]
                self.write(upload["target"], upload["bytes"])
                return 200, b""
        return 308, b"", {"Range": f"bytes=0-{len(upload['bytes']) - 1}"} if upload["bytes"] else {}

    def complete(self, session: str, body: dict[str, Any]) -> Any:
        upload = self.uploads.pop(session, None)
        if upload is None:
            raise missing("The upload session does not exist")
        numbers = [part["part_number"] for part in body["parts"]]
        if sorted(upload["parts"]) != sorted(numbers):
            raise invalid("the listed parts are not those that were uploaded")
        self.write(upload["target"], b"".join(upload["parts"][number] for number in sorted(numbers)))
        return 200, b"{}"
