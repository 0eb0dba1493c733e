"""Series torn by what differs between their slices: stacks of several geometries whose places are one even stack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lnsegfm.imaging.dicom.acquisition_hints import ACQUISITION_HINTS
from lnsegfm.imaging.dicom.evidence import FEW_SLICES
from lnsegfm.imaging.dicom.headers import DISTINGUISHING_KEYWORDS
from lnsegfm.imaging.dicom.plane_groups import PlaneGroup
from lnsegfm.imaging.dicom.series_index import Refusal
from lnsegfm.imaging.dicom.slice_steps import same_position_mm, unevenness

_ONE_NORMAL = 0.9994
"""Cosine of 2 degrees: planes of one stack do not lean more against each other."""


def torn(groups: Sequence[PlaneGroup]) -> tuple[list[PlaneGroup], list[Refusal]]:
    """Without the groups whose slices interleave or join to one even stack, though they are no one volume.

    Args:
        groups: The geometries of a series, the largest first.

    Returns:
        The other groups, and a refusal that says what differs where there is such a stack.
    """
    groups = list(groups)
    if len(groups) < 2:
        return groups, []
    normal = groups[0].axes[:, 2]
    aligned = [group for group in groups if float(group.axes[:, 2] @ normal) > _ONE_NORMAL]
    for together in (aligned, *([groups[0], other] for other in aligned[1:])):
        if len(together) > 1 and _is_one_stack(together, normal) and not _told_apart(together):
            return [group for group in groups if group not in together], [_refusal(together)]
    return groups, []


def _is_one_stack(groups: Sequence[PlaneGroup], normal: np.ndarray) -> bool:
    heights = np.sort(np.concatenate([group.positions_mm @ normal for group in groups]))
    return (
        bool(np.diff(heights).min() > same_position_mm(heights)) and unevenness(heights, groups[0].rounded_mm) is None
    )


def _told_apart(groups: Sequence[PlaneGroup]) -> bool:
    """Whether they are acquisitions that interleave: each an even stack of its own, with a value of its own."""
    if any(len(group.planes) < FEW_SLICES or group.unevenness() is not None for group in groups):
        return False
    low, high = max(group.heights_mm[0] for group in groups), min(group.heights_mm[-1] for group in groups)
    if low >= high:
        return False
    for k, keyword in enumerate(DISTINGUISHING_KEYWORDS):
        values = [{plane.distinguishing[k] for plane in group.planes} for group in groups]
        alone = all(len(of) == 1 for of in values) and len(set.union(*values)) == len(groups)
        if keyword in ACQUISITION_HINTS and alone:
            return True
    return False


def _refusal(groups: Sequence[PlaneGroup]) -> Refusal:
    name, count = groups[0].name, sum(len(group.planes) for group in groups)
    by_keyword = {
        "Rows": [str(group.planes[0].rows) for group in groups],
        "Columns": [str(group.planes[0].columns) for group in groups],
        "PixelSpacing": [_numbers(group.spacing_mm) for group in groups],
        "ImageOrientationPatient": [_numbers(group.axes[:, :2].T.ravel()) for group in groups],
    }
    keyword, values = next((k, v) for k, v in by_keyword.items() if len(set(v)) > 1 or k == "ImageOrientationPatient")
    shown = ", ".join(f"{v} in {len(g.planes)}" for v, g in list(zip(values, groups, strict=True))[:3])
    more = ", ..." if len(groups) > 3 else ""
    what = f"its {count} slices are one even stack by their places, but differ in {keyword} ({shown}{more})"
    return Refusal(
        name, f"Series {name}: {what}, so they are no volume. Export the original slices again.", images=count
    )


def _numbers(values: Sequence[float] | np.ndarray) -> str:
    return "\\".join(f"{round(float(v), 6) + 0.0:.6g}" for v in values)
