"""Suspicious geometries: spacings unlike the others', affines that are mirrored or contradict themselves."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lnsegfm.datasets.doctor.finding import Finding
from lnsegfm.imaging.grid import Grid

MEDIAN_FACTOR = 1.5
FINEST_MM, COARSEST_MM = 0.2, 10.0
_TRANSFORMS_MM = 0.5
_NIFTI = 348  # bytes of the header of NIfTI-1


def axis_codes(grid: Grid) -> str:
    """The directions in which the axes x, y and z of a file grow: ``LPS`` is to the patient's left, back and head."""
    direction = np.array(grid.direction).reshape(3, 3)
    letters = []
    for column in direction.T:
        axis = int(np.abs(column).argmax())
        letters.append(("RL", "AP", "IS")[axis][int(column[axis] > 0)])
    return "".join(letters)


def judge_grids(grids: Mapping[str, tuple[Path | None, Grid]]) -> list[Finding]:
    """What is suspicious about the geometry of each image, alone and compared with the others.

    Args:
        grids: File and grid of the first image of each case.
    """
    if not grids:
        return []
    median = np.median([grid.spacing_mm for _, grid in grids.values()], axis=0)
    directions = Counter(axis_codes(grid) for _, grid in grids.values())
    usual, most = directions.most_common(1)[0]
    findings = []
    for case, (file, grid) in grids.items():
        findings += _spacing(case, file, grid, median, len(grids))
        if (codes := axis_codes(grid)) != usual:
            what = (
                f"its axes x, y, z run to {codes}, those of {most} of {len(grids)} cases to {usual}: networks see the "
                "arrays as they are stored, so this scan looks mirrored or turned compared with the others"
            )
            remedy = "Look whether the header is right; if it is, store the scan and its label in the common order"
            findings.append(Finding("axes-differ", "warning", case, file, what, remedy))
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


def judge_nifti_header(case: str, file: Path, grid: Grid) -> list[Finding]:
    """Whether a NIfTI's header states a spacing, and its two transforms agree; other files are passed over."""
    try:
        header, order = _header(file)
    except (OSError, EOFError, zlib.error, struct.error):
        return []
    if not order:
        return []
    steps = struct.unpack(order + "3f", header[80:92])
    if not all(0 < step < np.inf for step in steps):
        stated = " x ".join(f"{step:g}" for step in steps)
        what = f"its header states a spacing of {stated} mm (x, y, z): the spacing it is read with is a guess"
        return [Finding("spacing", "warning", case, file, what, "Export it again from the DICOM")]
    transforms = _transforms(header, order)
    if transforms is None:
        return []
    if not np.isfinite(transforms).all():
        what = "its qform or sform holds numbers that are not finite: tools disagree on where it lies"
        return [Finding("transforms-differ", "warning", case, file, what, "Export the file again")]
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    corners[:, :3] *= np.array(grid.shape[::-1]) - 1
    gap = float(np.linalg.norm((corners @ (transforms[0] - transforms[1]).T)[:, :3], axis=1).max())
    if not gap > _TRANSFORMS_MM:
        return []
    mirrored = np.linalg.det(transforms[0][:3, :3]) * np.linalg.det(transforms[1][:3, :3]) < 0
    aside = ", and one is the mirror image of the other" if mirrored else ""
    what = f"its qform and sform differ by {gap:.1f} mm at a corner of the scan{aside}: tools disagree on where it lies"
    return [
        Finding("transforms-differ", "warning", case, file, what, "Find out which is right, and export the file again")
    ]


def _header(file: Path) -> tuple[bytes, str]:
    """The header of a NIfTI-1 and its byte order, which is empty for any other file."""
    with file.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with gzip.open(file, "rb") if packed else file.open("rb") as content:
        header = content.read(_NIFTI)
    return header, next(
        (o for o in "<>" if len(header) == _NIFTI and struct.unpack(o + "i", header[:4])[0] == _NIFTI), ""
    )


def _transforms(header: bytes, order: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Quaternion and matrix transform of a NIfTI-1, as RAS; None where it does not state both."""
    qform, sform = struct.unpack(order + "2h", header[252:256])
    if qform <= 0 or sform <= 0:
        return None
    b, c, d, *offset = struct.unpack(order + "6f", header[256:280])
    handed, *steps = struct.unpack(order + "4f", header[76:92])
    a = max(0.0, 1 - b * b - c * c - d * d) ** 0.5
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    quaternion = np.eye(4)
    quaternion[:3, :3] = turn * [steps[0], steps[1], steps[2] * (-1 if handed < 0 else 1)]
    quaternion[:3, 3] = offset
    matrix = np.eye(4)
    matrix[:3] = np.array(struct.unpack(order + "12f", header[280:328])).reshape(3, 4)
    return quaternion, matrix
