"""Files that name the values of a mask, as other programs write them.

Read are: a ``dataset.json`` or JSON table in either direction, a label description of ITK-SNAP, a colour table of 3D
Slicer (``.ctbl``), a CSV or TSV with a value and a name in each line, and plain lines ``1 lymph_node`` or
``lymph_node=1``.

Sources: https://www.itksnap.org (label descriptions: index, three colours, alpha, two flags, name in quotes);
https://slicer.readthedocs.io (colour tables: index, name, four colours).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lnsegfm.datasets.label_tables import BACKGROUND
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.storage import read_json

SUFFIXES = (".json", ".label", ".labels", ".ctbl", ".csv", ".tsv", ".txt")
_NAMES = re.compile(r"labels?|label[_-]?(map|names?|descriptions?)|classes|class_names|structures", re.IGNORECASE)
_SNAP = re.compile(r'(\d+)\s+(?:[\d.]+\s+){6}"(.*)"')
_SLICER = re.compile(r"(\d+)\s+(\S+)\s+\d+\s+\d+\s+\d+\s+\d+")
_PLAIN = (
    re.compile(r"(?P<value>\d+)\s*[:=,;\t ]\s*(?P<name>.+)"),
    re.compile(r"(?P<name>.+?)\s*[:=,;\t ]\s*(?P<value>\d+)"),
)
_LARGEST = 1 << 20  # bytes of a list of names


def label_file_in(source: Path) -> Path | None:
    """The only file directly in a folder whose name says that it names labels; None where there is none, or several."""
    found = [
        path
        for path in sorted(source.iterdir())
        if path.is_file()
        and not path.name.startswith(".")
        and path.suffix.lower() in SUFFIXES
        and (_NAMES.fullmatch(path.stem) or path.suffix.lower() in (".label", ".ctbl"))
        and path.name != "dataset.json"
    ]
    return found[0] if len(found) == 1 else None


def read_label_file(path: Path) -> LabelMap:
    """The labels that a file names; background is left out.

    Raises:
        DataError: No such file, no form that is known, or labels that cannot be.
    """
    try:
        if path.suffix.lower() == ".json":
            content = read_json(path)
            table = content.get("labels", content) if isinstance(content, Mapping) else content
            return LabelMap.from_dataset_json(table)
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: too long for a list of labels. Name them with --label NAME=VALUE.")
        labels = _pairs(path, path.read_text(encoding="utf-8-sig").splitlines())
        return LabelMap.from_dataset_json(labels)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file. Give the file that names the labels.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it cannot be read ({error}). Name the labels with --label NAME=VALUE.") from None
    except DataError as error:
        if str(error).startswith(str(path)):
            raise
        raise DataError(f"{path}: {error}") from None


def _pairs(path: Path, lines: Sequence[str]) -> dict[str, int]:
    """Names and values of the lines of a file.

    Raises:
        DataError: A line of no known form, a name or value twice.
    """
    table = _csv_pairs(path, lines) if path.suffix.lower() in (".csv", ".tsv") else None
    pairs = table if table is not None else [_pair(path, n, line) for n, line in enumerate(lines, 1) if _says(line)]
    labels: dict[str, int] = {}
    for name, value in pairs:
        if value == 0 or name.casefold() == BACKGROUND:
            continue
        if labels.get(name, value) != value or (name not in labels and value in labels.values()):
            raise DataError(f"{path}: {name} = {value}, but the name or the value is there already. Correct it.")
        labels[name] = value
    return labels


def _says(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _pair(path: Path, number: int, line: str) -> tuple[str, int]:
    text = line.strip()
    if match := _SNAP.fullmatch(text):
        return match[2].strip(), int(match[1])
    if match := _SLICER.fullmatch(text):
        return match[2].strip(), int(match[1])
    for pattern in _PLAIN:
        if match := pattern.fullmatch(text):
            return match["name"].strip().strip("\"'"), int(match["value"])
    raise DataError(f"{path}: line {number} names no label. Write lines such as: 1 lymph_node.")


def _csv_pairs(path: Path, lines: Sequence[str]) -> list[tuple[str, int]] | None:
    """Of a table with a header line the columns of value and name; None where there is no such header."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ";" if lines and ";" in lines[0] else ","
    rows = list(csv.reader(lines, delimiter=delimiter))
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    values = [n for n, name in enumerate(header) if name in ("value", "index", "id", "number", "label", "label_value")]
    names = [n for n, name in enumerate(header) if name in ("name", "structure", "label_name", "class", "label", "roi")]
    if not values or not [n for n in names if n != values[0]]:
        return None
    value_at, name_at = values[0], next(n for n in names if n != values[0])
    try:
        return [(row[name_at].strip(), int(float(row[value_at]))) for row in rows[1:] if any(map(str.strip, row))]
    except (IndexError, ValueError):
        raise DataError(f"{path}: a line lacks its value or name. Correct it.") from None
