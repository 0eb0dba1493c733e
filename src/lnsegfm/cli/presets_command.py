"""``lnsegfm presets``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lnsegfm.cli.shared_options import AsJson, Device, print_json


def presets(
    run: Annotated[Path, typer.Argument(help="The folder of a finished `lnsegfm finetune`.")],
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Measure what each preset of `lnsegfm predict --fast` costs RUN's model: Dice and seconds on its held-out scans.

    The result is kept in RUN/model/presets.json, and `lnsegfm predict --fast` prints it. Not for clinical use.
    """
    from lnsegfm.cli.console import console
    from lnsegfm.workflows.preset_benchmark import FILE, benchmark_presets, preset_table

    with console() as progress:
        benchmark = benchmark_presets(run, device=device, progress=progress)
    if as_json:
        print_json(benchmark)
        return
    table = preset_table(benchmark)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        name, *figures = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([name.strip().ljust(widths[0]), *figures]))
    print(f"Kept     {run / 'model' / FILE}")
    print("Not for clinical use.")
