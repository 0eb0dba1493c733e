"""How long work reports how far it is, and asks whether to go on. The library itself shows nothing.

The command line, a notebook or a program hands in what shows it: a subclass of `Progress`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Progress:
    """What long work reports to. Does nothing: a subclass overrides what it wants to know."""

    def stage(self, text: str) -> None:
        """A new piece of work begins, or something is worth saying."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` of the present piece are finished; ``note`` says how it goes."""

    @contextmanager
    def stoppable(self) -> Iterator[Callable[[], bool]]:
        """Around work that can stop between two steps: gives what the work asks whether it shall.

        The work then saves its state and raises `lnsegfm.errors.Interrupted`. By default it is never stopped so: a
        `KeyboardInterrupt` that arrives in such work saves the state, too, and goes on to the caller.
        """
        yield lambda: False


class Silent(Progress):
    """Reports to nobody."""


class StoppedBySignals(Progress):
    """For who owns the whole process: work that can stop between two steps is asked to by SIGINT and SIGTERM.

    The command line's and that of training processes of our own; anywhere else signals are the host's.
    """

    @contextmanager
    def stoppable(self) -> Iterator[Callable[[], bool]]:
        """Collect the signals instead of dying of them. Only in the main thread, the only one that gets any."""
        arrived: list[int] = []
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, lambda n, _: arrived.append(n)) for number in numbers]
        try:
            yield lambda: bool(arrived)
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)
