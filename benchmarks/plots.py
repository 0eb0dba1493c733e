"""Figures of the documentation from what the benchmarks left in ``results/``.

    python -m benchmarks.plots --results results --out docs/figures

A result that is not there gives no figure. Bars stand from zero; what lies far apart is drawn as points. Both axes of
seconds against size are logarithmic, so that proportional growth is a straight line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsegfm.storage import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Result = Mapping[str, Any]

STAGES = {
    "plan and preprocess": ("plan", "preprocess", "check and preprocess"),
    "start of training": ("start of training",),
    "training": ("training",),
    "held-out evaluation": ("held-out evaluation",),
    "only ours: the base on the same scans, report": ("the base on the same scans", "report"),
}
"""Stages as they are drawn, and what of the arms' stages they hold."""
COLOURS = ("#4c72b0", "#8c8c8c", "#dd8452", "#55a868", "#c9b7dc")
OURS, STOCK, FLOOR = "#55a868", "#4c72b0", "#404040"


def whole(result: Result) -> Figure:
    """The whole way by stage and arm, and the floor."""
    figure, axes = blank((9, 3.4))
    arms = result["arms"]
    names = [
        f"{arm}\n{found['seconds_median']:.0f} s, {found['peak_mib'] / 1024:.1f} GiB" for arm, found in arms.items()
    ]
    left = [0.0] * len(arms)
    for (stage, parts), colour in zip(STAGES.items(), COLOURS, strict=True):
        widths = [sum(found["stages_median_s"].get(part, 0.0) for part in parts) for found in arms.values()]
        if any(widths):
            axes.barh(names, widths, left=left, color=colour, label=stage)
            left = [a + b for a, b in zip(left, widths, strict=True)]
    floor = result["floor"]
    least = floor["training_s"] + floor["prediction_s"]
    axes.axvline(least, color=FLOOR, linestyle="--", label=f"the network alone, in torch's own layers, {least:.0f} s")
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    setting = result["setting"]
    axes.set_title(
        f"{setting['shots']} scans to train on, {setting['iterations']} iterations, {setting['held_out']} held out, "
        f"{setting['cores']} cores",
        fontsize=10,
    )
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0.0, -0.2), ncols=2, frameon=False)
    return figure


def growth(result: Result) -> Figure:
    """Seconds and memory against size, with proportional growth from size 1."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    parts = result["growth"]
    figure, axes = blank((3.0 * len(parts), 5.4), rows=2, columns=len(parts))
    for (name, found), upper, lower in zip(parts.items(), axes[0], axes[1], strict=True):
        sizes = found["sizes"]
        upper.plot(sizes, found["seconds"], "o-", color=OURS, label="measured")
        start = found["seconds"][sizes.index(1) if 1 in sizes else 0] / (1 if 1 in sizes else sizes[0])
        upper.plot(sizes, [start * size for size in sizes], "--", color=FLOOR, label="proportional")
        upper.set_xscale("log", base=2)
        upper.set_yscale("log")
        upper.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        upper.yaxis.set_minor_locator(NullLocator())
        upper.set_title(name, fontsize=10)
        lower.plot(sizes, found["above_start_mib"], "o-", color=OURS)
        lower.set_xscale("log", base=2)
        lower.set_ylim(bottom=0)
        lower.set_xlabel("times the volume" if found["grows with"] == "volume" else "shots")
        for each in (upper, lower):
            each.xaxis.set_major_locator(FixedLocator(sizes))
            each.xaxis.set_minor_locator(NullLocator())
            each.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        upper.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axes[0][0].set_ylabel("seconds")
    axes[1][0].set_ylabel("MiB above the start")
    axes[0][0].legend(fontsize=8, frameon=False)
    return figure


def pairs(rows: Sequence[tuple[str, float, float]], title: str, unit: str) -> Figure:
    """Stock beside ours as points on a logarithmic axis, because they lie far apart, with the ratio."""
    figure, axes = blank((7, 0.9 + 0.36 * len(rows)))
    for at, (_, stock, ours) in enumerate(rows):
        axes.plot([ours, stock], [at, at], color="#c8c8c8", linewidth=2, zorder=1)
        axes.plot(stock, at, "s", color=STOCK, label="nnU-Net" if at == 0 else None)
        axes.plot(ours, at, "o", color=OURS, label="lnsegfm" if at == 0 else None)
        axes.text(max(stock, ours) * 1.15, at, f"{stock / ours:.1f} times", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_xscale("log")
    axes.set_xlim(right=3 * max(max(stock, ours) for _, stock, ours in rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    return figure


def resampling(result: Result) -> Figure:
    """Resampling and export."""
    rows = [
        (words(name), *(found[side]["seconds_median"] for side in ("stock", "ours")))
        for name, found in result.items()
        if isinstance(found, Mapping) and {"stock", "ours"} <= found.keys()
    ]
    shape, new = ("x".join(map(str, result[key])) for key in ("shape", "new_shape"))
    return pairs(rows, f"{shape} to {new} voxels", "seconds")


def words(task: str) -> str:
    """``export_2`` as ``export, 2 classes``."""
    name, _, classes = task.partition("_")
    return f"{name}, {classes} classes" if classes else name


def augmentation(result: Result) -> Figure:
    """CPU time of a training sample."""
    found = result["cpu_seconds_a_sample"]
    rows = [
        (word, *(1e3 * found[side][key] for side in ("stock", "ours")))
        for word, key in (("mean", "mean_s"), ("median", "median_s"), ("third quartile", "q3_s"))
    ]
    patch = "x".join(map(str, result["settings"]["patch"]))
    return pairs(rows, f"Making a training sample of {patch} voxels", "CPU milliseconds")


def prediction(result: Result) -> Figure:
    """Prediction of one large scan: seconds and memory."""
    figure, (left, right) = blank((8.5, 2.6), columns=2)
    sides = [side for side in ("stock", "ours", "ours_air") if side in result]
    names = {"stock": "nnU-Net", "ours": "lnsegfm", "ours_air": "lnsegfm,\nair passed over"}
    labels = [names[side] for side in sides]
    tiles = [result[side]["tiles"] for side in sides]
    left.barh(labels, tiles, color=COLOURS[2], label="sliding window")
    left.barh(labels, [result[side]["export"] for side in sides], left=tiles, color=COLOURS[3], label="export")
    left.set_xlabel("seconds")
    left.legend(fontsize=8, frameon=False)
    right.barh(labels, [result[side]["peak_mib"] / 1024 for side in sides], color=[STOCK, OURS, OURS][: len(sides)])
    right.set_xlabel("peak memory, GiB")
    for axes in (left, right):
        axes.invert_yaxis()
    figure.suptitle(f"One scan of {'x'.join(map(str, result['case']['shape']))} voxels", fontsize=10)
    return figure


def cohort(result: Result) -> Figure:
    """What a scan of a cohort costs after the first one, and what of it the network would take alone."""
    figure, axes = blank((5.5, 2.6))
    rows = [(row, side) for row in result["cohorts"] for side in ("in_turn", "overlapping")]
    labels = [f"threads: {row['threads']}, {side.replace('_', ' ')}" for row, side in rows]
    alone = [row["in_turn"]["network_later"] for row, _ in rows]
    later = [row[side]["later_scan"] for row, side in rows]
    axes.barh(labels, alone, color=STOCK, label="the network alone")
    axes.barh(labels, [a - b for a, b in zip(later, alone, strict=True)], left=alone, color=OURS, label="all else")
    axes.set_xlabel(f"seconds a scan, the second to the last of {result['cohorts'][0]['scans']}")
    axes.invert_yaxis()
    figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)
    return figure


FIGURES: dict[str, Callable[[Result], Figure]] = {
    "whole": whole,
    "growth": growth,
    "cohort": cohort,
    "prediction": prediction,
    "resampling": resampling,
    "augmentation": augmentation,
}


def blank(size: tuple[float, float], rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """A figure with axes that has no window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns)
    for each in figure.axes:
        _plain(each)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def write_figures(results: Path, out: Path, device: str = "cpu") -> list[Path]:
    """Draw what can be drawn; gives the files. The same results give the same bytes."""
    import matplotlib

    written = []
    out.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "lnsegfm", "svg.fonttype": "path"}):
        for name, draw in FIGURES.items():
            file = results / f"{name}_{device}.json"
            if file.is_file():
                place = out / f"{name}.svg"
                draw(read_json(file)).savefig(place, metadata={"Date": None}, bbox_inches="tight")
                written.append(place)
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--device", default="cpu")
    chosen = parser.parse_args()
    for place in write_figures(chosen.results, chosen.out, chosen.device):
        print(place)
    return 0


if __name__ == "__main__":
    sys.exit(main())
