"""Progress of a command: a moving bar on a terminal, plain lines elsewhere, both on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lnsegfm.progress import Progress, StoppedBySignals

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def console() -> Iterator[Progress]:
    """Give the object that long work reports its progress to."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.2g}/s" if task.speed else "")

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}", markup=False), Rate())
    with Bars(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        yield Terminal(bars)


class Terminal(StoppedBySignals):
    """A bar for each piece of work."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, text: str) -> None:
        """Take away a bar that ended early and announce the next piece."""
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None
        self._bars.console.print(text, style="bold", highlight=False, markup=False)

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Move the bar."""
        if self._task is None:
            self._task = self._bars.add_task("", total=total, note=note, completed=done)
        self._bars.update(self._task, completed=done, total=total, note=note)
        if done >= total:
            self._bars.remove_task(self._task)
            self._task = None


class Lines(StoppedBySignals):
    """A line now and then, with rate and time left."""

    def __init__(self) -> None:
        self.stage("")

    def stage(self, text: str) -> None:
        """Announce the next piece."""
        self._started = self._last = time.monotonic()
        self._first: int | None = None
        if text:
            print(text, file=sys.stderr, flush=True)

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Print where it is, at most every ten seconds."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._started = done, now
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        self._last = now
        rate = (done - self._first) / max(now - self._started, 1e-9)
        left = f", {rate:.2g}/s, {(total - done) / rate:.0f} s left" if rate > 0 else ""
        print(f"  {done}/{total} {note}{left}", file=sys.stderr, flush=True)
