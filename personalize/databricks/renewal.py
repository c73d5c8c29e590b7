"""Credentials that are renewed for as long as a process lives, for the processes that it starts.

A token in an environment variable ends within the hour, and a child process cannot ask for the next one: it has neither
the runtime's sign-in nor the user's. So its parent answers on loopback as Databricks' metadata service does, the way in
which the SDK (and MLflow, which asks the SDK) fetches every token anew. The address holds a secret of this process.

Imports the standard library only: the driver of a job runs before anything else is installed.
Source: `MetadataServiceTokenSource` and `metadata-service` in the Databricks SDK's credentials_provider.py.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LASTS_S = 10
"""Seconds after which a child asks again: the token that it is given may be near its own end."""
PLACEHOLDER = "asked-of-the-metadata-service"
"""In DATABRICKS_TOKEN: `mlflow run` wants something to hand on. The SDK, told its auth type, does not look at it."""


@contextlib.contextmanager
def renewing(host: str, headers: Callable[[], Mapping[str, str]]) -> Iterator[dict[str, str]]:
    """Environment variables with which child processes sign in to `host`, by what `headers()` says at that moment.

    headers: the HTTP headers of a request, with `Authorization: Bearer <token>`; asked at each renewal.
    """
    path = "/" + secrets.token_urlsafe(24)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != path or "X-Databricks-Metadata-Version" not in self.headers:
                return self.send_error(404)
            try:
                kind, _, token = headers()["Authorization"].partition(" ")
            except Exception as error:  # the child hears it as its own sign-in failing, and asks again later
                return self._answer(503, {"error": str(error)})
            self._answer(200, {"access_token": token, "token_type": kind, "expires_on": time.time() + LASTS_S})

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield {
            "DATABRICKS_HOST": host,
            "DATABRICKS_AUTH_TYPE": "metadata-service",
            "DATABRICKS_METADATA_SERVICE_URL": f"http://127.0.0.1:{server.server_address[1]}{path}",
            "DATABRICKS_TOKEN": PLACEHOLDER,
        }
    finally:
        server.shutdown()
        server.server_close()
