"""How stacks of slices lie to each other along the normal, by their ascending heights."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lnsegfm.imaging.dicom.slice_steps import step_tolerance_mm, usual_step_mm


def overlap(stacks: Sequence[np.ndarray]) -> bool:
    """Whether two stacks, each with its ascending heights, have a range in common."""
    ends = sorted((float(heights[0]), float(heights[-1])) for heights in stacks)
    return any(before[1] > after[0] for before, after in pairwise(ends))


def mean_step_mm(heights_mm: np.ndarray) -> float:
    """The mean of the steps."""
    return float(heights_mm[-1] - heights_mm[0]) / (len(heights_mm) - 1)


def same_heights(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two stacks lie at the same heights."""
    return len(one) == len(other) and bool(np.abs(one - other).max() <= step_tolerance_mm(usual_step_mm(one)))


def lacks_slices(lower: np.ndarray, upper: np.ndarray, as_stated: bool) -> bool:
    """Whether two stacks look like one that lacks the slices between them, or that moved in its plane there.

    They do where they have one distance of slices and the gap is one or two of them; or any whole number of them, if
    there are fewer stacks than acquisitions, so that a gap within a series is no gap between two.
    """
    gap, step = float(upper[0] - lower[-1]), usual_step_mm(lower)
    tolerance = step_tolerance_mm(step)
    if gap <= 0 or abs(usual_step_mm(upper) - step) > tolerance:
        return False
    times = round(gap / step)
    return times >= 1 and abs(gap - times * step) <= tolerance and (times <= 2 or not as_stated)
