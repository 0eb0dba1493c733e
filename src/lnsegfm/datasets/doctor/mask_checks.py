"""What is suspicious about one label or structure: fragments, air, the wrong side, a place outside the body."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lnsegfm.datasets.doctor.finding import Finding, Severity
from lnsegfm.datasets.doctor.fragments import find_fragments
from lnsegfm.datasets.labels import node_labels
from lnsegfm.imaging.grid import Grid
from lnsegfm.messages import counted

OUTSIDE_SHARE, AIR_SHARE, AIR_HU = 0.05, 0.5, -300.0
MANY_FRAGMENTS, MANY_NODES = 10, 3  # each fragment of a node label counts as a node where nodes are counted
_HOLLOW = ("lung", "trache", "airway", "bronch", "carina", "bowel", "colon", "stomach", "sophag", "laryn", "pharyn",
           "sinus", "duoden", "intestin", "cavity", "air")  # fmt: skip
_MISPLACED = "Check whether it is shifted or mirrored against its image"


def judge_fragments(
    case: str, file: Path | None, named: str, there: np.ndarray, grid: Grid, *, fix: str | None = None
) -> list[Finding]:
    """A finding where the mask has fragments: a note, and a warning from ten on, of lymph nodes from three on.

    Args:
        case: Name of the case or the series.
        file: The file that holds the mask.
        named: ``label`` or ``structure``, and its name.
        there: The mask, boolean (z, y, x), or a part of it that holds all of it.
        grid: Of the whole mask; its voxels' size counts.
        fix: Name of the fix that exists for it.
    """
    nodes = bool(node_labels([named.partition(" ")[2]]))
    if (fragments := find_fragments(there, grid, nodes=nodes)) is None:
        return []
    ml = fragments.voxels * grid.voxel_volume_ml
    voxels = counted(fragments.voxels, "voxel")
    pieces = counted(fragments.count, "fragment")
    what = f"{named} has {pieces} ({voxels}, {ml:.3f} ml) next to a component of {fragments.largest} voxels"
    severity: Severity = "warning" if fragments.count >= (MANY_NODES if nodes else MANY_FRAGMENTS) else "note"
    remedy = "Look at them; remove them if they are slips of the pen or of a resampling"
    return [Finding("fragments", severity, case, file, what, remedy, fix=fix)]


def judge_air(case: str, file: Path | None, named: str, values: np.ndarray) -> list[Finding]:
    """A finding where most of the HU under a mask are air, and its name is not that of something hollow."""
    share = float(np.mean(values < AIR_HU)) if values.size else 0.0
    if share <= AIR_SHARE or any(word in named.lower() for word in _HOLLOW):
        return []
    what = f"{share:.0%} of {named} lie in air (below {AIR_HU:g} HU)"
    return [Finding("label-in-air", "warning", case, file, what, _MISPLACED)]


def judge_place(case: str, file: Path | None, named: str, outside: int, voxels: int) -> list[Finding]:
    """A finding where more than 5 % of a mask's voxels lie outside the body."""
    if not voxels or outside / voxels <= OUTSIDE_SHARE:
        return []
    what = f"{outside / voxels:.0%} of {named} ({outside} voxels) lie outside the body"
    return [Finding("label-outside", "warning", case, file, what, _MISPLACED)]


def judge_sides(case: str, file: Path | None, noun: str, wrong: Sequence[tuple[str, str, float]]) -> list[Finding]:
    """A finding for each pair (left, right, by how many mm) that lies the wrong way round."""
    remedy = "Look at an organ that lies on one side; then swap the labels or correct the header"
    return [
        Finding(
            "sides-swapped",
            "warning",
            case,
            file,
            f"{noun} {left} lies {mm:.0f} mm to the right of {right}: the names or the header are mirrored",
            remedy,
        )
        for left, right, mm in wrong
    ]
