"""Downloading: an archive of photographs from an https address.

Signed addresses have their secret in the query, so that is never shown; not by an error's traceback either.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from personalize.files import whole
from personalize.photographs.unpacking import Refused

SECONDS_OF_SILENCE = 30
_CHUNK = 1 << 20


def download(url: str, target: Path, most_bytes: int) -> str:
    """Downloads an https archive to `target` and returns its sha256. Raises Refused, and then `target` is not there.

    A redirect is held to the same rules as the address. Proxies and certificates are those of the environment.
    """
    import requests

    check_address(url)
    digest, size = hashlib.sha256(), 0
    try:
        with (
            whole(target) as part,
            requests.get(
                url,
                stream=True,
                timeout=SECONDS_OF_SILENCE,
                headers={"Accept-Encoding": "identity"},  # the archive as it lies there, so that its sha256 is its own
                hooks={"response": _check_redirect},
            ) as response,
            part.open("wb") as file,
        ):
            if response.status_code != 200:
                raise Refused(f"{without_query(response.url)} answered {response.status_code} {response.reason}.")
            for chunk in response.iter_content(_CHUNK):
                size += len(chunk)
                if size > most_bytes:
                    raise Refused(f"{without_query(url)} has more than the {most_bytes / 1e6:.0f} MB allowed.")
                digest.update(chunk)
                file.write(chunk)
    except requests.RequestException as error:
        raise Refused(
            f"{without_query(url)} could not be downloaded ({_cause(error)}). Check the address and the network, or "
            f"download it yourself and give the file."
        ) from None  # requests' own message has the whole address
    return digest.hexdigest()


def check_address(url: str) -> None:
    """Raises Refused unless `url` is a plain https address of a public host, never one inside a job's own network."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise Refused(
            f"{without_query(url)}: only https addresses are downloaded; fetch it yourself and give the file."
        )
    if parts.username or parts.password:
        raise Refused(f"https://{parts.hostname}: user and password do not belong in an address, they would be logged.")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError:  # a proxy may know the name; if nobody does, the download says so
        return
    for address in {str(info[4][0]).split("%")[0] for info in found}:
        ip = ipaddress.ip_address(address)
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if not ip.is_global or ip.is_multicast:
            raise Refused(
                f"{parts.hostname} is at {ip}, which is not a public address; download it yourself and give the file."
            )


def _check_redirect(response: Any, **_: Any) -> None:
    if response.is_redirect:
        check_address(urljoin(response.url, response.headers["Location"]))


def _cause(error: BaseException) -> str:
    """The innermost error in words (`Name or service not known`), without the query of any address in it."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return re.sub(r"\?\S+", "?...", str(error)) or type(error).__name__


def without_query(url: str) -> str:
    """`url` as it may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}" if parts.scheme else url
