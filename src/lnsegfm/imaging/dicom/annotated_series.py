"""A folder of DICOM: which structures belong to which scan."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotation import Annotation, annotated_images, read_annotation

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import SeriesIndex

_GONE = "the series that it was drawn on is not there"


@dataclass(frozen=True)
class AnnotatedTree:
    """Which annotations belong to which series.

    Args:
        found: Everything that is there.
        by_series: Annotations by position of the series in ``found.series``, newest first.
        orphans: Annotations that belong to none, with the reason.
        unreadable: Files that cannot be read, or are no structures after all, one line each.
    """

    found: SeriesIndex
    by_series: Mapping[int, tuple[Annotation, ...]]
    orphans: tuple[tuple[Annotation, str], ...]
    unreadable: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of a structure that belongs to a series, once."""
        every = (name for several in self.by_series.values() for each in several for name in each.names)
        return tuple(dict.fromkeys(every))


def read_annotated_tree(root: Path, *, straighten: bool = False) -> AnnotatedTree:
    """Find the CT series below a folder (or in a zip) and the structures that belong to each.

    A structure set or segmentation belongs to

    1. the series that it names by SeriesInstanceUID. Where several come into question (several stacks of one UID, as
       some scanners send the phases of a 4D CT, or several series), those of its frame of reference, and of these
       those whose images its contours or frames name.
    2. Where it names none, or the series that it names is not there: the only series of its frame of reference. What
       names another series is not taken if that one has structures of its own, or if others come with it that were
       drawn on yet another one: the phases of a 4D CT share their frame of reference, and a node is elsewhere in each.

    Everything else is an orphan, and so is what was drawn on a series that is there and cannot be used.

    Args:
        root: A folder, a file or a zip.
        straighten: Take sheared series too (gantry tilt), resampled onto an orthogonal grid.

    Raises:
        DataError: No such file or folder, or a zip that cannot be unpacked.
    """
    from lnsegfm.imaging.dicom.series import find_series

    found = find_series(root, straighten=straighten)
    named: dict[int, list[Annotation]] = defaultdict(list)
    framed: dict[int, list[Annotation]] = defaultdict(list)
    orphans, unreadable = [], []
    for path in (*found.structures, *found.segmentations):
        try:
            annotation = read_annotation(path)
            places, why = _named(annotation, found)
            for place in places:
                named[place].append(annotation)
            if not places and not why:
                place_of_frame, why = _framed(annotation, found)
                if place_of_frame is not None:
                    framed[place_of_frame].append(annotation)
        except DataError as error:
            unreadable.append(str(error))
            continue
        if why:
            orphans.append((annotation, why))
    for place, several in framed.items():
        kept, refused = _adopted(several, place in named)
        named[place] += kept
        orphans += refused
    of = {place: tuple(_newest_first(several)) for place, several in sorted(named.items()) if several}
    return AnnotatedTree(found, of, tuple(orphans), tuple(unreadable))


def refused_uids(found: SeriesIndex) -> set[str]:
    """SeriesInstanceUIDs of what is there and cannot be used, as far as it has any."""
    return {refusal.series.split()[0] for refusal in found.refused if refusal.series.strip()}


def _newest_first(annotations: Sequence[Annotation]) -> list[Annotation]:
    return sorted(sorted(annotations, key=lambda a: a.uid), key=lambda a: a.timestamp, reverse=True)


def _named(annotation: Annotation, found: SeriesIndex) -> tuple[list[int], str]:
    """Positions of the series that an annotation names, or why it belongs to none; neither where none is there."""
    series = found.series
    named = [k for k, s in enumerate(series) if s.uid and s.uid in annotation.series_uids]
    # a fused second scan is named too, and nothing was drawn in its frame of reference
    named = [k for k in named if series[k].frame_of_reference_uid in annotation.frame_of_reference_uids] or named
    if len(named) > 1:
        images = annotated_images(annotation)
        named = [k for k in named if any(s.sop_instance_uid in images for s in series[k].slices)] or named
    stacks = max(Counter(series[k].uid for k in named).values(), default=0)
    if stacks > 1:
        return [], f"it names a series that is {stacks} stacks of slices, and not on which of them it was drawn"
    if not named and refused_uids(found) & set(annotation.series_uids):
        return [], "the series that it was drawn on cannot be used"
    return named, ""


def _framed(annotation: Annotation, found: SeriesIndex) -> tuple[int | None, str]:
    """Position of the only series of an annotation's frame of reference, or why there is none."""
    frames = annotation.frame_of_reference_uids
    framed = [k for k, s in enumerate(found.series) if s.frame_of_reference_uid and s.frame_of_reference_uid in frames]
    if len(framed) == 1:
        return framed[0], ""
    why = _GONE if annotation.series_uids else "it names no series"
    return None, f"{why}, and {len(framed)} share its frame of reference" if framed else why


def _adopted(several: list[Annotation], has_own: bool) -> tuple[list[Annotation], list[tuple[Annotation, str]]]:
    """Of the annotations that only share a series' frame of reference: those that it gets, and the others."""
    foreign = [a for a in several if a.series_uids]
    kept = [a for a in several if not a.series_uids]
    if has_own:
        return kept, [(a, f"{_GONE}, and the one of its frame of reference has structures of its own") for a in foreign]
    if len({a.series_uids for a in foreign}) > 1:
        return kept, [(a, f"{_GONE}, and others were drawn on yet another one of this frame") for a in foreign]
    return kept + foreign, []
