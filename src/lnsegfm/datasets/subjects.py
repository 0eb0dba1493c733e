"""Which patient each case is of."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

from lnsegfm.errors import DataError

SUBJECTS = "subjects.csv"


def read_subjects(file: Path) -> dict[str, str]:
    """Read a CSV with the columns ``case`` and ``subject``: subject by case; other columns are passed over.

    Raises:
        DataError: No such file, not such a table, or a case named twice with different subjects.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            table = csv.DictReader(text)
            rows, columns = list(table), table.fieldnames or ()
    except FileNotFoundError:
        raise DataError(f"{file}: no such file. Give a CSV with the columns case and subject.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: it cannot be read ({error}). Give a CSV with the columns case and subject.") from None
    if not {"case", "subject"} <= set(columns):
        raise DataError(f"{file}: its columns are {', '.join(columns) or 'none'}. Give it a header line: case,subject.")
    subjects: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        case, subject = ((row[column] or "").strip() for column in ("case", "subject"))
        case = unicodedata.normalize("NFC", case)  # as names of files are compared
        if not case or not subject:
            raise DataError(f"{file}: line {number} lacks a case or a subject. Fill in both, or remove the line.")
        if subjects.setdefault(case, subject) != subject:
            raise DataError(
                f"{file}: case {case} is of subject {subjects[case]} and of {subject}. Keep one of the two."
            )
    return subjects


def subjects_of(root: Path) -> dict[str, str]:
    """The subjects that a folder's ``subjects.csv`` states; empty where there is none.

    Raises:
        DataError: As :func:`read_subjects`.
    """
    file = root / SUBJECTS
    return read_subjects(file) if file.is_file() else {}
