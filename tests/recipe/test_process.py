"""How a recipe's process is stopped."""

import os
import signal
import time

import pytest

from personalize.recipe.process import Terminated, terminable


class Finalizer:
    """Is sent a signal while it is finalized, where Python drops every exception."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_an_interrupt_that_falls_into_a_finalizer_is_heard(number, raised):
    def finalized():
        Finalizer(number)
        time.sleep(30)

    with pytest.raises(KeyboardInterrupt) as heard, terminable():
        finalized()
    assert type(heard.value) is raised


def test_what_else_a_finalizer_raises_goes_where_it_went(monkeypatch):
    dropped = []
    monkeypatch.setattr("sys.unraisablehook", dropped.append)

    class Faulty:
        def __del__(self):
            raise ValueError("no such chair")

    with terminable():
        Faulty()
    Faulty()
    assert [str(each.exc_value) for each in dropped] == ["no such chair"] * 2
