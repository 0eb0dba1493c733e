"""Dice, volumes and intervals as people read them."""

from __future__ import annotations

from lnsegfm.evaluation.metric_table import METRICS
from lnsegfm.evaluation.statistics import Interval


def dice_text(value: float | None, *, signed: bool = False) -> str:
    """A Dice or a difference with three decimals, ``n/a`` where it is not defined."""
    return METRICS["dice"].text(value, signed=signed)


def ml_text(value: float) -> str:
    """A volume with two decimals, ``n/a`` where it was not measured."""
    return METRICS["volume_difference_ml"].text(value)


def interval_text(interval: Interval | None, metric: str = "dice") -> str:
    """An interval of differences, ``n/a`` where there is none."""
    if interval is None:
        return "n/a"
    low, high = (METRICS[metric].text(end, signed=True) for end in (interval.low, interval.high))
    return f"{low} to {high}"


def distance_text(difference: float) -> str:
    """The size of a difference in a sentence: two decimals, three where two would say nothing."""
    size = abs(difference)
    if size < 0.0005:
        return "less than 0.001 Dice"
    return f"{size:.3f} Dice" if size < 0.0095 else f"{size:.2f} Dice"
