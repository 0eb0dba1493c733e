"""Which structure sets and segmentations of a folder of DICOM belong to which series, structure by structure.

This is the one pairing: listing, check and conversion read it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotation import Annotation, read_annotation
from lnsegfm.imaging.dicom.authorship import author_of
from lnsegfm.imaging.dicom.drawn_geometry import TreeGeometry
from lnsegfm.imaging.dicom.pairing_evidence import ABSENT, Pairing, PairingOptions, PairingRules

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import SeriesIndex

__all__ = ["AnnotatedTree", "PairedAnnotation", "PairingOptions", "pair_annotations", "read_annotated_tree"]


@dataclass(frozen=True)
class PairedAnnotation:
    """A structure set or segmentation, and where each of its structures belongs.

    Args:
        annotation: The file.
        pairings: One for each structure, in the file's order; one of no name where the file has none.
    """

    annotation: Annotation
    pairings: tuple[Pairing, ...]

    def on(self, place: int) -> Annotation | None:
        """The file with the structures of one series alone; None where none belongs to it."""
        kept = [pairing.structure for pairing in self.pairings if pairing.place == place]
        known = [structure for structure in kept if structure in self.annotation.structures]
        return replace(self.annotation, structures=tuple(known)) if kept else None

    @property
    def places(self) -> tuple[int, ...]:
        """Positions of the series that its structures belong to."""
        return tuple(sorted({pairing.place for pairing in self.pairings if pairing.place is not None}))

    @property
    def strays(self) -> tuple[Pairing, ...]:
        """Those of its structures that belong to no series."""
        return tuple(pairing for pairing in self.pairings if pairing.place is None)

    @property
    def why(self) -> str:
        """Why its structures belong to no series: the reason of most of those that are drawn."""
        strays = self.strays
        reasons = [each.why for each in strays if each.structure.drawn] or [each.why for each in strays]
        return max(dict.fromkeys(reasons), key=reasons.count, default="")


@dataclass(frozen=True)
class AnnotatedTree:
    """Which annotations belong to which series.

    Args:
        index: All series and files that were found.
        paired: Every annotation that can be read, in the order of the files.
        unreadable: Files that cannot be read, or are no annotations after all, with a line that says why.
        options: What was asked for.
    """

    index: SeriesIndex
    paired: tuple[PairedAnnotation, ...]
    unreadable: tuple[tuple[Path, str], ...] = ()
    options: PairingOptions = field(default_factory=PairingOptions)

    @property
    def by_series(self) -> Mapping[int, tuple[Annotation, ...]]:
        """Annotations by position of the series, newest first, each with the structures that belong to the series."""
        found: dict[int, list[Annotation]] = defaultdict(list)
        for each in self.paired:
            for place in each.places:
                if (annotation := each.on(place)) is not None:
                    found[place].append(annotation)
        return {place: tuple(newest_first(several)) for place, several in sorted(found.items())}

    @property
    def orphans(self) -> tuple[tuple[Annotation, str], ...]:
        """Annotations none of whose structures belongs to a series, with the reason."""
        return tuple((each.annotation, each.why) for each in self.paired if not each.places)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of a structure that belongs to a series, once."""
        names = (name for annotations in self.by_series.values() for each in annotations for name in each.names)
        return tuple(dict.fromkeys(names))

    def series_of(self, path: Path) -> tuple[int, ...]:
        """Positions of the series that structures of a file belong to."""
        return next((each.places for each in self.paired if each.annotation.path == path), ())

    def pairings_on(self, place: int) -> Iterator[tuple[Annotation, Pairing]]:
        """What belongs to a series, structure by structure."""
        for each in self.paired:
            for pairing in each.pairings:
                if pairing.place == place:
                    yield each.annotation, pairing


def read_annotated_tree(
    root: Path, *, straighten: bool = False, resample_uneven: bool = False, options: PairingOptions | None = None
) -> AnnotatedTree:
    """Find the CT series below a folder (or in a zip) and the annotations that belong to each (`pair_annotations`).

    Args:
        root: A folder, a file or a zip.
        straighten: Take sheared series too (gantry tilt), resampled onto an orthogonal grid.
        resample_uneven: Take series of uneven slice distances too, interpolated onto a grid of one distance.
        options: What pairs structures with series beyond their UIDs.

    Raises:
        DataError: No such file or folder, or a zip that cannot be unpacked.
    """
    from lnsegfm.imaging.dicom.series import find_series

    return pair_annotations(find_series(root, straighten=straighten, resample_uneven=resample_uneven), options)


def pair_annotations(index: SeriesIndex, options: PairingOptions | None = None) -> AnnotatedTree:
    """Find the series that each structure of each structure set and segmentation belongs to.

    The rules are those of `PairingRules`, and one more: what names a series that is not there, and shares the frame of
    reference of one that is, is not taken where that one has structures of its own (which a person drew), or where
    structures drawn on several absent series would come together. The phases of a 4D CT share their frame of
    reference, and a node is elsewhere in each.
    """
    options = options or PairingOptions()
    rules = PairingRules(index, TreeGeometry(index.series), options)
    paired, unreadable = [], []
    for path in (*index.structures, *index.segmentations):
        try:
            annotation = read_annotation(path)
            paired.append(PairedAnnotation(annotation, rules.pair(annotation)))
        except DataError as error:
            unreadable.append((path, str(error)))
    return AnnotatedTree(index, tuple(_without_foreign(paired)), tuple(unreadable), options)


def newest_first(annotations: Sequence[Annotation]) -> list[Annotation]:
    """Annotations by their age; where nothing tells it, by their UID, so that names of files decide nothing."""
    return sorted(sorted(annotations, key=lambda a: a.uid), key=lambda a: a.age, reverse=True)


def _without_foreign(paired: Sequence[PairedAnnotation]) -> Iterator[PairedAnnotation]:
    """Without what was drawn on series that are absent, where the one that shares their frame is not to have it."""
    own: set[int] = set()
    absent: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    for each in paired:
        for pairing in each.pairings:
            if pairing.place is None:
                continue
            if pairing.foreign:
                absent[pairing.place].add(pairing.structure.series_uids)
            elif pairing.structure.series_uids and author_of(each.annotation, pairing.structure).person:
                own.add(pairing.place)
    for each in paired:
        yield replace(each, pairings=tuple(_adopted(pairing, own, absent) for pairing in each.pairings))


def _adopted(pairing: Pairing, own: set[int], absent: Mapping[int, set[tuple[str, ...]]]) -> Pairing:
    if not pairing.foreign or pairing.place is None:
        return pairing
    if pairing.place in own:
        why = f"{ABSENT}, and the one of its frame of reference has structures of its own"
        return Pairing(pairing.structure, why=why)
    if len(absent[pairing.place]) > 1:
        return Pairing(pairing.structure, why=f"{ABSENT}, and others were drawn on yet another one of this frame")
    return pairing
