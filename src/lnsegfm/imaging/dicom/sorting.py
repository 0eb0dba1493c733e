"""Sort planes in any order into complete stacks of slices, by their geometry alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.headers import DISTINGUISHING_KEYWORDS, ImagePlane
from lnsegfm.imaging.dicom.series_index import Refusal, Series, SeriesOptions
from lnsegfm.imaging.dicom.stack import group_by_position, plane_axes, spacing_mm, stack_as_series, stack_planes

_LOCALISERS = "localisers, which are no slices of a volume (nothing to do)"
ORIENTATION_TOLERANCE = 1e-4
"""Direction cosines of one stack may differ by this much (0.05 mm over 512 mm)."""
MAX_PLANE = 1 << 26
"""Pixels of a slice: 8192 x 8192."""
MAX_GEOMETRIES = 64
"""Sizes, spacings, orientations and frames of reference of a series: a volume and its localisers have a few."""

Digests = Callable[[Sequence[ImagePlane]], list[str]]
"""Gives the same text for planes that hold the same pixels, and different ones for others."""


def sorted_series(
    planes: Iterable[ImagePlane], digests: Digests, options: SeriesOptions
) -> tuple[list[Series], list[Refusal]]:
    """Sort planes into series.

    Planes belong together by SeriesInstanceUID (where that is missing: by study, patient, number, description and,
    without a frame of reference, folder), and within it by frame of reference, rows, columns, pixel spacing and
    orientation. Where several planes lie at one position, identical ones count once, and others are distinguished by
    the first of ``DISTINGUISHING_KEYWORDS`` that makes every part complete.

    Args:
        planes: In any order.
        digests: Tells which planes at one position hold the same pixels.
        options: Which stacks are kept, to be resampled when they are read.

    Returns:
        The complete series in a fixed order, and one refusal for everything else.
    """
    series: list[Series] = []
    refused: list[Refusal] = []
    for group in _by_series(planes):
        stacks, refusals = _usable(group)
        refused += refusals
        parts: list[Series] = []
        for stack in stacks:
            try:
                parts += _series_of_stack(stack, digests, options.straighten)
            except DicomError as error:
                refused.append(Refusal(stack[0].name, str(error)))
        series += [replace(part, part=k) for k, part in enumerate(parts, 1)] if len(parts) > 1 else parts
    return series, refused


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
    return [groups[key] for key in sorted(groups, key=str)]


def _usable(planes: list[ImagePlane]) -> tuple[list[list[ImagePlane]], list[Refusal]]:
    """Planes of one geometry each; localisers, planes without geometry and single stray planes are set aside."""
    name, count = planes[0].name, len(planes)
    refused: list[Refusal] = []
    valid: list[ImagePlane] = []
    aside: dict[str, int] = {}
    for plane in planes:
        problem = _problem(plane)
        if problem:
            aside[problem] = aside.get(problem, 0) + 1
        else:
            valid.append(plane)
    for problem, number in aside.items():
        which = "all its images" if number == count else f"{number} of its {count} images"
        refused.append(Refusal(name, f"Series {name}: {which} set aside: {problem}.", problem == _LOCALISERS))
    stacks: list[list[ImagePlane]] = []
    for plane in valid:
        for stack in stacks:
            if _same_geometry(stack[0], plane):
                stack.append(plane)
                break
        else:
            stacks.append([plane])
        if len(stacks) > MAX_GEOMETRIES:  # each plane is compared with every stack: a hostile file would take hours
            what = f"more than {MAX_GEOMETRIES} sizes, spacings and orientations, which is no volume"
            refused.append(Refusal(name, f"Series {name}: its images have {what}. Give the original slices."))
            return [], refused
    stacks.sort(key=lambda stack: -len(stack))
    singles = sum(len(stack) == 1 for stack in stacks)
    if singles and len(stacks) > 1:
        whole = f"its {len(stacks[0])} slices" if len(stacks[0]) > 1 else "each other"
        what = f"{singles} of its {count} images set aside: in another plane, of another size or spacing than {whole}"
        remedy = "Nothing to do for localisers; if they are slices of the scan, export it again"
        refused.append(Refusal(name, f"Series {name}: {what}. {remedy}.", harmless=len(stacks[0]) > 1))
        stacks = [stack for stack in stacks if len(stack) > 1]
    return stacks, refused


def _problem(plane: ImagePlane) -> str | None:
    """Why a plane can be no slice of a volume; None where it can."""
    if "LOCALIZER" in plane.image_type or "SCOUT" in plane.image_type:
        return _LOCALISERS
    if plane.samples != 1:
        return "colour images, such as screen captures. Give the original slices"
    if plane.position_mm is None or plane.orientation is None:
        return (
            "without a readable position or orientation in the patient (ImagePositionPatient, ImageOrientationPatient)."
            " Give the original slices"
        )
    if plane.pixel_spacing_mm is None or min(plane.pixel_spacing_mm) <= 0:
        return "without a readable PixelSpacing. Give the original slices"
    if plane_axes(plane) is None:
        return "row and column directions are not at right angles (ImageOrientationPatient). Export the series again"
    if plane.rows * plane.columns > MAX_PLANE:
        return f"{plane.rows} x {plane.columns} pixels, which no scanner makes. Export the series again"
    return None


def _same_geometry(first: ImagePlane, second: ImagePlane) -> bool:
    return (
        first.frame_of_reference_uid == second.frame_of_reference_uid
        and (first.rows, first.columns) == (second.rows, second.columns)
        and all(abs(a - b) <= 1e-4 * a for a, b in zip(spacing_mm(first), spacing_mm(second), strict=True))
        and float(np.abs(plane_axes(first) - plane_axes(second)).max()) <= ORIENTATION_TOLERANCE
    )


def _series_of_stack(planes: list[ImagePlane], digests: Digests, straighten: bool) -> list[Series]:
    at_one_place = group_by_position(planes)
    kept, dropped, conflicts = [], 0, []
    several = [plane for same in at_one_place if len(same) > 1 for plane in same]
    digests_of = iter(digests(several))
    for same in at_one_place:
        distinct = same if len(same) == 1 else _distinct(same, [next(digests_of) for _ in same])
        dropped += len(same) - len(distinct)
        kept += distinct
        if len(distinct) > 1:
            conflicts.append(distinct)
    notes = (f"{dropped} slices occur twice with the same pixels: one of each is used",) if dropped else ()
    if not conflicts:
        return [stack_as_series(stack_planes(kept, notes), straighten)]
    parts = _split_by_keyword(kept, straighten)
    if parts:
        keyword, split = parts
        note = f"distinguished from others of its UID by {keyword}"
        return [replace(s, notes=(*s.notes, note, *notes)) for s in split]
    first = conflicts[0]
    height = float(np.array(first[0].position_mm) @ plane_axes(planes[0])[:, 2])
    raise DicomError(
        f"Series {planes[0].name} has {len(first)} different images at {len(conflicts)} of its {len(at_one_place)} "
        f"positions (the first at {height:.1f} mm along the normal{_difference(first)}). "
        "Export each acquisition or reconstruction as a series of its own."
    )


def _distinct(planes: list[ImagePlane], marks: list[str]) -> list[ImagePlane]:
    """The first plane of each mark."""
    first = dict(zip(reversed(marks), reversed(planes), strict=True))
    return list(first.values())[::-1]


def _difference(planes: Sequence[ImagePlane]) -> str:
    """The first keyword in which images at one position differ, with its values; nothing of the patient's."""
    for k, keyword in enumerate(DISTINGUISHING_KEYWORDS[:4]):
        values = sorted({plane.distinguishing[k] for plane in planes})
        if len(values) > 1:
            return f"; {keyword} {', '.join(value or 'none' for value in values[:4])}"
    return ""


def _split_by_keyword(planes: list[ImagePlane], straighten: bool) -> tuple[str, list[Series]] | None:
    for k, keyword in enumerate(DISTINGUISHING_KEYWORDS):
        parts: dict[str, list[ImagePlane]] = {}
        for plane in planes:
            parts.setdefault(plane.distinguishing[k], []).append(plane)
        if len(parts) < 2 or any(len(same) > 1 for part in parts.values() for same in group_by_position(part)):
            continue
        try:
            return keyword, [stack_as_series(stack_planes(parts[value]), straighten) for value in sorted(parts)]
        except DicomError:
            continue
    return None
