"""An evaluation as tables for a spreadsheet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence

from lnsegfm.evaluation.nodes import Node
from lnsegfm.evaluation.scores import Evaluation

CSV_DECIMALS = 4
"""Of every figure in a table; the JSON beside it has all digits."""
NODE_COLUMNS = (
    "case",
    "label",
    "mask",
    "node",
    "status",
    "partner",
    "iou",
    "volume_ml",
    "long_axis_mm",
    "short_axis_mm",
    "short_axis_3d_mm",
    "category",
    "slice",
    "x_mm",
    "y_mm",
    "z_mm",
    "touches_border",
)


def cases_csv(evaluation: Evaluation) -> str:
    """One row a case and label; what is undefined is empty."""
    rows = (
        [
            case.case,
            case.subject or "",
            label,
            *(_cell(score.value(metric)) for metric in evaluation.metrics),
            _cell(score.reference_ml),
            _cell(score.prediction_ml),
            str(score.known).lower(),
            score.judged,
        ]
        for case in evaluation.cases
        for label, score in case.labels.items()
    )
    return _csv(
        ("case", "subject", "label", *evaluation.metrics, "reference_ml", "prediction_ml", "known", "judged"), rows
    )


def nodes_csv(evaluation: Evaluation) -> str:
    """One row for each node of reference and prediction, with its status at any overlap."""
    return _csv(NODE_COLUMNS, node_rows(evaluation))


def node_rows(evaluation: Evaluation) -> Iterator[Sequence[object]]:
    """The rows of `nodes_csv`, by `NODE_COLUMNS`; what is undefined is empty."""
    for case in evaluation.cases:
        for label, score in case.labels.items():
            if score.nodes is None:
                continue
            partners = {("reference", p.reference): (p.prediction, p.iou) for p in score.nodes.matched()}
            partners |= {("prediction", p.prediction): (p.reference, p.iou) for p in score.nodes.matched()}
            statuses = {"reference": score.nodes.reference_status(), "prediction": score.nodes.prediction_status()}
            for mask, status in statuses.items():
                for node in score.nodes.reference if mask == "reference" else score.nodes.prediction:
                    partner, iou = partners.get((mask, node.id), ("", math.nan))
                    identity = [mask, node.id, status[node.id], partner, _cell(iou)]  # type: ignore[index]
                    yield [case.case, label, *identity, *_measured(node)]


def _measured(node: Node) -> list[object]:
    return [
        *map(_cell, (node.volume_ml, node.long_axis_mm, node.short_axis_mm, node.short_axis_3d_mm)),
        node.category,
        node.slice_number,
        *map(_cell, node.centre_mm),
        str(node.touches_border).lower(),
    ]


def _cell(value: float) -> float | str:
    return "" if math.isnan(value) else round(value, CSV_DECIMALS)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()
