"""Evaluations and little scans to report on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.case_scores import CaseScore, LabelScore
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.scoring import Known, Scoring, evaluate_case
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import IDENTITY, Grid
from lnsegfm.report.comparison import Comparison

NODE = LabelMap({"lymph_node": 1}, ignore=2)
NODES = Scoring(node_labels=("lymph_node",))
ORIGIN_MM = (-50.0, -60.0, -100.0)


def evaluation(dice_by_label: Mapping[str, Sequence[float]], *, known: bool = True) -> Evaluation:
    """One case for each value; a NaN means that neither mask holds the label."""
    labels = LabelMap({name: i for i, name in enumerate(dice_by_label, start=1)})
    cases = []
    for i in range(len(next(iter(dice_by_label.values())))):
        scores = {}
        for name, dice in dice_by_label.items():
            reference_ml = 0.0 if math.isnan(dice[i]) else 4.0
            scores[name] = LabelScore(dice[i], reference_ml, 3.0 * (reference_ml > 0), -1.0, known=known)
        cases.append(CaseScore(f"case_{i}", scores))
    return Evaluation(labels, tuple(cases))


def nodes(base: Sequence[float], adapted: Sequence[float]) -> Comparison:
    return Comparison(evaluation({"lymph_node": base}), evaluation({"lymph_node": adapted}))


def write_scan(
    folder: Path,
    name: str,
    boxes: Mapping[str, Sequence[tuple[slice, slice, slice]]],
    direction: Sequence[float] = IDENTITY,
) -> dict[str, Path]:
    """A CT of 16 x 60 x 50 voxels of 3 x 2 x 2 mm and its masks, boxes of voxels each; ``ignored`` has its own."""
    grid = Grid((16, 60, 50), (3.0, 2.0, 2.0), ORIGIN_MM, tuple(direction))
    ct = np.full(grid.shape, -90, np.int16)
    masks = {kind: np.zeros(grid.shape, np.uint8) for kind in ("reference", "base", "adapted")}
    for kind, where in boxes.items():
        for box in where:
            if kind == "ignored":
                masks["reference"][box] = 2
            else:
                masks[kind][box] = 1
                ct[box] = 60
    files = {kind: folder / f"{name}_{kind}.nii.gz" for kind in ("image", *masks)}
    write_volume(files["image"], ct, grid)
    for kind, mask in masks.items():
        write_mask(files[kind], mask, grid)
    return files


def box(z: int, y: int, x: int, size: tuple[int, int, int] = (4, 10, 8)) -> tuple[slice, slice, slice]:
    """A box of voxels from this corner."""
    starts = (z, y, x)
    return tuple(slice(start, start + n) for start, n in zip(starts, size, strict=True))  # type: ignore[return-value]


def shifted(folder: Path, file: str, shift: int) -> dict[str, Path]:
    """One node of 8 voxels' width that the base misses and that the adapted mask has ``shift`` voxels to the left."""
    places = {
        "reference": [box(4, 20, 10)],
        "adapted": [box(4, 20, 10 + shift)],
        "ignored": [box(4, 40, 30, (2, 4, 4))],
    }
    return write_scan(folder, file, places)


def score(
    scans: Mapping[str, Mapping[str, Path]], which: str, *, scoring: Scoring = NODES, images: bool = True
) -> Evaluation:
    """Score the masks of one model, case by case."""
    known = Known(images={case: files["image"] for case, files in scans.items()} if images else {})
    cases = [
        evaluate_case(case, files[which], files["reference"], NODE, scoring=scoring, known=known)
        for case, files in scans.items()
    ]
    return Evaluation(NODE, tuple(cases), node_labels=scoring.node_labels)


def compare(scans: Mapping[str, Mapping[str, Path]], **how: bool) -> Comparison:
    """Score both models' masks as a run does."""
    return Comparison(score(scans, "base", **how), score(scans, "adapted", **how))
