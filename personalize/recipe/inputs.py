"""What a step may read of the steps before it."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path


class Input:
    """One earlier step's result. Outputs are fetched when `path` is first read: a step pays for what it opens."""

    def __init__(
        self,
        run_id: str = "",
        fingerprint: str = "",
        fetch_outputs: Callable[[], Path] | None = None,
        fetch_metrics: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self.run_id = run_id
        self.fingerprint = fingerprint
        self._fetch_outputs = fetch_outputs
        self._fetch_metrics = fetch_metrics

    @cached_property
    def path(self) -> Path:
        """The step's outputs directory. It may be the tracking store itself: read, never write."""
        if self._fetch_outputs is None:
            raise ValueError(f"run {self.run_id or '?'} has no outputs to read")
        return self._fetch_outputs()

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric the step logged."""
        return dict(self._fetch_metrics()) if self._fetch_metrics else {}

    @property
    def card(self) -> str:
        """The address of the step's card, understood by `mlflow artifacts download -u`."""
        return f"runs:/{self.run_id}/card.html"


class Inputs(Mapping[str, Input]):
    """Earlier results by step name: `inputs["train"].path / "lora"`."""

    def __init__(self, inputs: Mapping[str, Input]) -> None:
        self._inputs = dict(inputs)

    @classmethod
    def from_paths(cls, paths: Mapping[str, Path]) -> "Inputs":
        """Inputs that lie in plain folders, for calling a step's `run` without the engine (a notebook, a test)."""
        return cls({name: Input(fetch_outputs=lambda path=Path(path): path) for name, path in paths.items()})  # type: ignore[misc]

    def __getitem__(self, name: str) -> Input:
        if name not in self._inputs:
            raise KeyError(
                f"this step does not declare '{name}' in NEEDS; it declares: {', '.join(self._inputs) or 'nothing'}"
            )
        return self._inputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)
