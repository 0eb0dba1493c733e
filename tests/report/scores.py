"""Evaluations and little scans to report on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.evaluate import CaseScore, Evaluation, LabelScore, evaluate_case
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import IDENTITY, Grid
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.page import CasePicture

NODE = LabelMap({"lymph_node": 1}, ignore=2)


def evaluation(dice_by_label: Mapping[str, Sequence[float]], *, known: bool = True) -> Evaluation:
    """One case for each value; a NaN means that neither mask holds the label."""
    labels = LabelMap({name: i for i, name in enumerate(dice_by_label, start=1)})
    cases = []
    for i in range(len(next(iter(dice_by_label.values())))):
        scores = {}
        for name, dice in dice_by_label.items():
            reference_ml = 0.0 if math.isnan(dice[i]) else 4.0
            scores[name] = LabelScore(dice[i], reference_ml, 3.0 * (reference_ml > 0), -1.0, known)
        cases.append(CaseScore(f"case_{i}", scores))
    return Evaluation(labels, tuple(cases))


def nodes(base: Sequence[float], adapted: Sequence[float]) -> Comparison:
    return Comparison(evaluation({"lymph_node": base}), evaluation({"lymph_node": adapted}))


def scan(folder: Path, name: str, shift: int, direction: tuple[float, ...] = IDENTITY) -> CasePicture:
    """A CT of 12 x 60 x 50 voxels with one node; the base finds nothing, the adapted mask is ``shift`` voxels off."""
    grid = Grid((12, 60, 50), (3.0, 2.0, 2.0), (0.0, 0.0, 0.0), direction)
    ct, reference, adapted = (
        np.full(grid.shape, -90, np.int16),
        np.zeros(grid.shape, np.uint8),
        np.zeros(grid.shape, int),
    )
    ct[4:8, 20:30, 10:18] = 60
    reference[4:8, 20:30, 10:18] = 1
    reference[4:6, 40:44, 30:34] = 2
    adapted[4:8, 20:30, 10 + shift : 18 + shift] = 1
    files = {kind: folder / f"scan{shift}_{kind}.nii.gz" for kind in ("image", "reference", "base", "adapted")}
    write_volume(files["image"], ct, grid)
    write_mask(files["reference"], reference, grid)
    write_mask(files["base"], np.zeros(grid.shape, np.uint8), grid)
    write_mask(files["adapted"], adapted, grid)
    return CasePicture(name, files["image"], files["reference"], files["base"], files["adapted"], NODE)


def compare(cases: Sequence[CasePicture]) -> Comparison:
    """Score the scans' files as a run does."""
    base, adapted = (
        tuple(evaluate_case(c.case, getattr(c, which), c.reference, c.labels) for c in cases)
        for which in ("base", "adapted")
    )
    return Comparison(Evaluation(NODE, base), Evaluation(NODE, adapted))
