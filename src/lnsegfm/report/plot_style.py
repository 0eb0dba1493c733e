"""What all plots of the report share: the plot as a value, colours, markers, axes, legends, and the SVG."""

from __future__ import annotations

import base64
import io
import math
import warnings
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from lnsegfm.evaluation.statistics import Estimate

# Okabe and Ito again, the shades that show on white; the base has the second, the model that is judged the first
COLOURS = ("#0072B2", "#D55E00")
MARKERS = ("o", "s")
STYLE = {
    "svg.hashsalt": "lnsegfm",
    "svg.fonttype": "none",  # the browser has the letters of every script; matplotlib's own font has not
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}
INK = "#1b1b1b"
HEIGHT_IN = 3.1


@dataclass(frozen=True)
class Plot:
    """A plot and what it says.

    Args:
        uri: ``data:image/svg+xml;base64,...``.
        title: What it shows.
        alt: The same in numbers.
        note: How to read it; may be empty.
    """

    uri: str
    title: str
    alt: str
    note: str = ""


def new_axes(*, width: float = 5.2, height: float = HEIGHT_IN) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    return figure, figure.subplots()


def draw_mean(axes: Axes, estimate: Estimate, at: float, *, upright: bool = False) -> None:
    """A diamond at the mean and a line over its interval; nothing where it is not defined."""
    if math.isnan(estimate.value):
        return
    ends = (
        (estimate.interval.low, estimate.interval.high)
        if estimate.interval is not None
        else (estimate.value, estimate.value)
    )
    line, dot = (ends, (at, at)), (estimate.value, at)
    axes.plot(*(line[::-1] if upright else line), color=INK, linewidth=2.0, solid_capstyle="butt")
    axes.plot(*(dot[::-1] if upright else dot), "D", color=INK, markersize=5.5)


def spread_dots(values: np.ndarray, most: float) -> np.ndarray:
    """Vertical offsets that keep dots from covering each other: alternating, in order of value."""
    places = np.zeros(len(values))
    order = np.argsort(values, kind="stable")
    for rank, i in enumerate(order):
        places[i] = most * (rank % 5 - 2) / 2 if len(values) > 1 else 0.0
    return places


def model_style(m: int, models: int) -> tuple[str, str]:
    """Colour and marker of the m-th of so many models (or labels): the last of two is the one that is judged."""
    if models == 2:
        m = 1 - m
    return COLOURS[m % 2], (*MARKERS, "^", "D", "v", "P", "X")[m % 7]


def draw_legend(axes: Axes, models: int) -> None:
    """A legend where there is more than one model, outside the axes where there are many."""
    if models > 2:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    elif models > 1:
        axes.legend(loc="best", fontsize=8)


def shortened(name: str, most: int = 24) -> str:
    """A name that fits an axis."""
    # a dollar sign would start matplotlib's mathematics
    return (name if len(name) <= most else f"{name[: most - 1]}…").replace("$", r"\$")


def data_uri(figure: Figure) -> str:
    """The figure as SVG in a data URI: the same figure gives the same bytes."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"
