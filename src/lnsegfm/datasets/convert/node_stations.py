"""A table that gives each numbered node its station."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lnsegfm.errors import DataError

STATION = "station_"
"""What a structure made of the nodes of one station is called, before the station: ``station_4R``."""
_WORDS = {
    "patient": ("patient", "pat", "case", "subject"),
    "node": ("label", "node", "number", "id", "instance"),
    "station": ("station", "sto"),
}


def read_stations(file: Path) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
    """Read a CSV (commas or semicolons) with a patient, the number of a node, and its stations, the primary one first.

    Args:
        file: The table. Which column is which follows from words in its header line.

    Returns:
        Numbers of the nodes by station (``station_4R``) by patient (``pat7``).

    Raises:
        DataError: No such table, or columns that are not clear.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{file}: no such file, so no node has a station. Fetch it, or name no station.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: it cannot be read ({error}). Fetch it again.") from None
    lines = text.splitlines()
    delimiter = ";" if lines and lines[0].count(";") > lines[0].count(",") else ","
    header, *rows = list(csv.reader(lines, delimiter=delimiter)) or [[]]
    columns = {what: _column(header, words) for what, words in _WORDS.items()}
    if None in columns.values() or len(set(columns.values())) < len(columns):
        raise DataError(
            f"{file}: which of its columns ({', '.join(header) or 'none'}) hold patient, node and station is not "
            "clear. Call them patient, node and station, or name no station."
        )
    patient_at, node_at, station_at = (int(columns[what] or 0) for what in _WORDS)
    found: dict[str, dict[str, list[int]]] = {}
    for line, row in enumerate(rows, start=2):
        if not any(cell.strip() for cell in row):
            continue
        try:
            patient = re.search(r"\d+", row[patient_at])
            number, station = int(float(row[node_at])), row[station_at].strip()
        except (IndexError, ValueError):
            patient, number, station = None, 0, ""
        if patient is None or number < 1:
            raise DataError(f"{file}: line {line} names no patient and node. Correct it, or name no station.")
        if station:
            name = f"{STATION}{station.removeprefix('station').strip(' _')}"
            found.setdefault(f"pat{int(patient[0])}", {}).setdefault(name, []).append(number)
    return {
        patient: {name: tuple(numbers) for name, numbers in sorted(stations.items())}
        for patient, stations in found.items()
    }


def _column(header: Sequence[str], words: Sequence[str]) -> int | None:
    """The first column whose name has one of the words."""
    for word in words:
        for place, name in enumerate(header):
            if word in re.split(r"[\W_\d]+", name.strip().lower()):
                return place
    return None
