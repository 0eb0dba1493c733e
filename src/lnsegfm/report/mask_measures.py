"""What the masks of held-out cases say of a label beyond its scores: its extent, and whether sides are exchanged."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np

from lnsegfm.datasets.sided_labels import side_pairs
from lnsegfm.evaluation.overlap import dice
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.imaging.files import read_mask
from lnsegfm.report.advice_facts import LabelMeasure

MOST_CASES = 12


def measure_labels(evaluation: Evaluation, labels: Sequence[str]) -> dict[str, LabelMeasure]:
    """Extents and Dice against the other side, over the first `MOST_CASES` cases whose masks are on one grid.

    Args:
        evaluation: The adapted model's.
        labels: The labels to measure; regions of several values are left out.
    """
    values = evaluation.labels.names
    predicted = (evaluation.prediction_labels or evaluation.labels).names
    other = {one: two for pair in side_pairs(values) for one, two in (pair, pair[::-1])}
    wanted = [n for n in labels if n in predicted] if not evaluation.labels.regions else []
    extents: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    swapped: dict[str, list[float]] = {name: [] for name in wanted}
    for case in evaluation.cases[:MOST_CASES] if wanted else ():
        if case.files is None or case.files.prediction is None:
            continue
        (reference, grid), (mask, _) = read_mask(case.files.reference), read_mask(case.files.prediction)
        if mask.shape != reference.shape:
            continue
        for name in wanted:
            places = np.nonzero(reference == values[name])
            if len(places[0]):
                extents[name].append(np.array([np.ptp(p) + 1 for p in places]) * grid.spacing_mm)
            if name in other:
                swapped[name].append(dice(mask == predicted[name], reference == values[other[name]]))
    measured = {}
    for name in wanted:
        if extents[name]:
            z, y, x = map(float, np.median(extents[name], axis=0))
            known = [value for value in swapped[name] if not np.isnan(value)]
            measured[name] = LabelMeasure((z, y, x), (other[name], statistics.fmean(known)) if known else None)
    return measured
