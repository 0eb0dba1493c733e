"""The voxels of the outlines that are drawn for one structure on one plane.

Rules, in this order:

1. Outlines that repeat another one count once, and so does the second turn of one that goes round twice.
2. An outline within another one is its hole, one within a hole is an island, and so on: what lies inside an odd number
   of outlines is inside.
3. A slit that leads from an outline to its hole and is narrower than ``SLIT_MM`` is inside: rounding opened it.
4. Outlines that overlap in part join, and what they share is inside. One of which nearly all (``HOLE_SHARE``) lies in
   the other is a hole all the same where rounding explains the rest: it reaches out by no more than the tolerance, or
   is at most half as large.
5. Outlines of type CLOSEDPLANAR_XOR combine by exclusive or, whatever their position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial import cKDTree

from lnsegfm.imaging.dicom.contours import fill_polygons
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.outline_contacts import overlapping_boxes, runs_along_edges, touching_outlines
from lnsegfm.imaging.dicom.outlines import MOST_PAIRS, PixelSize, plain_outline, single_turn, unrepeated

HOLE_SHARE = 0.95
"""The part of a hole's area that lies within its outline, at least."""
SLIT_MM = 0.15
"""Width up to which both ways of a slit are one line: twice what rounding to 0.1 mm moves a point. At most a quarter
of a pixel."""
LITTLE_LEFT = 0.2
"""A plane of which holes leave less than this part of the largest outline is reported."""
_SAMPLES = 128  # along either side of an outline's bounding box, to measure what it shares with another one
_MOST_CELLS = 1 << 27


@dataclass(frozen=True)
class PlaneVoxels:
    """The voxels of one plane, and what its outlines needed.

    Args:
        voxels: Booleans (rows, columns) of the window.
        repeats: Outlines that repeat another one.
        turns: Outlines that go round more than once.
        joined: Voxels that partly overlapping outlines share, or that would otherwise be lost.
        reaching_out: Holes that reach out of their outline.
        bridged: Voxels within slits.
        little_left: Holes leave less than ``LITTLE_LEFT`` of the largest outline.
    """

    voxels: np.ndarray = field(repr=False)
    repeats: int = 0
    turns: int = 0
    joined: int = 0
    reaching_out: int = 0
    bridged: int = 0
    little_left: bool = False


def fill_plane(
    outlines: Sequence[np.ndarray],
    shape: tuple[int, int],
    corner: tuple[int, int] = (0, 0),
    *,
    pixel: PixelSize,
    exclusive_or: bool = False,
) -> PlaneVoxels:
    """The voxels of a structure on one plane.

    Args:
        outlines: Points (n, 2) as (column, row) in voxels, each closed from its last point to its first.
        shape: Rows and columns of the window that is filled; outlines may reach out of it.
        corner: Row and column of the window's first voxel.
        pixel: Of the plane.
        exclusive_or: Outlines combine by exclusive or (CLOSEDPLANAR_XOR).

    Raises:
        DicomError: More outlines cover each other than anybody draws; the message is a clause.
    """
    plain = [plain_outline(outline) for outline in outlines]
    once = [single_turn(outline, pixel) if len(outline) >= 6 else outline for outline in plain]
    turns = sum(len(a) != len(b) for a, b in zip(plain, once, strict=True))
    solid = [outline for outline in once if len(outline) >= 3]
    kept = [solid[k] for k in unrepeated(solid, pixel)]
    voxels = fill_polygons(kept, shape, corner)
    slits = [_within_slits(outline, shape, corner, pixel) for outline in kept if _has_slit(outline, pixel)]
    joined = reaching_out = 0
    if len(kept) > 1 and not exclusive_or:
        overlaps = _PartialOverlaps(kept, pixel)
        reaching_out = overlaps.reaching_out
        if overlaps.found:
            parity, voxels = voxels, _joined(kept, overlaps, shape, corner)
            joined = int(np.count_nonzero(parity != voxels))
    for slit in slits:
        voxels ^= slit
    largest = max(map(_area, kept)) if len(kept) > 1 else 0.0
    return PlaneVoxels(
        voxels=voxels,
        repeats=len(solid) - len(kept),
        turns=turns,
        joined=joined,
        reaching_out=reaching_out,
        bridged=sum(int(np.count_nonzero(slit)) for slit in slits),
        little_left=largest > 0 and int(np.count_nonzero(voxels)) < LITTLE_LEFT * min(largest, voxels.size),
    )


class _PartialOverlaps:
    """Which outlines of a plane hold each other, as far as any of them overlap in part."""

    def __init__(self, outlines: Sequence[np.ndarray], pixel: PixelSize) -> None:
        self.outlines, self.pixel = outlines, pixel
        self.reaching_out = 0
        self.found = False
        self._within: dict[tuple[int, int], bool] = {}
        self._samples: dict[int, tuple[np.ndarray, int]] = {}
        pairs = touching_outlines(outlines)
        if len(pairs) > MOST_PAIRS:
            raise DicomError(f"{len(outlines)} outlines touch or cross each other")
        for pair in pairs:
            self._within[self.by_size(pair)] = self._measure(self.by_size(pair))

    def by_size(self, pair: tuple[int, int]) -> tuple[int, int]:
        """The smaller outline of two, and the larger."""
        first, second = pair
        return (second, first) if self.size(second) < self.size(first) else (first, second)

    def size(self, number: int) -> tuple[float, int]:
        """What outlines are ordered by: the area that they enclose, whichever way they go round, and their place."""
        outline = self.outlines[number]
        return self._of(number)[1] * float(np.prod(outline.max(axis=0) - outline.min(axis=0))), -number

    def holders(self) -> list[list[int]]:
        """For each outline those that it lies in."""
        boxes = np.array([(*o.min(axis=0), *o.max(axis=0)) for o in self.outlines])
        pairs = overlapping_boxes(boxes)
        if len(pairs) > MOST_PAIRS:
            raise DicomError(f"{len(self.outlines)} outlines cover each other")
        holders: list[list[int]] = [[] for _ in self.outlines]
        for pair in pairs:
            small, large = self.by_size(pair)
            within = self._within.get((small, large))
            if within is None:  # they do not touch: one point tells
                within = bool(_holds(self.outlines[large], self.outlines[small][:1])[0])
            if within:
                holders[small].append(large)
        return holders

    def _measure(self, pair: tuple[int, int]) -> bool:
        """Whether the smaller outline lies in the larger one; remembers whether they overlap in part."""
        small, large = pair
        own, own_count = self._of(small)
        low, high = self.outlines[small].min(axis=0), self.outlines[small].max(axis=0)
        both = int(np.count_nonzero(own & _sample(self.outlines[large], low, high)))
        if both in (0, own_count):
            return both > 0
        share = both / own_count
        half = self.size(small)[0] <= 0.5 * self.size(large)[0]
        if share >= HOLE_SHARE and (half or self._reach_mm(pair) <= self.pixel.tolerance_mm):
            self.reaching_out += 1
            return True
        self.found = True
        return False

    def _of(self, number: int) -> tuple[np.ndarray, int]:
        if number not in self._samples:
            outline = self.outlines[number]
            inside = _sample(outline, outline.min(axis=0), outline.max(axis=0))
            self._samples[number] = inside, int(np.count_nonzero(inside))
        return self._samples[number]

    def _reach_mm(self, pair: tuple[int, int]) -> float:
        """How far the smaller outline's points lie outside the larger one."""
        small, large = (self.pixel.in_mm(self.outlines[k]) for k in pair)
        outside = small[~_holds(large, small)][:1000]
        return max((_distance(point, large) for point in outside), default=0.0)


def _has_slit(outline: np.ndarray, pixel: PixelSize) -> bool:
    """Whether an outline comes back to where it was, as both ways of a slit do."""
    if len(outline) < 8 or runs_along_edges(outline):
        return False
    flat = pixel.in_mm(outline)
    pairs = cKDTree(flat).query_pairs(_slit_mm(pixel), output_type="ndarray") if _is_sparse(flat) else np.empty((0, 2))
    steps = np.abs(pairs[:, 0] - pairs[:, 1])
    return bool(((steps > 2) & (steps < len(outline) - 2)).any())


def _slit_mm(pixel: PixelSize) -> float:
    return min(SLIT_MM, pixel.tolerance_mm / 2)


def _is_sparse(flat: np.ndarray) -> bool:
    """Whether points lie so far from each other that few of them are near any other."""
    return len(flat) < 5000 and float(np.median(np.hypot(*(flat[1:] - flat[:-1]).T))) > SLIT_MM / 2


def _within_slits(outline: np.ndarray, shape: tuple[int, int], corner: tuple[int, int], pixel: PixelSize) -> np.ndarray:
    """Voxels outside an outline that have its inside on both sides, closer than half a slit."""
    outside = ~fill_polygons([outline], shape, corner)
    within = np.zeros(shape, dtype=bool)
    half_mm = _slit_mm(pixel) / 2
    for half in ((half_mm / pixel.column_mm, 0.0), (0.0, half_mm / pixel.row_mm)):
        moved = [fill_polygons([outline + np.multiply(sign, half)], shape, corner) for sign in (1, -1)]
        within |= moved[0] & moved[1]
    return within & outside


def _joined(
    outlines: Sequence[np.ndarray], overlaps: _PartialOverlaps, shape: tuple[int, int], corner: tuple[int, int]
) -> np.ndarray:
    """Outlines that lie in none, without their holes, joined. A hole is cut from the outlines that hold it alone."""
    holders = overlaps.holders()
    windows = [_window(outline, shape, corner) for outline in outlines]
    if sum((y.stop - y.start) * (x.stop - x.start) for y, x in windows) > _MOST_CELLS:
        raise DicomError(f"{len(outlines)} outlines cover each other")
    order = sorted(range(len(outlines)), key=overlaps.size)
    levels = [0] * len(outlines)
    for k in reversed(order):
        levels[k] = 1 + max((levels[holder] for holder in holders[k]), default=-1)
    holes: list[list[int]] = [[] for _ in outlines]
    for k, own in enumerate(holders):
        for holder in own:
            if levels[k] == levels[holder] + 1:
                holes[holder].append(k)
    plane, joined = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    parts: dict[int, np.ndarray] = {}
    for k in order:  # the smaller first: what is cut from an outline is known before it
        y, x = windows[k]
        size, place = (y.stop - y.start, x.stop - x.start), (corner[0] + y.start, corner[1] + x.start)
        plane[y, x] = fill_polygons([outlines[k]], size, place)
        for hole in holes[k]:
            plane[windows[hole]] &= ~parts[hole]
        parts[k] = plane[y, x].copy()
        plane[y, x] = False
        if levels[k] == 0:
            joined[y, x] |= parts[k]
    return joined


def _window(outline: np.ndarray, shape: tuple[int, int], corner: tuple[int, int]) -> tuple[slice, slice]:
    low = np.clip(np.floor(outline.min(axis=0)) - corner[::-1], 0, shape[::-1]).astype(int)
    high = np.clip(np.floor(outline.max(axis=0)) + 1 - corner[::-1], 0, shape[::-1]).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _sample(outline: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Which of a grid of points in a box lie inside an outline."""
    scale = _SAMPLES / np.maximum(high - low, 1e-9)
    return fill_polygons([(outline - low) * scale - 0.5], (_SAMPLES, _SAMPLES))


def _holds(outline: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which points lie inside an outline."""
    (x0, y0), (x1, y1) = outline.T, np.roll(outline, -1, axis=0).T
    inside = np.empty(len(points), dtype=bool)
    for k, (x, y) in enumerate(points.tolist()):
        cut = (y0 <= y) != (y1 <= y)
        at = x0[cut] + (y - y0[cut]) / (y1[cut] - y0[cut]) * (x1[cut] - x0[cut])
        inside[k] = np.count_nonzero(at < x) & 1
    return inside


def _distance(point: np.ndarray, outline: np.ndarray) -> float:
    """Distance of a point from the nearest side of an outline."""
    sides = np.roll(outline, -1, axis=0) - outline
    along = np.clip(((point - outline) * sides).sum(axis=1) / (sides**2).sum(axis=1), 0, 1)
    return float(np.hypot(*(outline + along[:, None] * sides - point).T).min())


def _area(outline: np.ndarray) -> float:
    x, y = (outline - outline[0]).T  # no part of it to the first point, and so to none from the last
    return abs(float(x[:-1] @ y[1:] - y[:-1] @ x[1:])) / 2
