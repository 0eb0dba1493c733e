"""On which axes the scans of a data set are stored."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from lnsegfm.datasets.dataset import Case
from lnsegfm.imaging.files import read_grid
from lnsegfm.imaging.orientation import axis_codes
from lnsegfm.messages import listed

OBLIQUE_DEGREES = 30.0


def stored_axes(cases: Iterable[Case]) -> Counter[str]:
    """How many scans there are of each axis code, by the first channel; in the order in which they are met.

    Raises:
        ImageError: A header that cannot be read.
    """
    return Counter(axis_codes(read_grid(case.images[0])) for case in cases if case.images)


def oblique_words(cases: Iterable[Case]) -> str:
    """Scans in which left-right of the patient runs along no axis of the array, in words; "" where there are none.

    A flip along another axis than the nearest one then exchanges sides in part. Up to `OBLIQUE_DEGREES` rotation in
    training does as much.

    Raises:
        ImageError: A header that cannot be read.
    """
    angles = {}
    for case in cases:
        if case.images:
            nearest = max(abs(part) for part in read_grid(case.images[0]).direction[:3])
            angles[case.name] = math.degrees(math.acos(min(1.0, nearest)))
    oblique = {name: angle for name, angle in angles.items() if angle > OBLIQUE_DEGREES}
    if not oblique:
        return ""
    return (
        f"Mirroring: left-right of the patient lies up to {max(oblique.values()):.0f} degrees off the axes of "
        f"{listed(list(oblique))}: flips along the others exchange sides in part. Use --mirror none, or z where only "
        "that axis is straight"
    )


def commonest_axes(stored: Counter[str]) -> str:
    """The axis code of most scans; of equally many the first that was met."""
    return stored.most_common(1)[0][0]


def turned_words(stored: Counter[str], axes: str) -> str:
    """How many scans are turned to an axis code, in words; "" where none is."""
    others = {code: number for code, number in stored.items() if code != axes}
    listed = ", ".join(f"{number} stored as {code}" for code, number in others.items())
    return f"{sum(others.values())} of {stored.total()} scans are turned to it ({listed})" if others else ""
