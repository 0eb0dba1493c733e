"""A comparison of two models as JSON, and read back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnsegfm.errors import DataError
from lnsegfm.evaluation.case_scores import nan_to_none
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.report.comparison import SMALLEST_DIFFERENCE, Comparison
from lnsegfm.report.label_verdict import label_sentence, title
from lnsegfm.report.verdict import notes, verdict


def to_json(comparison: Comparison, root: Path = Path()) -> dict[str, Any]:
    """The sentences, the differences by label and over all, and both evaluations, as JSON-able values.

    Args:
        comparison: Two models on the same cases.
        root: The folder that it will be written to.
    """
    corrected = comparison.corrected_p()
    labels = comparison.labels
    return {
        "title": title(comparison),
        "verdict": verdict(comparison),
        "outcome": comparison.outcome,
        "smallest_difference": comparison.smallest_difference,
        "notes": list(notes(comparison)),
        "names": list(comparison.names),
        "unknown_to_base": list(comparison.unknown),
        "overall": comparison.difference().to_json(),
        "labels": {
            label: comparison.difference(label).to_json()
            | nan_to_none({"p_corrected": corrected[label]})
            | {"outcome": comparison.outcome_of(label), "verdict": label_sentence(comparison, label)}
            for label in labels
        },
        "metrics": {
            metric: {label: comparison.difference(label, metric).to_json() for label in labels}
            for metric in comparison.adapted.metrics
            if metric != "dice"
        },
        "nodes": {label: nodes.to_json() for label in labels if (nodes := comparison.nodes(label)) is not None},
        "base": comparison.base.to_json(root),
        "adapted": comparison.adapted.to_json(root),
    }


def from_json(content: Mapping[str, Any], root: Path = Path()) -> Comparison:
    """The comparison that :func:`to_json` has written.

    Raises:
        DataError: It is something else, or of another version.
    """
    try:
        base, adapted = (Evaluation.from_json(content[which], root) for which in ("base", "adapted"))
        first, second = content["names"]
        smallest = content.get("smallest_difference", SMALLEST_DIFFERENCE)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"Comparison: {error!r} while it was read. Evaluate the masks again.") from None
    return Comparison(base, adapted, (first, second), smallest)
