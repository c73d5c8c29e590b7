"""Adapters of other versions: lent, shared, bounded in bytes, read once, and never taken from who draws with them."""

import random
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from personalize.dreambooth import sampling
from personalize.dreambooth.denoising import Denoising
from personalize.dreambooth.sampling import Sampling
from personalize.serving.adapters import AdapterCache, TooLarge
from personalize.serving.engine import Engine, Late, Work
from personalize.serving.versions import Version
from tests.random_adapter import random_adapter


def version(name: str, size: int = 10) -> Version:
    return Version([], name="chairs", number=name, sha256=name, size=size)


class Library:
    """Reads nothing: an adapter is its name. It reads while `open` is set; names in `broken` cannot be read."""

    def __init__(self, limit: int = 20) -> None:
        self.read_ones: list[str] = []
        self.broken: set[str] = set()
        self.open = threading.Event()
        self.open.set()
        self.cache = AdapterCache(self.read, limit)

    def read(self, asked: Version) -> str:
        assert self.open.wait(20)
        self.read_ones.append(asked.sha256)
        if asked.sha256 in self.broken:
            raise ValueError("no such adapter")
        return f"adapter {asked.sha256}"

    def borrow(self, *names: str) -> list[str]:
        with self.cache.lent([version(name) for name in names]) as lent:
            return [lent[name] for name in names]


def test_an_adapter_is_read_once_and_the_least_recently_used_goes():
    library = Library()
    assert library.borrow("a", "b", "a") == ["adapter a", "adapter b", "adapter a"]
    library.borrow("a")
    library.borrow("c")
    library.borrow("a")
    assert library.read_ones == ["a", "b", "c"]
    library.borrow("b")
    assert library.read_ones == ["a", "b", "c", "b"]
    assert (library.cache.held, library.cache.bytes) == (2, 20)
    assert (library.cache.meter.evicted, library.cache.meter.hits) == (2, 2)


def test_what_is_drawn_with_is_never_taken_and_who_needs_room_waits():
    library, over = Library(), threading.Event()
    with library.cache.lent([version("a"), version("b")]):
        waiting = threading.Thread(target=lambda: (library.borrow("c"), over.set()))
        waiting.start()
        assert not over.wait(0.3)
        assert library.borrow("a") == ["adapter a"], "who borrows what is held does not stand in line"
        assert library.cache.bytes == 20
    assert over.wait(20)
    waiting.join()


def test_who_waits_for_room_is_not_passed_for_ever(monkeypatch):
    from personalize.serving import adapters

    monkeypatch.setattr(adapters, "PATIENCE_S", 0.0)
    library = Library()
    with library.cache.lent([version("a"), version("b")]):
        first = threading.Thread(target=lambda: library.borrow("c"))
        first.start()
        while not library.cache._line:
            time.sleep(0.01)
        time.sleep(0.01)
        second = threading.Thread(target=lambda: library.borrow("a"))
        second.start()
        second.join(0.2)
        assert first.is_alive()
        assert second.is_alive()
    first.join(20)
    second.join(20)
    assert library.read_ones.count("a") == 2, "c came first and took the place of a, which was used longest ago"


def test_two_requests_never_each_hold_what_the_other_waits_for():
    library, done = Library(), []

    def ask(*names: str) -> None:
        for _ in range(50):
            library.borrow(*names)
        done.append(names)

    threads = [threading.Thread(target=ask, args=names) for names in (("a", "b"), ("b", "c"), ("c", "a"), ("a",))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 4
    assert library.cache.bytes <= 20


def test_many_who_want_the_same_one_wait_for_one_reading():
    library, got = Library(), []
    library.open.clear()
    threads = [threading.Thread(target=lambda: got.append(library.borrow("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    library.open.set()
    for thread in threads:
        thread.join(20)
    assert got == [["adapter a"]] * 8
    assert library.read_ones == ["a"]


def test_one_that_cannot_be_read_is_an_error_for_who_asked_and_is_asked_for_again():
    library = Library()
    library.broken.add("a")
    a, b = library.borrow("a", "b")
    assert (str(a), b) == ("no such adapter", "adapter b")
    library.broken.clear()
    assert library.borrow("a") == ["adapter a"]
    assert library.cache.meter.failed == 1


def test_what_does_not_fit_together_is_said_at_once():
    with pytest.raises(TooLarge, match="Ask for fewer versions at once"):
        Library().borrow("a", "b", "c")


def test_who_gives_up_leaves_the_line():
    library = Library()

    def late() -> None:
        raise Late("too late")

    with library.cache.lent([version("a"), version("b")]):
        with pytest.raises(Late), library.cache.lent([version("c")], late):
            pass
        assert library.cache._line == []
    assert library.borrow("c") == ["adapter c"]


# With real adapters.

FAST = Sampling(steps=2, width=64, height=64)


@pytest.fixture(scope="module")
def files(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A hundred adapters, no two alike."""
    file = random_adapter(tiny_models / "sdxl", tmp_path_factory.mktemp("lora")) / "pytorch_lora_weights.safetensors"
    tensors, generator = load(file.read_bytes()), torch.Generator().manual_seed(1)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    made = {}
    for number in range(100):
        own = {name: torch.randn(tensor.shape, generator=generator) * 0.3 for name, tensor in tensors.items()}
        made[f"{number:064x}"] = save(own, metadata)
    return made


@pytest.mark.slow
def test_a_hundred_adapters_through_a_cache_of_eight(tiny_models: Path, files: dict[str, bytes]):
    """Right pictures whoever shares the batch, and never more bytes than allowed, nor more tensors than the cache."""
    denoising = Denoising(sampling.load_pipeline(tiny_models / "sdxl", device="cpu"))
    size = max(map(len, files.values()))
    alone = {}
    for name, data in files.items():
        row = denoising.begin("a red chair", int(name, 16), FAST, (denoising.adapters.read(data, name), 1.0))
        denoising.step([row])
        alone[name] = row.latents
    cache = AdapterCache(lambda one: denoising.adapters.read(files[one.sha256], one.sha256), 8 * size)
    most: list[int] = []

    class Painter:
        def begin(self, ask):
            return denoising.begin("a red chair", int(ask.name, 16), FAST, (ask, 1.0))

        def step(self, rows):
            most.append(cache.bytes)
            denoising.step(rows)

        def left(self, row):
            return row.left - 1

        def finish(self, rows):
            return [row.latents for row in rows]

    engine = Engine(Painter)
    wrong: list[str] = []

    def client(seed: int) -> None:
        drawn = random.Random(seed)
        for _ in range(12):
            names = drawn.sample(sorted(files), drawn.choice((1, 1, 2, 3)))
            with cache.lent([version(name, len(files[name])) for name in names]) as lent:
                jobs = engine.submit([(lent[name], Work((64, 64), 1)) for name in names])
                for name, job in zip(names, jobs, strict=True):
                    latents = job.future.result(120)
                    if not torch.allclose(latents, alone[name], atol=1e-3):
                        wrong.append(name)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.close()
    assert wrong == []
    assert max(most) <= cache.limit
    assert cache.held <= 8
    assert cache.meter.evicted > 50
    assert engine.meter.rows > engine.meter.steps, "adapters of several requests shared a batch"
    distinct = [alone[name] for name in sorted(files)[:2]]
    assert not torch.allclose(*distinct, atol=1e-1)
