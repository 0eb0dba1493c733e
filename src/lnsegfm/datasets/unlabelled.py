"""Which labels were not annotated in which cases."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from lnsegfm.errors import DataError

UNLABELLED = "unlabelled.csv"
EVERY_CASE = "*"
"""In place of a case's name: a label that nobody annotated in any case."""
_FORM = "Give a CSV with the columns case and label"


def read_unlabelled(file: Path) -> dict[str, frozenset[str]]:
    """Read a CSV with the columns ``case`` and ``label``: the labels that nobody annotated in a case, by case.

    Raises:
        DataError: Not such a table.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            table = csv.DictReader(text)
            rows, columns = list(table), table.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: it cannot be read ({error}). {_FORM}.") from None
    if not {"case", "label"} <= set(columns):
        raise DataError(f"{file}: its columns are {', '.join(columns) or 'none'}. Give it a header line: case,label.")
    found: dict[str, set[str]] = {}
    for number, row in enumerate(rows, start=2):
        case, label = ((row[column] or "").strip() for column in ("case", "label"))
        case = unicodedata.normalize("NFC", case)  # as names of files are compared
        if not case or not label:
            raise DataError(f"{file}: line {number} lacks a case or a label. Fill in both, or remove the line.")
        found.setdefault(case, set()).add(label)
    return {case: frozenset(labels) for case, labels in found.items()}


def unlabelled_of(root: Path, cases: Collection[str], labels: Collection[str]) -> Mapping[str, frozenset[str]]:
    """What a dataset's ``unlabelled.csv`` states, ``*`` for every case; empty where there is none.

    Args:
        root: The folder.
        cases: Names of its cases.
        labels: Names of its labels.

    Raises:
        DataError: As `read_unlabelled`, or a case or label that is not there: nothing is passed over for a slip.
    """
    file = root / UNLABELLED
    found = read_unlabelled(file) if file.is_file() else {}
    for case, unlabelled in found.items():
        if case not in (*cases, EVERY_CASE):
            raise DataError(f"{file}: case {case} is not in the dataset. Correct its name, or remove the line.")
        if strangers := sorted(unlabelled - set(labels)):
            known = ", ".join(labels)
            raise DataError(f"{file}: there is no label {strangers[0]}. Use one of: {known}.")
    everywhere = found.pop(EVERY_CASE, frozenset())
    return {case: found.get(case, frozenset()) | everywhere for case in (cases if everywhere else found)}
