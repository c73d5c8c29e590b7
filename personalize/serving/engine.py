"""The engine: one thread that loads and draws, for however many threads a server has. Imports no torch.

Pictures of all requests are drawn together. At every step boundary the engine looks at who is there, takes as many
pictures of one size as a batch may hold, and makes one step of each; so a picture joins at once and leaves when it is
done, with its own number of steps. Which ones are taken:

- sizes share the device's time equally;
- within a size, callers do: each picture gets a tag, the virtual time at which its caller has been served so much that
  it is due (weighted fair queuing, Demers et al. 1989), and the lowest tags are drawn. Who asks for eight pictures of
  100 steps delays himself, not the next one who asks for one;
- after QUANTUM steps a picture's tag moves back by as much, so that a long one makes room for a short one;
- priorities give away and do not take: what a caller asks for as `low` gets a quarter of a caller's share, and what he
  asks for as `high` goes before what else he is waiting for, at nobody else's cost.

What is waiting is bounded in pixels × steps; past that `Busy` says when to come back. A picture whose deadline passed,
or whose caller is gone, is dropped at the next step boundary.

Why one thread: the math libraries keep a team of threads for each thread that calls them, and two teams on the same
cores slow each other down for good (libgomp's threads, once there are more than cores, sleep between operations).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

LOG = logging.getLogger("personalize.serving")

QUANTUM = 32
"""Steps after which a picture lets others before it; most pictures have fewer."""

LOW = 0.25
"""Share of the device, in those of a caller, that what he asks for with a low priority gets."""

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")


class Busy(Exception):
    """The queue is full. `retry_after` is in seconds, by the speed of late."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The queue is full; try again in {retry_after} s.")
        self.retry_after = retry_after


class Late(Exception):
    """A picture was not done by its deadline and was given up."""


class Gone(Exception):
    """Nobody waits for the picture any more."""


class Closed(Exception):
    """The engine has ended."""


class Painter(Protocol):
    """What draws. Called on the engine's thread alone, which made it."""

    def begin(self, ask: Any) -> Any:
        """A picture before its first step."""
        ...

    def step(self, states: Sequence[Any]) -> None:
        """One step for each, all of one size."""
        ...

    def left(self, state: Any) -> int:
        """Steps that are still to be made."""
        ...

    def finish(self, states: Sequence[Any]) -> Sequence[Any]:
        """The pictures, in order."""
        ...


@dataclass(frozen=True)
class Work:
    """What a picture costs: its size in pixels (width, height) and its steps."""

    size: tuple[int, int]
    steps: int

    @property
    def pixels(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def cost(self) -> float:
        """In pixels × steps."""
        return float(self.pixels * self.steps)


@dataclass(frozen=True)
class Flow:
    """Whose work is served in turn with others': a caller's, and apart from it what he asks for as low."""

    caller: Hashable
    share: float = 1.0


@dataclass(eq=False)
class Job:
    """A picture in the queue or in the making. `future` gives it, or raises Late, Gone, Closed or what went wrong."""

    ask: Any
    work: Work
    flow: Flow
    deadline: float
    gone: Callable[[], bool]
    tag: float
    high: bool = False
    asked: float = field(default_factory=time.monotonic)
    begun: float | None = None
    state: Any = None
    done: int = 0
    future: Future[Any] = field(default_factory=Future)

    @property
    def due(self) -> float:
        """The virtual time at which its next step is due; the lower the sooner."""
        return self.tag + self.work.pixels * QUANTUM * (self.done // QUANTUM) / self.flow.share

    @property
    def left(self) -> float:
        """Work that is still to be done, in pixels × steps."""
        return float(self.work.pixels * max(0, self.work.steps - self.done))

    @property
    def queued_s(self) -> float:
        """Seconds it waited for its first step."""
        return (self.begun or time.monotonic()) - self.asked


@dataclass
class Meter:
    """What happened since the engine started; sums and counts, for /metrics."""

    pictures: int = 0
    steps: int = 0
    rows: int = 0
    refused: int = 0
    late: int = 0
    gone: int = 0
    failed: int = 0
    begin_seconds: float = 0.0
    step_seconds: float = 0.0
    finish_seconds: float = 0.0
    queue_seconds: float = 0.0


class Engine:
    """See the module's words.

    Args:
        make: makes the painter, on the engine's thread; what it raises, the constructor raises.
        batch: pictures in one step at most.
        batch_pixels: their pixels at most (one picture is always drawn).
        queue: pixels × steps that may be asked for and not done. A request that alone is more than that is taken when
            nothing else is there.
    """

    def __init__(
        self,
        make: Callable[[], Painter],
        batch: int = 8,
        batch_pixels: float = math.inf,
        queue: float = math.inf,
    ) -> None:
        self.batch, self.batch_pixels, self.queue = batch, batch_pixels, queue
        self.meter = Meter()
        self.speed: float | None = None
        self._jobs: list[Job] = []
        self._changed = threading.Condition(threading.RLock())
        self._closing = False
        self._now = 0.0
        self._served: dict[Flow, float] = {}
        self._turns: dict[tuple[int, int], int] = {}
        made: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(make, made), name="engine", daemon=True)
        self._thread.start()
        made.result()

    @property
    def alive(self) -> bool:
        """Whether it draws what it is asked for."""
        return self._thread.is_alive() and not self._closing

    @property
    def backlog(self) -> float:
        """Work asked for and not done, in pixels × steps."""
        with self._changed:
            return sum(job.left for job in self._jobs)

    @property
    def waiting(self) -> tuple[int, int]:
        """Pictures that wait for their first step, and pictures that had it."""
        with self._changed:
            begun = sum(job.begun is not None for job in self._jobs)
            return len(self._jobs) - begun, begun

    def retry_after(self, work: float | None = None) -> int:
        """Whole seconds in which that much (half of what is there) is done at the speed of late; 5 before any is."""
        work = self.backlog / 2 if work is None else work
        return max(1, math.ceil(work / self.speed)) if self.speed else 5

    def submit(
        self,
        asks: Sequence[tuple[Any, Work]],
        caller: Hashable = None,
        timeout_s: float = math.inf,
        gone: Callable[[], bool] = lambda: False,
        priority: Priority = "normal",
    ) -> list[Job]:
        """Pictures to draw, all of them or none. Requests without a `caller` are callers of their own.

        Raises:
            Busy: the queue has no room for them.
            Closed: the engine has ended.
        """
        flow = Flow(object() if caller is None else caller, LOW if priority == "low" else 1.0)
        deadline = time.monotonic() + timeout_s
        cost = sum(work.cost for _, work in asks)
        with self._changed:
            if not self.alive:
                raise Closed("The engine has ended.")
            backlog = self.backlog
            if backlog and backlog + cost > self.queue:
                self.meter.refused += 1
                raise Busy(self.retry_after(min(backlog, backlog + cost - self.queue)))
            jobs = []
            for ask, work in asks:
                tag = max(self._now, self._served.get(flow, 0.0))
                self._served[flow] = tag + work.cost / flow.share
                jobs.append(Job(ask, work, flow, deadline, gone, tag, priority == "high"))
            self._jobs += jobs
            if jobs and priority == "high":
                self._bring_forward(flow)
            self._changed.notify()
        return jobs

    def _bring_forward(self, flow: Flow) -> None:
        """A flow's pictures that have not begun share out the time they have anew, those of high priority first."""
        waiting = [job for job in self._jobs if job.flow == flow and job.begun is None]
        tag = min(job.tag for job in waiting)
        for job in sorted(waiting, key=lambda job: not job.high):  # of one priority as they came
            job.tag = tag
            tag += job.work.cost / flow.share

    def close(self, patience_s: float = 10.0) -> None:
        """Ends the thread after the step it is at; what is not done raises Closed."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join(patience_s)

    def _run(self, make: Callable[[], Painter], made: Future[None]) -> None:
        try:
            painter = make()
        except BaseException as error:
            made.set_exception(error)
            return
        made.set_result(None)
        try:
            while batch := self._next():
                self._draw(painter, batch)
                del batch  # what was drawn, and whose adapters, is not kept while nobody asks
        finally:
            with self._changed:
                self._closing, left, self._jobs = True, self._jobs, []
            for job in left:
                _fail(job, Closed("The engine has ended."))

    def _next(self) -> list[Job]:
        """Waits for work and chooses what to draw one step of; empty when the engine is to end."""
        with self._changed:
            while True:
                if self._closing:
                    return []
                self._drop()
                if self._jobs:
                    break
                self._served.clear()
                self._turns.clear()
                self._changed.wait()
            sizes = {job.work.size for job in self._jobs}
            first = min((turn for size, turn in self._turns.items() if size in sizes), default=0)
            self._turns = {size: self._turns.get(size, first) for size in sizes}
            size = min(sizes, key=lambda one: (self._turns[one], one))
            room = max(1, int(min(self.batch, self.batch_pixels / (size[0] * size[1]))))
            batch = sorted((job for job in self._jobs if job.work.size == size), key=lambda job: job.due)[:room]
            work = sum(job.work.pixels for job in batch)
            self._turns[size] += work
            self._now += work / sum(flow.share for flow in {job.flow for job in self._jobs})
            self._served = {flow: tag for flow, tag in self._served.items() if tag > self._now}
            return batch

    def _drop(self) -> None:
        """Jobs that are over, that came too late, and those that nobody waits for."""
        now, kept = time.monotonic(), []
        for job in self._jobs:
            if job.future.done():  # cancelled by who asked
                self.meter.gone += job.future.cancelled()
            elif job.gone():
                self.meter.gone += 1
                _fail(job, Gone("The caller has gone."))
            elif now > job.deadline:
                self.meter.late += 1
                waited = f"after {now - job.asked:.0f} s, {job.done} of {job.work.steps} steps done"
                _fail(job, Late(f"The picture was given up {waited}."))
            else:
                kept.append(job)
        self._jobs = kept

    def _draw(self, painter: Painter, batch: list[Job]) -> None:
        """One step of each, and the pictures that are done with it. What fails, fails for its own pictures alone."""
        meter, clock = self.meter, time.monotonic
        at = clock()
        for job in [job for job in batch if job.state is None]:
            job.begun = at
            meter.queue_seconds += job.queued_s
            try:
                job.state = painter.begin(job.ask)
            except Exception as error:
                batch.remove(job)
                self._failed([job], error)
        meter.begin_seconds += clock() - at
        if not batch:
            return
        at = clock()
        batch = self._step(painter, batch)
        if not batch:
            return
        took = clock() - at
        meter.step_seconds += took
        meter.steps += 1
        meter.rows += len(batch)
        speed = sum(job.work.pixels for job in batch) / max(took, 1e-9)
        self.speed = speed if self.speed is None else 0.95 * self.speed + 0.05 * speed
        done = []
        for job in batch:
            job.done += 1
            if not painter.left(job.state):
                done.append(job)
        if not done:
            return
        at = clock()
        try:
            pictures = painter.finish([job.state for job in done])
        except Exception as error:
            self._failed(done, error)
            return
        meter.finish_seconds += clock() - at
        meter.pictures += len(done)
        for job, picture in zip(done, pictures, strict=True):
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(picture)

    def _step(self, painter: Painter, batch: list[Job]) -> list[Job]:
        """One step of each -> those that made it.

        Where a batch fails, each is tried alone, so that nobody's picture fails with a stranger's. When all of them
        can, the batch was too large (for a card's memory, say), and later ones are half as large.
        """
        try:
            painter.step([job.state for job in batch])
            return batch
        except Exception as error:
            if len(batch) == 1:
                self._failed(batch, error)
                return []
            LOG.warning("a batch of %d pictures failed (%s); each is tried alone", len(batch), type(error).__name__)
        made = [job for job in batch if self._step(painter, [job])]
        if len(made) == len(batch):
            self.batch = max(1, len(batch) // 2)
        return made

    def _failed(self, jobs: Sequence[Job], error: Exception) -> None:
        self.meter.failed += len(jobs)
        for job in jobs:
            _fail(job, error)


def _fail(job: Job, error: Exception) -> None:
    job.state = None
    if not job.future.done() and job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
