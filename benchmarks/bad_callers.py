"""Callers that a public endpoint meets: wrong types, bodies too large or too deep, slow sockets, gone in the middle.

`python -m benchmarks.serve` measures what they cost those who ask well; `tests/serving/test_chaos.py` has them beside
kills.
"""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

HUNG_S = 120.0
"""Seconds after which a caller gives an answer up."""
JSON = {"Content-Type": "application/json"}
PAUSE_S = 0.3
CLAIMS = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


def post(address: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and content of the answer; address: host:port. Raises OSError and http.client.HTTPException."""
    connection = http.client.HTTPConnection(address, timeout=HUNG_S)
    try:
        connection.request("POST", "/invocations", body, JSON)
        answer = connection.getresponse()
        content = answer.read()
        try:
            return answer.status, json.loads(content)
        except ValueError:
            return answer.status, {"no JSON": content[:200]}
    finally:
        connection.close()


class BadCaller:
    """Asks badly, each time in another way, and looks whether it is told so.

    Args:
        address: host:port.
        prompt: one that the model would draw, for the request whose caller leaves.
        over: set when it is time to go.
    """

    def __init__(self, address: str, prompt: str, over: threading.Event) -> None:
        self.address, self.prompt, self.over = address, prompt, over
        self.answers: list[int] = []

    @property
    def kinds(self) -> list[Callable[[], str]]:
        """Each asks once; what it returns is what was wrong with the answer, or "503", or nothing."""
        return [
            lambda: self._refused(_rows({"prompt": 7, "seed": "seven"}), 400),
            lambda: self._refused(b" " * 20_000_000, 413),
            self._half,
            lambda: self._refused(b"[" * 50_000, 400),
            self._gone,
            lambda: self._refused(_rows({"prompt": "a", "sed": 1}), 400),
        ]

    def turns(self, first: int) -> Iterator[tuple[int, Callable[[], str]]]:
        """The kinds by their number, one after another with a pause, until it is time to go."""
        kinds = list(enumerate(self.kinds))
        for turn in itertools.count(first):
            if self.over.is_set():
                return
            yield kinds[turn % len(kinds)]
            self.over.wait(PAUSE_S)

    def _refused(self, body: bytes, status: int) -> str:
        got, answer = post(self.address, body)
        self.answers.append(got)
        return "503" if got == 503 else "" if got == status else f"{got} and not {status}: {str(answer)[:200]}"

    def _half(self) -> str:
        with socket.create_connection(_place(self.address), timeout=HUNG_S) as stream:
            stream.sendall(CLAIMS + b"Content-Le")
            self.over.wait(1)
        return ""

    def _gone(self) -> str:
        body = _rows(*[{"prompt": self.prompt, "num_inference_steps": 4}] * 4)
        with socket.create_connection(_place(self.address), timeout=HUNG_S) as stream:
            stream.sendall(CLAIMS + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            self.over.wait(0.1)
        return ""


@contextmanager
def beside(address: str, prompt: str, count: int) -> Iterator[list[str]]:
    """While the block lasts `count` of them ask; what was wrong with an answer is in the list."""
    over, wrong = threading.Event(), list[str]()

    def ask(number: int) -> None:
        for _, once in BadCaller(address, prompt, over).turns(2 * number):
            try:
                if said := once():
                    wrong.append(said)
            except (OSError, http.client.HTTPException) as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _rows(*rows: dict[str, Any]) -> bytes:
    return json.dumps({"dataframe_records": list(rows)}).encode()


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
