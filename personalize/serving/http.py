"""The few words of HTTP that a local endpoint needs."""

from __future__ import annotations

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from personalize.serving.endpoint import EndpointError


class Away(EndpointError):
    """Nothing answers there at this moment."""


def opener() -> urllib.request.OpenerDirector:
    """An opener that ignores proxy settings: a server on this machine is not behind a proxy."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Whether a GET of `url` is answered with 200."""
    try:
        with opener().open(url, timeout=timeout_s) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def post_json(url: str, body: Mapping[str, Any], timeout_s: float, token: str = "") -> Any:
    """POST a JSON body, with an access token where one is given, and return the JSON answer.

    Raises:
        EndpointError: the server refused; its own words are in the message.
        Away: it does not answer, or says that it will in a moment (status 503).
    """
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, data, headers)
    try:
        with opener().open(request, timeout=timeout_s) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, AttributeError):
            text = json.loads(text).get("message", text)
        text = text.rpartition("\nError: ")[2]  # mlflow puts the whole input frame in front of the model's words
        kind = Away if error.code == 503 else EndpointError
        raise kind(f"{url} refused the request (status {error.code}): {text[-2000:]}") from error
    except (OSError, http.client.HTTPException) as error:
        raise Away(f"{url} does not answer: {error}") from error
