"""The left label of a pair lies on the patient's left, and one of a side alone where it lies in the other cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np

from lnsegfm.datasets.doctor.body import Body
from lnsegfm.datasets.doctor.finding import Finding
from lnsegfm.imaging.grid import Grid
from lnsegfm.messages import counted

CLEAR_MM = 5.0  # centres that are nearer than this in x prove nothing
BESIDE_MM = 15.0
"""A centre that is nearer to the middle of the body is on no side."""
FEWEST, MOST_APART = 3, 0.25
"""Cases at least that agree on a side, and the largest share of cases that may lie on the other one."""
ALIKE_VOLUME, ASKEW = 2.0, 0.35
"""Of labels that mirror each other: how many times larger one may be, and how far off, as a share of their distance."""


def centre_mm(there: np.ndarray, grid: Grid, start: Sequence[int] = (0, 0, 0)) -> np.ndarray | None:
    """LPS (x, y, z) of the centre of a label, mm; None where it is empty.

    Args:
        there: Its voxels (boolean, z, y, x), or a part of the mask that holds all of them.
        grid: Of the whole mask.
        start: Where the part begins (z, y, x).
    """
    sums, count = np.zeros(3), 0
    for z, plane in enumerate(there):
        rows, columns = np.nonzero(plane)
        sums += (columns.sum(), rows.sum(), z * len(rows))
        count += len(rows)
    if not count:
        return None
    step = (sums / count + np.array(start)[::-1]) * grid.spacing_mm[::-1]
    centre: np.ndarray = np.array(grid.origin_mm) + np.array(grid.direction).reshape(3, 3) @ step
    return centre


def centre_x_mm(there: np.ndarray, grid: Grid) -> float | None:
    """LPS x of the centre of a label (boolean, z, y, x), mm (larger is further to the left); None where it is empty."""
    centre = centre_mm(there, grid)
    return None if centre is None else float(centre[0])


def swapped(centres: Mapping[str, float], pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str, float]]:
    """The pairs whose left label lies to the right of its right one, and by how many mm."""
    return [
        (left, right, centres[right] - centres[left])
        for left, right in pairs
        if left in centres and right in centres and centres[right] - centres[left] > CLEAR_MM
    ]


def middle_x_mm(grid: Grid, body: Body | None) -> float:
    """LPS x of the middle of the body, mm; of the scan where no body is found."""
    if body is not None and body.inside.any():
        (z, y, x), step = grid.spacing_mm, body.step
        coarse = replace(grid, shape=body.inside.shape, spacing_mm=(z * step[0], y * step[1], x * step[2]))
        middle = centre_x_mm(body.inside, coarse)
        if middle is not None:
            return middle
    half = (np.array(grid.shape) - 1) / 2 * grid.spacing_mm
    return float(grid.origin_mm[0] + np.array(grid.direction[:3]) @ half[::-1])


def judge_other_side(name: str, offsets: Mapping[str, tuple[Path | None, float]]) -> list[Finding]:
    """A finding for each case in which a label that names a side lies on the other side than in most cases.

    Where the label lies in most cases counts, not what it is called: a left lobe of the liver lies right of the middle.

    Args:
        name: The label's.
        offsets: By case, the file and how far left of the body's middle the label lies, mm; of cases in which the
            label of the other side is not there to compare with, and of the others.
    """
    clear = {case: mm for case, (_, mm) in offsets.items() if abs(mm) >= BESIDE_MM}
    left = sum(mm > 0 for mm in clear.values())
    usual = 1 if 2 * left > len(clear) else -1
    apart = [case for case, mm in clear.items() if mm * usual < 0]
    agree = len(clear) - len(apart)
    if not apart or agree < FEWEST or len(apart) > MOST_APART * len(clear):
        return []
    sides = {1: "left", -1: "right"}
    remedy = "Look at an organ that lies on one side; then rename the label or correct the header"
    return [
        Finding(
            "side-differs",
            "warning",
            case,
            offsets[case][0],
            f"label {name} lies {abs(clear[case]):.0f} mm to the {sides[-usual]} of the middle, and to the "
            f"{sides[usual]} in {counted(agree, 'case')}",
            remedy,
        )
        for case in apart
    ]


def judge_unnamed_sides(
    centres: Mapping[str, Mapping[str, np.ndarray]], volumes_ml: Mapping[str, Mapping[str, tuple[Path | None, float]]]
) -> list[Finding]:
    """A finding for two labels that mirror each other in all cases, though their names do not say a side.

    Args:
        centres: By label that names no side, and case: LPS of its centre, mm, x from the middle of the body.
        volumes_ml: By label and case.
    """
    findings = []
    for (one, mine), (other, theirs) in combinations(centres.items(), 2):
        shared = [case for case in mine if case in theirs]
        if len(shared) < FEWEST:
            continue
        sizes = [volumes_ml[one][case][1] / volumes_ml[other][case][1] for case in shared]
        alike = 1 / ALIKE_VOLUME <= float(np.median(sizes)) <= ALIKE_VOLUME
        if alike and all(_mirrored(mine[case], theirs[case], mine[shared[0]][0]) for case in shared):
            left, right = (one, other) if mine[shared[0]][0] > 0 else (other, one)
            what = (
                f"labels {left} and {right} mirror each other in {counted(len(shared), 'case')}: left and right of one "
                "structure? Their names do not say so, and mirrored training confuses them"
            )
            remedy = f"Name them by their side, such as {left}_L and {right}_R, or train with --mirror y,z"
            findings.append(Finding("sides-unnamed", "warning", "", None, what, remedy))
    return findings


def _mirrored(one: np.ndarray, other: np.ndarray, sign: float) -> bool:
    """Whether two centres mirror each other, the first one on the side of ``sign``."""
    apart = one[0] - other[0]
    on_both_sides = min(abs(one[0]), abs(other[0])) >= BESIDE_MM and one[0] * other[0] < 0 < one[0] * sign
    askew = np.array([one[0] + other[0], *(one - other)[1:]])
    return bool(on_both_sides and np.abs(askew).max() <= ASKEW * abs(apart))
