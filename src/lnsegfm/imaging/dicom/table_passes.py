"""Passes of the table: which slices were taken one after the other, by the order of their numbers or times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lnsegfm.imaging.dicom.acquisition_hints import hint_value
from lnsegfm.imaging.dicom.headers import ImagePlane
from lnsegfm.imaging.dicom.slice_steps import ROUNDED_MM, SAME_POSITION_MM, step_tolerance_mm

ORDERS = ("AcquisitionNumber", "AcquisitionTime", "ContentTime", "InstanceNumber")
"""What headers say of the order in which slices were taken, the most telling first."""
PREFIX = "the order of "
"""With one of ``ORDERS``: a hint whose values are passes."""


def coded_passes(planes: Sequence[ImagePlane], heights_mm: np.ndarray, order: str) -> tuple[list[str], np.ndarray]:
    """The passes of the table under which slices were taken in turn, and for each plane which of them it is of.

    A pass goes on as long as each slice lies one and the same step further than the one before it. So a second pass is
    told from the first one, in the same direction or back, though each slice has a number or a time of its own.

    Args:
        planes: In ascending order along the normal.
        heights_mm: Of each, along the normal.
        order: One of ``ORDERS``.

    Returns:
        "1", "2", ... and (planes,) an index into them; one pass for all planes where the header lacks a value.
    """
    ranks = _ranks(planes, order)
    codes = np.zeros(len(planes), int)
    if ranks is None:
        return ["1"], codes
    number, step = 0, 0.0
    for before, after in pairwise(_sequence(ranks, heights_mm)):
        move = float(heights_mm[after] - heights_mm[before])
        if not step and abs(move) > SAME_POSITION_MM:
            step = move
        elif not step or abs(move - step) > step_tolerance_mm(abs(step), 2 * ROUNDED_MM):
            number, step = number + 1, 0.0
        codes[after] = number
    return [str(k + 1) for k in range(number + 1)], codes


def _ranks(planes: Sequence[ImagePlane], order: str) -> np.ndarray | None:
    """The value of each plane; None where one has none, or none that is a number."""
    try:
        if order == "InstanceNumber":
            values = np.array([plane.instance_number for plane in planes], float)  # None becomes NaN
        else:
            values = np.array([float(hint_value(plane, order)) for plane in planes])
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def _sequence(ranks: np.ndarray, heights_mm: np.ndarray) -> list[int]:
    """Indices in the order of ranks; those of one rank (one rotation) in the direction of the table."""
    by_rank = np.argsort(ranks, kind="stable")
    starts = np.flatnonzero(np.diff(ranks[by_rank])) + 1
    blocks = np.split(by_rank, starts)
    means = [float(heights_mm[block].mean()) for block in blocks]
    moves = np.diff(means)
    sequence: list[int] = []
    for k, block in enumerate(blocks):
        thick = float(np.ptp(heights_mm[block])) * len(block) / max(len(block) - 1, 1)
        # of the moves before and after it, that of its own thickness is one within its pass
        down = any(move < 0 for move in sorted(moves[max(k - 1, 0) : k + 1], key=lambda m: abs(abs(m) - thick))[:1])
        sequence += (block[::-1] if down else block).tolist()  # planes are in ascending order
    return sequence
