"""Series in words: what lines of a terminal and of records call them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import Series

_SHOWN = 12  # series that a message lists
_SAME_SHARE = 0.05
"""Two lengths that differ by less are one: scanners round thicknesses, steps and pixel sizes."""


def listing(series: Sequence[Series]) -> str:
    """Series in words, for a message: number, description, plane, thickness, kernel."""
    shown = "; ".join(f"{short_name(each)} ({describe(each)})" for each in series[:_SHOWN])
    return shown + (f"; and {len(series) - _SHOWN} more" if len(series) > _SHOWN else "")


def short_name(series: Series) -> str:
    """What a line of a terminal calls a series: its number and description, or else the end of its UID."""
    description = series.description if len(series.description) <= 24 else f"{series.description[:21]}..."
    parts = [str(series.number)] if series.number is not None else []
    parts += [f'"{description}"'] if description else []
    if not parts:
        parts = [f"...{series.uid[-12:]}" if series.uid else "without UID"]
    return " ".join(parts) + (f" part {series.part}" if series.part else "")


def describe(series: Series) -> str:
    """Plane, thickness, kernel and how the patient lay, in words."""
    traits = series.traits
    words = [traits.plane, thickness_words(series), *([" ".join(traits.kernel)] if traits.kernel else [])]
    position = traits.patient_position
    words += ["feet first"] if position.startswith("FF") else []
    lying = {"P": "prone", "DR": "on the right side", "DL": "on the left side"}.get(position[2:])
    return ", ".join([*words, *([lying] if lying else [])])


def thickness_words(series: Series) -> str:
    """Thickness of the slices, and their step where it is another, in mm."""
    thickness, step = series.traits.thickness_mm or series.traits.step_mm, series.traits.step_mm
    return f"{thickness:.3g} mm" + (f" every {step:.3g} mm" if differ(thickness, step) else "")


def differ(first: float, second: float) -> bool:
    """Whether two lengths differ by more than scanners round them."""
    return abs(first - second) > _SAME_SHARE * max(first, second)
