"""``lnsegfm data check``: is a dataset fit to train on?"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import typer

from lnsegfm.cli.options import AsJson, Data, Labels, print_json

if TYPE_CHECKING:
    from lnsegfm.datasets.check import Examination
    from lnsegfm.datasets.dataset import Dataset


def check(
    data: Data,
    label: Labels = None,
    as_json: AsJson = False,
) -> None:
    """Read every scan and label of DATA and list everything that is wrong with them, one line each."""
    from lnsegfm.cli.console import console
    from lnsegfm.datasets.check import examine
    from lnsegfm.datasets.dataset import open_dataset
    from lnsegfm.datasets.labels import LabelMap

    dataset = open_dataset(data, LabelMap.from_options(label or []))
    with console() as progress:
        found = examine(dataset, progress=progress.advance)
    if as_json:
        print_json(_facts(dataset, found))
    elif not found.problems:
        _print_table(dataset, found)
        cases = "1 case" if len(dataset.cases) == 1 else f"{len(dataset.cases)} cases"
        print(f"{cases}, nothing amiss.")
    for problem in found.problems:
        print(f"lnsegfm: {problem}", file=sys.stderr)
    if found.problems:
        raise typer.Exit(2)


def _facts(dataset: Dataset, found: Examination) -> dict[str, Any]:
    spacings = [case.grid.spacing_mm for case in found.cases if case.grid is not None]
    holding = Counter(value for case in found.cases for value in case.values)
    return {
        "format": "lnsegfm.check/1",
        "cases": len(dataset.cases),
        "channels": list(dataset.channels),
        "labels": dataset.labels.to_dataset_json(),
        "labels_from": dataset.labels_from,
        "spacing_mm": {
            "order": "z, y, x",
            "smallest": [min(axis) for axis in zip(*spacings, strict=True)],
            "largest": [max(axis) for axis in zip(*spacings, strict=True)],
        },
        "cases_with_label": {n: holding[v] for n, v in dataset.labels.to_dataset_json().items() if v},
        "problems": [
            {"case": p.case, "file": str(p.file) if p.file else None, "what": p.what, "remedy": p.remedy}
            for p in found.problems
        ],
    }


def _print_table(dataset: Dataset, found: Examination) -> None:
    from rich.console import Console
    from rich.markup import escape  # a name may hold square brackets
    from rich.table import Table

    facts = _facts(dataset, found)
    table = Table(show_header=False)
    table.add_row("cases", str(facts["cases"]))
    table.add_row("channels", escape(", ".join(dataset.channels)))
    low, high = (" x ".join(f"{v:.4g}" for v in facts["spacing_mm"][end]) for end in ("smallest", "largest"))
    table.add_row("spacing mm (z, y, x)", low if low == high else f"{low} to {high}")
    values = dataset.labels.to_dataset_json()
    for name, cases in facts["cases_with_label"].items():
        table.add_row(escape(f"label {name}={values[name]}"), f"in {cases} of {facts['cases']} cases")
    table.add_row("labels named by", dataset.labels_from)
    Console().print(table)
