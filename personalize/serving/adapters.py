"""Adapters of other versions in memory: lent to requests, at most so many bytes of them, the least recently used go.

A request borrows all adapters that its rows need, at once or not at all, so that no two requests each hold what the
other waits for. It waits, on its own thread, until those that nobody has borrowed make room; the thread that draws
never waits for one. A borrowed adapter stays. Who borrows what is held already does not stand in line, as long as
nobody has stood there for PATIENCE_S.

Imports no torch: reading an adapter's bytes is the caller's to say.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from personalize.serving.versions import Version

SETTING = "PERSONALIZE_ADAPTER_BYTES"
"""Environment variable of a server: bytes of adapters of other versions that are held."""
DEFAULT_BYTES = 500_000_000
AT_ONCE = 4
"""Adapters that are fetched and read at a time."""
PATIENCE_S = 5.0
LOOK_S = 0.25
"""Seconds after which one who waits looks whether his caller still does."""


class TooLarge(ValueError):
    """The adapters of one request do not fit in together."""


@dataclass(eq=False)
class Held:
    """An adapter that is held, or is being read. users: requests that have borrowed it."""

    size: int
    users: int = 0
    adapter: Future[Any] = field(default_factory=Future)


@dataclass
class AdapterMeter:
    """What happened since the start, for /metrics."""

    loaded: int = 0
    hits: int = 0
    evicted: int = 0
    failed: int = 0
    load_seconds: float = 0.0
    wait_seconds: float = 0.0


class AdapterCache:
    """See the module's words.

    Args:
        read: a version's adapter, fetched, checked and in memory; called on the threads that borrow, AT_ONCE at a time.
        limit: bytes that are held at most, those included that are being read.
    """

    def __init__(self, read: Callable[[Version], Any], limit: int = DEFAULT_BYTES) -> None:
        self.read, self.limit = read, limit
        self.meter = AdapterMeter()
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._line: list[tuple[object, float]] = []
        self._changed = threading.Condition()
        self._reading = threading.Semaphore(AT_ONCE)

    @property
    def held(self) -> int:
        """Adapters that are held."""
        with self._changed:
            return len(self._held)

    @property
    def bytes(self) -> int:
        """Of those that are held."""
        with self._changed:
            return self._bytes()

    @contextlib.contextmanager
    def lent(
        self, versions: Sequence[Version], waits: Callable[[], None] = lambda: None
    ) -> Iterator[Mapping[str, Any]]:
        """The adapters of versions by their sha256, for as long as the block lasts; one that failed is its exception.

        waits: called now and then; what it raises ends the waiting.

        Raises TooLarge where they do not fit in together.
        """
        need = {each.sha256: each for each in versions}
        if (size := sum(each.size for each in need.values())) > self.limit:
            raise TooLarge(
                f"The adapters of this request take {size / 1e6:,.0f} MB together; at most {self.limit / 1e6:,.0f} MB "
                "are held. Ask for fewer versions at once."
            )
        if not need:
            yield {}
            return
        mine, new = self._borrow(need, waits)
        try:
            for name in new:
                self._load(need[name], mine[name])
            yield {name: self._result(held, waits) for name, held in mine.items()}
        finally:
            with self._changed:
                for held in mine.values():
                    held.users -= 1
                for name in new:  # what was not read, since something else failed before
                    if not mine[name].adapter.done():
                        self._forget(name, mine[name], RuntimeError("the adapter was not read"))
                self._changed.notify_all()

    def _borrow(self, need: Mapping[str, Version], waits: Callable[[], None]) -> tuple[dict[str, Held], list[str]]:
        """Room for all of them; those that are to be read by who asked."""
        begun = time.monotonic()
        with self._changed:
            place = (object(), begun)
            held = all(name in self._held for name in need)
            if not held or (self._line and begun - self._line[0][1] > PATIENCE_S):
                self._line.append(place)
                try:
                    while self._line[0] is not place or not self._room(need):
                        self._changed.wait(LOOK_S)
                        waits()
                finally:
                    self._line.remove(place)
                    self._changed.notify_all()
            new = [name for name in need if name not in self._held]
            for name, version in need.items():
                if name in new:
                    self._held[name] = Held(version.size)
                self._held[name].users += 1
                self._held.move_to_end(name)
            self.meter.hits += len(need) - len(new)
            self.meter.wait_seconds += time.monotonic() - begun
            return {name: self._held[name] for name in need}, new

    def _room(self, need: Mapping[str, Version]) -> bool:
        """Whether those of `need` that are not held fit in; what nobody uses makes way, the least recently used."""
        over = self._bytes() + sum(each.size for name, each in need.items() if name not in self._held) - self.limit
        going = []
        for name, held in self._held.items():
            if over <= 0:
                break
            if not held.users and name not in need:
                going.append(name)
                over -= held.size
        if over > 0:
            return False
        for name in going:
            del self._held[name]
        self.meter.evicted += len(going)
        return True

    def _load(self, version: Version, held: Held) -> None:
        begun = time.monotonic()
        try:
            with self._reading:
                adapter = self.read(version)
            give_back()
        except Exception as error:
            with self._changed:
                self.meter.failed += 1
                self._forget(version.sha256, held, error)
            return
        with self._changed:
            self.meter.loaded += 1
            self.meter.load_seconds += time.monotonic() - begun
            held.adapter.set_result(adapter)

    def _result(self, held: Held, waits: Callable[[], None]) -> Any:
        """The adapter, or why there is none; another request may be reading it."""
        while True:
            try:
                return held.adapter.result(LOOK_S)
            except TimeoutError:
                if held.adapter.done():
                    return held.adapter.exception()
                waits()
            except Exception as error:
                return error

    def _forget(self, name: str, held: Held, error: Exception) -> None:
        if self._held.get(name) is held:
            del self._held[name]
        held.adapter.set_exception(error)

    def _bytes(self) -> int:
        return sum(each.size for each in self._held.values())


def give_back() -> None:
    """Gives memory that was freed back to the system, where the C library (glibc) would keep it, an arena a thread."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
