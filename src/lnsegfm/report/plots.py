"""The plots of a report, as SVG in data URIs: the same figures give the same bytes.

Every plot carries its numbers in words (``Plot.alt``). Models differ by colour and by marker, so colour is never
needed to distinguish them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from lnsegfm.evaluation.statistics import Estimate
from lnsegfm.report.plot_style import (
    COLOURS,
    INK,
    STYLE,
    Plot,
    data_uri,
    draw_legend,
    draw_mean,
    model_style,
    new_axes,
    shortened,
    spread_dots,
)


@dataclass(frozen=True)
class Curve:
    """Detection at falling probability thresholds.

    Args:
        thresholds: Probabilities.
        false_positives: False positives per scan, at each.
        sensitivity: Share of the nodes that are found, at each.
    """

    thresholds: Sequence[float]
    false_positives: Sequence[float]
    sensitivity: Sequence[float]


def plot_cases(values: Mapping[str, Sequence[float]], means: Mapping[str, Estimate], *, measure: str = "Dice") -> Plot:
    """One dot a case in a row for each label (or model), with the mean and its 95 % interval.

    Args:
        values: The measure of every case, by label; NaN is left out.
        means: Their mean, by label.
        measure: What is measured, on a scale from 0 to 1.
    """
    names = list(values)
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = new_axes(height=0.75 + 0.55 * len(names))
        for row, name in enumerate(names):
            shown = np.array([v for v in values[name] if not math.isnan(v)])
            across = row + spread_dots(shown, 0.22)
            axes.plot(shown, across, "o", color=COLOURS[0], alpha=0.65, markersize=4.5, markeredgewidth=0)
            draw_mean(axes, means[name], row + 0.36)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.4, -0.5), xlabel=measure)
        axes.set_yticks(range(len(names)), [shortened(name) for name in names])
        axes.grid(False, axis="y")
        uri = data_uri(figure)
    parts = [f"{name}: {means[name].text()}, lowest {_least(values[name])}" for name in names]
    return Plot(uri, f"{measure} of each case", f"{measure} of each case. {'; '.join(parts)}.", _MEAN_NOTE)


def plot_pairs(
    base: Sequence[float], adapted: Sequence[float], names: tuple[str, str], means: Sequence[Estimate]
) -> Plot:
    """Dice of two models as paired dots, a line a case; cases that lack one of the two are left out.

    Args:
        base: Dice by case.
        adapted: Of the same cases in the same order.
        names: What the two are called.
        means: The mean of each.
    """
    pairs = [(b, a) for b, a in zip(base, adapted, strict=True) if not (math.isnan(b) or math.isnan(a))]
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = new_axes(width=4.2)
        for b, a in pairs:
            falls: dict[str, Any] = {"color": INK, "linestyle": (0, (4, 2))} if a < b else {"color": "#999999"}
            axes.plot((0, 1), (b, a), linewidth=1.0, **falls)
        for at, column in enumerate(zip(*pairs, strict=True)):
            colour, marker = model_style(at, 2)
            axes.plot([at] * len(column), column, marker, color=colour, markersize=5.5, markeredgecolor="white")
            draw_mean(axes, means[at], at + (0.14 if at else -0.14), upright=True)
        axes.set(xlim=(-0.4, 1.4), ylim=(-0.02, 1.02), ylabel="Dice")
        axes.set_xticks((0, 1), [shortened(name) for name in names])
        axes.grid(False, axis="x")
        uri = data_uri(figure)
    worse = sum(a < b for b, a in pairs)
    alt = (
        f"Dice of {len(pairs)} cases with both models: {names[0]} {means[0].text()}; {names[1]} {means[1].text()}; "
        f"{names[1]} is lower on {worse}."
    )
    return Plot(uri, "Each case with both models", alt, f"Broken lines fall: {names[1]} is worse there. {_MEAN_NOTE}")


def plot_sensitivity(bins: Sequence[str], shares_of: Mapping[str, Sequence[Estimate]], counts: Sequence[int]) -> Plot:
    """Share of the reference's nodes that are found, by short axis, with 95 % intervals.

    Args:
        bins: Names of the bins, smallest first.
        shares_of: The share in each bin, by model.
        counts: Nodes of the reference in each bin.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = new_axes()
        for m, (name, shares) in enumerate(shares_of.items()):
            colour, marker = model_style(m, len(shares_of))
            offset = 0.0 if len(shares_of) == 1 else (-0.12, 0.12)[m]
            for i, share in enumerate(shares):
                if math.isnan(share.value):
                    continue
                if share.interval is not None:
                    axes.plot((i + offset,) * 2, (share.interval.low, share.interval.high), color=colour, linewidth=2)
                label = name if len(shares_of) > 1 and i == _first(shares) else None
                axes.plot(i + offset, share.value, marker, color=colour, markersize=7, label=label)
        axes.set(xlim=(-0.5, len(bins) - 0.5), ylim=(-0.03, 1.03), xlabel="Short axis of the node, mm")
        axes.set_ylabel("Sensitivity")
        axes.set_xticks(range(len(bins)), [f"{name}\nn = {n}" for name, n in zip(bins, counts, strict=True)])
        axes.grid(False, axis="x")
        draw_legend(axes, len(shares_of))
        uri = data_uri(figure)
    parts = [
        f"{name} {', '.join(f'{b} mm: {s.text()} of {n}' for b, s, n in zip(bins, shares, counts, strict=True) if n)}"
        for name, shares in shares_of.items()
    ]
    note = "Bars are 95 % intervals; a size without a bar comes from fewer than three cases."
    return Plot(uri, "Sensitivity by size", f"Sensitivity by short axis. {'; '.join(parts)}.", note)


def plot_froc(curves: Mapping[str, Curve]) -> Plot:
    """Free-response curve: sensitivity against false positives per scan, as the threshold falls.

    Args:
        curves: By model.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = new_axes()
        for m, (name, curve) in enumerate(curves.items()):
            colour, marker = model_style(m, len(curves))
            how: dict[str, Any] = {"color": colour, "markersize": 4, "linewidth": 1.5, "label": shortened(name)}
            axes.plot(curve.false_positives, curve.sensitivity, f"-{marker}", **how)
        axes.set(ylim=(-0.03, 1.03), xlabel="False positives per scan", ylabel="Sensitivity")
        axes.set_xlim(left=0)
        draw_legend(axes, len(curves))
        uri = data_uri(figure)
    parts = []
    for name, curve in curves.items():
        points = zip(curve.thresholds, curve.false_positives, curve.sensitivity, strict=True)
        parts.append(
            f"{name}: "
            + "; ".join(
                f"at probability {t:.2g} sensitivity {s:.2f}, {f:.2g} false positives per scan" for t, f, s in points
            )
        )
    note = "One point for each probability threshold; a lower threshold gives more true and more false positives."
    return Plot(uri, "Sensitivity against false positives per scan (FROC)", f"FROC. {'. '.join(parts)}.", note)


def plot_volumes(reference_ml: Mapping[str, Sequence[float]], prediction_ml: Mapping[str, Sequence[float]]) -> Plot:
    """Agreement of volumes: ratio of prediction to reference against their geometric mean, on log scales.

    Volumes of nodes and of organs span decades and their errors grow with them, so limits of agreement are those of
    the ratio: exp(mean ± 1.96 SD) of its logarithm (Bland and Altman, Statistical Methods in Medical Research 8, 1999,
    section 3.1). A case in which one of the two is empty has no ratio; it is counted in words and is not drawn.

    Args:
        reference_ml: Volume in each case, by label or by model.
        prediction_ml: Of the same cases in the same order.
    """
    parts, ratios = [], []
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = new_axes()
        for m, name in enumerate(reference_ml):
            predicted, expected = np.array(prediction_ml[name], float), np.array(reference_ml[name], float)
            both = (predicted > 0) & (expected > 0)
            ratio, size = predicted[both] / expected[both], np.sqrt(predicted[both] * expected[both])
            colour, marker = model_style(m, len(reference_ml))
            axes.plot(
                size, ratio, marker, color=colour, alpha=0.75, markersize=5, markeredgewidth=0, label=shortened(name)
            )
            ratios += list(ratio)
            if len(reference_ml) <= 2:
                _agreement(axes, ratio, colour)
            only = f"{int(np.sum((predicted > 0) & (expected == 0)))} with a prediction only, "
            only += f"{int(np.sum((predicted == 0) & (expected > 0)))} with a reference only"
            parts.append(f"{name}: {_agreed(ratio)}; {only}")
        axes.axhline(1.0, color=INK, linewidth=1.0)
        reach = max([2.0, *(max(r, 1 / r) for r in ratios)]) * 1.15
        axes.set(xscale="log", yscale="log", ylim=(1 / reach, reach), ylabel="Prediction / reference")
        axes.set_xlabel("Volume, ml (geometric mean of both)")
        ticks = [v for v in (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100) if 1 / reach <= v <= reach]
        axes.set_yticks(ticks, [f"{v:g}" for v in ticks])
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if not ratios:
            axes.set_xlim(0.1, 10)
        draw_legend(axes, len(reference_ml))
        uri = data_uri(figure)
    note = "A case in which one of both is empty has no ratio."
    if len(reference_ml) <= 2:
        lines = "Dashed: mean ratio; dotted: limits within which 95 % of such scans lie."
        note = f"{lines} {'; '.join(parts)}."
    return Plot(uri, "Agreement of volumes", f"Ratio of predicted to reference volume. {'; '.join(parts)}.", note)


_MEAN_NOTE = "Black: mean and its 95 % interval."


def _agreement(axes: Axes, ratio: np.ndarray, colour: str) -> None:
    if len(ratio) < 2:
        return
    middle, reach = np.log(ratio).mean(), 1.96 * np.log(ratio).std(ddof=1)
    axes.axhline(np.exp(middle), color=colour, linestyle=(0, (6, 3)), linewidth=1.2)
    for sign in (-1, 1):
        axes.axhline(np.exp(middle + sign * reach), color=colour, linestyle=(0, (1, 2)), linewidth=1.2)


def _agreed(ratio: np.ndarray) -> str:
    if not len(ratio):
        return "no case with both volumes"
    middle = f"mean ratio {np.exp(np.log(ratio).mean()):.2f} over {len(ratio)} cases"
    if len(ratio) < 2:
        return middle
    reach = 1.96 * np.log(ratio).std(ddof=1)
    low, high = (np.exp(np.log(ratio).mean() + sign * reach) for sign in (-1, 1))
    return f"{middle}, limits of agreement {low:.2f} to {high:.2f}"


def _first(shares: Sequence[Estimate]) -> int:
    return next((i for i, share in enumerate(shares) if not math.isnan(share.value)), -1)


def _least(values: Sequence[float]) -> str:
    shown = [v for v in values if not math.isnan(v)]
    return f"{min(shown):.2f}" if shown else "n/a"
