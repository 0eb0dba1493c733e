"""Lines of a terminal: broken between words, never inside one."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_AS_THEY_ARE = ("{", "}", "[", "]", '"')  # JSON, which is to be copied


def fitted(line: str, width: int) -> list[str]:
    """A line as lines of at most ``width`` columns.

    Args:
        line: Without its end.
        width: Of the terminal.

    Returns:
        The line itself where it fits, is JSON, or moves the cursor. Otherwise lines that are broken at spaces, those
        after the first indented by two more; a longer word has a line of its own. A command to be copied is continued
        by backslashes.
    """
    text = line.lstrip(" ")
    if len(line) <= width or text.startswith(_AS_THEY_ARE) or "\x1b" in line or "\r" in line:
        return [line]
    indent, command = " " * (len(line) - len(text)), text.startswith("lnsegfm ")
    lines = textwrap.wrap(
        text,
        max(width - 2 * command, 20),
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [f"{each} \\" for each in lines[:-1]] + lines[-1:] if command else lines


class WrappedStream:
    """A text stream that breaks the lines written to it between words.

    Args:
        stream: Where they go.
        width: Columns.
    """

    def __init__(self, stream: Any, width: int) -> None:
        self._stream = stream
        self._width = width
        self._at_start = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text; what continues a line that was begun before is written as it is."""
        first, *others = text.split("\n")
        shown = [first] if not self._at_start else fitted(first, self._width)
        for line in others:
            shown += fitted(line, self._width)
        self._stream.write("\n".join(shown))
        if text:
            self._at_start = text.endswith("\n")
        return len(text)


def on_terminal(stream: Any) -> bool:
    """Whether a person reads a stream: what goes to files and other programs keeps its lines."""
    return bool(getattr(stream, "isatty", lambda: False)())


@contextmanager
def whole_words() -> Iterator[None]:
    """Break lines on a terminal between words while this lasts; output to files and pipes is left alone."""
    width, before = shutil.get_terminal_size().columns, (sys.stdout, sys.stderr)
    try:
        for name in ("stdout", "stderr"):
            if on_terminal(stream := getattr(sys, name)):
                setattr(sys, name, WrappedStream(stream, width))
        yield
    finally:
        sys.stdout, sys.stderr = before
