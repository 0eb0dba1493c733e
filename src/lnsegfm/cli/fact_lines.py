"""Facts by name as lines of a terminal, no word or address cut."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from lnsegfm.messages import printable

_NAMES = 22  # columns


def fact_lines(facts: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Names at the left, what they say beside them.

    Args:
        facts: Name and text; a text of several lines keeps them. A name that repeats stands once.
        width: Of the terminal.

    Returns:
        Lines of at most ``width`` columns, unless a single word is longer: an address or a hash that does not fit
        beside its name has a line of its own, whole.
    """
    shown, before = [], ""
    for name, text in facts:
        lines = [line for paragraph in text.split("\n") for line in _wrapped(printable(paragraph), width)]
        heading = "" if name == before else name
        before = name
        for line in lines:
            if len(line) > width - _NAMES or len(heading) >= _NAMES:
                shown += [heading] if heading else []
                shown.append(f"  {line}")
            else:
                shown.append(f"{heading:<{_NAMES}}{line}")
            heading = ""
    return shown


def _wrapped(text: str, width: int) -> list[str]:
    beside = max(width - _NAMES, 20)
    return textwrap.wrap(text, beside, break_long_words=False, break_on_hyphens=False) or [""]
