"""Large files to the Files API, gone on with where they were cut: what is there already is not sent again.

The SDK sends a file of 50 MiB and more in parts, each tried anew by itself, and gives up the whole where one is lost
for good. Here the session and what the store has of it are remembered in `build/uploads` of the working directory, so
that the same upload, later or in another process, sends what is missing. A part is taken for sent when its bytes are
the same (AWS, Azure); Google Cloud Storage is asked how far it has come. A session that the workspace knows no more,
or a file that has changed, begins anew.

Sources: `FilesExt` in the SDK's mixins/files.py, whose sessions, parts and retries these are (the release is pinned);
docs.aws.amazon.com, mpuoverview: parts stay until the upload is completed or aborted;
cloud.google.com/storage/docs/performing-resumable-uploads: a session lasts a week.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from databricks.sdk.mixins.files import FilesExt

from personalize.files import read_json, write_json

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient

MEMORY = Path("build/uploads")
"""Relative to the working directory, like everything else that is kept."""


def resuming(client: WorkspaceClient) -> ResumingFiles:
    """The Files API of this client, whose uploads go on where they were cut."""
    return ResumingFiles(client.api_client, client.config)


class Session:
    """An upload that has begun: what the workspace answered, and the parts that it has by number.

    Kept in `file` after every part; parts: (ETag, md5 of the bytes). outdated: the token of one of the same path that
    was of a file of another size.
    """

    def __init__(self, file: Path, size: int, part_size: int) -> None:
        self.file, self.size, self.part_size = file, size, part_size
        self.answer: dict[str, Any] = {}
        self.parts: dict[str, tuple[str, str]] = {}
        self.outdated = ""
        self._lock = threading.Lock()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = read_json(file)
            if (known["size"], known["part_size"]) == (size, part_size):
                self.answer, self.parts = known["answer"], {key: tuple(part) for key, part in known["parts"].items()}
            else:
                self.outdated = known["answer"]["multipart_upload"]["session_token"]

    def begin(self, answer: dict[str, Any]) -> None:
        """A new session; nothing is there yet."""
        with self._lock:
            self.answer, self.parts = answer, {}
            self._keep()

    def add(self, number: int, etag: str, digest: str) -> None:
        """A part has arrived."""
        with self._lock:
            self.parts[str(number)] = (etag, digest)
            self._keep()

    def etag(self, number: int, digest: str) -> str | None:
        """Of a part that is there with these bytes."""
        etag, known = self.parts.get(str(number), ("", ""))
        return etag if known == digest else None

    def forget(self) -> None:
        """It has ended, or is no use any more."""
        with self._lock:
            self.answer, self.parts = {}, {}
            self.file.unlink(missing_ok=True)

    def _keep(self) -> None:
        sizes = {"size": self.size, "part_size": self.part_size}
        write_json(self.file, {**sizes, "answer": self.answer, "parts": self.parts}, private=True)


class ResumingFiles(FilesExt):
    """The SDK's Files API, with a memory of the parts that were sent."""

    def __init__(self, api_client: Any, config: Any) -> None:
        super().__init__(api_client, config)
        self._sessions: dict[str, Session] = {}

    def upload(self, file_path: str, contents: BinaryIO, **how: Any) -> Any:
        """As the SDK's; a file of this disk is sent by its path, so that it need not be held in memory either."""
        name = getattr(contents, "name", None)
        if isinstance(name, str) and Path(name).is_file():
            return self.upload_from(file_path, name, **how)
        return super().upload(file_path, contents, **how)

    def upload_from(self, file_path: str, source_path: str, **how: Any) -> Any:
        """As the SDK's; the same call again sends what is missing.

        Raises:
            TimeoutError: a part was lost for good; of the SDK it would be a bare RuntimeError.
        """
        size = Path(source_path).stat().st_size
        part_size, _ = self._get_optimized_performance_parameters_for_upload(size, how.get("part_size"))
        name = hashlib.sha256(f"{self._config.host}\n{file_path}".encode()).hexdigest()[:32]
        session = self._sessions[file_path] = Session(MEMORY / f"{name}.json", size, part_size)
        resumed = bool(session.answer)
        try:
            try:
                answer = super().upload_from(file_path, source_path, **how)
            except Exception as error:
                if not resumed or not _is_over(error):
                    raise
                session.forget()
                answer = super().upload_from(file_path, source_path, **how)
            session.forget()
            return answer
        except RuntimeError as error:
            if type(error) is not RuntimeError:
                raise
            raise TimeoutError(f"{source_path} was cut: {error}") from error
        finally:
            del self._sessions[file_path]

    def _initiate_multipart_upload(self, ctx: Any) -> dict[str, Any]:
        session = self._sessions.get(ctx.target_path)
        if session is None:
            return super()._initiate_multipart_upload(ctx)
        if session.outdated:
            with contextlib.suppress(Exception):  # its parts cost storage, and nothing else
                super()._abort_multipart_upload(ctx, session.outdated)
        if not session.answer:
            session.begin(super()._initiate_multipart_upload(ctx))
        return session.answer

    def _do_upload_one_part(
        self, ctx: Any, part_index: int, offset: int, size: int, token: str, content: Any, is_first_part: bool = False
    ) -> str:
        session = self._sessions.get(ctx.target_path)
        if session is None:
            return super()._do_upload_one_part(ctx, part_index, offset, size, token, content, is_first_part)
        digest = hashlib.md5(content.getbuffer(), usedforsecurity=False).hexdigest()
        etag = session.etag(part_index, digest)
        if etag is None:
            etag = super()._do_upload_one_part(ctx, part_index, offset, size, token, content, is_first_part)
            session.add(part_index, etag, digest)
        return etag

    def _abort_multipart_upload(self, ctx: Any, session_token: str) -> None:
        session = self._sessions.get(ctx.target_path)
        if session is not None and session.parts:  # they are what the next attempt need not send
            return
        if session is not None:
            session.forget()
        super()._abort_multipart_upload(ctx, session_token)

    def _perform_resumable_upload(self, ctx: Any, stream: BinaryIO, token: str, pre_read: bytes) -> None:
        """Google Cloud Storage, from where its session stands; the SDK's own way begins with the first byte."""
        session = self._sessions.get(ctx.target_path)
        if session is None:
            return super()._perform_resumable_upload(ctx, stream, token, pre_read)
        to = self._create_request_builder().build_resumable_upload_url(ctx.target_path, token)
        failures, there = 0, self._received(to, session.size)
        while there < session.size:
            stream.seek(there)
            chunk = stream.read(ctx.part_size)
            covers = f"bytes {there}-{there + len(chunk) - 1}/{session.size}"
            try:
                there, failures = _offset(self._put(to, covers, chunk), session.size), 0
            except OSError:  # requests' own are among them
                failures += 1
                if failures > self._config.files_ext_multipart_upload_max_retries:
                    raise
                there = self._received(to, session.size)

    def _received(self, to: Any, size: int) -> int:
        """How many bytes the store has: what an empty request without a range is answered."""
        return _offset(self._retry_cloud_idempotent_operation(lambda: self._put(to, "bytes */*", b"")), size)

    def _put(self, to: Any, covers: str, data: bytes) -> Any:
        headers = {"Content-Type": "application/octet-stream", **to.headers, "Content-Range": covers}
        seconds = self._config.files_ext_network_transfer_inactivity_timeout_seconds
        return self._cloud_provider_session().request("PUT", to.url, headers=headers, data=data, timeout=seconds)


def _offset(answer: Any, size: int) -> int:
    """Up to where the store has the file: 308 with the range so far, 200 or 201 when it is whole.

    Raises:
        TimeoutError: it is busy; ask again.
        ValueError: it takes no more.
    """
    if answer.status_code in (200, 201):
        return size
    if answer.status_code == 308:
        last = FilesExt._extract_range_offset(answer.headers.get("Range"))
        return 0 if last is None else last + 1
    said = f"the store answered {answer.status_code}: {answer.text[:500]}"
    if answer.status_code in FilesExt._RETRYABLE_STATUS_CODES or answer.status_code == 500:
        raise TimeoutError(said)
    raise ValueError(said)


def _is_over(error: Exception) -> bool:
    """Whether an upload failed because its session is no more, so that it may only begin anew."""
    from databricks.sdk.errors import BadRequest, NotFound, PermissionDenied

    return isinstance(error, BadRequest | NotFound | PermissionDenied | ValueError)
