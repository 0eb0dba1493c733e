"""What speaks for a structure and a series belonging together, and what decides.

The rules are the table of the page on conversion: images that contours or frames name, the series that is named, the
frame of reference, and on request geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.drawn_geometry import TreeGeometry
from lnsegfm.imaging.dicom.drawn_structure import DrawnStructure
from lnsegfm.imaging.dicom.series_index import Series, SeriesIndex
from lnsegfm.imaging.dicom.structure_set import StructureSet, note_on_other_series

ABSENT = "the series that it was drawn on is not there"
BY_GEOMETRY = "--pair-by-geometry"


@dataclass(frozen=True, kw_only=True)
class PairingOptions:
    """What is taken only when it is asked for.

    Args:
        by_geometry: Structures that no UID pairs belong to the only series on whose slices they lie.
        accept_automatic: What an algorithm drew may be a reference.
    """

    by_geometry: bool = False
    accept_automatic: bool = False


@dataclass(frozen=True)
class Pairing:
    """Which series a structure belongs to, and what decided; or why it belongs to none.

    Args:
        structure: The structure.
        place: Position of the series in the index; None where it belongs to none.
        decided: What decided, in words.
        why: Why it belongs to none, a clause.
        note: What a user should know of it, one line; empty where nothing is odd.
        contradicts: Position of the series that is here, that the structure names and that it contradicts.
        foreign: It names series, and this is none of them.
        drawn_on_unusable: The series that it names is here and was refused.
        unknown: Nothing that it names is here.
    """

    structure: DrawnStructure
    place: int | None = None
    decided: str = ""
    why: str = ""
    note: str = ""
    contradicts: int | None = None
    foreign: bool = False
    drawn_on_unusable: bool = False
    unknown: bool = False


@dataclass(frozen=True)
class PairingRules:
    """The rules, over one index.

    Args:
        index: All series that are there.
        geometry: Tells where structures lie on series.
        options: What is asked for.
    """

    index: SeriesIndex
    geometry: TreeGeometry
    options: PairingOptions = field(default_factory=PairingOptions)

    def pair(self, annotation: Annotation) -> tuple[Pairing, ...]:
        """The series of each structure of a file, in its order; one pairing of no name where it has no structure.

        Geometry pairs structures of a file of which UIDs pair none: in one of which they pair some, the others lie in
        another frame of reference, and where they seem to lie on a slice it is by chance.
        """
        whole = DrawnStructure(
            None,
            "",
            drawn=False,
            frames_of_reference=annotation.frame_of_reference_uids,
            series_uids=annotation.series_uids,
        )
        paired = tuple(self._by_any_uid(annotation, each) for each in annotation.structures or (whole,))
        if any(each.place is not None or each.drawn_on_unusable for each in paired):
            return paired
        return tuple(self._or_by_geometry(annotation, each) for each in paired)

    def _by_any_uid(self, annotation: Annotation, structure: DrawnStructure) -> Pairing:
        every = range(len(self.index.series))
        of_patient = self._of_patient(annotation)
        paired = self._by_uids(annotation, structure, of_patient)
        if paired.place is None and len(of_patient) < len(every):
            others = self._by_uids(annotation, structure, every)
            if others.place is not None:
                return Pairing(structure, why=OTHER_PATIENT, contradicts=others.place)
        return paired

    def _or_by_geometry(self, annotation: Annotation, paired: Pairing) -> Pairing:
        """A pairing by geometry if that is asked for; else a word about it where it would pair."""
        fitting = self._by_geometry(annotation, paired.structure, self._of_patient(annotation))
        if self.options.by_geometry:
            return fitting or paired
        if fitting is not None and fitting.place is not None and paired.unknown:
            why = f"{paired.why}; it lies on the slices of one series that is here: {BY_GEOMETRY} pairs the two"
            return replace(paired, why=why)
        return paired

    def _of_patient(self, annotation: Annotation) -> list[int]:
        return [k for k, series in enumerate(self.index.series) if not other_patient(annotation, series)]

    def _by_uids(self, annotation: Annotation, structure: DrawnStructure, places: Sequence[int]) -> Pairing:
        if paired := self._by_images(annotation, structure, places):
            return paired
        if modality := self._other_modality(structure):
            return Pairing(structure, why=f"it was drawn on {modality} images, and is not measured on a CT")
        return self._by_named_series(annotation, structure, places) or self._by_frame(annotation, structure, places)

    def _by_images(self, annotation: Annotation, structure: DrawnStructure, places: Sequence[int]) -> Pairing | None:
        """The series most of whose images the contours or frames name; None where they name none that is here."""
        if not structure.images:
            return None
        shares = {k: len(structure.images & self.geometry.images[k]) for k in places}
        best = max(shares.values(), default=0)
        if not best:
            return None
        holders = [k for k in places if shares[k] == best]
        if len(holders) > 1:  # stacks of one multi-frame file, or contours of several series
            holders = self._narrowed(annotation, structure, holders)
        total = len(structure.images)
        drawn = "contours" if annotation.kind == "RTSTRUCT" else "frames"
        if len(holders) > 1 or 2 * best <= total:
            why = f"its {drawn} name images of several series, or mostly images that are not there"
            return Pairing(structure, why=f"{why} ({best} of {total} are of one series)", contradicts=holders[0])
        note = f"{total - best} of {total} images that its {drawn} name are not of the series" if best < total else ""
        decided = f"images that its {drawn} name ({best} of {total})"
        return self._unless_frames_contradict(annotation, structure, holders[0], decided, note)

    def _by_named_series(
        self, annotation: Annotation, structure: DrawnStructure, places: Sequence[int]
    ) -> Pairing | None:
        series = self.index.series
        named = [k for k in places if series[k].uid and series[k].uid in structure.series_uids]
        if not named:
            return self._named_and_not_usable(structure)
        # a fused second scan is named too, and nothing was drawn in its frame of reference
        named = [k for k in named if _shares_frame(structure, series[k])] or named
        listed = [k for k in named if self.geometry.images[k] & structure.listed_images] if len(named) > 1 else []
        named = listed or named
        if len(named) > 1:
            named = self._narrowed(annotation, structure, named)
        if len(named) > 1:
            stacks = max(sum(series[j].uid == series[k].uid for j in named) for k in named)
            if stacks > 1:
                what = f"a series that is {stacks} stacks of slices, and not on which of them it was drawn"
            else:
                what = f"{len(named)} series that are here, and not on which of them it was drawn"
            return Pairing(structure, why=f"it names {what}", contradicts=named[0])
        return self._unless_frames_contradict(annotation, structure, named[0], "SeriesInstanceUID", "")

    def _unless_frames_contradict(
        self, annotation: Annotation, structure: DrawnStructure, place: int, decided: str, note: str
    ) -> Pairing:
        """A pairing by UIDs; where the frame of reference differs, images that are named and lie there outweigh it."""
        series = self.index.series[place]
        if not _other_frame(structure, series):
            return Pairing(structure, place, decided, note=note)
        named = structure.images or structure.listed_images
        here = len(named & self.geometry.images[place])
        frame = ", ".join(structure.frames_of_reference)
        why = f"its frame of reference {frame} is not the series' {series.frame_of_reference_uid}"
        if 2 * here > len(named):
            if self.geometry.lies_on(annotation, structure, place):
                told = f"{why}; it names the series' images and lies on its slices, so it is taken"
                return Pairing(
                    structure, place, f"{decided} and its slices", note="; ".join(filter(None, (note, told)))
                )
            why = f"{why}, and it does not lie on the slices that it names"
        return Pairing(structure, why=f"{why}. Give the series that it was drawn on", contradicts=place)

    def _named_and_not_usable(self, structure: DrawnStructure) -> Pairing | None:
        for refusal in self.index.refused:
            if refusal.series.strip() and refusal.series.split()[0] in structure.series_uids:
                why = "the series that it was drawn on is here and cannot be used: the line about it says why"
                return Pairing(structure, why=why, drawn_on_unusable=True)
        return None

    def _other_modality(self, structure: DrawnStructure) -> str:
        """The modality of the images that a structure was drawn on, if it is known and none that was asked for."""
        wanted = {series.modality for series in self.index.series} or {"CT"}
        others = dict(self.index.other_series)
        here = {others[uid] for uid in structure.series_uids if uid in others}
        known = structure.modalities or here
        if not known or known & wanted:
            return ""
        by_images = structure.images and structure.modalities
        if not by_images and any(series.uid in structure.series_uids for series in self.index.series):
            return ""
        return "/".join(sorted(_WORDS.get(modality, modality) for modality in known))

    def _by_frame(self, annotation: Annotation, structure: DrawnStructure, places: Sequence[int]) -> Pairing:
        series = self.index.series
        sharing = [k for k in places if _shares_frame(structure, series[k])]
        foreign = bool(structure.series_uids)
        if len(sharing) > 1 and not foreign:
            of_study = [k for k in sharing if series[k].study_uid and series[k].study_uid == annotation.study_uid]
            sharing = self._narrowed(annotation, structure, of_study or sharing)
        if len(sharing) == 1:
            note = note_on_other_series(StructureSet("", structure.series_uids, ()), series[sharing[0]]) or ""
            return Pairing(structure, sharing[0], "frame of reference", note=note, foreign=foreign)
        why = ABSENT if foreign else "it names no series"
        if sharing:
            return Pairing(structure, why=f"{why}, and {len(sharing)} share its frame of reference")
        if frames := structure.frames_of_reference:
            here = "no CT that is here lies in it" if self.index.series else "no CT is here"
            why = f"{why}; its frame of reference is {', '.join(frames)}, and {here}"
        elif not foreign:
            why = f"{why}, image or frame of reference"
        return Pairing(structure, why=why, unknown=True)

    def _by_geometry(self, annotation: Annotation, structure: DrawnStructure, places: Sequence[int]) -> Pairing | None:
        """The only series on whose slices a structure lies."""
        fitting = [k for k in places if self.geometry.lies_on(annotation, structure, k)]
        if len(fitting) == 1:
            note = f"no UID says that it belongs to the series, on whose slices it lies ({BY_GEOMETRY})"
            return Pairing(structure, fitting[0], "geometry", note=note)
        if len(fitting) > 1:
            return Pairing(structure, why=f"it lies on the slices of {len(fitting)} series: geometry does not decide")
        return None

    def _narrowed(self, annotation: Annotation, structure: DrawnStructure, places: list[int]) -> list[int]:
        """Of several series the one on whose slices a structure lies, where it is one; else all of them."""
        fitting = [k for k in places if self.geometry.lies_on(annotation, structure, k)]
        return fitting if len(fitting) == 1 else places


OTHER_PATIENT = "it is of another patient than the scan (PatientID). Export each patient on its own"
_WORDS = {"PT": "PET"}


def other_patient(annotation: Annotation, series: Series) -> bool:
    """Whether both state a PatientID and these differ; case and blanks at the ends do not count."""
    one, other = annotation.patient_id.strip().casefold(), series.patient_id.strip().casefold()
    return bool(one and other) and one != other


def _shares_frame(structure: DrawnStructure, series: Series) -> bool:
    return any(series.in_frame(uid) for uid in structure.frames_of_reference)


def _other_frame(structure: DrawnStructure, series: Series) -> bool:
    known = bool(structure.frames_of_reference and series.frame_of_reference_uid)
    return known and not _shares_frame(structure, series)
