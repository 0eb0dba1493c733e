"""On which axes the scans of a data set are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from lnsegfm.datasets.dataset import Case
from lnsegfm.imaging.files import read_grid
from lnsegfm.imaging.orientation import axis_codes


def stored_axes(cases: Iterable[Case]) -> Counter[str]:
    """How many scans there are of each axis code, by the first channel; in the order in which they are met.

    Raises:
        ImageError: A header that cannot be read.
    """
    return Counter(axis_codes(read_grid(case.images[0])) for case in cases if case.images)


def commonest_axes(stored: Counter[str]) -> str:
    """The axis code of most scans; of equally many the first that was met."""
    return stored.most_common(1)[0][0]


def turned_words(stored: Counter[str], axes: str) -> str:
    """How many scans are turned to an axis code, in words; "" where none is."""
    others = {code: number for code, number in stored.items() if code != axes}
    listed = ", ".join(f"{number} stored as {code}" for code, number in others.items())
    return f"{sum(others.values())} of {stored.total()} scans are turned to it ({listed})" if others else ""
