"""Suspicious geometries: spacings unlike the others', affines that are mirrored or contradict themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lnsegfm.datasets.doctor.finding import Finding
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.orientation import axis_codes, turn_to
from lnsegfm.imaging.stored_image import nifti_notes

MEDIAN_FACTOR = 1.5
FINEST_MM, COARSEST_MM = 0.2, 10.0


def judge_grids(grids: Mapping[str, tuple[Path | None, Grid]]) -> list[Finding]:
    """What is suspicious about the geometry of each image, alone and compared with the others.

    Args:
        grids: File and grid of the first image of each case.
    """
    if not grids:
        return []
    directions = Counter(axis_codes(grid) for _, grid in grids.values())
    usual, most = directions.most_common(1)[0]
    turned = {case: turn_to(grid, usual).grid(grid) for case, (_, grid) in grids.items()}
    median = np.median([grid.spacing_mm for grid in turned.values()], axis=0)
    findings = []
    for case, (file, grid) in grids.items():
        findings += _spacing(case, file, turned[case], median, len(grids))
        if (codes := axis_codes(grid)) != usual:
            what = (
                f"its axes x, y, z run to {codes}, those of {most} of {len(grids)} cases to {usual}: it is turned to "
                "the model's, exactly, by its header; nnU-Net itself takes most scans as they are stored"
            )
            remedy = "Look whether the header is right: an organ on the wrong side shows that it is not"
            findings.append(Finding("axes-differ", "note", case, file, what, remedy))
        if np.linalg.det(np.array(grid.direction).reshape(3, 3)) < 0:
            what = f"its axes ({codes}) are left-handed, as in a mirror: a convention, or left and right are swapped"
            remedy = "Look at an organ that lies on one side, such as the liver on the patient's right"
            findings.append(Finding("mirrored-axes", "warning", case, file, what, remedy))
    return _merge_mirrored(findings, len(grids))


def _merge_mirrored(findings: list[Finding], cases: int) -> list[Finding]:
    """One note instead of a warning a case where every scan is left-handed: that is how the set is stored."""
    mirrored = [f for f in findings if f.kind == "mirrored-axes"]
    if len(mirrored) < max(cases, 2):
        return findings
    what = f"the axes of all {cases} scans are left-handed: a convention of some tools, or left and right are swapped"
    rest = [f for f in findings if f.kind != "mirrored-axes"]
    return [*rest, Finding("mirrored-axes", "note", "", None, what, mirrored[0].remedy)]


def _spacing(case: str, file: Path | None, grid: Grid, median: np.ndarray, cases: int) -> list[Finding]:
    stated = " x ".join(f"{s:.4g}" for s in grid.spacing_mm)
    if not all(FINEST_MM <= s <= COARSEST_MM for s in grid.spacing_mm):
        what = f"spacing {stated} mm (z, y, x) is not a CT's: {FINEST_MM:g} to {COARSEST_MM:g} mm are usual"
        return [Finding("spacing", "warning", case, file, what, "Look whether the header is right; export it again")]
    ratio = np.array(grid.spacing_mm) / median
    if cases < 3 or np.all(np.maximum(ratio, 1 / ratio) <= MEDIAN_FACTOR):
        return []
    usual = " x ".join(f"{s:.4g}" for s in median)
    what = (
        f"spacing {stated} mm (z, y, x) differs from the median {usual} mm by more than a factor of {MEDIAN_FACTOR:g}"
    )
    return [Finding("spacing", "warning", case, file, what, "Look whether the header is right, or leave the case out")]


def judge_nifti_header(case: str, file: Path) -> list[Finding]:
    """Whether the two transforms of a NIfTI agree; other files are passed over."""
    remedy = "Find out which is right, and export the file again"
    return [Finding("transforms-differ", "warning", case, file, what, remedy) for what in nifti_notes(file)]
