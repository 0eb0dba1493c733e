"""Free-response operating characteristic: sensitivity against false positives per scan, by threshold.

Bunch et al., Proc. SPIE 127, 124, 1977; Chakraborty, Med. Phys. 16(4), 561, 1989. A mark is a connected piece of the
voxels at or above the threshold; as there, a second mark on a node that is matched already is neither right nor wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.components import components, from_voxels
from lnsegfm.evaluation.detection import IOU_CRITERIA
from lnsegfm.evaluation.matching import judged_voxels, matched, mostly_ignored, overlaps
from lnsegfm.evaluation.nodes import on_grid
from lnsegfm.imaging.grid import Grid

THRESHOLDS = (*(round(0.05 * k, 2) for k in range(1, 20)), 0.99)


@dataclass(frozen=True)
class FrocCounts:
    """One label of one case at every threshold.

    Args:
        thresholds: Probabilities, ascending; a voxel at or above one counts as predicted.
        nodes: Reference nodes.
        criteria: IoU that a match has to reach; 0 asks for any overlap.
        true_positives: For each criterion, reference nodes matched at each threshold.
        false_positives: For each criterion, predicted nodes at each threshold that are neither matched, nor part
            of a node that is, nor for half or more in voxels that nobody annotated.

    Raises:
        DataError: Numbers that do not fit together.
    """

    thresholds: tuple[float, ...]
    nodes: int
    criteria: tuple[float, ...]
    true_positives: tuple[tuple[int, ...], ...]
    false_positives: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        for name in ("thresholds", "criteria"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        for name in ("true_positives", "false_positives"):
            rows = tuple(tuple(int(v) for v in row) for row in getattr(self, name))
            object.__setattr__(self, name, rows)
            if [len(row) for row in rows] != [len(self.thresholds)] * len(self.criteria):
                raise DataError(
                    f"FROC {name.replace('_', ' ')}: not one number for each criterion and threshold. Evaluate again."
                )
        if any(not 0 <= count <= self.nodes for row in self.true_positives for count in row):
            raise DataError(f"FROC true positives {self.true_positives}: there are {self.nodes} nodes. Evaluate again.")

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dict; ``FrocCounts.from_json`` gives the counts back."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FrocCounts:
        """The counts that ``to_json`` has written.

        Raises:
            DataError: Something is missing, or is not what it should be.
        """
        try:
            return cls(**{name: content[name] for name in cls.__dataclass_fields__})
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"FROC {content!r:.80}: not what was written ({error}). Evaluate again.") from None


@dataclass(frozen=True)
class FrocPoint:
    """All cases at one threshold, by one criterion.

    Args:
        threshold: The probability.
        iou: The criterion.
        cases: Cases, those without nodes included.
        nodes: Their reference nodes.
        true_positives: Those that are matched.
        false_positives: Predicted nodes that are none.
    """

    threshold: float
    iou: float
    cases: int
    nodes: int
    true_positives: int
    false_positives: int

    @property
    def sensitivity(self) -> float:
        """True positives over all nodes; NaN where there are none."""
        return self.true_positives / self.nodes if self.nodes else math.nan

    @property
    def false_positives_per_scan(self) -> float:
        """False positives per case; NaN without cases."""
        return self.false_positives / self.cases if self.cases else math.nan

    def to_json(self) -> dict[str, Any]:
        """Counts and figures as a JSON-able dict; what is undefined is null."""
        figures = {"sensitivity": self.sensitivity, "false_positives_per_scan": self.false_positives_per_scan}
        return {**asdict(self), **{name: None if math.isnan(v) else v for name, v in figures.items()}}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> FrocPoint:
        """The point that ``to_json`` has written.

        Raises:
            DataError: Something is missing.
        """
        try:
            return cls(**{name: content[name] for name in cls.__dataclass_fields__})
        except (KeyError, TypeError) as error:
            raise DataError(f"FROC point {content!r:.80}: not what was written ({error}). Evaluate again.") from None


def froc_counts(
    probability: NDArray[np.floating],
    reference: NDArray[np.bool_],
    grid: Grid,
    ignored: NDArray[np.bool_] | None = None,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    criteria: Sequence[float] = IOU_CRITERIA,
    connectivity: int = 26,
) -> FrocCounts:
    """Count true and false positives of one label of one case at each threshold.

    Nodes are matched as ``matching.compare_nodes`` does. Thresholds are compared in the map's own precision, so that a
    voxel of 0.7 in single precision is at 0.7.

    Args:
        probability: Probability of the label (z, y, x), floating point, 0 to 1; NaN counts as 0.
        reference: Boolean mask (z, y, x).
        grid: Where the voxels of both lie.
        ignored: Boolean mask of the voxels that nobody annotated.
        thresholds: Probabilities above 0, ascending.
        criteria: IoU that a match has to reach; 0 asks for any overlap.
        connectivity: Which voxels are neighbours: 26, 18 or 6.

    Raises:
        ConfigError: Thresholds, criteria or a connectivity that cannot be.
        DataError: A map that holds no probabilities, or arrays that are not on the grid.
    """
    thresholds = _checked(thresholds)
    if not np.issubdtype(on_grid(probability, grid, "Probability map").dtype, np.floating):
        raise DataError(f"Probability map of {probability.dtype}: not floating point. Give probabilities from 0 to 1.")
    known = reference if ignored is None else reference & ~on_grid(ignored, grid, "Ignored voxels")
    reference_nodes = components(on_grid(known, grid, "Reference"), connectivity)
    voxels = np.flatnonzero(probability >= probability.dtype.type(thresholds[0]))
    values = probability.ravel()[voxels]
    if len(values) and values.max() > 1 + 1e-3:
        raise DataError(f"Probability {values.max():.4g}: it is above 1. Give probabilities, not logits or HU.")
    true_positives: list[list[int]] = [[] for _ in criteria]
    false_positives: list[list[int]] = [[] for _ in criteria]
    for threshold in thresholds:
        marks = from_voxels(voxels[values >= values.dtype.type(threshold)], grid.shape, connectivity)
        judged = judged_voxels(marks, ignored)
        pairs = overlaps(marks, reference_nodes, judged)
        unjudged = mostly_ignored(marks, judged)
        for place, iou in enumerate(criteria):
            kept = matched(pairs, iou)
            taken = {pair.reference for pair in kept}
            excused = {p.prediction for p in kept} | {p.prediction for p in pairs if p.reference in taken}
            true_positives[place].append(len(kept))
            false_positives[place].append(len(marks) - len(excused.union(unjudged)))
    return FrocCounts(
        thresholds=thresholds,
        nodes=len(reference_nodes),
        criteria=tuple(criteria),
        true_positives=tuple(map(tuple, true_positives)),
        false_positives=tuple(map(tuple, false_positives)),
    )


def froc_curve(cases: Iterable[FrocCounts], iou: float = 0.0) -> tuple[FrocPoint, ...]:
    """Pool cases to one point per threshold, from the highest threshold (fewest false positives) to the lowest.

    Raises:
        DataError: Cases counted at other thresholds, or without this criterion.
    """
    cases = list(cases)
    if not cases:
        return ()
    thresholds = cases[0].thresholds
    if any(case.thresholds != thresholds or iou not in case.criteria for case in cases):
        raise DataError(f"FROC at IoU {iou:g}: the cases were counted at other thresholds. Count them alike.")
    rows = [(case, case.criteria.index(iou)) for case in cases]
    points = [
        FrocPoint(
            threshold=threshold,
            iou=iou,
            cases=len(cases),
            nodes=sum(case.nodes for case in cases),
            true_positives=sum(case.true_positives[row][place] for case, row in rows),
            false_positives=sum(case.false_positives[row][place] for case, row in rows),
        )
        for place, threshold in enumerate(thresholds)
    ]
    return tuple(reversed(points))


def _checked(thresholds: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(threshold) for threshold in thresholds)
    if not values or not all(0 < v <= 1 for v in values) or any(a >= b for a, b in pairwise(values)):
        raise ConfigError(f"Thresholds {values}: not ascending probabilities above 0. Give some from 0.05 to 0.99.")
    return values
