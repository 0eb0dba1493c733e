"""Distances of slices: which are at one position, and whether a stack is evenly spaced."""

from __future__ import annotations

import numpy as np

SAME_POSITION_MM = 0.01
"""Slices closer than this along the normal are at one position, whatever their distance otherwise."""
ROUNDED_MM = 0.1
"""So far apart may positions be that a header gives to a tenth of a millimetre."""
SHARE_OF_STEP = 0.1
"""And so far, as a share of the distance of slices, for one position."""
_FLOAT_MM = 1e-4  # what is left over when rounded numbers are subtracted


def step_tolerance_mm(step_mm: float, rounded_mm: float = ROUNDED_MM) -> float:
    """How far a slice may be off its even place: 1 % of the distance or 0.1 mm, at most a quarter of the distance."""
    return min(max(rounded_mm, 0.01 * step_mm), 0.25 * step_mm) + _FLOAT_MM


def same_position_mm(heights_mm: np.ndarray) -> float:
    """How close slices of these ascending heights are at one position: 0.1 mm or a tenth of their distance."""
    steps = np.diff(heights_mm)
    steps = steps[steps > ROUNDED_MM]
    if not steps.size:
        return SAME_POSITION_MM
    return max(SAME_POSITION_MM, min(ROUNDED_MM, SHARE_OF_STEP * float(np.median(steps)))) + _FLOAT_MM


def group_by_position(heights_mm: np.ndarray, tolerance_mm: float) -> list[np.ndarray]:
    """Indices of ascending heights, those at one position together."""
    starts, last = [], -np.inf
    for k, height in enumerate(heights_mm.tolist()):
        if height - last > tolerance_mm:
            starts.append(k)
            last = height
    return np.split(np.arange(len(heights_mm)), starts[1:])


def usual_step_mm(heights_mm: np.ndarray) -> float:
    """The lower median of the steps: one of those that there are."""
    steps = np.sort(np.diff(heights_mm))
    return float(steps[(len(steps) - 1) // 2])


def unevenness(heights_mm: np.ndarray, rounded_mm: float = ROUNDED_MM) -> str | None:
    """Why slices at these ascending heights are not evenly spaced, as a clause; None where they are.

    They are where every step is the usual one, or that midway between the quartiles of all, to within
    ``step_tolerance_mm``, and no slice is farther than that from its place between the first and the last one.

    Args:
        heights_mm: Ascending, at least two.
        rounded_mm: What rounding to a tenth of a millimetre makes of a step: 0.1 mm, more along an oblique normal.
    """
    steps = np.diff(heights_mm)
    expected = usual_step_mm(heights_mm)
    tolerance = step_tolerance_mm(expected, rounded_mm)
    uneven = np.flatnonzero(np.abs(steps - expected) > tolerance)
    low, high = np.percentile(steps, 25, method="lower"), np.percentile(steps, 75, method="higher")
    middle = float(low + high) / 2
    if uneven.size and (np.abs(steps - middle) > step_tolerance_mm(middle, rounded_mm)).any():
        k = int(uneven[np.argmax(steps[uneven])])
        more = f", and {uneven.size - 1} more uneven steps" if uneven.size > 1 else ""
        kind = "a" if steps[k] > expected else "only a"
        return (
            f"has {kind} {steps[k]:.4g} mm gap between slices {k + 1} and {k + 2} ({expected:.4g} mm expected; at "
            f"{heights_mm[k]:.1f} mm and {heights_mm[k + 1]:.1f} mm along the normal{more})"
        )
    drift = np.abs(heights_mm - np.linspace(heights_mm[0], heights_mm[-1], len(heights_mm)))
    if drift.max() > tolerance:
        k = int(drift.argmax())
        return (
            f"is unevenly spaced: its steps go from {steps.min():.4g} to {steps.max():.4g} mm, "
            f"and slice {k + 1} lies {drift[k]:.2g} mm from an even place"
        )
    return None
