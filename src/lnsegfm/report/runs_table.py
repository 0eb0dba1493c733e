"""What several runs gave, of bases, methods and draws, as a table: for the terminal, as CSV and as JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lnsegfm.evaluation.statistics import Interval
from lnsegfm.messages import counted
from lnsegfm.report.comparison_json import from_json
from lnsegfm.report.figure_text import dice_text, interval_text
from lnsegfm.storage import atomic_write

_COLUMNS = (
    "base",
    "method",
    "draw",
    "run",
    "shots",
    "held_out",
    "dice_base",
    "dice_adapted",
    "difference",
    "interval_low",
    "interval_high",
    "iterations",
    "seconds",
    "failed",
)


@dataclass(frozen=True)
class PlannedRun:
    """One of several runs.

    Args:
        base: The base, as it was named.
        method: Name of the method.
        draw: Which draw of the shots.
        folder: Its folder, below that of all.
    """

    base: str
    method: str
    draw: int
    folder: str


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """What came of one of several runs; Dice is the mean over the held-out cases.

    Args:
        run: Which one.
        shots: Scans trained on.
        held_out: Scans held out.
        dice_base: Of the base; NaN where it does not predict, or nothing was held out.
        dice_adapted: Of the adapted model; NaN where nothing was held out.
        difference: Adapted less base.
        interval: Its 95 % interval over cases, where there is one.
        iterations: Steps of the training.
        seconds: Of the training.
        failed: Why there is no result; empty where there is one.
    """

    run: PlannedRun
    shots: int = 0
    held_out: int = 0
    dice_base: float = math.nan
    dice_adapted: float = math.nan
    difference: float = math.nan
    interval: Interval | None = None
    iterations: int = 0
    seconds: float = math.nan
    failed: str = ""


def row_of(run: PlannedRun, record: Mapping[str, Any], folder: Path) -> RunRow:
    """The row of a finished run.

    Args:
        run: Which one.
        record: What its ``run.json`` holds.
        folder: Its folder.
    """
    known = {
        "run": run,
        "shots": len(record["shots"]),
        "held_out": len(record["held_out"]),
        "iterations": record["training"]["iterations"],
        "seconds": record["training"].get("seconds", math.nan),
    }
    if record["result"] is None:
        return RunRow(**known)
    difference = from_json(record["result"], folder).difference()
    return RunRow(
        **known,
        dice_base=difference.base_mean,
        dice_adapted=difference.adapted_mean,
        difference=difference.mean,
        interval=difference.interval,
    )


def over_draws(rows: Sequence[RunRow]) -> dict[tuple[str, str], tuple[int, float, float]]:
    """Of each base and method: the draws that gave a Dice, its mean over them, and the sample SD (NaN of one draw)."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if not math.isnan(row.dice_adapted):
            found.setdefault((row.run.base, row.run.method), []).append(row.dice_adapted)
    return {key: (len(values), _mean(values), _sd(values)) for key, values in found.items()}


def runs_table(rows: Sequence[RunRow]) -> Table:
    """A row a run; several bases are numbered, `sentences_on_runs` names them."""
    bases = _bases(rows)
    several = len(bases) > 1
    table = Table(title="Runs, mean Dice over the held-out cases", padding=(0, 0, 0, 1))
    table.add_column("Method", no_wrap=True)
    for name in (*(["Base"] if several else []), "Draw", "Cases", "Before", "After", "Change", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        figures = [dice_text(row.dice_base), dice_text(row.dice_adapted), dice_text(row.difference, signed=True)]
        figures += [interval_text(row.interval)]
        cells = ["failed", "", "", "", ""] if row.failed else [str(row.held_out), *figures]
        number = [str(1 + bases.index(row.run.base))] if several else []
        table.add_row(Text(row.run.method), *number, str(row.run.draw), *cells)
    return table


def _bases(rows: Sequence[RunRow]) -> list[str]:
    return list(dict.fromkeys(row.run.base for row in rows))


def sentences_on_runs(rows: Sequence[RunRow]) -> Iterator[str]:
    """What the draws of each method have in common, and what may be read of it."""
    found = over_draws(rows)
    bases = _bases(rows)
    several = len(bases) > 1
    yield from (f"Base {number}: {base}" for number, base in enumerate(bases, 1) if several)
    for (base, method), (draws, middle, sd) in found.items():
        if draws > 1:
            name = f"{method} on base {1 + bases.index(base)}" if several else method
            yield f"{name}: Dice {dice_text(middle)} over {counted(draws, 'draw')}, SD {dice_text(sd)}."
    if len(rows) > 1:
        yield (
            "Each interval is over cases, of one draw of the shots. Draws differ as well: a method that is ahead in "
            "one is not yet better."
        )


def runs_json(rows: Sequence[RunRow]) -> dict[str, Any]:
    """The rows as plain tables; what is not defined is null."""
    found = over_draws(rows)
    return {
        "runs": [
            {key: _plain(value) for key, value in vars(row).items() if key not in ("run", "interval")}
            | vars(row.run)
            | {"interval": [row.interval.low, row.interval.high] if row.interval else None}
            for row in rows
        ],
        "over_draws": [
            {"base": base, "method": method, "draws": draws, "dice": middle, "sd": _plain(sd)}
            for (base, method), (draws, middle, sd) in found.items()
        ],
    }


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _sd(values: Sequence[float]) -> float:
    if len(values) < 2:
        return math.nan
    middle = _mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


def write_runs_csv(file: Path, rows: Sequence[RunRow]) -> None:
    """Write the table as CSV, whole or not at all: Dice with four decimals, seconds with one."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for row in rows:
        low, high = (row.interval.low, row.interval.high) if row.interval else (math.nan, math.nan)
        figures = (row.dice_base, row.dice_adapted, row.difference, low, high)
        counts = ("", "", "") if row.failed else (row.shots, row.held_out, row.iterations)
        table.writerow(
            [
                *(row.run.base, row.run.method, row.run.draw, row.run.folder),
                *counts[:2],
                *(_figure(value, 4) for value in figures),
                counts[2],
                _figure(row.seconds, 1),
                row.failed,
            ]
        )
    with atomic_write(file) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")


def _figure(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"
