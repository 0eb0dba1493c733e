"""Several fine-tunings in one folder, of bases, methods and draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError, LnSegFmError, RunMismatch
from lnsegfm.report.runs_table import PlannedRun, RunRow, row_of, write_runs_csv
from lnsegfm.storage import read_json, write_json

RUNS, TABLE = "runs.json", "runs.csv"
FORMAT = "lnsegfm.runs/1"


def planned_runs(bases: Sequence[str], methods: Sequence[str], draws: Sequence[int]) -> tuple[PlannedRun, ...]:
    """Every base with every method and draw, each in a folder that is called so.

    Raises:
        ConfigError: One is named twice.
    """
    for option, named in (("--model", bases), ("--method", methods), ("--draw", draws)):
        if len(set(named)) < len(named):
            raise ConfigError(f"{option} {','.join(map(str, named))}: one is named twice. Name each once.")
    runs = []
    for number, base in enumerate(bases, 1):
        before = f"{number}_{Path(base).name}_" if len(bases) > 1 else ""
        runs += [PlannedRun(base, method, draw, f"{before}{method}_draw{draw}") for method in methods for draw in draws]
    return tuple(runs)


def claim_runs(out: Path, runs: Sequence[PlannedRun]) -> None:
    """Make a folder that of these runs, or recognise it as such; more of them may come later.

    Raises:
        ConfigError: It is a file.
        RunMismatch: It holds something else.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: it is a file. Name a folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / RUNS).is_file():
        raise RunMismatch(f"{out}: it is not empty, and holds no table of several runs. Choose another --out.")
    out.mkdir(parents=True, exist_ok=True)
    known = {one["folder"]: one for one in read_json(out / RUNS)["runs"]} if (out / RUNS).is_file() else {}
    known |= {run.folder: vars(run) for run in runs}
    write_json(out / RUNS, {"format": FORMAT, "runs": list(known.values())})


def run_each(
    runs: Sequence[PlannedRun], out: Path, train: Callable[[PlannedRun, Path], Mapping[str, Any]]
) -> tuple[RunRow, ...]:
    """Train one after the other; one that fails becomes a row with its reason. The table is written after each.

    Args:
        runs: What to train.
        out: The folder of all.
        train: Trains one into a folder, and gives what its ``run.json`` holds; it continues what was stopped.
    """
    claim_runs(out, runs)
    rows: list[RunRow] = []
    for run in runs:
        try:
            rows.append(row_of(run, train(run, out / run.folder), out / run.folder))
        except LnSegFmError as error:
            rows.append(RunRow(run=run, failed=" ".join(str(error).split())))
        write_runs_csv(out / TABLE, rows)
    return tuple(rows)
