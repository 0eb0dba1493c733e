"""The report of a fine-tuning run, made of what its folder holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lnsegfm.errors import DataError
from lnsegfm.evaluation.domain_ranges import read_domains
from lnsegfm.evaluation.evaluation_files import write_evaluation
from lnsegfm.evaluation.flags import Flag
from lnsegfm.progress import Progress
from lnsegfm.report.advice import advice
from lnsegfm.report.advice_facts import GOOD_DICE
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.comparison_json import from_json, to_json
from lnsegfm.report.label_verdict import mean_dice
from lnsegfm.report.mask_measures import measure_labels
from lnsegfm.report.methods_paragraph import methods_paragraph
from lnsegfm.report.page import write_page
from lnsegfm.report.run_command import finetune_command

FORMAT = "lnsegfm.run/3"
PAGE = "report.html"
_PROVENANCE = ("identity", "base", "model", "versions", "recipe")


def write_run_report(folder: Path, record: Mapping[str, Any], progress: Progress | None = None) -> None:
    """Write ``report.html``, and into the folders of both models' masks their figures as JSON and CSV.

    Args:
        folder: The run's.
        record: What its ``run.json`` holds.
        progress: Reported to after each case.

    Raises:
        DataError: The record is of another version, or a mask or scan that pictures are drawn of is gone.
    """
    if record.get("format") != FORMAT:
        raise DataError(
            f"{folder}: its run.json is of format {record.get('format')!r}, not {FORMAT}. "
            "Run the same finetune command again: it keeps the model and compares the models again."
        )
    comparison, source_data = (
        from_json(record[part], folder) if record[part] is not None else None for part in ("result", "source_data")
    )
    if comparison is not None:
        write_evaluation(folder / "predictions" / "adapted", comparison.adapted)
        write_evaluation(folder / "predictions" / "base", comparison.base)
    write_page(
        folder / PAGE,
        title=f"{record['recipe']['method']} on {Path(record['data']['folder']).name}",
        facts=record["facts"],
        comparison=comparison,
        losses=record["losses"],
        provenance={key: record[key] for key in _PROVENANCE},
        flags={case: [Flag.from_json(flag) for flag in flags] for case, flags in record["flags"].items()},
        source_data=source_data,
        advice=record.get("advice", ()),
        methods=record.get("methods"),
        command=record.get("command"),
        progress=progress,
    )


def next_steps(record: Mapping[str, Any], comparison: Comparison | None, folder: Path) -> dict[str, Any]:
    """What ``run.json`` says for people: what to try next, the command line, and a paragraph for a paper.

    Args:
        record: The rest of ``run.json``.
        comparison: Base against adapted on the held-out cases.
        folder: The run's.
    """
    measured = {}
    if comparison is not None:
        weak = [name for name in comparison.labels if mean_dice(comparison, name) < GOOD_DICE]
        measured = measure_labels(comparison.adapted, [n for n in weak if n not in comparison.adapted.node_labels])
    domains = read_domains(folder / "model")
    return {
        "advice": [one.to_json() for one in advice(record, comparison, str(folder), measured, domains)],
        "command": finetune_command(record, str(folder)),
        "methods": methods_paragraph(record),
    }


def with_smallest_difference(record: Mapping[str, Any], smallest: float, folder: Path) -> dict[str, Any]:
    """The content of a ``run.json`` with its verdicts by another smallest difference that matters.

    Args:
        record: What the run's ``run.json`` holds.
        smallest: A smaller difference of the mean Dice is too small to matter.
        folder: The run's.

    Raises:
        ConfigError: The smallest difference is none.
    """
    again = {
        part: to_json(replace(from_json(record[part], folder), smallest_difference=smallest), folder)
        for part in ("result", "source_data")
        if record[part] is not None
    }
    return {**record, **again}
