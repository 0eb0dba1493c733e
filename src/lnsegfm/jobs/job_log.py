"""How a job that runs in a process of its own says how far it is, and hears that it shall stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lnsegfm.progress import Progress

SECONDS_BETWEEN_LINES = 10.0
STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name))
"""SIGUSR2 is what a scheduler is asked to send before a time limit or when a job has to make room."""


class JobProgress(Progress):
    """Plain lines on standard output, which is the job's log, and stops by signals."""

    def __init__(self) -> None:
        self._last = 0.0
        self.arrived: list[int] = []
        self._waiting = False

    def stage(self, text: str) -> None:
        """A line."""
        print(text, flush=True)

    def advance(self, done: int, total: int, note: str = "") -> None:
        """A line now and then."""
        now = time.monotonic()
        if done >= total or now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            print(f"  {done}/{total} {note}".rstrip(), flush=True)

    @contextmanager
    def stoppable(self) -> Iterator[Callable[[], bool]]:
        """Work in the block asks whether to stop; elsewhere a signal raises `KeyboardInterrupt`."""
        before, self._waiting = self._waiting, True
        try:
            yield lambda: bool(self.arrived)
        finally:
            self._waiting = before

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear `STOP_SIGNALS` while the block lasts; in the main thread of a process alone."""

        def heard(number: int, _: Any) -> None:
            self.arrived.append(number)
            if not self._waiting:
                raise KeyboardInterrupt

        before = {number: signal.signal(number, heard) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
