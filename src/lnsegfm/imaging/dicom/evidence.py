"""Which planes of one geometry are one volume: the partition that evidence speaks for.

Planes of one series and one geometry are one stack where that stack is even and has one image at each position. Where
it is not, they are split by what headers say (a hint, or two of them) if every part is an even stack. Acquisitions that
interleave to one even stack are split too, where each is an even stack of several times the distance of slices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

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
from lnsegfm.imaging.dicom.stack_ranges import lacks_slices, mean_step_mm, overlap, same_heights
from lnsegfm.imaging.dicom.table_passes import ORDERS, PREFIX, coded_passes

MAX_PARTS = 512
"""Of a partition: a hint with more values than this tells nothing."""
FEW_SLICES = 4
"""Interleaved stacks of fewer slices are not believed."""
LEAST_SLICES = 3
"""Nor is a stack of fewer slices that covers another range than the others: two slices are always even."""

INTERLEAVED = 1.5
"""The slices of acquisitions that interleave are farther apart than so many times those of all of them."""
MOST_PASSES = 3
"""Images at one position that the order of slices tells apart: more of them are a time series."""

Digests = Callable[[Sequence[ImagePlane]], list[str]]
"""Gives the same text for planes that hold the same pixels, and different ones for others."""
Discords = Callable[[Sequence[ImagePlane], Sequence[int]], bool]
"""Says of the planes of a stack, and of the set that each is of, whether its pixels show that these are scans."""


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


def explained(
    group: PlaneGroup, digests: Digests, discords: Discords, *, uneven: bool = False
) -> list[Part] | Conflict:
    """The volumes that a group of planes is; one that may be uneven where nothing explains it.

    Args:
        group: Planes of one geometry.
        digests: Tells which planes at one position hold the same pixels.
        discords: Tells whether sets of slices that interleave are scans of their own.
        uneven: Whether acquisitions that lack slices may be volumes too.
    """
    return _Explanation(group, digests, discords).parts(uneven)


class _Explanation:
    """Looks for the partition of a group of planes under which each part is one even stack."""

    def __init__(self, group: PlaneGroup, digests: Digests, discords: Discords) -> None:
        self.group, self.discords = group, discords
        self.tolerance_mm = same_position_mm(group.heights_mm)
        self.positions = group_by_position(group.heights_mm, self.tolerance_mm)
        shared = [k for same in self.positions if len(same) > 1 for k in same]
        marks = digests([group.planes[k] for k in shared])
        self.mark: dict[int, str] = dict(zip(shared, marks, strict=True))
        self.lattice = False
        self.coded = {hint: coded_values(group.planes, hint) for hint in HINTS}
        for order in ORDERS:
            self.coded[f"{PREFIX}{order}"] = coded_passes(group.planes, group.heights_mm, order)

    def parts(self, uneven: bool) -> list[Part] | Conflict:
        every = np.arange(len(self.group.planes))
        whole = self._distinct(every)
        self.lattice = whole is not None and self._is_lattice(whole) and not moves_sideways(self.group.part(whole))
        if whole is not None and self._is_even(whole):
            for hint in ACQUISITION_HINTS:
                if parts := self._interleaved(whole, hint):
                    return parts
            return self._discordant(whole) or [
                replace(self._part(every, whole), alternating=self._alternating(whole)[:1])
            ]
        if split := self._split(orders_alone=whole is None):
            return split
        if whole is not None:
            return (self._lacking(whole) if uneven else []) or [self._part(every, whole)]
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

    def _step_mm(self, distinct: np.ndarray) -> float:
        return usual_step_mm(self.group.heights_mm[distinct]) if len(distinct) > 1 else 0.0

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
        step = mean_step_mm(self.group.heights_mm[whole])
        values, codes = self.coded[hint]
        if not 2 <= len(values) <= len(whole) // FEW_SLICES:
            return []
        stacks: list[_Candidate] = []
        for k, value in enumerate(values):
            every = np.flatnonzero(codes == k)
            distinct = self._distinct(every)
            if distinct is None or not self._is_sparse_stack(distinct, step):
                return []
            stacks.append(((value,), every, distinct))
        joined = self._joined(stacks) or []
        if len(joined) < 2 or not overlap([self.group.heights_mm[distinct] for _, _, distinct in joined]):
            return []
        return [self._part(every, distinct, hint_words((hint,), value)) for value, every, distinct in joined]

    def _discordant(self, whole: np.ndarray) -> list[Part]:
        """The sets of slices by the first other hint that interleave, and that the pixels show to be two scans."""
        for hint in self._alternating(whole):
            if self._differ(whole, hint):
                return self._interleaved(whole, hint)
        return []

    def _differ(self, whole: np.ndarray | None, hint: str) -> bool:
        """Whether the pixels show that the sets of slices by a hint are scans of their own."""
        if whole is None:
            return False
        return self.discords(self.group.part(whole).planes, self.coded[hint][1][whole].tolist())

    def _alternating(self, whole: np.ndarray) -> tuple[str, ...]:
        """Hints that are no evidence of two acquisitions, but whose values interleave in an even stack."""
        return tuple(hint for hint in self.coded if hint not in ACQUISITION_HINTS and self._interleaved(whole, hint))

    def _is_sparse_stack(self, distinct: np.ndarray, step_mm: float) -> bool:
        """Whether a stack is even at several times the distance of slices."""
        if len(distinct) < FEW_SLICES or not self._is_even(distinct):
            return False
        times = mean_step_mm(self.group.heights_mm[distinct]) / step_mm
        return times > INTERLEAVED and abs(times - round(times)) * step_mm <= step_tolerance_mm(step_mm)

    def _split(self, *, orders_alone: bool) -> list[Part]:
        """The parts by the first hint, or pair of hints, under which each of them is an even stack."""
        telling = [hint for hint in HINTS if len(self.coded[hint][0]) > 1]
        orders = [hint for hint in self.coded if hint not in HINTS and len(self.coded[hint][0]) <= MOST_PASSES]
        for hints in (*((hint,) for hint in telling), *combinations(telling, 2), *((hint,) for hint in orders)):
            every = [self.coded[hint] for hint in hints]
            codes = np.ravel_multi_index([codes for _, codes in every], [len(values) for values, _ in every])
            numbers, codes, counts = np.unique(codes, return_inverse=True, return_counts=True)
            if not 2 <= len(numbers) <= MAX_PARTS or counts.min() < 2:
                continue
            places = np.unravel_index(numbers, [len(values) for values, _ in every])
            names = [of_hint[0] for of_hint in every]
            values = [tuple(n[k] for n, k in zip(names, place, strict=True)) for place in zip(*places, strict=True)]
            parts = self._even_parts(hints, values, codes)
            if parts and (orders_alone or hints[0] in HINTS or overlap([part.stack.heights_mm for part in parts])):
                return parts
        return []

    def _lacking(self, whole: np.ndarray | None = None) -> list[Part]:
        """The acquisitions by the first hint under which each has one image at each position, even if it lacks some.

        Args:
            whole: One plane at each position, of acquisitions that interleave.
        """
        apart_mm = 0.0 if whole is None else INTERLEAVED * self._step_mm(whole)
        for hint in ACQUISITION_HINTS if whole is None else self.coded:
            values, codes = self.coded[hint]
            if not 2 <= len(values) <= MAX_PARTS or np.bincount(codes).min() < FEW_SLICES:
                continue
            every = [np.flatnonzero(codes == k) for k in range(len(values))]
            stacks = [(v, e, d) for v, e in zip(values, every, strict=True) if (d := self._distinct(e)) is not None]
            far = all(self._step_mm(distinct) > apart_mm for _, _, distinct in stacks)
            if len(stacks) == len(values) and far and (hint in ACQUISITION_HINTS or self._differ(whole, hint)):
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
        if joined is not None and self.lattice and not set(hints) <= set(ACQUISITION_HINTS):
            # a time or a frame of reference does not split an even stack, nor one that lacks slices, if pixels do not
            whole = self._distinct(np.arange(len(self.group.planes)))
            shown = len(hints) == 1 and self._differ(whole, hints[0])
            if not shown and overlap([self.group.heights_mm[distinct] for _, _, distinct in joined]):
                return []
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
        if min(map(len, heights)) < LEAST_SLICES and any(not same_heights(heights[0], h) for h in heights):
            return False
        return not any(lacks_slices(one, other, as_stated) for one, other in combinations(heights, 2))
