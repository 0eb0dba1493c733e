"""How a command that goes through many cases says where it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def case_by_case(doing: str) -> Iterator[Callable[[int, int, str], None]]:
    """Give a function to call after each case (cases done, cases in all, name of the last one).

    On a terminal it moves a bar that goes away at the end; elsewhere it prints a plain line now and then. Both go to
    stderr, so that what a command prints can be piped.

    Args:
        doing: What is being done, such as ``Checking``.
    """
    if not sys.stderr.isatty():
        yield _plain_lines(doing)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total, name: bar.update(
            task, completed=done, total=total, description=escape(f"{doing} {name}")
        )


def _plain_lines(doing: str) -> Callable[[int, int, str], None]:
    last = time.monotonic()

    def advance(done: int, total: int, name: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            print(f"{doing}: {done} of {total} ({name})", file=sys.stderr, flush=True)

    return advance
