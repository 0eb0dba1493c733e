"""The files that ``lnsegfm evaluate`` and ``lnsegfm report`` write to a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lnsegfm.evaluation.flags import Flag
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.progress import Progress
from lnsegfm.report.comparison import SMALLEST_DIFFERENCE, Comparison
from lnsegfm.report.comparison_json import to_json
from lnsegfm.report.page import write_evaluation_page, write_page
from lnsegfm.storage import write_json

PAGE, COMPARISON = "report.html", "comparison.json"


def compared(
    first: Evaluation,
    first_place: Path,
    second: Evaluation,
    second_place: Path,
    smallest_difference: float | None = None,
) -> Comparison:
    """Two evaluations as first against second, on the cases that both have, called by their folders.

    Args:
        first: One evaluation.
        first_place: Its folder.
        second: The other.
        second_place: Its folder.
        smallest_difference: A smaller difference of the mean Dice is too small to matter; None is the default.

    Raises:
        ConfigError: A smallest difference that is none.
    """
    shared = {case.case for case in first.cases} & {case.case for case in second.cases}
    names = names_of(first_place, second_place)
    smallest = SMALLEST_DIFFERENCE if smallest_difference is None else smallest_difference
    return Comparison(_only(first, shared), _only(second, shared), names, smallest)


def write_report(
    path: Path,
    evaluation: Evaluation,
    facts: Mapping[str, str],
    flags: Mapping[str, Sequence[Flag]] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the page of one model's masks."""
    write_evaluation_page(
        path, evaluation, title="Evaluation", flags=flags, facts=_with_how(facts, evaluation), progress=progress
    )


def write_comparison(
    folder: Path,
    comparison: Comparison,
    facts: Mapping[str, str],
    flags: Mapping[str, Sequence[Flag]] | None = None,
    progress: Progress | None = None,
) -> None:
    """Write the page of two models' masks, and its figures as JSON."""
    write_page(
        folder / PAGE,
        title=f"{comparison.names[1]} against {comparison.names[0]}",
        facts=_with_how(facts, comparison.adapted),
        comparison=comparison,
        flags=flags,
        progress=progress,
    )
    write_json(folder / COMPARISON, to_json(comparison, folder))


def names_of(first: Path, second: Path) -> tuple[str, str]:
    """What two folders are called: by as few of their last parts as distinguish them."""
    one, other = first.resolve().parts, second.resolve().parts
    for parts in range(1, max(len(one), len(other))):
        names = "/".join(one[-parts:]), "/".join(other[-parts:])
        if names[0] != names[1]:
            return names
    return f"{first} (first)", f"{second} (second)"


def _only(evaluation: Evaluation, cases: set[str]) -> Evaluation:
    left_out = [case.case for case in evaluation.cases if case.case not in cases]
    notes = (f"In one evaluation only, and not compared: {', '.join(left_out)}.",) if left_out else ()
    kept = tuple(case for case in evaluation.cases if case.case in cases)
    return replace(evaluation, cases=kept, failures=(*evaluation.failures, *notes))


def _with_how(facts: Mapping[str, str], evaluation: Evaluation) -> dict[str, str]:
    nodes = ", ".join(evaluation.node_labels) or "none of the labels (--node names one)"
    patients = len(set(evaluation.subjects))
    return {
        **facts,
        "Cases": f"{len(evaluation.cases)} of {patients} subjects",
        "Labels": str(evaluation.labels),
        "Counted as nodes": nodes,
        "Tolerance of the NSD": f"{evaluation.tolerance_mm:g} mm",
    }
