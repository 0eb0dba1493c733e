"""What became of many scans, for a person with a spreadsheet and for a program."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lnsegfm.datasets.labels import LabelMap, node_labels
from lnsegfm.prediction.inputs import Failure
from lnsegfm.storage import write_json, write_text

SUMMARY_FORMAT = "lnsegfm.cohort/1"
NOTICE = "Research software. Not for clinical use."
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_summary(out: Path, labels: LabelMap, rows: Sequence[Mapping[str, Any]], refused: Sequence[Failure]) -> None:
    """Write ``summary.json`` and ``summary.csv``.

    Args:
        out: The folder.
        labels: What the masks hold.
        rows: Of each case ``case``, ``status``, ``reason`` and ``look``, and its record, if there is one.
        refused: What looked like a scan and was none: in the JSON only, because a row of the CSV is a case.
    """
    content = {"format": SUMMARY_FORMAT, "notice": NOTICE, "labels": labels.to_dataset_json(), "cases": rows}
    lost = [{"series": one.case, "reason": one.reason} for one in refused]
    write_json(out / "summary.json", content | {"refused": lost})
    write_text(out / "summary.csv", _csv(labels, rows))


def _csv(labels: LabelMap, rows: Sequence[Mapping[str, Any]]) -> str:
    nodes = node_labels(labels.names)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = [*("case", "status", "reason", "look"), *(f"{label}_ml" for label in labels.names)]
    header += [f"{label}_{what}" for label in nodes for what in ("nodes", "largest_short_axis_mm")]
    writer.writerow(map(_cell, header))
    for row in rows:
        volumes, counted = row.get("volumes_ml", {}), row.get("nodes", {})
        cells = [row["case"], row["status"], row["reason"], " ".join(row["look"])]
        cells += [volumes.get(label, "") for label in labels.names]
        for label in nodes:
            found = counted.get(label, {})
            largest = found.get("largest_short_axis_mm")
            cells += [found.get("number", ""), "" if largest is None else largest]
        writer.writerow(map(_cell, cells))
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would execute as a formula gets an apostrophe before it; ``summary.json`` has it plain.

    Names of cases, labels and paths come from strangers.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_STARTS_A_FORMULA) else value
