"""Structure sets: the contours of a series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

XOR_TYPE = "CLOSEDPLANAR_XOR"
CLOSED_TYPES = ("CLOSED_PLANAR", XOR_TYPE)
"""The geometric types of contours that enclose something."""

ImageOfSeries = tuple[str, int]
"""SOPInstanceUID of an image, and which frame of it, from 0; 0 of a single-frame one."""


@dataclass(frozen=True)
class Contour:
    """One contour.

    Args:
        points_mm: Points (n, 3) as (x, y, z), LPS.
        kind: Its geometric type, such as CLOSED_PLANAR.
        image: The image that it says it was drawn on; None where it names none, or several.
    """

    points_mm: np.ndarray
    kind: str = "CLOSED_PLANAR"
    image: ImageOfSeries | None = None


@dataclass(frozen=True)
class Roi:
    """A structure.

    Args:
        number: Its number in the structure set.
        name: What it is called.
        contours: Its contours, in the file's order.
        frame_of_reference_uid: Of its coordinates; empty where the file does not say.
        damage: Why it cannot be turned into voxels, a sentence; empty if it can.
        notes: What was skipped or read by a rule, one line each; they are among the notes of its structure set.
        no_contours: Why it has no contours, a clause; empty where it has some.
    """

    number: int
    name: str
    contours: tuple[Contour, ...]
    frame_of_reference_uid: str = ""
    damage: str = ""
    notes: tuple[str, ...] = ()
    no_contours: str = ""


@dataclass(frozen=True)
class StructureSet:
    """A structure set (RTSTRUCT).

    Args:
        frame_of_reference_uid: Of its coordinates; empty where the file does not say.
        referenced_series_uids: The series that it says it was drawn on.
        rois: Its structures, in the file's order.
        label: What the structure set is called.
        notes: What was skipped on reading, one line each.
    """

    frame_of_reference_uid: str
    referenced_series_uids: tuple[str, ...]
    rois: tuple[Roi, ...]
    label: str = ""
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the structures, in the file's order."""
        return tuple(roi.name for roi in self.rois)


class SeriesIdentity(Protocol):
    """The UIDs of a series that decide whether structures belong to it."""

    @property
    def uid(self) -> str: ...  # noqa: D102
    @property
    def frame_of_reference_uid(self) -> str: ...  # noqa: D102


def mismatch(structures: StructureSet, series: SeriesIdentity) -> str | None:
    """Why a structure set does not belong to a series; None if it does.

    It belongs to a series of the same frame of reference (whose coordinates are those of its contours), and where
    either has none, to one that it names.
    """
    frames = {roi.frame_of_reference_uid for roi in structures.rois if roi.contours}
    frames.add(structures.frame_of_reference_uid)
    frames.discard("")
    if series.frame_of_reference_uid and frames:
        if series.frame_of_reference_uid in frames:
            return None
        return (
            f"its contours are in frame of reference {', '.join(sorted(frames))}, the series {series.uid} is in "
            f"{series.frame_of_reference_uid}"
        )
    if series.uid in structures.referenced_series_uids:
        return None
    named = ", ".join(structures.referenced_series_uids) or "no series"
    return f"it gives no frame of reference to compare, and names {named}, not {series.uid}"


def note_on_other_series(structures: StructureSet, series: SeriesIdentity) -> str | None:
    """A line for a structure set that names series, and not this one; None where it names it, or none.

    Series of one frame of reference need not show the patient alike: the phases of a 4D CT share theirs.
    """
    named = structures.referenced_series_uids
    if not named or series.uid in named:
        return None
    return f"Structures: drawn on series {', '.join(named)}, in the frame of reference of series {series.uid}."
