"""The laws of a metric, on masks of a few overlapping boxes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product

import numpy as np

from lnsegfm.evaluation.metric_table import Metric, metric_problem
from lnsegfm.testing.law import require

SHAPE = (9, 12, 11)
SPACING_MM = (3.0, 0.8, 1.1)
SEEDS = range(8)
POWERS = {"_mm": 1, "_mm2": 2, "_mm3": 3, "_ml": 3}
"""The power of the spacing that a figure grows with, by the unit at the end of its key."""


def lump(seed: int) -> np.ndarray:
    """A mask (9, 12, 11) of a few overlapping boxes: concave, in several components or at the border at times."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, dtype=bool)
    for _ in range(rng.integers(1, 4)):
        low = [rng.integers(0, n - 3) for n in SHAPE]
        high = [a + rng.integers(2, 5) for a in low]
        mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def check_metric(metric: Metric, *, any_axis: bool = True) -> None:
    """Check that a metric keeps the laws of all metrics.

    It gives a number within its bounds, or NaN, for any two masks, empty ones included; no mask scores better than the
    reference itself; masks are not changed; the order in memory, empty voxels around and the sense of the axes change
    nothing; a figure whose key ends in a unit of length grows with the spacing.

    Args:
        metric: The card with its function.
        any_axis: Whether the order of the axes changes nothing, too; not so for what is measured in axial slices.

    Raises:
        AssertionError: A law is broken; the text says which.
    """
    problem = metric_problem(metric)
    require(problem is None, f"metric {getattr(metric, 'key', metric)}: {problem}")
    for one, other in product((np.zeros(SHAPE, bool), np.ones(SHAPE, bool)), repeat=2):
        _figure(metric, one, other)
    for seed in SEEDS:
        one, other = lump(seed), lump(1000 + seed)
        value, best = _figure(metric, one, other), _figure(metric, other, other)
        _require_no_better(metric, value, best)
        _same(metric, value, _figure(metric, one, other), "asked twice it gives two figures")
        strided = np.asfortranarray(one), np.asfortranarray(other)
        _same(metric, value, _figure(metric, *strided), "it depends on the order in memory")
        around = [(seed % 3, 1), (0, 2), (1, seed % 2)]
        padded = np.pad(one, around), np.pad(other, around)
        _same(metric, value, _figure(metric, *padded), "empty voxels around the masks change it")
        _check_axes(metric, one, other, value, any_axis)
        _check_unit(metric, one, other, value)


def _figure(
    metric: Metric,
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float] = SPACING_MM,
) -> float:
    given = prediction.copy(), reference.copy()
    try:
        z, y, x = spacing_mm
        value = metric.measure(prediction, reference, (z, y, x))  # type: ignore[misc]  # the card has one
    except Exception as error:
        voxels = f"{int(prediction.sum())} and {int(reference.sum())} voxels"
        raise AssertionError(f"metric {metric.key}: masks of {voxels} raise {type(error).__name__}: {error}") from error
    unchanged = np.array_equal(prediction, given[0]) and np.array_equal(reference, given[1])
    require(unchanged, f"metric {metric.key}: it changes the masks that it is given")
    number = isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)
    require(number, f"metric {metric.key}: it gives {value!r}, which is no number")
    low, high = metric.bounds
    inside = math.isnan(value) or low <= value <= high
    require(inside, f"metric {metric.key}: {value} is outside its bounds {low} to {high}")
    return float(value)


def _require_no_better(metric: Metric, value: float, best: float) -> None:
    worse = {"higher": value <= best, "lower": value >= best, "zero": abs(value) >= abs(best)}[metric.better]
    undefined = math.isnan(value) or math.isnan(best)
    text = f"a wrong mask scores {value}, the reference itself {best}, and {metric.better} is better"
    require(worse or undefined, f"metric {metric.key}: {text}")


def _check_axes(metric: Metric, one: np.ndarray, other: np.ndarray, value: float, any_axis: bool) -> None:
    for axis in range(3):
        flipped = np.flip(one, axis), np.flip(other, axis)
        _same(metric, value, _figure(metric, *flipped), f"turning axis {axis} round changes it")
    order = (2, 0, 1) if any_axis else (0, 2, 1)
    spacing_mm = [SPACING_MM[axis] for axis in order]
    found = _figure(metric, one.transpose(order), other.transpose(order), spacing_mm)
    _same(metric, value, found, f"the order {order} of the axes changes it")


def _check_unit(metric: Metric, one: np.ndarray, other: np.ndarray, value: float) -> None:
    unit = re.search(r"_(mm3|mm2|mm|ml)$", metric.key)
    if unit is None:
        return
    expected = value * 2 ** POWERS[unit[0]]
    text = f"with twice the spacing it is not {2 ** POWERS[unit[0]]} times as much, as its unit says"
    _same(metric, expected, _figure(metric, one, other, [2 * mm for mm in SPACING_MM]), text)


def _same(metric: Metric, expected: float, value: float, text: str) -> None:
    both = math.isnan(expected) and math.isnan(value)
    near = math.isclose(expected, value, rel_tol=1e-6, abs_tol=1e-9)
    require(both or near, f"metric {metric.key}: {text} ({expected} and {value})")
