"""What tells of many cases: ``flags.json``, ``series.json``, ``summary.json`` and ``summary.csv``.

All of it is derived from the records of the cases (`lnsegfm.prediction.writers.case_records`), so it does not depend on
who predicted what, nor in which order.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnsegfm.datasets.labels import LabelMap, node_labels
from lnsegfm.errors import DataError
from lnsegfm.evaluation.flags import FLAGS, write_flags
from lnsegfm.prediction.scans import Failure
from lnsegfm.prediction.writers.case_records import NOTICE, CaseRecord, describe_passed_over, records_in
from lnsegfm.storage import read_json, write_json, write_text

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_choice import PassedOver

PASSED_OVER_FORMAT = "lnsegfm.passed-over/1"
SUMMARY_FORMAT, SERIES_FORMAT, REFUSED_FORMAT = "lnsegfm.cohort/2", "lnsegfm.series/1", "lnsegfm.refused/1"
SERIES, SUMMARY = "series.json", "summary.json"
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_indexes(out: Path, labels: LabelMap, *, summary: bool = True) -> None:
    """Derive the files that tell of many cases; may be called at any time.

    Args:
        out: The folder of the masks.
        labels: What the masks hold.
        summary: Also ``summary.json`` and ``summary.csv``; they are kept up to date anyway where they are.
    """
    records = records_in(out)
    flags = {record.case: record.flags for record in records if record.flags is not None and record.mask}
    series = {record.case: record.series_identity for record in records if record.series_identity}
    passed_over = _passed_over_in(out)
    if flags:
        write_flags(out, flags)
    else:
        (out / FLAGS).unlink(missing_ok=True)
    if series:
        write_json(out / SERIES, {"format": SERIES_FORMAT, "series": series, "passed_over": passed_over})
    else:
        (out / SERIES).unlink(missing_ok=True)
    if summary or (out / SUMMARY).is_file():
        content = {"format": SUMMARY_FORMAT, "notice": NOTICE, "labels": labels.to_dataset_json()}
        rows = [record.to_json() for record in records]
        write_json(out / SUMMARY, content | {"cases": rows, "refused": _refusals_in(out), "passed_over": passed_over})
        write_text(out / "summary.csv", _csv(labels, records))


def read_series_index(out: Path) -> dict[str, str]:
    """Which series each case is, as ``series.json`` has it; nothing where there is none, or another file."""
    try:
        content = read_json(out / SERIES)
        return {str(case): str(uid) for case, uid in content["series"].items()}
    except (DataError, TypeError, KeyError, AttributeError):
        return {}


def write_refusals(out: Path, source: str, refused: Sequence[Failure], others: Collection[str] = ()) -> None:
    """Record what of an input looked like a scan and cannot be used, in a file of this input's own.

    Args:
        out: The folder of the masks.
        source: The input, as a text that tells it from others; it is not written.
        refused: What was refused; nothing removes the record of an earlier time.
        others: Names of cases of the input that other processes do: what is recorded of them stays.
    """
    file = _refusals_of(out, source)
    content = [{"series": failure.case, "reason": failure.reason} for failure in refused]
    content += [earlier for earlier in _refusals_from(file) if earlier["series"] in others and earlier not in content]
    if content:
        write_json(file, {"format": REFUSED_FORMAT, "refused": content})
    else:
        file.unlink(missing_ok=True)


def read_refusals(out: Path, source: str) -> dict[str, str]:
    """Reasons by the names of what is recorded as refused of an input."""
    return {refusal["series"]: refusal["reason"] for refusal in _refusals_from(_refusals_of(out, source))}


def write_passed_over(out: Path, source: str, passed_over: Sequence[PassedOver]) -> None:
    """Record which DICOM series of an input were not taken and why, in a file of this input's own.

    Args:
        out: The folder of the masks.
        source: The input, as for `write_refusals`.
        passed_over: Those that were not taken; nothing removes the record of an earlier time.
    """
    file = out / f"passed-over-{hashlib.sha256(source.encode()).hexdigest()[:12]}.json"
    if passed_over:
        content = [describe_passed_over(each) for each in passed_over]
        write_json(file, {"format": PASSED_OVER_FORMAT, "passed_over": content})
    else:
        file.unlink(missing_ok=True)


def _passed_over_in(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for file in sorted(out.glob("passed-over-*.json")):
        content = read_json(file)
        if isinstance(content, dict) and content.get("format") == PASSED_OVER_FORMAT:
            found += [each for each in content["passed_over"] if each not in found]
    return sorted(found, key=lambda each: (each["series"], each["part"], each["reason"]))


def _refusals_in(out: Path) -> list[dict[str, str]]:
    refused: list[dict[str, str]] = []
    for file in sorted(out.glob("refused-*.json")):
        refused += [refusal for refusal in _refusals_from(file) if refusal not in refused]
    return sorted(refused, key=lambda refusal: (refusal["series"], refusal["reason"]))


def _refusals_of(out: Path, source: str) -> Path:
    return out / f"refused-{hashlib.sha256(source.encode()).hexdigest()[:12]}.json"


def _refusals_from(file: Path) -> list[dict[str, str]]:
    content = read_json(file) if file.is_file() else None
    if not isinstance(content, dict) or content.get("format") != REFUSED_FORMAT:
        return []
    found: list[dict[str, str]] = content["refused"]
    return found


def _csv(labels: LabelMap, records: Sequence[CaseRecord]) -> str:
    nodes = node_labels(labels.names)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = [*("case", "status", "reason", "review"), *(f"{label}_ml" for label in labels.names)]
    header += [f"{label}_{what}" for label in nodes for what in ("nodes", "largest_short_axis_mm")]
    writer.writerow(map(_cell, header))
    for record in records:
        volumes, counted = record.volumes_ml or {}, record.nodes or {}
        cells: list[Any] = [record.case, record.status, record.reason]
        cells += [" ".join(flag.reason for flag in record.flags or ()), *(volumes.get(n, "") for n in labels.names)]
        for label in nodes:
            measured = counted.get(label, {})
            largest = measured.get("largest_short_axis_mm")
            cells += [measured.get("number", ""), "" if largest is None else largest]
        writer.writerow(map(_cell, cells))
    return text.getvalue()


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would execute as a formula gets an apostrophe before it; ``summary.json`` has it plain.

    Names of cases, labels and paths come from strangers.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_STARTS_A_FORMULA) else value
