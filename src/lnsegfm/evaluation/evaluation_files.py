"""An evaluation in a folder: JSON for programs, CSV for spreadsheets."""

from __future__ import annotations

from pathlib import Path

from lnsegfm.errors import DataError
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.tables import cases_csv, nodes_csv
from lnsegfm.storage import read_json, write_json, write_text

EVALUATION, CASES, NODES = "evaluation.json", "evaluation.csv", "nodes.csv"


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write ``evaluation.json``, ``evaluation.csv`` and, where nodes were counted, ``nodes.csv``."""
    write_json(folder / EVALUATION, evaluation.to_json(folder))
    write_text(folder / CASES, cases_csv(evaluation))
    if evaluation.node_labels:
        write_text(folder / NODES, nodes_csv(evaluation))


def read_evaluation(folder: Path) -> Evaluation:
    """The evaluation of a folder that :func:`write_evaluation` has written.

    Raises:
        DataError: There is none, or it cannot be read.
    """
    file = folder / EVALUATION
    if not file.is_file():
        raise DataError(
            f"{folder}: it holds no {EVALUATION}. Make one: lnsegfm evaluate MASKS REFERENCES --out {folder}."
        )
    try:
        return Evaluation.from_json(read_json(file), folder)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
