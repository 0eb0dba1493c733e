"""``lnsegfm evaluate``: predicted masks against references."""

from __future__ import annotations

import csv
import io
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lnsegfm.cli.options import AsJson, Labels, print_json, require_folder

if TYPE_CHECKING:
    from lnsegfm.datasets.labels import LabelMap
    from lnsegfm.evaluation.evaluate import Evaluation

NOTICE = "Not for clinical use."
_MOST_ROWS = 40  # of the table case by case; more are for the CSV


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predicted masks, named as their references.")],
    references: Annotated[Path, typer.Argument(help="Folder of reference masks, or a dataset folder.")],
    out: Annotated[Path | None, typer.Option(help="Write evaluation.json and evaluation.csv to this folder.")] = None,
    label: Labels = None,
    as_json: AsJson = False,
) -> None:
    """Score PREDICTIONS against REFERENCES: Dice and volumes, case by case and over all cases."""
    if out is not None:
        require_folder(out)
    from lnsegfm.cli.console import console
    from lnsegfm.datasets.labels import LabelMap
    from lnsegfm.evaluation.evaluate import evaluate_what_can_be
    from lnsegfm.evaluation.references import labels_of_predictions, labels_to_score
    from lnsegfm.storage import write_json, write_text

    labels = labels_to_score(predictions, references, LabelMap.from_options(label or []))
    theirs = labels_of_predictions(predictions)
    with console() as progress:
        evaluation = evaluate_what_can_be(
            predictions, references, labels, prediction_labels=theirs, progress=progress.advance
        )
    if out is not None:
        write_json(out / "evaluation.json", evaluation.to_json())
        write_text(out / "evaluation.csv", _csv(evaluation))
    if as_json:
        print_json(evaluation.to_json())
    else:
        _print_tables(evaluation)
        print(NOTICE)
    for line in (*_notes(labels, theirs), *evaluation.failures):
        print(f"lnsegfm: {line}", file=sys.stderr)
    if evaluation.failures:
        raise typer.Exit(1)


def _notes(labels: LabelMap, theirs: LabelMap | None) -> list[str]:
    unknown = [name for name in labels.names if theirs is not None and name not in theirs.names]
    if not unknown:
        return []
    return [
        f"Label {', '.join(unknown)}: the model that predicted has only {theirs}; it counts as an empty prediction."
    ]


def _csv(evaluation: Evaluation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "label", "dice", "reference_ml", "prediction_ml", "volume_difference_ml", "known"])
    for case in evaluation.cases:
        for name, score in case.labels.items():
            dice = "" if math.isnan(score.dice) else score.dice
            volumes = [score.reference_ml, score.prediction_ml, score.volume_difference_ml]
            writer.writerow([case.case, name, dice, *volumes, str(score.known).lower()])
    return text.getvalue()


def _print_tables(evaluation: Evaluation) -> None:
    from rich.console import Console
    from rich.markup import escape  # a name may hold square brackets
    from rich.table import Table

    console = Console()
    rows = [(case.case, name, score) for case in evaluation.cases for name, score in case.labels.items()]
    if len(rows) <= _MOST_ROWS:
        table = Table(title="Case by case")
        for heading in ("case", "label"):
            table.add_column(heading, overflow="fold")
        for heading in ("Dice", "reference ml", "prediction ml", "difference ml"):
            table.add_column(heading, justify="right")
        for case, name, score in rows:
            volumes = (score.reference_ml, score.prediction_ml, score.volume_difference_ml)
            table.add_row(
                escape(case),
                escape(name if score.known else f"{name} (not known)"),
                _number(score.dice),
                *map(_ml, volumes),
            )
        console.print(table)
    else:
        print(f"Case by case there are {len(rows)} rows: --out writes them to evaluation.csv.")
    table = Table("label", title="Dice over cases")
    for heading in ("cases", "mean", "median", "SD", "left out"):
        table.add_column(heading, justify="right")
    summary = evaluation.summary()
    for name, over in summary.items() if len(evaluation.labels.names) > 1 else list(summary.items())[:-1]:
        table.add_row(escape(name), str(over.n), *map(_number, (over.mean, over.median, over.sd)), str(over.undefined))
    console.print(table)
    if any(over.undefined for over in summary.values()):
        print("Left out: cases in which neither the reference nor the prediction has the label.")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _ml(value: float) -> str:
    return f"{value:.2f}"
