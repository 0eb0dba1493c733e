"""Slices that were left out between the outlines of an object, and their voxels by shape-based interpolation.

An object is what is connected within a slice; it goes on where it overlaps something on the next slice. Where it ends
on one slice and something that overlaps it begins two or more slices later, the slices between were skipped.

Interpolation: signed distances from the border, in mm and positive inside, are averaged between the two slices,
weighted by their distance, and what is positive is inside (Raya and Udupa, IEEE Trans Med Imaging 1990; Herman et al.,
IEEE Computer Graphics and Applications 1992).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from lnsegfm.imaging.box import bounding_box

LARGEST_GAP_MM = 20.0
"""Outlines farther apart than this are taken as two objects: nothing is filled in between."""
SHARED = 1 / 3
"""Of the smaller of two outlines: less than this over the other reads as two objects, such as neighbouring nodes."""
_ORDINALS = {2: "second", 3: "third", 4: "fourth", 5: "fifth"}
_FRAGMENT = 1 / 3  # width by gap below which outlines are fragments
_SHOWN = 12
_NEIGHBOURS = np.ones((3, 3), dtype=bool)


@dataclass(frozen=True)
class SliceGap:
    """Slices that were skipped between two outlines of an object.

    Args:
        before: Slice of the last outline before them, in the array that was searched.
        after: Slice of the first outline after them.
        upper: The object on ``before``, booleans (rows, columns).
        lower: The object on ``after``.
        two_objects: It reads as two objects above each other: the outlines are more than ``LARGEST_GAP_MM`` apart;
            less than ``SHARED`` of the smaller lies over the other; or more than one slice is missing, each side goes
            on on its other side, and one is narrower than the gap.
    """

    before: int
    after: int
    upper: np.ndarray = field(repr=False)
    lower: np.ndarray = field(repr=False)
    two_objects: bool = False

    @property
    def skipped(self) -> range:
        """The slices between."""
        return range(self.before + 1, self.after)


def find_slice_gaps(
    voxels: np.ndarray, spacing_mm: tuple[float, float, float], connected: Set[int] = frozenset()
) -> list[SliceGap]:
    """Slices that were skipped between outlines of an object.

    Where more than one slice is missing, outlines narrower than a third of the distance between them are fragments
    of their own and no gap.

    Args:
        voxels: A structure, boolean (z, y, x).
        spacing_mm: Of its voxels (z, y, x).
        connected: Slices whose voxels are known to be one object, which need no search for several.
    """
    filled = [k for k in range(len(voxels)) if voxels[k].any()]
    gaps: list[SliceGap] = []
    begun: dict[int, np.ndarray] = {}
    reach = int(LARGEST_GAP_MM / spacing_mm[0] + 1e-6)
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    for number, k in enumerate(filled[:-1]):
        ended = _apart_from(voxels[k], voxels[k + 1], k in connected)
        following = filled[number + 1]
        for after in [n for n in filled[number + 1 :] if k + 2 <= n <= max(k + reach, following)]:
            if not ended.any():
                break
            if after not in begun:
                begun[after] = _apart_from(voxels[after], voxels[after - 1], after in connected)
            for upper, lower in _overlapping(ended, begun[after]):
                goes_on = (
                    k > 0 and (upper & voxels[k - 1]).any(),
                    after + 1 < len(voxels) and (lower & voxels[after + 1]).any(),
                )
                widths_mm = [(pixel_mm2 * np.count_nonzero(part)) ** 0.5 for part in (upper, lower)]
                gap_mm = (after - k) * spacing_mm[0]
                if after > k + 2 and max(widths_mm) < _FRAGMENT * gap_mm:
                    continue
                apart = after > k + 2 and all(goes_on) and min(widths_mm) < gap_mm
                shared = np.count_nonzero(upper & lower) / min(np.count_nonzero(upper), np.count_nonzero(lower))
                two = after > k + reach or apart or shared < SHARED
                gaps.append(SliceGap(k, after, upper, lower, bool(two)))
                ended = ended & ~upper
    return gaps


def _apart_from(plane: np.ndarray, neighbour: np.ndarray, connected: bool) -> np.ndarray:
    """The objects of a slice that overlap nothing on a neighbouring slice."""
    overlap = plane & neighbour
    if not overlap.any():
        return plane
    if connected:
        return np.zeros_like(plane)
    objects, count = ndimage.label(plane, _NEIGHBOURS)
    alone = np.ones(count + 1, dtype=bool)
    alone[objects[overlap]] = alone[0] = False
    apart: np.ndarray = alone[objects]
    return apart


def _overlapping(upper: np.ndarray, lower: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Objects of two slices that overlap each other, each group with its part of either slice."""
    if not (upper & lower).any():
        return
    structure = np.zeros((3, 3, 3), dtype=bool)
    structure[1], structure[:, 1, 1] = True, True
    groups, count = ndimage.label(np.stack((upper, lower)), structure)
    for number in range(1, count + 1):
        pair = groups == number
        if pair[0].any() and pair[1].any():
            yield pair[0], pair[1]


def filled_gaps(
    voxels: np.ndarray, gaps: Sequence[SliceGap], pixel_mm: tuple[float, float]
) -> tuple[np.ndarray, dict[int, int]]:
    """A structure with its skipped slices filled in, and by slice how many voxels were added.

    Args:
        voxels: Boolean (z, y, x).
        gaps: Of ``find_slice_gaps``; those that read as two objects stay as they are.
        pixel_mm: Distance of rows and of columns.
    """
    filled, added = voxels.copy(), dict[int, int]()
    for gap in gaps:
        if gap.two_objects:
            continue
        rows, columns = np.nonzero(gap.upper | gap.lower)
        window = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
        upper, lower = (_signed_distance(part[window], pixel_mm) for part in (gap.upper, gap.lower))
        for k in gap.skipped:
            part = (k - gap.before) / (gap.after - gap.before)
            new = ((1 - part) * upper + part * lower > 0) & ~filled[k][window]
            filled[k][window] |= new
            added[k] = added.get(k, 0) + int(np.count_nonzero(new))
    return filled, {k: count for k, count in sorted(added.items()) if count}


def _signed_distance(plane: np.ndarray, pixel_mm: tuple[float, float]) -> np.ndarray:
    """Distance from the nearest pixel on the other side of the border, positive inside, mm."""
    padded = np.pad(plane, 1)
    inside = ndimage.distance_transform_edt(padded, sampling=pixel_mm)
    outside = ndimage.distance_transform_edt(~padded, sampling=pixel_mm)
    distance: np.ndarray = (inside - outside)[1:-1, 1:-1]
    return distance


def gap_notes(
    title: str, voxels: np.ndarray, gaps: Sequence[SliceGap], first: int, slice_mm: float, *, noun: str = "contours"
) -> list[str]:
    """Lines about skipped slices.

    Args:
        title: What they begin with, such as ``Structure 'LN'``.
        voxels: Boolean (z, y, x), before anything is filled in.
        gaps: Of ``find_slice_gaps``.
        first: Position of the array's first slice in the series, from 0.
        slice_mm: Distance of slices.
        noun: What was drawn.
    """
    drawn = np.flatnonzero(voxels.any(axis=(1, 2)))
    steps = np.unique(np.diff(drawn))
    if len(drawn) >= 3 and len(steps) == 1 and steps[0] >= 2:
        n = int(steps[0])
        nth = _ORDINALS.get(n, f"{n}th")
        return [f"{title}: {noun} on every {nth} slice ({n * slice_mm:.4g} mm apart, slices {slice_mm:.4g} mm)."]
    lines = []
    if skipped := sorted({k for gap in gaps if not gap.two_objects for k in gap.skipped}):
        lines.append(f"{title}: {slices_in_words(skipped, first)} skipped between contoured slices.")
    for gap in gaps:
        if gap.two_objects:
            between = f"{gap.before + first + 1} and {gap.after + first + 1}"
            lines.append(f"{title}: nothing between slices {between}, whose outlines overlap: taken as two objects.")
    return lines


def read_skipped_slices(
    title: str, mask: np.ndarray, spacing_mm: tuple[float, float, float], *, axis: int = 0, fill: bool = False
) -> list[str]:
    """Lines about slices that frames of a segmentation skip; fills them in where that is wanted.

    Args:
        title: What the lines begin with.
        mask: Boolean (z, y, x); what is filled in is added to it.
        spacing_mm: Of its voxels (z, y, x).
        axis: Across the frames.
        fill: Fill them in.
    """
    turned, spacing = np.moveaxis(mask, axis, 0), (spacing_mm[axis], *np.delete(spacing_mm, axis).tolist())
    box = bounding_box(turned)
    if box is None:
        return []
    part = turned[box]
    gaps = find_slice_gaps(part, (spacing[0], spacing[1], spacing[2]))
    lines = gap_notes(title, part, gaps, box[0].start, spacing[0], noun="frames")
    if fill and gaps:
        filled, added = filled_gaps(part, gaps, (spacing[1], spacing[2]))
        part[...] = filled
        lines += [fill_note(title, added, box[0].start)] if added else []
    return lines


def fill_note(title: str, added: dict[int, int], first: int) -> str:
    """A line about slices that were filled in."""
    slices = slices_in_words(sorted(added), first)
    return f"{title}: {slices} filled by interpolation between contoured slices: {sum(added.values())} voxels."


def slices_in_words(slices: Sequence[int], first: int = 0) -> str:
    """``slice 7 is``, ``slices 7, 9 are``: slices given from 0 on, told from 1 on, as everywhere in messages."""
    if len(slices) == 1:
        return f"slice {slices[0] + first + 1} is"
    more = f" and {len(slices) - _SHOWN} more" if len(slices) > _SHOWN else ""
    return f"slices {', '.join(str(k + first + 1) for k in slices[:_SHOWN])}{more} are"
