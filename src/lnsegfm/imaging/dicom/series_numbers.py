"""SeriesNumber of what is written of a series."""

from __future__ import annotations

LARGEST = (1 << 31) - 1
"""Of an integer string (IS)."""
SEG, RTSTRUCT, ADDED = 1000, 2000, 3000


def number_after(source: int | None, kind: int) -> int:
    """The source's SeriesNumber plus that of the kind, so that no two kinds of one series share a number.

    Args:
        source: The source's; None, negative ones and those too large for a sum count as 0.
        kind: ``SEG``, ``RTSTRUCT`` or ``ADDED`` (structures added to a structure set).
    """
    usable = source is not None and 0 <= source <= LARGEST - ADDED
    return (source if usable and source is not None else 0) + kind
