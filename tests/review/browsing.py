"""People with browsers, and a real server for them."""

from __future__ import annotations

import io
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.cookiejar import CookieJar

from PIL import Image

from personalize.review import server
from personalize.review.session import Session


class Person:
    """Somebody with a browser of their own: cookies, forms, pictures."""

    def __init__(self, url: str, name: str = "", **headers: str) -> None:
        self.url = url
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        self.opener.addheaders = list(headers.items())
        self.status = 0
        self.page = self.post("", name=name) if name else self.get("")

    def get(self, path: str) -> str:
        return self._ask(path, None)

    def post(self, path: str, **form: str) -> str:
        return self._ask(path, urllib.parse.urlencode(form).encode())

    def _ask(self, path: str, data: bytes | None) -> str:
        try:
            with self.opener.open(self.url + path, data, timeout=30) as response:
                self.status, self.page = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            self.status, self.page = error.code, error.read().decode()
        return self.page

    @property
    def form(self) -> dict[str, str]:
        return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', self.page))

    def vote(self, choice: str = "", **changed: str) -> str:
        """An answer to the pair that is shown: the one asked for, or what an attentive person chooses."""
        return self.post("vote", **(self.form | {"choice": choice or self.better()} | changed))

    def better(self) -> str:
        """The side whose colour is more like that of the photographs above."""
        pair = self.form["pair"]
        reference, *sides = (self.colour(pair, which) for which in ("0", "left", "right"))
        apart = [sum(abs(a - b) for a, b in zip(reference, side, strict=True)) for side in sides]
        return "left" if apart[0] < apart[1] else "right"

    def colour(self, pair: str, which: str) -> tuple[int, ...]:
        with self.opener.open(f"{self.url}pictures/{pair}/{which}", timeout=30) as response:
            return Image.open(io.BytesIO(response.read())).convert("RGB").resize((1, 1)).getpixel((0, 0))

    def decide(self, decision: str, reason: str = "the legs are right", **changed: str) -> str:
        self.get("results")
        name = re.search(r'name="by" value="([^"]*)"', self.page)
        return self.post(
            "results",
            **(self.form | {"by": name[1] if name else ""} | {"decision": decision, "reason": reason} | changed),
        )


@contextmanager
def serving(opened: Session, **options) -> Iterator[str]:
    """The address of a real server on a free port of loopback."""
    server.FAREWELL_S = 20.0
    door, ready, address = server.listen("127.0.0.1", 0), threading.Event(), []

    def tell(url: str) -> None:
        address.append(url)
        ready.set()

    thread = threading.Thread(target=server.serve, args=(opened, door), kwargs={"ready": tell, **options}, daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield address[0]
    finally:
        server.FAREWELL_S = 0.0
        opened.decided_here.set()
        thread.join(20)
