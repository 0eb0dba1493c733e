"""Outlines of one plane: their plain form, and which of them are one outline that was stored several times.

Points are (column, row) in voxels. Two outlines are one where every point of either lies within a tolerance of the
other: they may start elsewhere, run the other way round, be rounded, or have other points along the same curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from lnsegfm.imaging.dicom.dicom_errors import DicomError

TOLERANCE_MM = 0.5
"""Outlines that nowhere lie farther from each other are one outline; no wall is drawn so thin. At most half a pixel."""
MOST_SAMPLES = 2_000_000
"""Points along the outlines of a comparison; longer ones, which no hand draws, are one outline only if identical."""
MOST_PAIRS = 20_000
"""Pairs of outlines on one plane that are compared with each other."""
_SAMPLES_IN_TOLERANCE = 4
_CLOSE = 1e-6  # voxels: what is left of the rounding of a coordinate that is written twice


@dataclass(frozen=True)
class PixelSize:
    """The pixels of a plane.

    Args:
        column_mm: Distance of columns.
        row_mm: Distance of rows.
    """

    column_mm: float
    row_mm: float

    @property
    def tolerance_mm(self) -> float:
        """How far outlines may lie from each other and be one: ``TOLERANCE_MM``, and at most half a pixel."""
        return min(TOLERANCE_MM, 0.5 * self.column_mm, 0.5 * self.row_mm)

    def in_mm(self, points: np.ndarray) -> np.ndarray:
        """Points (n, 2) as (column, row) in mm."""
        return points * (self.column_mm, self.row_mm)


def plain_outline(points: np.ndarray) -> np.ndarray:
    """An outline without points that repeat the one before them, and without the first one at its end."""
    moved = np.empty(len(points), dtype=bool)
    moved[:1] = True
    moved[1:] = (np.abs(points[1:] - points[:-1]) > _CLOSE).any(axis=1)
    kept = points if moved.all() else points[moved]
    if len(kept) > 1 and abs(kept[-1, 0] - kept[0, 0]) <= _CLOSE and abs(kept[-1, 1] - kept[0, 1]) <= _CLOSE:
        return kept[:-1]
    return kept


def single_turn(points: np.ndarray, pixel: PixelSize) -> np.ndarray:
    """An outline that goes round once: of one that goes round again, either way, its first turn.

    So is one that runs on along its own beginning, as a pen does that is lifted late. Filled as it is, by the number of
    times that a ray crosses it, an outline that is walked twice would hold nothing.
    """
    x, y = (np.abs(points[3:-2] - points[0]) * (pixel.column_mm, pixel.row_mm)).T
    back = np.flatnonzero((x <= pixel.tolerance_mm) & (y <= pixel.tolerance_mm)) + 3
    if not len(back):
        return points
    flat = pixel.in_mm(points)
    back = back[np.argsort(np.hypot(*(flat[back] - flat[0]).T), kind="stable")]  # the turn ends where it closes best
    for turn in back[_turns_of_one_extent(flat, back, pixel.tolerance_mm)][:_MOST_TURNS].tolist():
        if _is_same(flat[:turn], flat[turn:], pixel):
            return points[:turn]
    for turn in back[:_MOST_TURNS].tolist():
        if _runs_on(flat[:turn], flat[turn:], pixel):
            return points[:turn]
    return points


_MOST_TURNS = 3  # points at which a turn may end that are tried


def _runs_on(turn: np.ndarray, rest: np.ndarray, pixel: PixelSize) -> bool:
    """Whether what follows a turn (mm) leaves its start and lies within the tolerance of it."""
    if float(np.hypot(*(rest[-1] - turn[0]))) <= pixel.tolerance_mm or not np.isfinite(turn).all():
        return False
    step = pixel.tolerance_mm / _SAMPLES_IN_TOLERANCE
    back_and_forth = np.concatenate((rest, rest[::-1]))  # its ends are not joined
    if max(_samples(turn, step), _samples(back_and_forth, step)) > MOST_SAMPLES:
        return False
    reach = float(np.hypot(pixel.tolerance_mm, step / 2))
    distance, _ = cKDTree(_sampled(turn, step)).query(_sampled(back_and_forth, step), distance_upper_bound=reach)
    return bool(np.isfinite(distance).all())


def _turns_of_one_extent(outline: np.ndarray, ends: np.ndarray, tolerance: float) -> np.ndarray:
    """For each point at which a turn may end whether what comes before it and after it has one bounding box."""
    agree = np.ones(len(ends), dtype=bool)
    for extreme in (np.minimum, np.maximum):
        before = extreme.accumulate(outline, axis=0)[ends - 1]
        after = extreme.accumulate(outline[::-1], axis=0)[::-1][ends]
        agree &= (np.abs(before - after) <= tolerance).all(axis=1)
    return agree


def unrepeated(outlines: Sequence[np.ndarray], pixel: PixelSize) -> list[int]:
    """Positions of the outlines without those that repeat an earlier one.

    Raises:
        DicomError: More than ``MOST_PAIRS`` pairs of outlines cover the same part of the plane. The message is a
            clause.
    """
    if len(outlines) < 2:
        return list(range(len(outlines)))
    flat = [pixel.in_mm(outline) for outline in outlines]
    extents = np.array([_extent(outline) for outline in flat])
    tree = cKDTree(extents)
    reach = pixel.tolerance_mm
    # each outline is its own neighbour
    if (tree.count_neighbors(tree, reach, p=np.inf) - len(flat)) // 2 > MOST_PAIRS:
        kept = _without_identical(outlines)
        if len(kept) == len(outlines):
            raise DicomError(f"{len(outlines)} outlines cover the same part of it")
        return [kept[k] for k in unrepeated([outlines[k] for k in kept], pixel)]
    pairs = tree.query_pairs(reach, p=np.inf, output_type="ndarray")
    repeats: set[int] = set()
    for first, second in sorted(map(tuple, np.sort(pairs, axis=1).tolist())):
        if first not in repeats and second not in repeats and _is_same(flat[first], flat[second], pixel):
            repeats.add(second)
    return [k for k in range(len(outlines)) if k not in repeats]


def _without_identical(outlines: Sequence[np.ndarray]) -> list[int]:
    """Positions of the outlines without those of the same points in the same cycle, either way round."""
    first: dict[bytes, int] = {}
    for k, outline in enumerate(outlines):
        first.setdefault(_cycle(outline), k)
    return list(first.values())


def _cycle(outline: np.ndarray) -> bytes:
    start = int(np.lexsort((outline[:, 1], outline[:, 0]))[0])
    forward = np.roll(outline, -start, axis=0)
    backward = np.roll(forward[::-1], 1, axis=0)
    return min(forward.tobytes(), backward.tobytes())


def _is_same(first: np.ndarray, second: np.ndarray, pixel: PixelSize) -> bool:
    """Whether every point of either outline (mm) lies within the tolerance of the other one."""
    if len(first) == len(second) and _cycle(first) == _cycle(second):
        return True
    step = pixel.tolerance_mm / _SAMPLES_IN_TOLERANCE
    if not np.isfinite(first).all() or not np.isfinite(second).all():
        return False
    if max(_samples(first, step), _samples(second, step)) > MOST_SAMPLES:
        return False
    along_first, along_second = _sampled(first, step), _sampled(second, step)
    # samples lie at most a step from each other, so the nearest is at most half a step off the nearest point
    reach = float(np.hypot(pixel.tolerance_mm, step / 2))
    for own, other in ((along_first, along_second), (along_second, along_first)):
        distance, _ = cKDTree(other).query(own, distance_upper_bound=reach)
        if not np.isfinite(distance).all():
            return False
    return True


def _samples(outline: np.ndarray, step_mm: float) -> float:
    return float((np.hypot(*(np.roll(outline, -1, axis=0) - outline).T) / step_mm + 1).sum())


def _sampled(outline: np.ndarray, step_mm: float) -> np.ndarray:
    """Points along an outline, at most a step from each other."""
    sides = np.roll(outline, -1, axis=0) - outline
    counts = np.ceil(np.hypot(*sides.T) / step_mm).astype(np.int64).clip(1)
    side = np.repeat(np.arange(len(outline)), counts)
    part = (np.arange(len(side)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[side]
    sampled: np.ndarray = outline[side] + part[:, None] * sides[side]
    return sampled


def _extent(outline: np.ndarray) -> np.ndarray:
    return np.concatenate((outline.min(axis=0), outline.max(axis=0)))
