"""The figures that a mask scores: those that are built in, and those of plugins (entry points ``lnsegfm.metrics``)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from lnsegfm.errors import PluginError, UnknownName
from lnsegfm.plugins import Plugin, PluginTable

Measure = Callable[[np.ndarray, np.ndarray, tuple[float, float, float]], float]


@dataclass(frozen=True)
class Metric:
    """A figure of one label of one case; docs/metrics.md defines the built-in ones.

    Args:
        key: Name of the figure in JSON and CSV, with the unit: a field of `LabelScore`, or a plugin's name.
        title: For a heading, with the unit.
        better: Which way is better; ``zero``: the nearer to 0.
        bounds: Values it cannot leave.
        decimals: Shown to a person.
        measure: Of a plugin's metric: gives the figure of a predicted and a reference mask, boolean (z, y, x), and the
            spacing (z, y, x) in mm; NaN where it is not defined.
    """

    key: str
    title: str
    better: Literal["higher", "lower", "zero"]
    bounds: tuple[float, float]
    decimals: int
    measure: Measure | None = field(default=None, compare=False)

    def text(self, value: float | None, *, signed: bool = False) -> str:
        """The figure for a person; ``n/a`` where it is not defined."""
        if value is None or math.isnan(value):
            return "n/a"
        return f"{round(value, self.decimals) + 0.0:{'+' if signed else ''}.{self.decimals}f}"

    def to_json(self) -> dict[str, Any]:
        """The card as JSON holds it; a bound that is infinite is None."""
        bounds = [bound if math.isfinite(bound) else None for bound in self.bounds]
        plain = {"key": self.key, "title": self.title, "better": self.better, "decimals": self.decimals}
        return {**plain, "bounds": bounds}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Metric:
        """Read what `to_json` gives."""
        low, high = content["bounds"]
        bounds = (-math.inf if low is None else low, math.inf if high is None else high)
        return cls(content["key"], content["title"], content["better"], bounds, content["decimals"])


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("dice", "Dice", "higher", (0.0, 1.0), 3),
        Metric("nsd", "NSD", "higher", (0.0, 1.0), 3),
        Metric("hd95_mm", "HD95 mm", "lower", (0.0, math.inf), 2),
        Metric("assd_mm", "ASSD mm", "lower", (0.0, math.inf), 2),
        Metric("volume_difference_ml", "Volume difference ml", "zero", (-math.inf, math.inf), 2),
    )
}
"""The metrics that every evaluation has."""


def metric_problem(metric: object) -> str | None:
    """What is wrong with a plugin's metric, as a clause; None where nothing is."""
    if not isinstance(metric, Metric):
        return "it is no lnsegfm.evaluation.metric_table.Metric"
    if metric.measure is None or not callable(metric.measure):
        return "it has no function measure(prediction, reference, spacing_mm)"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", metric.key):
        return f"the key {metric.key!r} is not of small letters, digits and _"
    if metric.better not in ("higher", "lower", "zero"):
        return f"better {metric.better!r} is none of higher, lower, zero"
    if not metric.bounds[0] < metric.bounds[1]:
        return f"its bounds {metric.bounds} hold no value"
    return None


def accept_metric(value: Any, plugin: Plugin) -> Metric:
    """A plugin's metric.

    Raises:
        PluginError: It is no metric, or its card is wrong.
    """
    if problem := metric_problem(value):
        raise plugin.error(problem)
    metric: Metric = value
    if metric.key != plugin.name:
        raise plugin.error(f"the metric calls itself {metric.key}, and both names must be the same")
    return metric


PLUGIN_METRICS = PluginTable("metrics", METRICS, accept_metric)


def plugin_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Metrics of plugins by name; those that every evaluation has are left out.

    Raises:
        UnknownName: No package brings one of that name.
        PluginError: A plugin's metric that cannot be used.
    """
    for name in names:
        if name not in PLUGIN_METRICS:
            brought = ", ".join(PLUGIN_METRICS.brought()) or "none is installed"
            raise UnknownName(f"Metric {name}: not known. Metrics of other packages: {brought}.")
        PLUGIN_METRICS.require(name)
    return tuple(PLUGIN_METRICS[name] for name in dict.fromkeys(names) if name not in METRICS)


def plugin_value(
    metric: Metric, prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, float, float]
) -> float:
    """The figure that a plugin's metric gives.

    Raises:
        PluginError: Its function raises, or gives no number.
    """
    if metric.measure is None:
        raise PluginError(f"Metric {metric.key}: it has no function. Use a metric of an installed package.")
    try:
        return float(metric.measure(prediction, reference, spacing_mm))
    except Exception as error:
        plugin = PLUGIN_METRICS.brought().get(metric.key)
        raise PluginError(
            f"Metric {metric.key} of {plugin.package if plugin else 'this process'}: it failed on masks of shape "
            f"{reference.shape} ({type(error).__name__}: {error}). Tell its authors, or leave the metric out."
        ) from error
