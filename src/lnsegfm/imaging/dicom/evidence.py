"""Which planes of one geometry are one volume: the partition that evidence speaks for.

Planes of one series and one geometry are one stack where that stack is even and has one image at each position. Where
it is not, they are split by what headers say (a hint, or two of them) if every part is an even stack. Acquisitions that
interleave to one even stack are split too, where each is an even stack of several times the distance of slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise

import numpy as np

from lnsegfm.imaging.dicom.acquisition_hints import ACQUISITION_HINTS, HINTS, coded_values, hint_words
from lnsegfm.imaging.dicom.headers import ImagePlane
from lnsegfm.imaging.dicom.plane_groups import PlaneGroup
from lnsegfm.imaging.dicom.slice_steps import (
    group_by_position,
    same_position_mm,
    step_tolerance_mm,
    usual_step_mm,
)
from lnsegfm.imaging.dicom.stack import moves_sideways

MAX_PARTS = 512
"""Of a partition: a hint with more values than this tells nothing."""
FEW_SLICES = 4
"""Interleaved stacks of fewer slices are not believed."""
LEAST_SLICES = 3
"""Nor is a stack of fewer slices that covers another range than the others: two slices are always even."""

Digests = Callable[[Sequence[ImagePlane]], list[str]]
"""Gives the same text for planes that hold the same pixels, and different ones for others."""


_Candidate = tuple[tuple[str, ...], np.ndarray, np.ndarray]  # values of hints, every plane, one a position


@dataclass(frozen=True)
class Part:
    """One volume of a group of planes.

    Args:
        stack: One plane at each position.
        every: Every plane of it, repeated ones too, by position.
        hint: What tells it from the other volumes of its series, in words; "" where it is the only one.
        alternating: Hints that are no evidence of two acquisitions, but whose values interleave in it.
    """

    stack: PlaneGroup
    every: tuple[ImagePlane, ...] = field(repr=False)
    hint: str = ""
    alternating: tuple[str, ...] = ()

    @property
    def repeats(self) -> int:
        """Planes that hold the same pixels as another one at their position."""
        return len(self.every) - len(self.stack.planes)


@dataclass(frozen=True)
class Conflict:
    """Different images at one position that nothing tells apart.

    Args:
        planes: Those of the first position that has several.
        height_mm: Of that position, along the normal.
        conflicting: Positions that have several.
        positions: Positions there are.
        images: All images.
    """

    planes: tuple[ImagePlane, ...]
    height_mm: float
    conflicting: int
    positions: int
    images: int


def explained(group: PlaneGroup, digests: Digests, *, uneven: bool = False) -> list[Part] | Conflict:
    """The volumes that a group of planes is; one that may be uneven where nothing explains it.

    Args:
        group: Planes of one geometry.
        digests: Tells which planes at one position hold the same pixels.
        uneven: Whether acquisitions that lack slices may be volumes too.
    """
    return _Explanation(group, digests).parts(uneven)


class _Explanation:
    """Looks for the partition of a group of planes under which each part is one even stack."""

    def __init__(self, group: PlaneGroup, digests: Digests) -> None:
        self.group = group
        self.tolerance_mm = same_position_mm(group.heights_mm)
        self.positions = group_by_position(group.heights_mm, self.tolerance_mm)
        shared = [k for same in self.positions if len(same) > 1 for k in same]
        marks = digests([group.planes[k] for k in shared])
        self.mark: dict[int, str] = dict(zip(shared, marks, strict=True))
        self.lattice = False
        self.coded = {hint: coded_values(group.planes, hint) for hint in HINTS}

    def parts(self, uneven: bool) -> list[Part] | Conflict:
        every = np.arange(len(self.group.planes))
        whole = self._distinct(every)
        self.lattice = whole is not None and self._is_lattice(whole)
        if whole is not None and self._is_even(whole):
            for hint in ACQUISITION_HINTS:
                if parts := self._interleaved(whole, hint):
                    return parts
            others = [hint for hint in HINTS if hint not in ACQUISITION_HINTS and self._interleaved(whole, hint)]
            return [replace(self._part(every, whole), alternating=tuple(others))]
        if split := self._split():
            return split
        if whole is not None:
            return [self._part(every, whole)]
        return (self._lacking() if uneven else []) or self._conflict()

    def _distinct(self, indices: np.ndarray) -> np.ndarray | None:
        """One plane at each position; None where images at one position differ."""
        heights = self.group.heights_mm[indices]
        kept = []
        for same in group_by_position(heights, self.tolerance_mm):
            members = indices[same].tolist()
            if len(members) > 1 and len({self.mark.get(k, k) for k in members}) > 1:
                return None
            kept.append(min(members, key=lambda k: self.group.planes[k].order))
        return np.array(kept)

    def _is_lattice(self, distinct: np.ndarray) -> bool:
        """Whether all slices have places of one even stack, even if it lacks some."""
        steps = np.diff(self.group.heights_mm[distinct])
        least = float(steps.min(initial=np.inf))
        return bool((np.abs(steps - np.rint(steps / least) * least) <= step_tolerance_mm(least)).all())

    def _is_even(self, distinct: np.ndarray) -> bool:
        stack = self.group.part(distinct)
        return len(distinct) > 1 and stack.unevenness() is None and not moves_sideways(stack)

    def _part(self, every: np.ndarray, distinct: np.ndarray, hint: str = "") -> Part:
        return Part(self.group.part(distinct), tuple(self.group.planes[k] for k in sorted(every.tolist())), hint)

    def _conflict(self) -> Conflict:
        marks = [{self.mark.get(int(k), int(k)): int(k) for k in same[::-1]} for same in self.positions]
        several = [sorted(of.values()) for of in marks if len(of) > 1]
        first = several[0]
        return Conflict(
            tuple(self.group.planes[k] for k in first),
            float(self.group.heights_mm[first[0]]),
            len(several),
            len(self.positions),
            len(self.group.planes),
        )

    # ------------------------------------------------------------------------------------------------- partitions

    def _interleaved(self, whole: np.ndarray, hint: str) -> list[Part]:
        """The acquisitions that interleave to the even stack that they are together; none where a hint tells of one."""
        step = _mean_step_mm(self.group.heights_mm[whole])
        values, codes = self.coded[hint]
        if not 2 <= len(values) <= len(whole) // FEW_SLICES:
            return []
        parts = []
        for k, value in enumerate(values):
            every = np.flatnonzero(codes == k)
            distinct = self._distinct(every)
            if distinct is None or not self._is_sparse_stack(distinct, step):
                return []
            parts.append(self._part(every, distinct, hint_words((hint,), (value,))))
        return parts

    def _is_sparse_stack(self, distinct: np.ndarray, step_mm: float) -> bool:
        """Whether a stack is even at several times the distance of slices."""
        if len(distinct) < FEW_SLICES or not self._is_even(distinct):
            return False
        times = _mean_step_mm(self.group.heights_mm[distinct]) / step_mm
        return times > 1.5 and abs(times - round(times)) * step_mm <= step_tolerance_mm(step_mm)

    def _split(self) -> list[Part]:
        """The parts by the first hint, or pair of hints, under which each of them is an even stack."""
        telling = [hint for hint in HINTS if len(self.coded[hint][0]) > 1]
        for hints in (*((hint,) for hint in telling), *combinations(telling, 2)):
            every = [self.coded[hint] for hint in hints]
            codes = np.ravel_multi_index([codes for _, codes in every], [len(values) for values, _ in every])
            numbers, codes, counts = np.unique(codes, return_inverse=True, return_counts=True)
            if not 2 <= len(numbers) <= MAX_PARTS or counts.min() < 2:
                continue
            places = np.unravel_index(numbers, [len(values) for values, _ in every])
            names = [of_hint[0] for of_hint in every]
            values = [tuple(n[k] for n, k in zip(names, place, strict=True)) for place in zip(*places, strict=True)]
            if parts := self._even_parts(hints, values, codes):
                return parts
        return []

    def _lacking(self) -> list[Part]:
        """The acquisitions by the first hint under which each has one image at each position, even if it lacks some."""
        for hint in ACQUISITION_HINTS:
            values, codes = self.coded[hint]
            if not 2 <= len(values) <= MAX_PARTS or np.bincount(codes).min() < FEW_SLICES:
                continue
            every = [np.flatnonzero(codes == k) for k in range(len(values))]
            stacks = [(v, e, d) for v, e in zip(values, every, strict=True) if (d := self._distinct(e)) is not None]
            if len(stacks) == len(values):
                return [self._part(e, d, hint_words((hint,), (v,))) for v, e, d in stacks]
        return []

    def _even_parts(self, hints: tuple[str, ...], values: list[tuple[str, ...]], codes: np.ndarray) -> list[Part]:
        stacks: list[_Candidate] = []
        for k in range(len(values)):
            every = np.flatnonzero(codes == k)
            distinct = self._distinct(every)
            if distinct is None or not self._is_even(distinct):
                return []
            stacks.append((values[k], every, distinct))
        joined = self._joined(stacks)
        if self.lattice and joined is not None and _overlap(joined) and not set(hints) <= set(ACQUISITION_HINTS):
            return []  # a time or a frame of reference does not split an even stack, nor one that lacks slices
        if joined is None or not self._believable([distinct for _, _, distinct in joined], len(joined) == len(values)):
            return []
        return [self._part(every, distinct, hint_words(hints, value)) for value, every, distinct in joined]

    def _joined(self, stacks: list[_Candidate]) -> list[_Candidate] | None:
        """Stacks that continue each other as one; None where a stack continues several."""
        done: list[_Candidate] = []
        for value, every, distinct in stacks:
            at = [n for n, (_, _, other) in enumerate(done) if self._continues(other, distinct)]
            if len(at) > 1:
                return None
            if at:
                first, before, other = done[at[0]]
                done[at[0]] = (first, np.union1d(before, every), np.union1d(other, distinct))
            else:
                done.append((value, every, distinct))
        return done

    def _continues(self, one: np.ndarray, other: np.ndarray) -> bool:
        apart = one.max() < other.min() or other.max() < one.min()  # planes are in ascending order
        return bool(apart) and self._is_even(np.union1d(one, other))

    def _believable(self, stacks: list[np.ndarray], as_stated: bool) -> bool:
        """Whether stacks may be volumes of their own rather than what is left of one that lacks slices."""
        if len(stacks) < 2:
            return False
        heights = sorted((self.group.heights_mm[s] for s in stacks), key=lambda h: (float(h[0]), float(h[-1])))
        if min(map(len, heights)) < LEAST_SLICES and any(not _same_heights(heights[0], h) for h in heights):
            return False
        return not any(_lacks_slices(one, other, as_stated) for one, other in combinations(heights, 2))


def _overlap(stacks: Sequence[_Candidate]) -> bool:
    """Whether two stacks, of planes in ascending order, have a range in common."""
    ends = sorted((int(distinct.min()), int(distinct.max())) for _, _, distinct in stacks)
    return any(before[1] > after[0] for before, after in pairwise(ends))


def _mean_step_mm(heights_mm: np.ndarray) -> float:
    return float(heights_mm[-1] - heights_mm[0]) / (len(heights_mm) - 1)


def _same_heights(one: np.ndarray, other: np.ndarray) -> bool:
    return len(one) == len(other) and bool(np.abs(one - other).max() <= step_tolerance_mm(usual_step_mm(one)))


def _lacks_slices(lower: np.ndarray, upper: np.ndarray, as_stated: bool) -> bool:
    """Whether two stacks look like one that lacks the slices between them, or that moved in its plane there.

    They do where they have one distance of slices and the gap is one or two of them; or any whole number of them, if
    there are fewer stacks than acquisitions, so that a gap within a series is no gap between two.
    """
    gap, step = float(upper[0] - lower[-1]), usual_step_mm(lower)
    tolerance = step_tolerance_mm(step)
    if gap <= 0 or abs(usual_step_mm(upper) - step) > tolerance:
        return False
    times = round(gap / step)
    return times >= 1 and abs(gap - times * step) <= tolerance and (times <= 2 or not as_stated)
