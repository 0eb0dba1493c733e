"""Which series of a tree with structures are taken: those that were drawn on, and one of each other scan."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.series_choice import PassedOver, SeriesChoice, choose_series, unmatched_lines
from lnsegfm.imaging.dicom.series_index import Series


def choose_of_tree(
    series: Sequence[Series], selectors: Sequence[str] = (), *, annotated: Collection[int] = ()
) -> SeriesChoice:
    """As `choose_series`; a tree of nothing but projections has no series that is taken, and is no fault.

    Args:
        series: Those of the tree.
        selectors: As for `choose_series`.
        annotated: Positions of the series that structures or segmentations belong to.

    Raises:
        DataError: A selector fits no series; the line lists what there is.
        ConfigError: A selector that cannot be read.
    """
    choice = choose_series(series, selectors, annotated=annotated)
    if series and choice.unmatched:
        raise DataError(*unmatched_lines(series, choice.unmatched))
    return choice


def passed_over_line(passed_over: PassedOver) -> str:
    """One line about a series that is not taken, by UIDs."""
    return f"Series {passed_over.series.name}: passed over: {passed_over.reason}."


def passed_over_facts(passed_over: PassedOver) -> dict[str, Any]:
    """What may stand in a dataset about a series that is not taken: no UID, no description, nothing of the patient."""
    traits = passed_over.series.traits
    return {
        "kind": passed_over.kind,
        "reason": f"{passed_over.what} of another series" if passed_over.instead is not None else passed_over.what,
        "plane": traits.plane,
        "thickness_mm": traits.thickness_mm,
        "step_mm": traits.step_mm,
        "kernel": list(traits.kernel),
    }
