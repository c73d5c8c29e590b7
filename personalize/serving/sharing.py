"""One GPU among the workers of a server: each has its own copy of the model, and four of SDXL do not fit in 24 GB.

Workers load one after another, so that each sees what memory is left (`backbone.takes_turns`: where it is little, the
parts of the pipeline come to the GPU in turn), and draw one after another, each giving back what it does not hold.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def alone_on(device: torch.device, giving_back: bool = True) -> Iterator[None]:
    """Nobody else on this machine loads or draws on this GPU inside the block; a CPU has room for all.

    giving_back: memory that is kept for later and not used goes to the others; asking for it anew takes a while.

    A process that ends, however it does, leaves its place to the next.
    """
    if device.type != "cuda":
        yield
        return
    from filelock import FileLock

    with FileLock(Path(tempfile.gettempdir(), f"personalize-gpu-{device.index or 0}.lock"), mode=0o666):
        try:
            yield
        finally:
            if giving_back:
                give_back()


def give_back() -> None:
    """GPU memory that this process keeps for later and does not use, to the other processes."""
    import torch

    torch.cuda.empty_cache()
