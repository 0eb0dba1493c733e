"""What is no volume itself: a fault where it is all there is, and passed over where its study has a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lnsegfm.imaging.dicom.headers import ImagePlane
from lnsegfm.imaging.dicom.passed_over import TINY, VOLUME
from lnsegfm.imaging.dicom.plane_groups import PlaneGroup, group_planes
from lnsegfm.imaging.dicom.series_index import Refusal, Series
from lnsegfm.imaging.dicom.slice_steps import same_position_mm
from lnsegfm.imaging.dicom.stack import moves_sideways


@dataclass(frozen=True, eq=False)
class StackedSeries:
    """A stack of slices that is a series.

    Args:
        stack: Its planes.
        series: The series.
        images: Planes of it, repeated ones too.
    """

    stack: PlaneGroup
    series: Series
    images: int


@dataclass(frozen=True, eq=False)
class Doubtful:
    """What is no volume: a fault, or one of the images that a study has besides, where a volume is there.

    Args:
        refusal: For where there is none.
        beside: What it is otherwise, a clause.
        planes: One a position.
        positions: Positions of it. One of a single position can be no volume, whatever is beside it.
    """

    refusal: Refusal
    beside: str
    planes: tuple[ImagePlane, ...]
    positions: int


def small_stack(stack: PlaneGroup, refusal: Refusal) -> Doubtful:
    """A stack of few slices."""
    count = len(stack.planes)
    what = "1 slice (such as a premonitoring image)" if count == 1 else f"{count} slices (such as a test scan)"
    return Doubtful(refusal, what, stack.planes, count)


def beside_volumes(
    stacks: Sequence[StackedSeries], doubtful: Sequence[Doubtful], study: Sequence[StackedSeries]
) -> tuple[list[Series], list[Refusal]]:
    """The series of a pool of planes, and what is passed over because a volume of its study is there.

    Args:
        stacks: The stacks of the pool.
        doubtful: What else it holds.
        study: All stacks of the study.
    """
    volumes = [s for s in study if len(s.stack.planes) >= VOLUME]
    scans = [s for s in study if len(s.stack.planes) >= TINY]
    small = [s for s in stacks if len(s.stack.planes) < TINY] if volumes else []
    doubtful = [*doubtful, *(small_stack(s.stack, Refusal(s.stack.name, "", images=s.images)) for s in small)]
    refused: list[Refusal] = []
    passed: list[Doubtful] = []
    for doubt in doubtful:
        beside = scans if doubt.positions == 1 else volumes
        name = doubt.refusal.series
        if not beside:
            refused.append(doubt.refusal)
        elif whole := next((v.series for v in beside if extends(v.stack, doubt.planes)), None):
            what = f"which continue the slices of series {whole.name}, and belong to it"
            line = f"Series {name}: it holds {doubt.beside}, {what}. Export the two as one series."
            refused.append(Refusal(name, line, images=doubt.refusal.images))
        else:
            passed.append(doubt)
    return [s.series for s in stacks if s not in small], [*refused, *_passed_over(passed)]


def _passed_over(doubtful: Sequence[Doubtful]) -> list[Refusal]:
    """One line for what a series holds beside a volume of its study."""
    if not doubtful:
        return []
    name, images = doubtful[0].refusal.series, sum(doubt.refusal.images for doubt in doubtful)
    what = doubtful[0].beside
    if len(doubtful) > 1:
        what = f"{images} images in {len(doubtful)} small stacks (such as monitoring, test scans or a perfusion)"
    line = f"Series {name}: passed over, for it holds {what} beside a whole volume of its study. Nothing needs doing."
    return [Refusal(name, line, harmless=True, images=images)]


def extends(stack: PlaneGroup, planes: Sequence[ImagePlane]) -> bool:
    """Whether planes and a stack are one even stack of one geometry, none at the place of another."""
    every = [*stack.planes, *planes]
    if not planes or len({(plane.rows, plane.columns) for plane in every}) > 1:
        return False
    groups = group_planes(every)
    if groups is None or len(groups) > 1:
        return False
    heights = groups[0].heights_mm
    if np.diff(heights).min(initial=np.inf) <= same_position_mm(heights):
        return False
    return groups[0].unevenness() is None and not moves_sideways(groups[0])
