"""Tables and plots of docs/comparison.md from the results, and nothing that is not in them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.study.arms import METHODS, SERIOUS, VARIANTS
from benchmarks.study.settings import SETTINGS
from lnsegfm.evaluation.statistics import holm, paired

PAGE = Path(__file__).parents[2] / "docs" / "comparison.md"
RESAMPLES = 4000
REFERENCE = "full"
SHOTS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Scores:
    """Dice of one arm at one number of shots.

    Args:
        target: (draws, cases), mean over labels.
        source: (draws, cases) of the base's own task.
        runs: The results.
    """

    target: np.ndarray
    source: np.ndarray
    runs: Sequence[Mapping[str, Any]]


def read(results: Path, setting: str) -> dict[tuple[str, int], Scores]:
    """All results of a setting by (arm, shots); an arm that trains nothing counts for every number of shots."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for file in sorted((results / setting).glob("*-s*-d*.json")):
        run = json.loads(file.read_text())
        for shots in SHOTS if run["iterations"] == 0 else (run["shots"],):
            runs.setdefault((run["arm"], shots), []).append(run)
    found = {}
    for key, those in runs.items():
        those.sort(key=lambda run: run["draw"])
        found[key] = Scores(_grid(those, "dice"), _grid(those, "source_dice"), those)
    return found


def _grid(runs: Sequence[Mapping[str, Any]], part: str) -> np.ndarray:
    cases = sorted(runs[0][part])
    return np.array([[np.nanmean(list(run[part][case].values())) for case in cases] for run in runs])


def interval(grid: np.ndarray) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean over a (draws, cases) grid, draws and cases resampled independently."""
    generator = np.random.default_rng(0)
    draws, cases = grid.shape
    rows = generator.integers(draws, size=(RESAMPLES, draws))
    columns = generator.integers(cases, size=(RESAMPLES, cases))
    means = grid[rows[:, :, None], columns[:, None, :]].mean(axis=(1, 2))
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def against(scores: Scores, reference: Scores, part: str) -> np.ndarray | None:
    """Paired differences (draws, cases) to a reference, over the draws that both have."""
    ours = {run["draw"]: row for run, row in zip(scores.runs, getattr(scores, part), strict=True)}
    theirs = {run["draw"]: row for run, row in zip(reference.runs, getattr(reference, part), strict=True)}
    if len(theirs) == 1 and reference.runs[0]["iterations"] == 0:
        theirs = dict.fromkeys(ours, next(iter(theirs.values())))
    common = sorted(ours.keys() & theirs.keys())
    return np.array([ours[d] - theirs[d] for d in common]) if common else None


def corrected(
    found: Mapping[tuple[str, int], Scores], arms: Iterable[str], shots: int, reference: str
) -> dict[str, float]:
    """P value of each arm against the reference, over cases (mean over draws), corrected for their number (Holm)."""
    p = {}
    for arm in arms:
        scores, other = found.get((arm, shots)), found.get((reference, shots))
        if scores is None or other is None or arm in (reference, "zero-shot"):
            continue
        over = against(scores, other, "target")
        if over is not None:
            p[arm] = paired(over.mean(axis=0), np.zeros(over.shape[1])).p
    return holm(p)


def main_table(
    found: Mapping[tuple[str, int], Scores], arms: Sequence[str], shots: int = 5, reference: str = REFERENCE
) -> list[str]:
    """A row an arm: what it reached, what it kept, what it moved."""
    zero, other = found.get(("zero-shot", shots)), found.get((reference, shots))
    p = corrected(found, arms, shots, reference)
    lines = [
        f"| method | lr | draws | Dice, mean [95 %] | median | against {reference} [95 %] | p | base's task "
        "| forgotten [95 %] | one step moves | moved in the end |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        scores = found.get((arm, shots))
        if scores is None:
            continue
        run = scores.runs[0]
        moves, learns = run["moves"], run["lr"] is not None
        moved = np.mean([r["entries_moved"] for r in scores.runs]) / moves["total"]
        lost = against(scores, zero, "source") if zero is not None else None
        over = against(scores, other, "target") if other is not None and arm not in (reference, "zero-shot") else None
        cells = [
            arm,
            f"{run['lr']:g}" if learns else "",
            str(len(scores.runs)) if learns else "",
            f"{scores.target.mean():.3f} {_span(interval(scores.target))}",
            f"{np.median(scores.target):.3f}",
            "" if over is None else f"{over.mean():+.3f} {_span(interval(over), sign=True)}",
            f"{p[arm]:.2g}" if arm in p else "",
            f"{scores.source.mean():.3f}",
            "" if lost is None or arm == "zero-shot" else f"{-lost.mean():+.3f} {_span(interval(-lost), sign=True)}",
            f"{moves['per_step'] / moves['total']:.2%}" if run["lr"] is not None else "",
            f"{moved:.2%}" if learns else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def shots_table(found: Mapping[tuple[str, int], Scores], arms: Iterable[str]) -> list[str]:
    """Dice of the target / of the base's own task by number of shots."""
    there = [shots for shots in SHOTS if any(key[1] == shots and key[0] != "zero-shot" for key in found)]
    lines = [
        f"| method | {' | '.join(f'{s} shot' + 's' * (s > 1) for s in there)} |",
        "|---" * (len(there) + 1) + "|",
    ]
    for arm in arms:
        if not any((arm, shots) in found for shots in there):
            continue
        cells = []
        for shots in there:
            scores = found.get((arm, shots))
            cells.append(
                ""
                if scores is None
                else f"{scores.target.mean():.3f} {_span(interval(scores.target))} / {scores.source.mean():.3f}"
            )
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return lines


def _span(ends: tuple[float, float], *, sign: bool = False) -> str:
    return "[{:+.3f}, {:+.3f}]".format(*ends) if sign else "[{:.3f}, {:.3f}]".format(*ends)


def plot(results: Path, file: Path) -> None:
    """Target against the base's own task at 5 shots, a panel a setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [name for name in SETTINGS if (results / name).is_dir()]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(4.2 * len(shown), 4.2), squeeze=False)
    for axis, name in zip(axes[0], shown, strict=True):
        found = read(results, name)
        for arm in (a.name for a in METHODS):
            scores = found.get((arm, 5))
            if scores is None or arm == "scratch":
                continue
            marked = arm in SERIOUS
            axis.plot(
                scores.source.mean(), scores.target.mean(), "o" if marked else ".", color="C0" if marked else "0.5"
            )
            axis.annotate(arm, (scores.source.mean(), scores.target.mean()), fontsize=7, xytext=(4, 2),
                          textcoords="offset points")  # fmt: skip
        axis.set_title(SETTINGS[name].title, fontsize=8)
        axis.set_xlabel("Dice on the base's own task, after adaptation", fontsize=8)
        axis.set_ylabel("Dice on the new scans", fontsize=8)
        axis.grid(alpha=0.3)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def blocks(results: Path) -> dict[str, str]:
    """The generated parts of the page by name."""
    made = {}
    for name in SETTINGS:
        if not (results / name).is_dir():
            continue
        found = read(results, name)
        made[f"{name} methods"] = "\n".join(main_table(found, [arm.name for arm in METHODS]))
        made[f"{name} shots"] = "\n".join(shots_table(found, SERIOUS))
        variants = ["dgst-bounded", *(arm.name for arm in VARIANTS)]
        made[f"{name} variants"] = "\n".join(main_table(found, variants, reference="dgst-bounded"))
    return made


def fill(page: str, made: Mapping[str, str]) -> str:
    """Put each block between its markers."""
    for name, text in made.items():
        pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = pattern.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)
    return page


def write_tables(results: Path) -> None:
    """Write tables and the plot into the docs."""
    plot(results, PAGE.parent / "comparison.png")
    PAGE.write_text(fill(PAGE.read_text(), blocks(results)))
