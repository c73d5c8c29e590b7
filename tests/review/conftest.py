"""A tracking store with an evaluated, registered model in it, under review."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from personalize.review import server
from personalize.review.session import Session
from steps import review
from tests.review.world import evaluation, version
from tests.steps.conftest import new_database, store

__all__ = ["new_database", "store"]


@pytest.fixture
def open_review(store: Path, monkeypatch) -> Callable[..., Session]:
    """The session of a registered version's evaluation, as the step begins it."""
    monkeypatch.setattr(server, "FAREWELL_S", 10.0)
    counter = iter(range(100))

    def open_review(**made) -> Session:
        place = store / f"made {next(counter)}"
        weights = made.pop("weights", b"weights")
        version(
            evaluation(place, weights=weights, **made), place, weights=weights, verdict=made.get("verdict", "passed")
        )
        return review.begin(review.Config(name="chairs"))

    return open_review
