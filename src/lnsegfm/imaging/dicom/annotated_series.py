"""Which structure sets and segmentations of a folder of DICOM belong to which series."""

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

_ABSENT = "the series that it was drawn on is not there"


@dataclass(frozen=True)
class AnnotatedTree:
    """Which annotations belong to which series.

    Args:
        index: All series and files that were found.
        by_series: Annotations by position of the series in ``index.series``, newest first.
        orphans: Annotations that belong to no series, with the reason.
        unreadable: Files that cannot be read, or are no annotations after all, with a line that says why.
    """

    index: SeriesIndex
    by_series: Mapping[int, tuple[Annotation, ...]]
    orphans: tuple[tuple[Annotation, str], ...]
    unreadable: tuple[tuple[Path, str], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of a structure that belongs to a series, once."""
        names = (name for annotations in self.by_series.values() for each in annotations for name in each.names)
        return tuple(dict.fromkeys(names))

    def series_of(self, path: Path) -> tuple[int, ...]:
        """Positions of the series that the annotation in a file belongs to."""
        return tuple(k for k, annotations in self.by_series.items() if any(a.path == path for a in annotations))


def read_annotated_tree(root: Path, *, straighten: bool = False, resample_uneven: bool = False) -> AnnotatedTree:
    """Find the CT series below a folder (or in a zip) and the annotations that belong to each (`pair_annotations`).

    Args:
        root: A folder, a file or a zip.
        straighten: Take sheared series too (gantry tilt), resampled onto an orthogonal grid.
        resample_uneven: Take series of uneven slice distances too, interpolated onto a grid of one distance.

    Raises:
        DataError: No such file or folder, or a zip that cannot be unpacked.
    """
    from lnsegfm.imaging.dicom.series import find_series

    return pair_annotations(find_series(root, straighten=straighten, resample_uneven=resample_uneven))


def pair_annotations(index: SeriesIndex) -> AnnotatedTree:
    """Find the series that each structure set and segmentation belongs to.

    It belongs to

    1. the series that it names by SeriesInstanceUID. Where several come into question (several stacks of one UID, as
       some scanners send the phases of a 4D CT, or several series), those of its frame of reference, and of these
       those whose images its contours or frames name.
    2. Where it names none, or the series that it names is not there: the only series of its frame of reference. What
       names another series is not taken if that one has annotations of its own, or if others come with it that were
       drawn on yet another one: the phases of a 4D CT share their frame of reference, and a node is elsewhere in each.

    Everything else is an orphan, and so is what was drawn on a series that is there and cannot be used.
    """
    named: dict[int, list[Annotation]] = defaultdict(list)
    sharing_frame: dict[int, list[Annotation]] = defaultdict(list)
    orphans, unreadable = [], []
    for path in (*index.structures, *index.segmentations):
        try:
            annotation = read_annotation(path)
            places, why = _named_series(annotation, index)
            for place in places:
                named[place].append(annotation)
            if not places and not why:
                only, why = _only_series_of_frame(annotation, index)
                if only is not None:
                    sharing_frame[only].append(annotation)
        except DataError as error:
            unreadable.append((path, str(error)))
            continue
        if why:
            orphans.append((annotation, why))
    for place, several in sharing_frame.items():
        taken, refused = _adopted(several, place in named)
        named[place] += taken
        orphans += refused
    by_series = {
        place: tuple(_newest_first(annotations)) for place, annotations in sorted(named.items()) if annotations
    }
    return AnnotatedTree(index, by_series, tuple(orphans), tuple(unreadable))


def refused_uids(index: SeriesIndex) -> set[str]:
    """SeriesInstanceUIDs of what is there and cannot be used, as far as it has any."""
    return {refusal.series.split()[0] for refusal in index.refused if refusal.series.strip()}


def _newest_first(annotations: Sequence[Annotation]) -> list[Annotation]:
    return sorted(sorted(annotations, key=lambda a: a.uid), key=lambda a: a.timestamp, reverse=True)


def _named_series(annotation: Annotation, index: SeriesIndex) -> tuple[list[int], str]:
    """Positions of the series that an annotation names, or why it belongs to none; neither where none is there."""
    series = index.series
    named = [k for k, s in enumerate(series) if s.uid and s.uid in annotation.series_uids]
    # a fused second scan is named too, and nothing was drawn in its frame of reference
    named = [k for k in named if series[k].frame_of_reference_uid in annotation.frame_of_reference_uids] or named
    if len(named) > 1:
        images = annotated_images(annotation)
        named = [k for k in named if any(s.sop_instance_uid in images for s in series[k].slices)] or named
    stacks = max(Counter(series[k].uid for k in named).values(), default=0)
    if stacks > 1:
        return [], f"it names a series that is {stacks} stacks of slices, and not on which of them it was drawn"
    if not named and refused_uids(index) & set(annotation.series_uids):
        return [], "the series that it was drawn on cannot be used"
    return named, ""


def _only_series_of_frame(annotation: Annotation, index: SeriesIndex) -> tuple[int | None, str]:
    """Position of the only series of an annotation's frame of reference, or why there is none."""
    frames = annotation.frame_of_reference_uids
    sharing = [k for k, s in enumerate(index.series) if s.frame_of_reference_uid and s.frame_of_reference_uid in frames]
    if len(sharing) == 1:
        return sharing[0], ""
    why = _ABSENT if annotation.series_uids else "it names no series"
    return None, f"{why}, and {len(sharing)} share its frame of reference" if sharing else why


def _adopted(annotations: Sequence[Annotation], has_own: bool) -> tuple[list[Annotation], list[tuple[Annotation, str]]]:
    """Of the annotations that only share a series' frame of reference: those that it gets, and the others."""
    foreign = [a for a in annotations if a.series_uids]
    taken = [a for a in annotations if not a.series_uids]
    if has_own:
        return taken, [
            (a, f"{_ABSENT}, and the one of its frame of reference has structures of its own") for a in foreign
        ]
    if len({a.series_uids for a in foreign}) > 1:
        return taken, [(a, f"{_ABSENT}, and others were drawn on yet another one of this frame") for a in foreign]
    return taken + foreign, []
