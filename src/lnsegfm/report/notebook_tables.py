"""Tables of results for a notebook."""

from __future__ import annotations

from lnsegfm.evaluation.case_scores import MEAN
from lnsegfm.notebook import HtmlTable
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.figure_text import dice_text


def means_table(comparison: Comparison) -> HtmlTable:
    """Mean Dice of the two models on the same cases, a row a label."""
    labels = (*comparison.labels, MEAN) if len(comparison.labels) > 1 else comparison.labels
    found = {label: comparison.difference(label) for label in labels}
    base, adapted = comparison.names
    rows = [
        [label, str(one.n), dice_text(one.base_mean), dice_text(one.adapted_mean), dice_text(one.mean, signed=True)]
        for label, one in found.items()
    ]
    return HtmlTable(rows, ["mean Dice", "cases", base, adapted, "change"])
