"""Learning curves: a measure over the number of shots, a line a method."""

from __future__ import annotations

import matplotlib.style

from lnsegfm.evaluation.crossed_statistics import CrossedMean
from lnsegfm.report.figure_text import dice_text
from lnsegfm.report.plot_style import INK, MARKERS, STYLE, Plot, data_uri, new_axes, shortened

# Okabe and Ito, the shades that show on white
_SHADES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#555555")
_SHAPES = (*MARKERS, "^", "D", "v", "P", "X")
_ASIDE = 0.012
"""Of the width, by which methods stand beside each other, so that intervals do not cover each other."""


def plot_learning_curves(
    title: str, curves: dict[str, dict[int, CrossedMean]], base: CrossedMean | None, measure: str = "Dice"
) -> Plot:
    """A line a method, with 95 % intervals; the base is a line across.

    Args:
        title: What is shown.
        curves: By method, the mean at each number of shots.
        base: The base's mean; None where it cannot be scored.
        measure: What is measured.
    """
    every = sorted({shots for curve in curves.values() for shots in curve})
    places = {shots: float(place) for place, shots in enumerate(every)}
    step = _ASIDE * max(1.0, places[every[-1]])
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = new_axes(width=5.6, height=3.4)
        if base is not None:
            axes.axhline(base.value, color=INK, linestyle=(0, (5, 3)), linewidth=1.2, label="base")
        for number, (name, curve) in enumerate(curves.items()):
            aside = (number - (len(curves) - 1) / 2) * step
            across = [places[shots] + aside for shots in curve]
            colour, shape = _SHADES[number % len(_SHADES)], _SHAPES[number % len(_SHAPES)]
            axes.plot(
                across, [found.value for found in curve.values()], f"-{shape}", color=colour, markersize=5,
                linewidth=1.4, label=shortened(name),
            )  # fmt: skip
            for at, found in zip(across, curve.values(), strict=True):
                if found.interval is not None:
                    axes.plot((at, at), found.interval, color=colour, linewidth=1.4)
        axes.set_xticks(list(places.values()), [str(shots) for shots in every])
        axes.set(xlabel="Shots", ylabel=measure, xlim=(-0.25, places[every[-1]] + 0.25))
        axes.grid(False, axis="x")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        uri = data_uri(figure)
    parts = [
        f"{name}: " + ", ".join(f"{shots} shots {dice_text(found.value)}" for shots, found in curve.items())
        for name, curve in curves.items()
    ]
    start = f"base {dice_text(base.value)}; " if base is not None else ""
    note = "Lines up and down: 95 % intervals over draws and cases."
    return Plot(uri, title, f"{measure} over shots. {start}{'; '.join(parts)}.", note)
