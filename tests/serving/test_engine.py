"""The engine's order of work: who is drawn together, who waits, who is turned away, what ends with whom."""

import math
import threading
import time
import weakref
from dataclasses import dataclass, field

import pytest

from personalize.serving.engine import Busy, Closed, Engine, Gone, Late, Work

SMALL, LARGE = (64, 64), (128, 64)


@dataclass
class Sheet:
    name: str
    left: int


@dataclass
class Painter:
    """Counts steps instead of drawing. It works only while `going` is set, and keeps what each step was made of."""

    batches: list[list[str]] = field(default_factory=list)
    going: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    thread: int = 0
    most: int = 100

    def begin(self, ask: tuple[str, int]) -> Sheet:
        if ask[0] == "cannot begin":
            raise ValueError("no such paint")
        return Sheet(*ask)

    def step(self, sheets) -> None:
        self.thread = threading.get_ident()
        self.batches.append([sheet.name for sheet in sheets])
        self.arrived.release()
        assert self.going.wait(20)
        if len(sheets) > self.most or any(sheet.name == "breaks" for sheet in sheets):
            raise RuntimeError("out of memory")
        for sheet in sheets:
            sheet.left -= 1

    def left(self, sheet: Sheet) -> int:
        return sheet.left

    def finish(self, sheets) -> list[str]:
        return [f"picture of {sheet.name}" for sheet in sheets]


@pytest.fixture
def painter() -> Painter:
    return Painter()


@pytest.fixture
def engine(painter: Painter):
    engine = Engine(lambda: painter, batch=4)
    yield engine
    painter.going.set()
    engine.close()


def ask(engine: Engine, *pictures: tuple[str, int], size=SMALL, **options):
    return engine.submit([(picture, Work(size, picture[1])) for picture in pictures], **options)


def finished(painter: Painter, name: str) -> int:
    """How many steps the engine had made when this picture was done."""
    return 1 + max(number for number, batch in enumerate(painter.batches) if name in batch)


def occupied(engine: Engine, painter: Painter) -> None:
    """The engine stands in the first step of one picture; what comes now comes while it draws."""
    ask(engine, ("first", 1))
    assert painter.arrived.acquire(timeout=20)


def test_one_thread_makes_the_painter_and_draws(painter: Painter):
    made: list[int] = []
    engine = Engine(lambda: made.append(threading.get_ident()) or painter)
    painter.going.set()
    assert [job.future.result(20) for job in ask(engine, ("a", 2))] == ["picture of a"]
    assert made == [painter.thread] != [threading.get_ident()]
    engine.close()


def test_what_was_drawn_is_not_kept_while_nobody_asks(engine, painter):
    sheets: list[weakref.ref] = []
    begin = painter.begin
    painter.begin = lambda ask: (sheet := begin(ask), sheets.append(weakref.ref(sheet)))[0]
    painter.going.set()
    [job] = ask(engine, ("large", 1))
    assert job.future.result(20) == "picture of large"
    del job
    deadline = time.monotonic() + 20
    while sheets[0]() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sheets[0]() is None


def test_what_the_painter_cannot_load_is_raised_where_it_is_made():
    with pytest.raises(OSError, match="no such file"):
        Engine(lambda: (_ for _ in ()).throw(OSError("no such file")))


def test_pictures_of_many_requests_are_drawn_together_join_between_steps_and_leave_when_done(engine, painter):
    occupied(engine, painter)
    jobs = ask(engine, ("long", 3)) + ask(engine, ("short", 1)) + ask(engine, ("wide", 1), size=LARGE)
    painter.going.set()
    assert [job.future.result(20) for job in jobs] == ["picture of long", "picture of short", "picture of wide"]
    assert painter.batches == [["first"], ["wide"], ["long", "short"], ["long"], ["long"]] or painter.batches == [
        ["first"], ["long", "short"], ["wide"], ["long"], ["long"],
    ]  # fmt: skip


def test_a_batch_holds_no_more_than_it_may(painter):
    engine = Engine(lambda: painter, batch=4, batch_pixels=2.5 * 64 * 64)
    occupied(engine, painter)
    jobs = ask(engine, *[(f"{i}", 1) for i in range(5)]) + ask(engine, ("huge", 1), size=(640, 640))
    painter.going.set()
    for job in jobs:
        job.future.result(20)
    assert max(map(len, painter.batches)) == 2
    assert ["huge"] in painter.batches, "one picture is always drawn"
    engine.close()


def test_who_asks_for_much_delays_himself_and_not_the_next_one(engine, painter):
    occupied(engine, painter)
    much = ask(engine, *[(f"much {i}", 30) for i in range(12)])
    one = ask(engine, ("one", 5))
    painter.going.set()
    for job in one + much:
        job.future.result(20)
    assert finished(painter, "one") == 1 + 5, "after the step that was being made, it was in every one"
    assert finished(painter, "much 0") == 1 + 30


def test_requests_of_one_caller_count_together(engine, painter):
    occupied(engine, painter)
    flood = [ask(engine, (f"flood {i}", 10), caller="one and the same")[0] for i in range(12)]
    other = ask(engine, ("other", 10), caller="another")[0]
    painter.going.set()
    for job in [*flood, other]:
        job.future.result(20)
    assert finished(painter, "other") == 1 + 10


def test_a_long_picture_makes_room_for_short_ones(painter):
    engine = Engine(lambda: painter, batch=1)
    long = ask(engine, ("long", 100))[0]
    assert painter.arrived.acquire(timeout=20)
    short = ask(engine, ("short", 2))[0]
    painter.going.set()
    assert long.future.result(20)
    assert short.future.result(20)
    assert finished(painter, "short") <= 32 + 2
    engine.close()


def test_sizes_share_the_time(engine, painter):
    occupied(engine, painter)
    small = ask(engine, *[(f"s{i}", 20) for i in range(8)])
    large = ask(engine, ("large", 4), size=LARGE)
    painter.going.set()
    for job in small + large:
        job.future.result(20)
    assert finished(painter, "large") < finished(painter, "s0"), "4 steps of twice the size, beside 20 of four"


def test_a_full_queue_turns_away_and_says_when_to_come_back(painter):
    engine = Engine(lambda: painter, queue=10 * 64 * 64)
    enormous = ask(engine, ("enormous", 40))
    assert painter.arrived.acquire(timeout=20)
    with pytest.raises(Busy) as refused:
        ask(engine, ("one more", 1))
    assert refused.value.retry_after >= 1
    painter.going.set()
    enormous[0].future.result(20)
    assert ask(engine, ("one more", 1))[0].future.result(20)
    assert engine.meter.refused == 1
    engine.close()


def test_a_request_is_taken_whole_or_not_at_all(painter):
    engine = Engine(lambda: painter, queue=10 * 64 * 64)
    ask(engine, ("first", 5))
    with pytest.raises(Busy):
        ask(engine, ("a", 4), ("b", 4))
    assert sum(engine.waiting) == 1
    painter.going.set()
    engine.close()


def test_a_picture_past_its_deadline_is_given_up_between_steps(engine, painter):
    occupied(engine, painter)
    late = ask(engine, ("late", 50), timeout_s=0.05)[0]
    good = ask(engine, ("good", 2))[0]
    time.sleep(0.1)
    painter.going.set()
    with pytest.raises(Late, match="0 of 50 steps done"):
        late.future.result(20)
    assert good.future.result(20)
    assert not any("late" in batch for batch in painter.batches)


def test_a_picture_that_nobody_waits_for_is_not_drawn_on(engine, painter):
    gone = threading.Event()
    left = ask(engine, ("left", 50), gone=gone.is_set)[0]
    assert painter.arrived.acquire(timeout=20)
    cancelled = ask(engine, ("cancelled", 50))[0]
    gone.set()
    cancelled.future.cancel()
    painter.going.set()
    with pytest.raises(Gone):
        left.future.result(20)
    assert ask(engine, ("next", 1))[0].future.result(20)
    assert sum("left" in batch or "cancelled" in batch for batch in painter.batches) == 1
    assert engine.meter.gone == 2


def test_what_fails_fails_for_its_own_and_the_engine_goes_on(engine, painter):
    painter.going.set()
    with pytest.raises(ValueError, match="no such paint"):
        ask(engine, ("cannot begin", 1))[0].future.result(20)
    with pytest.raises(RuntimeError, match="out of memory"):
        ask(engine, ("breaks", 1))[0].future.result(20)
    assert ask(engine, ("next", 1))[0].future.result(20) == "picture of next"
    assert engine.alive


def test_nobodys_picture_fails_with_a_strangers(engine, painter):
    occupied(engine, painter)
    good, bad, other = (ask(engine, (name, 3))[0] for name in ("good", "breaks", "other"))
    painter.going.set()
    assert [good.future.result(20), other.future.result(20)] == ["picture of good", "picture of other"]
    with pytest.raises(RuntimeError):
        bad.future.result(20)
    assert (engine.batch, engine.meter.failed) == (4, 1)


def test_a_batch_that_is_too_large_is_halved_and_nothing_fails(engine, painter):
    painter.most = 2
    occupied(engine, painter)
    jobs = ask(engine, *[(f"{i}", 3) for i in range(8)])
    painter.going.set()
    assert len([job.future.result(20) for job in jobs]) == 8
    assert (engine.batch, engine.meter.failed) == (2, 0)
    assert sum(len(batch) > 2 for batch in painter.batches) == 1


def test_an_engine_that_ends_tells_everybody(engine, painter):
    job = ask(engine, ("a", 100))[0]
    assert painter.arrived.acquire(timeout=20)
    waiting = threading.Thread(target=engine.close)
    waiting.start()
    painter.going.set()
    waiting.join(20)
    with pytest.raises(Closed):
        job.future.result(20)
    with pytest.raises(Closed):
        ask(engine, ("b", 1))
    assert not engine.alive


def test_nothing_of_finished_work_is_kept(engine, painter):
    painter.going.set()
    for number in range(50):
        ask(engine, (f"{number}", 1), caller=number)[0].future.result(20)
    deadline = time.monotonic() + 5
    while engine._served and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (engine._served, engine._turns, engine._jobs) == ({}, {}, [])
    assert engine.backlog == 0
    assert math.isfinite(engine.meter.queue_seconds)


# Priorities give away and do not take.


def test_what_is_asked_for_as_low_gets_a_quarter_of_a_share(painter: Painter):
    engine = Engine(lambda: painter, batch=1)
    occupied(engine, painter)
    jobs = [
        job
        for n in range(8)
        for job in (
            *ask(engine, (f"low {n}", 1), caller="a studio", priority="low"),
            *ask(engine, (f"normal {n}", 1), caller="a museum"),
        )
    ]
    painter.going.set()
    for job in jobs:
        job.future.result(20)
    engine.close()
    first = [batch[0].partition(" ")[0] for batch in painter.batches[1:11]]
    assert first.count("low") == 2


def test_what_is_asked_for_as_high_goes_before_the_callers_own_and_nobody_elses(painter: Painter):
    engine = Engine(lambda: painter, batch=1)
    occupied(engine, painter)
    jobs = [job for n in range(3) for job in ask(engine, (f"mine {n}", 1), caller="a studio")]
    jobs += [job for n in range(3) for job in ask(engine, (f"theirs {n}", 1), caller="a museum")]
    jobs += ask(engine, ("urgent", 1), caller="a studio", priority="high")
    jobs += ask(engine, ("more urgent, and later", 1), caller="a studio", priority="high")
    painter.going.set()
    for job in jobs:
        job.future.result(20)
    engine.close()
    order = [batch[0] for batch in painter.batches[1:]]
    mine = [name for name in order if not name.startswith("theirs")]
    assert mine == ["urgent", "more urgent, and later", "mine 0", "mine 1", "mine 2"]
    late = [n for n in range(3) if order.index(f"theirs {n}") > 2 * n + 1]
    assert late == [], "every second picture is theirs, as without the urgent ones"
