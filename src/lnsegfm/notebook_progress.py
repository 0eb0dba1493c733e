"""A bar in a notebook: what public functions report to where nobody says what else."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

from lnsegfm.progress import Progress, Silent

SECONDS_BETWEEN_UPDATES = 0.2


def default_progress() -> Progress:
    """A bar where the code runs in a Jupyter notebook, which somebody looks at; elsewhere nothing is shown."""
    return NotebookBar() if in_notebook() else Silent()


def in_notebook() -> bool:
    """Whether IPython runs this code for a Jupyter kernel. IPython is not imported for it."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return type(shell).__name__ == "ZMQInteractiveShell"


class NotebookBar(Progress):
    """The present piece of work and how far it is, in one place below the cell."""

    def __init__(self) -> None:
        self._text, self._bar, self._last = "", "", 0.0
        self._place: Any = None

    def stage(self, text: str) -> None:
        """Show the next piece."""
        self._text, self._bar = text, ""
        self._show()

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Move the bar, a few times a second at most."""
        now = time.monotonic()
        if done < total and now - self._last < SECONDS_BETWEEN_UPDATES:
            return
        self._last = now
        said = escape(f"{done}/{total} {note}".strip())
        self._bar = f'<progress value="{done}" max="{total}"></progress> {said}'
        self._show()

    def _show(self) -> None:
        from IPython.display import HTML, display

        shown = HTML(f'<div class="lnsegfm-progress">{escape(self._text)}<br>{self._bar}</div>')
        if self._place is None:
            self._place = display(shown, display_id=True)
        else:
            self._place.update(shown)
