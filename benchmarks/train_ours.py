"""One timed run of our training: `python -m benchmarks.train_ours JOB OUTPUTS`, started by benchmarks.train."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from personalize.dreambooth.examples import read_class_images, read_photographs
from personalize.dreambooth.settings import TrainSettings
from personalize.dreambooth.setup import Base
from personalize.dreambooth.train import Observer, train


def main(job: dict[str, str], outputs: Path) -> None:
    work = Path(job["work"])
    ended: list[float] = []
    result = train(
        TrainSettings.model_validate(job["settings"]),
        Base(job["base"], dtype=job["dtype"]),  # type: ignore[arg-type]
        read_photographs(work / "photographs", work / "photographs" / "metadata.jsonl"),
        read_class_images(work / "class"),
        outputs,
        work=outputs / "work",
        observer=Observer(logged=lambda step, metrics: ended.append(time.perf_counter())),
    )
    (outputs / "times.json").write_text(json.dumps({**result.speed, "ended": ended}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
