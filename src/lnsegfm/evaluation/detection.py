"""True positives, false positives and false negatives of nodes, over many cases and by size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from statistics import fmean
from typing import Any

from lnsegfm.errors import ConfigError
from lnsegfm.evaluation.matching import NodeScore
from lnsegfm.evaluation.nodes import Node

SHORT_AXIS_BINS_MM = (3, 5, 8, 10, 15)
# any overlap; and an IoU at which a node can have one partner only (more than half: Kirillov et al., CVPR 2019)
IOU_CRITERIA = (0.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Nodes counted, one to one (see ``NodeScore``), in one case or many.

    With a bin of sizes, reference nodes are counted by their own short axis and predicted nodes by theirs: a true
    positive may be counted in one bin by its reference and in another by its prediction.

    Args:
        nodes: Reference nodes.
        true_positives: Reference nodes that have a partner.
        touched: Reference nodes that any predicted node touches, whatever the threshold.
        merged: Reference nodes that share a predicted node with another reference node; true positives among them.
        split: Reference nodes that two or more predicted nodes touch.
        predicted: Predicted nodes that are judged: all but those left out as ``unjudged``.
        matched_predictions: Predicted nodes that have a partner: the true positives, counted by their own size.
        parts: Predicted nodes that have none, in a reference node that is matched to another one.
        false_positives: Predicted nodes that are none of these.
        unjudged: Predicted nodes without a partner, half or more of which nobody annotated.
    """

    nodes: int = 0
    true_positives: int = 0
    touched: int = 0
    merged: int = 0
    split: int = 0
    predicted: int = 0
    matched_predictions: int = 0
    parts: int = 0
    false_positives: int = 0
    unjudged: int = 0

    @property
    def sensitivity(self) -> float:
        """True positives over all reference nodes; NaN where there are none."""
        return _share(self.true_positives, self.nodes)

    @property
    def touched_share(self) -> float:
        """Touched reference nodes over all of them; NaN where there are none."""
        return _share(self.touched, self.nodes)

    @property
    def precision(self) -> float:
        """Predicted nodes with a partner over all that are judged, so that parts lower it; NaN where there are none."""
        return _share(self.matched_predictions, self.predicted)

    @property
    def f1(self) -> float:
        """Nodes of either mask that have a partner over all of them; NaN where both are empty.

        Without bins that is the harmonic mean of sensitivity and precision.
        """
        return _share(self.true_positives + self.matched_predictions, self.nodes + self.predicted)


@dataclass(frozen=True, kw_only=True)
class PairError:
    """How a true positive was segmented: prediction minus reference.

    Args:
        volume_ml: Difference of the volumes.
        volume_percent: The same as a percentage of the reference's volume.
        short_axis_mm: Difference of the short axes.
    """

    volume_ml: float
    volume_percent: float
    short_axis_mm: float


@dataclass(frozen=True, kw_only=True)
class Detection(Counts):
    """Detection over cases by one criterion and in one bin of sizes.

    Args:
        iou: What a pair's IoU has to reach; 0 asks for any overlap.
        low_mm: Short axes from here on; 0 for all.
        high_mm: Short axes below this; infinite for all.
        cases: Cases counted over, those without nodes included.
        errors: One for each true positive whose reference lies in the bin.
    """

    iou: float = 0.0
    low_mm: float = 0.0
    high_mm: float = math.inf
    cases: int = 0
    errors: tuple[PairError, ...] = ()

    @property
    def sizes(self) -> str:
        """The bin in words: ``all``, ``< 3 mm``, ``3 to < 5 mm``, ``≥ 15 mm``."""
        if math.isinf(self.high_mm):
            return f"≥ {self.low_mm:g} mm" if self.low_mm > 0 else "all"
        return f"{self.low_mm:g} to < {self.high_mm:g} mm" if self.low_mm > 0 else f"< {self.high_mm:g} mm"

    @property
    def false_positives_per_scan(self) -> float:
        """False positives per case; a second part of a matched node is none of them. NaN without cases."""
        return _share(self.false_positives, self.cases)

    @property
    def volume_error_ml(self) -> float:
        """Mean signed volume error of true positives; NaN where there are none, as for the five that follow."""
        return _mean(error.volume_ml for error in self.errors)

    @property
    def volume_abs_error_ml(self) -> float:
        """Mean absolute volume error of true positives."""
        return _mean(abs(error.volume_ml) for error in self.errors)

    @property
    def volume_error_percent(self) -> float:
        """Mean signed volume error of true positives, each relative to its reference."""
        return _mean(error.volume_percent for error in self.errors)

    @property
    def volume_abs_error_percent(self) -> float:
        """Mean absolute volume error of true positives, each relative to its reference."""
        return _mean(abs(error.volume_percent) for error in self.errors)

    @property
    def short_axis_error_mm(self) -> float:
        """Mean signed error of the short axis of true positives."""
        return _mean(error.short_axis_mm for error in self.errors)

    @property
    def short_axis_abs_error_mm(self) -> float:
        """Mean absolute error of the short axis of true positives."""
        return _mean(abs(error.short_axis_mm) for error in self.errors)

    def to_json(self) -> dict[str, Any]:
        """Counts and figures as a JSON-able dict; what is undefined or infinite is null."""
        figures = {
            "iou": self.iou,
            "low_mm": self.low_mm,
            "high_mm": self.high_mm,
            "sizes": self.sizes,
            "cases": self.cases,
            **{field.name: getattr(self, field.name) for field in fields(Counts)},
            **{name: getattr(self, name) for name in _DERIVED},
        }
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}


_DERIVED = (
    "sensitivity",
    "touched_share",
    "precision",
    "f1",
    "false_positives_per_scan",
    "volume_error_ml",
    "volume_abs_error_ml",
    "volume_error_percent",
    "volume_abs_error_percent",
    "short_axis_error_mm",
    "short_axis_abs_error_mm",
)


def size_bins(edges_mm: Sequence[float] = SHORT_AXIS_BINS_MM) -> tuple[tuple[float, float], ...]:
    """The bins between these edges, from 0 and to infinity: (low, high), the lower edge included.

    Raises:
        ConfigError: Edges that are not positive and ascending.
    """
    bounds = (0.0, *(float(edge) for edge in edges_mm), math.inf)
    if any(not low < high for low, high in pairwise(bounds)):
        raise ConfigError(f"Bin edges {tuple(edges_mm)} mm: they must be above 0 and ascend. Sort them.")
    return tuple(pairwise(bounds))


def counts(score: NodeScore, iou: float = 0.0, low_mm: float = 0.0, high_mm: float = math.inf) -> Counts:
    """Count one case by one criterion in one bin of short axes.

    Args:
        score: The case's nodes.
        iou: What a pair's IoU has to reach; 0 asks for any overlap.
        low_mm: Count nodes whose short axis is at least this.
        high_mm: Count nodes whose short axis is below this.
    """
    in_reference = {node.id for node in score.reference if low_mm <= node.short_axis_mm < high_mm}
    in_prediction = {node.id for node in score.prediction if low_mm <= node.short_axis_mm < high_mm}
    reference = [status for number, status in score.reference_status(iou).items() if number in in_reference]
    predicted = [status for number, status in score.prediction_status(iou).items() if number in in_prediction]
    return Counts(
        nodes=len(in_reference),
        true_positives=reference.count("true-positive"),
        touched=len(in_reference & set(score.touched)),
        merged=len(in_reference & set(score.merged)),
        split=len(in_reference & set(score.split)),
        predicted=len(predicted) - predicted.count("unjudged"),
        matched_predictions=predicted.count("true-positive"),
        parts=predicted.count("part"),
        false_positives=predicted.count("false-positive"),
        unjudged=predicted.count("unjudged"),
    )


def pair_errors(
    score: NodeScore, iou: float = 0.0, low_mm: float = 0.0, high_mm: float = math.inf
) -> tuple[PairError, ...]:
    """Errors of the true positives of one case whose reference's short axis lies in the bin, by reference id."""
    references = {node.id: node for node in score.reference}
    predictions = {node.id: node for node in score.prediction}
    pairs = [(predictions[pair.prediction], references[pair.reference]) for pair in score.matched(iou)]
    return tuple(
        _error(prediction, reference) for prediction, reference in pairs if low_mm <= reference.short_axis_mm < high_mm
    )


def detect(scores: Iterable[NodeScore], iou: float = 0.0, low_mm: float = 0.0, high_mm: float = math.inf) -> Detection:
    """Pool cases by one criterion in one bin of short axes; as :func:`counts`, summed."""
    scores = list(scores)
    each = [asdict(counts(score, iou, low_mm, high_mm)) for score in scores]
    return Detection(
        iou=iou,
        low_mm=low_mm,
        high_mm=high_mm,
        cases=len(scores),
        errors=tuple(error for score in scores for error in pair_errors(score, iou, low_mm, high_mm)),
        **{field.name: sum(case[field.name] for case in each) for field in fields(Counts)},
    )


def detect_by_size(
    scores: Iterable[NodeScore], iou: float = 0.0, edges_mm: Sequence[float] = SHORT_AXIS_BINS_MM
) -> tuple[Detection, ...]:
    """Pool cases by one criterion: all sizes first, then each bin from the smallest.

    Raises:
        ConfigError: Edges that are not positive and ascending.
    """
    scores = list(scores)
    return tuple(detect(scores, iou, low, high) for low, high in ((0.0, math.inf), *size_bins(edges_mm)))


def _error(prediction: Node, reference: Node) -> PairError:
    difference = prediction.volume_ml - reference.volume_ml
    return PairError(
        volume_ml=difference,
        volume_percent=100 * difference / reference.volume_ml,
        short_axis_mm=prediction.short_axis_mm - reference.short_axis_mm,
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fmean(values) if values else math.nan
