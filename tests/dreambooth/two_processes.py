"""What each process of test_distributed runs: `python -m tests.dreambooth.two_processes FOLDER BASE BATCH_SIZE`."""

import json
import os
import sys
from pathlib import Path

from personalize.dreambooth.setup import Base
from personalize.dreambooth.train import train
from tests.dreambooth import training


def main(folder: Path, base: str, batch_size: int) -> None:
    photographs = training.photographs(folder / "pictures")
    result = train(
        training.settings(batch_size=batch_size, max_train_steps=3),
        Base(base, device="cpu"),
        photographs,
        training.class_images(folder / "pictures"),
        folder / f"outputs-{batch_size}",
        work=folder / "work",
    )
    losses = [row["loss"] for row in result.history["steps"]]
    (folder / f"losses-{batch_size}-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
