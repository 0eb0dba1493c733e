"""What the page says of each case: rows of its tables, as text with the number to sort by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lnsegfm.evaluation.case_scores import CaseScore
from lnsegfm.evaluation.flags import Flag
from lnsegfm.evaluation.matching import NodeScore, status_words
from lnsegfm.evaluation.metric_table import METRICS
from lnsegfm.evaluation.nodes import Node
from lnsegfm.messages import counted
from lnsegfm.report.figure_text import ml_text
from lnsegfm.report.picture_selection import ScoredModel


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
        text: As a person reads it.
        number: What it is sorted by; None for words and where nothing is defined.
        small: A second line.
        link: Name of the case it leads to.
        dots: Dice of the models on a line from 0 to 1, instead of text.
    """

    text: str
    number: float | None = None
    small: str = ""
    link: str | None = None
    dots: tuple[float | None, ...] | None = None


@dataclass(frozen=True)
class CaseColumn:
    """A column: its heading, a longer one for the pointer, and whether it holds numbers."""

    title: str
    hint: str = ""
    words: bool = False


def case_columns(models: Sequence[ScoredModel], *, flags: bool) -> list[CaseColumn]:
    """The columns of the table of cases: for one model its metrics, for two what changed."""
    judged = models[-1].evaluation
    mean = "mean over labels" if len(judged.labels.names) > 1 else ""
    columns = [CaseColumn("Case", words=True)]
    if len(models) == 1:
        columns += [CaseColumn(metric.title, mean) for key, metric in judged.metrics.items() if key != "assd_mm"]
    else:
        columns += [
            CaseColumn("Dice of both", f"{models[0].name} hollow, {models[1].name} filled; sorted by the latter")
        ]
        columns += [CaseColumn(f"Dice {m.name}", mean) for m in models] + [CaseColumn("Change", "Dice; paired")]
    if judged.node_labels:
        columns.append(CaseColumn("Nodes", "in the reference"))
        for kind in ("True positives", "False positives"):
            columns += [CaseColumn(f"{kind} {m.name}" if len(models) > 1 else kind, _HINTS[kind]) for m in models]
    return columns + ([CaseColumn("Flags", "reasons to review this case")] if flags else [])


_HINTS = {
    "True positives": "reference nodes with a predicted node of their own, at any overlap",
    "False positives": "predicted nodes that touch no reference node",
}


def case_row(name: str, models: Sequence[ScoredModel], flags: Sequence[Flag], *, flagged: bool) -> list[Cell]:
    """The row of one case, as ``case_columns`` says."""
    scores = [m.evaluation.case(name) for m in models]
    cells = [Cell(name, link=name)]
    if len(models) == 1:
        for key, metric in models[0].evaluation.metrics.items():
            if key != "assd_mm":
                value = scores[0].value(key)
                cells.append(Cell(metric.text(value, signed=metric.better == "zero"), _number(value)))
    else:
        dice = [score.mean_dice for score in scores]
        change = dice[1] - dice[0]
        cells.append(Cell("", _number(dice[1]), dots=tuple(_number(d) for d in dice)))
        cells += [Cell(METRICS["dice"].text(d), _number(d)) for d in dice]
        cells.append(Cell(METRICS["dice"].text(change, signed=True), _number(change)))
    if models[-1].evaluation.node_labels:
        counts = [_counts(score) for score in scores]
        cells.append(Cell(str(counts[-1][0]), counts[-1][0]))
        for which in (1, 2):
            cells += [Cell(str(count[which]), count[which]) for count in counts]
    if flagged:
        cells.append(Cell(", ".join(dict.fromkeys(flag.kind for flag in flags)) or "–", len(flags)))
    return cells


def case_line(score: CaseScore) -> str:
    """A case in a few words: its Dice, and the outcome of its nodes."""
    parts = [f"Dice {METRICS['dice'].text(score.mean_dice)}"]
    if any(label.nodes is not None for label in score.labels.values()):
        nodes, matched, false = _counts(score)
        parts += [f"{matched} of {nodes} nodes found", counted(false, "false positive")]
    return " · ".join(parts)


def _counts(score: CaseScore) -> tuple[int, int, int]:
    """Nodes of the reference, true positives at any overlap, and false positives, over the labels that are nodes."""
    nodes = [label.nodes for label in score.labels.values() if label.nodes is not None]
    return (
        sum(len(n.reference) for n in nodes),
        sum(len(n.matched()) for n in nodes),
        sum(len(n.false_positives()) for n in nodes),
    )


def score_rows(name: str, models: Sequence[ScoredModel]) -> list[dict[str, object]]:
    """A case's metrics: one row a label and model."""
    rows: list[dict[str, object]] = []
    for label in models[-1].evaluation.labels.names:
        for model in models:
            score = model.evaluation.case(name).labels.get(label)
            if score is None:
                continue
            rows.append(
                {
                    "label": label,
                    "model": model.name,
                    "known": score.known,
                    "values": [m.text(score.value(key)) for key, m in models[-1].evaluation.metrics.items()],
                    "reference_ml": ml_text(score.reference_ml),
                    "prediction_ml": ml_text(score.prediction_ml),
                }
            )
    return rows


def node_rows(name: str, models: Sequence[ScoredModel]) -> list[dict[str, object]]:
    """A case's nodes: those of the reference with their status, then predicted nodes without a match.

    Each row has ``state`` for each model; a predicted node has one for its own model only.
    """
    rows: list[dict[str, object]] = []
    for label in models[-1].evaluation.node_labels:
        scores = [_nodes(m.evaluation.case(name), label) for m in models]
        if (judged := scores[-1]) is None:
            continue
        for node in judged.reference:
            rows.append(_node_row(label, "reference", node) | {"state": [_fate(s, node.id) for s in scores]})
        for m, score in enumerate(scores):
            status = score.prediction_status() if score is not None else {}
            for node in score.prediction if score is not None else ():
                if status[node.id] != "true-positive":
                    state = [status_words(status[node.id]) if i == m else "" for i in range(len(models))]
                    rows.append(_node_row(label, models[m].name, node) | {"state": state})
    return rows


def _nodes(score: CaseScore, label: str) -> NodeScore | None:
    label_score = score.labels.get(label)
    return label_score.nodes if label_score is not None else None


def _node_row(label: str, of: str, node: Node) -> dict[str, object]:
    return {
        "label": label,
        "of": of,
        "id": node.id,
        "slice": node.slice_number,
        "centre": ", ".join(f"{round(v, 1) + 0.0:.1f}" for v in node.centre_mm),
        "short": f"{node.short_axis_mm:.1f}",
        "long": f"{node.long_axis_mm:.1f}",
        "volume": ml_text(node.volume_ml),
        "category": node.category + (", at the border" if node.touches_border else ""),
    }


def _fate(score: NodeScore | None, number: int) -> str:
    """The status of a reference node: ``true positive (IoU 0.62)``, ``merged`` or ``false negative``."""
    if score is None:
        return "false negative"
    iou = {pair.reference: pair.iou for pair in score.matched()}
    status = score.reference_status().get(number, "false-negative")
    return f"true positive (IoU {iou[number]:.2f})" if status == "true-positive" else status_words(status)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
