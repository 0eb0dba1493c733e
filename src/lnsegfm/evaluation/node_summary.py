"""True and false positives of nodes over many cases, with intervals, in all and by size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lnsegfm.evaluation.detection import Detection, counts, detect, size_bins
from lnsegfm.evaluation.matching import NodeScore
from lnsegfm.evaluation.statistics import Estimate, ratio


@dataclass(frozen=True)
class NodeFigures:
    """Detection in one bin of sizes, with intervals over subjects.

    Args:
        detection: Counts and figures, pooled over cases.
        sensitivity: True positives over all reference nodes.
        precision: Predicted nodes that have a partner over all that are judged.
        f1: Nodes of either mask that have a partner over all of them.
        false_positives_per_scan: False positives over scans.
    """

    detection: Detection
    sensitivity: Estimate
    precision: Estimate
    f1: Estimate
    false_positives_per_scan: Estimate

    def to_json(self) -> dict[str, Any]:
        """Counts, figures and intervals."""
        estimates = {key: value.to_json()["interval"] for key, value in vars(self).items() if key != "detection"}
        return self.detection.to_json() | {"intervals": estimates}


@dataclass(frozen=True)
class NodeSummary:
    """One label's nodes by one criterion.

    Args:
        iou: Least overlap of a match; 0: any.
        all_sizes: Nodes of every size.
        by_size: By short axis, from the smallest bin; bins in which neither mask has a node are there, too.
    """

    iou: float
    all_sizes: NodeFigures
    by_size: tuple[NodeFigures, ...]

    @property
    def criterion(self) -> str:
        """What counts as a match, in words."""
        return f"IoU of {self.iou:g} or more" if self.iou > 0 else "any overlap"

    def to_json(self) -> dict[str, Any]:
        """Counts, figures and intervals, in all and by size."""
        return {
            "criterion": self.criterion,
            "all": self.all_sizes.to_json(),
            "by_size": [figures.to_json() for figures in self.by_size],
        }


def summarise_nodes(scores: Sequence[NodeScore], subjects: Sequence[str], iou: float = 0.0) -> NodeSummary:
    """Pool cases by one criterion.

    Args:
        scores: One a case.
        subjects: The patient of each case.
        iou: Least overlap of a match; 0: any.
    """
    return NodeSummary(
        iou,
        _figures(scores, subjects, iou, 0.0, math.inf),
        tuple(_figures(scores, subjects, iou, low, high) for low, high in size_bins()),
    )


def _figures(
    scores: Sequence[NodeScore], subjects: Sequence[str], iou: float, low_mm: float, high_mm: float
) -> NodeFigures:
    each = [counts(score, iou, low_mm, high_mm) for score in scores]

    def share(top: list[int], bottom: list[int]) -> Estimate:
        return ratio(top, bottom, subjects, bounds=(0.0, 1.0), counted="share")

    return NodeFigures(
        detect(scores, iou, low_mm, high_mm),
        share([c.true_positives for c in each], [c.nodes for c in each]),
        share([c.matched_predictions for c in each], [c.predicted for c in each]),
        share([c.true_positives + c.matched_predictions for c in each], [c.nodes + c.predicted for c in each]),
        ratio([c.false_positives for c in each], [1] * len(each), subjects, bounds=(0.0, math.inf), counted="rate"),
    )
