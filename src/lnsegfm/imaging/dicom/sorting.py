"""Sort planes in any order into complete stacks of slices, by their geometry and what their headers say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lnsegfm.imaging.dicom.acquisition_hints import ACQUISITION_HINTS
from lnsegfm.imaging.dicom.beside_volumes import Doubtful, StackedSeries, beside_volumes, extends, small_stack
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.evidence import Conflict, Digests, Discords, Part, explained
from lnsegfm.imaging.dicom.headers import DISTINGUISHING_KEYWORDS, ImagePlane
from lnsegfm.imaging.dicom.passed_over import TINY, VOLUME, Aside, aside, is_placed
from lnsegfm.imaging.dicom.plane_groups import MAX_GEOMETRIES, PlaneGroup, group_planes
from lnsegfm.imaging.dicom.series_index import Refusal, Series, SeriesOptions
from lnsegfm.imaging.dicom.slice_steps import group_by_position, same_position_mm
from lnsegfm.imaging.dicom.stack import stack_as_series
from lnsegfm.imaging.dicom.torn_series import torn

PERFUSION = 4
"""From so many images at each position on, a series that nothing splits into volumes is a time series (perfusion)."""


def sorted_series(
    planes: Iterable[ImagePlane],
    digests: Digests,
    options: SeriesOptions,
    discords: Discords = lambda _planes, _sets: False,
) -> tuple[list[Series], list[Refusal]]:
    """Sort planes into series.

    Planes belong together by SeriesInstanceUID (where that is missing: by study, patient, number, description and,
    without a frame of reference, folder). What is no slice of a volume is set aside (`passed_over`), the rest is sorted
    by geometry (`plane_groups`), and each geometry is split into volumes as evidence has it (`evidence`).

    Args:
        planes: In any order.
        digests: Tells which planes at one position hold the same pixels.
        options: Which stacks are kept, to be resampled when they are read.
        discords: Tells whether sets of slices that interleave are scans of their own, by their pixels.

    Returns:
        The complete series in a fixed order, and one refusal for everything else.
    """
    pools = [_sorted_pool(group, digests, options, discords) for group in _by_series(planes)]
    studies: dict[Any, list[StackedSeries]] = {}
    for pool in pools:
        studies.setdefault(pool.study, []).extend(pool.stacks)
    series: list[Series] = []
    refused: list[Refusal] = []
    for pool in pools:
        kept, passed = beside_volumes(pool.stacks, pool.doubtful, studies[pool.study])
        refused += [*pool.refused, *passed]
        series += [replace(part, part=k) for k, part in enumerate(kept, 1)] if len(kept) > 1 else kept
    return series, refused


@dataclass(frozen=True, eq=False)
class _Pool:
    """What the planes of one series are."""

    study: Any
    stacks: tuple[StackedSeries, ...]
    doubtful: tuple[Doubtful, ...]
    refused: tuple[Refusal, ...]


def _by_series(planes: Iterable[ImagePlane]) -> list[list[ImagePlane]]:
    groups: dict[Any, list[ImagePlane]] = {}
    for plane in planes:
        if plane.series_uid:
            key: tuple[Any, ...] = (plane.series_uid,)
        else:
            # a frame of reference is one scan's; without it, the folder is all that is left to go by
            folder = "" if plane.frame_of_reference_uid else str(plane.path.parent)
            key = ("", plane.study_uid, plane.patient_id, str(plane.number), plane.description, folder)
        groups.setdefault((*key, plane.modality), []).append(plane)
    return [sorted(groups[key], key=lambda plane: plane.order) for key in sorted(groups, key=str)]


def _sorted_pool(planes: list[ImagePlane], digests: Digests, options: SeriesOptions, discords: Discords) -> _Pool:
    first, count = planes[0], len(planes)
    study = (first.study_uid or ("", first.patient_id), first.modality)
    reasons = [aside(plane) for plane in planes]
    groups = group_planes([plane for plane, reason in zip(planes, reasons, strict=True) if reason is None])
    set_aside = [(plane, reason) for plane, reason in zip(planes, reasons, strict=True) if reason is not None]
    refused = _set_aside(first.name, count, set_aside, groups[0] if groups else None)
    if groups is None:
        what = f"more than {MAX_GEOMETRIES} sizes, spacings and orientations, which is no volume"
        line = f"Series {first.name}: its images have {what}. Give the original slices."
        views = _views(Refusal(first.name, line, images=count - len(set_aside)))
        return _Pool(study, (), (views,), tuple(refused))
    groups, more = torn(groups)
    groups, strays, doubtful = _strays(groups, count)
    stacks: list[StackedSeries] = []
    for group in groups:
        parts = explained(group, digests, discords, uneven=options.resample_uneven)
        if isinstance(parts, Conflict):
            doubt = _conflicting(group, parts)
            if isinstance(doubt, Doubtful):
                doubtful.append(doubt)
            else:
                more.append(doubt)
            continue
        for part in parts:
            try:
                stacks.append(_stacked(part, options))
            except DicomError as error:
                refusal = Refusal(part.stack.name, str(error), images=len(part.every))
                if len(part.stack.planes) < TINY:
                    doubtful.append(small_stack(part.stack, refusal))
                else:
                    more.append(refusal)
    return _Pool(study, tuple(stacks), tuple(doubtful), (*refused, *more, *strays))


def _set_aside(
    name: str, count: int, planes: Sequence[tuple[ImagePlane, Aside]], largest: PlaneGroup | None
) -> list[Refusal]:
    """One refusal for each reason; what continues the stack of slices, or fills a hole of it, is a fault."""
    slices: list[str] = []
    number: dict[Aside, int] = {}
    for plane, reason in planes:
        if largest is not None and reason.harmless and is_placed(plane) and extends(largest, [plane]):
            slices.append(reason.reason)
        else:
            number[reason] = number.get(reason, 0) + 1
    refused = [
        Refusal(name, f"Series {name}: {_which(n, count)} set aside: {a.reason}. {a.remedy}.", a.harmless, n)
        for a, n in number.items()
    ]
    if slices:
        what = f"{_which(len(slices), count)} would be slices of it by their places, but are {slices[0]}"
        refused.append(Refusal(name, f"Series {name}: {what}. Export it again.", images=len(slices)))
    return refused


def _which(number: int, count: int) -> str:
    return "all its images" if number == count else f"{number} of its {count} images"


def _views(refusal: Refusal) -> Doubtful:
    """Images each in a plane of its own, such as rotated views of a volume."""
    return Doubtful(refusal, f"{refusal.images} images, each in another plane (such as rotated views)", (), 1)


def _strays(groups: list[PlaneGroup], count: int) -> tuple[list[PlaneGroup], list[Refusal], list[Doubtful]]:
    """Without the images in planes, sizes or spacings of their own."""
    if len(groups) < 2:
        return groups, [], []
    most = len(groups[0].planes)
    few = TINY - 1 if most >= VOLUME else 1
    strays, kept = [g for g in groups if len(g.planes) <= few], [g for g in groups if len(g.planes) > few]
    number = sum(len(group.planes) for group in strays)
    if not number:
        return groups, [], []
    name = groups[0].name
    whole = f"its {most} slices" if most > 1 else "each other"
    what = f"{number} of its {count} images set aside: in another plane, of another size or spacing than {whole}"
    remedy = "Nothing to do for localisers; if they are slices of the scan, export it again"
    harmless = most > 1 and 2 * number <= sum(len(group.planes) for group in kept)
    refusal = Refusal(name, f"Series {name}: {what}. {remedy}.", harmless, number)
    return (kept, [refusal], []) if kept else (kept, [], [_views(refusal)])


def _conflicting(group: PlaneGroup, found: Conflict) -> Refusal | Doubtful:
    line = (
        f"Series {group.name} has {len(found.planes)} different images at {found.conflicting} of its {found.positions} "
        f"positions (the first at {found.height_mm:.1f} mm along the normal{_difference(found.planes)}). "
        "Export each acquisition or reconstruction as a series of its own."
    )
    refusal = Refusal(group.name, line, images=found.images)
    places = group_by_position(group.heights_mm, same_position_mm(group.heights_mm))
    one_each = group.part([same[0] for same in places]).planes
    if found.positions == 1:
        what = f"{found.images} images at one position (monitoring, such as bolus tracking)"
        return Doubtful(refusal, what, one_each, 1)
    if found.images >= PERFUSION * found.positions:
        what = f"{found.images} images at {found.positions} positions (a time series, such as a perfusion)"
        return Doubtful(refusal, what, one_each, found.positions)
    if found.positions < TINY:
        what = f"{found.images} images at {found.positions} positions (a test scan)"
        return Doubtful(refusal, what, one_each, found.positions)
    return refusal


def _difference(planes: Sequence[ImagePlane]) -> str:
    """The first keyword in which images at one position differ, with its values; nothing of the patient's."""
    if len({plane.patient_id for plane in planes}) > 1:
        return "; of several patients (PatientID)"
    for k, keyword in enumerate(DISTINGUISHING_KEYWORDS):
        values = sorted({plane.distinguishing[k] for plane in planes})
        if len(values) > 1 and keyword in (*ACQUISITION_HINTS, "ImageType"):
            return f"; {keyword} {', '.join(value or 'none' for value in values[:4])}"
    return ""


def _stacked(part: Part, options: SeriesOptions) -> StackedSeries:
    notes = [f"distinguished from others of its UID by {part.hint}"] if part.hint else _united(part)
    if part.repeats:
        notes.append(f"{part.repeats} slices occur twice with the same pixels: one of each is used")
    used = {(plane.path, plane.frame) for plane in part.stack.planes}
    repeated = [plane for plane in part.every if (plane.path, plane.frame) not in used]
    frames = [plane.frame_of_reference_uid for plane in (*part.stack.planes, *repeated)]
    series = stack_as_series(part.stack, tuple(notes), options, frames)
    return StackedSeries(part.stack, series, len(part.every))


def _united(part: Part) -> list[str]:
    """A line for each hint that would have told several acquisitions, where the slices are one even stack."""
    if len(part.stack.planes) < 2 or part.stack.unevenness() is not None:
        return []
    notes = []
    for k, keyword in enumerate(DISTINGUISHING_KEYWORDS):
        number = len({plane.distinguishing[k] for plane in part.stack.planes})
        if keyword in ACQUISITION_HINTS and number > 1:
            notes.append(f"its slices state {number} values of {keyword} and are one even stack: read as one series")
    for hint in part.alternating:
        notes.append(f"sets of slices by {hint} interleave in it: if they are two acquisitions, export each on its own")
    return notes
