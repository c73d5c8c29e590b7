"""A batch: the pictures that a table asks for, in a folder of its own, where a killed one goes on. Imports no torch.

What is done is what lies there: a picture's name is decided before anything is drawn, and a file is whole or not there.
So no picture is drawn twice and none is lost, whenever the process was killed. Another table, model or setting is
another batch and another folder; nothing is overwritten.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from personalize.files import file_digest, read_json, value_digest, write_json
from personalize.serving.encoding import SUFFIX, file_stem
from personalize.serving.request import MAX_SEED, Order, RequestError
from personalize.serving.table import write_table

HEAD = "batch.json"


@dataclass(frozen=True)
class Batch:
    """folder: of its pictures. seed: decides the seeds of rows that name none; kept, so that all are drawn alike."""

    folder: Path
    seed: int

    def seeds(self) -> Callable[[], int]:
        """Draws one for each row that names none, in their order; the same ones each time."""
        return partial(random.Random(self.seed).randint, 0, MAX_SEED)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else draws it while this lasts. Raises RequestError where somebody does, or has begun it meanwhile."""
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(self.folder / ".lock", timeout=0).acquire()
        except Timeout:
            raise RequestError(f"another process is drawing this batch, into {self.folder}.") from None
        with lock:
            if not (self.folder / HEAD).is_file():
                write_json(self.folder / HEAD, {"seed": self.seed})
            if read_json(self.folder / HEAD)["seed"] != self.seed:
                raise RequestError(f"another process has just drawn in {self.folder}; run it again.")
            yield

    def files(self, orders: Sequence[Order]) -> list[Path]:
        """Where each picture lies, or will: its row, its words and its seed."""
        digits = len(str(max(order.row for order in orders)))
        return [
            self.folder / f"{order.row:0{digits}}-{file_stem(order.prompt, order.seed)}{SUFFIX[order.format]}"
            for order in orders
        ]

    def write_results(self, kind: str, orders: Sequence[Order], facts: Mapping[str, Any]) -> Path:
        """One row a picture into `results.<kind>`. facts: what holds of all of them."""
        path = self.folder / f"results{kind}"
        rows = [
            {
                "row": order.row,
                "file_name": file.name,
                "sha256": file_digest(file, "sha256"),
                **order.facts,
                "width": order.sampling.width,
                "height": order.sampling.height,
                "format": order.format,
                **facts,
            }
            for order, file in zip(orders, self.files(orders), strict=True)
        ]
        write_table(path, rows)
        return path


def find(output: str | Path, name: str, asked: Mapping[str, Any], seed: int | None) -> Batch:
    """The batch of what is asked, new or begun; nothing is written.

    output: where batches lie. name: of the table. asked: everything that decides what is drawn. seed: None takes the
    one that it began with, or draws one.
    """
    folder = Path(output) / f"{file_stem(name)}-{value_digest([asked, seed])[:8]}"
    if (folder / HEAD).is_file():
        seed = int(read_json(folder / HEAD)["seed"])
    return Batch(folder, random.SystemRandom().randint(0, MAX_SEED) if seed is None else seed)
