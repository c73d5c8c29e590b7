"""Progress: one line in the terminal that is rewritten, or a plain line a subject, and the same as live metrics."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import IO, Any

from personalize.fleet.plan import spell
from personalize.fleet.record import Row, came_to

METRICS_S = 5.0
"""Seconds between two looks at the metrics of a fleet's run, which many subjects may write to meanwhile."""

SHOWN = ("passed", "not passed", "undecided", "failed")


class Progress:
    """total: subjects to run; done: that were done before. client, run_id: where the live metrics go."""

    def __init__(
        self,
        total: int,
        workers: int,
        expected: float | None,
        client: Any = None,
        run_id: str = "",
        out: IO[str] | None = None,
    ) -> None:
        self.total, self.workers, self.expected = total, workers, expected
        self.client, self.run_id = client, run_id
        self.out = out or sys.stdout
        self.live = self.out.isatty()
        self.counts: Counter[str] = Counter()
        self.seconds: list[float] = []
        self._began = time.monotonic()
        self._told = 0.0

    @property
    def ended(self) -> int:
        return self.counts["done"] + self.counts["failed"]

    @property
    def running(self) -> int:
        return min(self.workers, self.total - self.ended)

    def left(self) -> float | None:
        """Seconds that the rest will take: by what these subjects took, or before any has ended by earlier ones."""
        each = sum(self.seconds) / len(self.seconds) if self.seconds else self.expected
        return None if each is None else (self.total - self.ended) * each / max(1, self.workers)

    def add(self, row: Row) -> None:
        """A subject has ended."""
        self.counts[row["state"]] += 1
        if row["verdict"]:
            self.counts[came_to(row)] += 1
        if row["seconds"] and row["state"] == "done":
            self.seconds.append(row["seconds"])
        took = f" in {spell(row['seconds'])}" if row["seconds"] else ""
        why = f": {' '.join(row['why'].split())[:300]}" if row["why"] else ""
        said = f"{row['subject']} {came_to(row)}{took}{why}"
        if not self.live:
            self._print(f"  {self.ended} of {self.total}  {said} · {self.line()}")
        elif row["state"] == "failed":
            self._clear()
            self._print(f"  {said}")
        self.show()

    def show(self, now: bool = False) -> None:
        """The line as it is now, and the metrics where they are due."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            self.out.write("\r" + f"  {self.ended} of {self.total} done · {self.line()}"[:width].ljust(width))
            self.out.flush()
        if now or time.monotonic() - self._told > METRICS_S:
            self._told = time.monotonic()
            self._log()

    def close(self) -> None:
        """Nothing runs any more."""
        self.workers = 0
        self.show(now=True)
        if self.live:
            self._print("")

    def line(self) -> str:
        """`2 running · 14 passed · 1 failed · about 3 h left`."""
        parts = [f"{self.running} running"]
        parts += [f"{self.counts[name]} {name}" for name in SHOWN if self.counts[name]]
        left = self.left()
        if left is not None and self.ended < self.total:
            parts.append(f"about {spell(left)} left")
        return " · ".join(parts)

    def metrics(self) -> Mapping[str, float]:
        left = self.left()
        found = {
            "done": float(self.counts["done"]),
            "running": float(self.running),
            "failed": float(self.counts["failed"]),
            "passed": float(self.counts["passed"]),
            "not_passed": float(self.counts["not passed"]),
            "undecided": float(self.counts["undecided"]),
        }
        return found if left is None else found | {"seconds_left": round(left, 1)}

    def _log(self) -> None:
        from mlflow.entities import Metric

        if self.client is None:
            return
        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, self.ended) for name, value in self.metrics().items()]
        try:
            self.client.log_batch(self.run_id, metrics=metrics)
        except Exception as error:  # the next look tells it; a server that is away for a minute stops no fleet
            self._clear()
            self._print(f"  the metrics could not be logged ({type(error).__name__})")

    def _clear(self) -> None:
        if self.live:
            self.out.write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")

    def _print(self, text: str) -> None:
        self.out.write(text + "\n")
        self.out.flush()
