"""Which of the structures of a scan its reference is taken from, and why not the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from itertools import combinations

import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.annotation_masks import annotation_mask
from lnsegfm.imaging.dicom.authorship import AUTOMATIC, Author, author_of, corrected_copy
from lnsegfm.imaging.dicom.drawn_structure import DrawnStructure
from lnsegfm.imaging.dicom.mirrored_structures import Mirrored, mirrored_structures
from lnsegfm.imaging.dicom.rois import match_rois
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.spelling import normalise_name

ACCEPT_AUTOMATIC = "--accept-automatic"
NO_PATTERN, UNDRAWN = "no pattern matches", "nothing is drawn"
_OTHER = "the other"
DRAWN_TWICE = "as one structure under two names would"
"""What a note says on structures of two files that share most of their voxels."""


@dataclass(frozen=True)
class Candidate:
    """One structure that belongs to a scan, and what became of it.

    Args:
        annotation: Its file.
        structure: The structure.
        label: What a pattern calls it; None where no pattern matches.
        author: Who drew it.
        taken: The reference is taken from it.
        why: What decided, a clause.
        fault: It is wanted, and refused because something is wrong with it.
    """

    annotation: Annotation
    structure: DrawnStructure
    label: str | None
    author: Author
    taken: bool = False
    why: str = ""
    fault: bool = False


@dataclass(frozen=True)
class ReferenceChoice:
    """The structures that a case's reference is taken from.

    Args:
        candidates: Every structure that belongs to the scan, files newest first, with what became of it.
        notes: What was passed over, resolved or is odd, one line each.
    """

    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[tuple[Annotation, tuple[str, ...]], ...]:
        """Files with the structures that are taken alone, and for these ``NAME=label``."""
        taken: dict[int, list[Candidate]] = defaultdict(list)
        for each in self.candidates:
            if each.taken:
                taken[id(each.annotation)].append(each)
        return tuple(
            (
                replace(several[0].annotation, structures=tuple(each.structure for each in several)),
                tuple(dict.fromkeys(f"{_pattern_for(each.structure.name)}={each.label}" for each in several)),
            )
            for several in taken.values()
        )

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """Every file of the scan."""
        return tuple({id(each.annotation): each.annotation for each in self.candidates}.values())


def weigh_structures(
    annotations: Sequence[Annotation],
    patterns: Sequence[str] = (),
    *,
    accept_automatic: bool = False,
    series: Series | None = None,
) -> ReferenceChoice:
    """For each structure of a scan whether its reference is taken from it.

    Structures of several files come together. Where several files draw one structure (by its name, as patterns compare
    names) one of them gives it: what a person drew before what an algorithm drew, what is approved before what is not,
    and of these the newest. What an algorithm drew is taken only if that is asked for, and then for labels that no
    person drew. A file that is rejected, and a structure without a contour or voxel, hides nothing.

    Args:
        annotations: Of one scan, newest first, each with the structures that belong to the scan.
        patterns: ``NAME=label``; without any, each name is a label.
        accept_automatic: Take what an algorithm drew.
        series: The scan, to compare structures for mirror images; None compares none.
    """
    candidates = [
        Candidate(annotation, structure, label, author_of(annotation, structure))
        for annotation in annotations
        for structure, label in zip(annotation.structures, _labels(annotation, patterns), strict=True)
    ]
    candidates = [_author_by_copy(each, candidates) for each in candidates]
    candidates = [_eligible(each, accept_automatic) for each in candidates]
    if series is not None:
        found = mirrored_structures([(c.annotation, c.structure, c.label, c.author.person) for c in candidates], series)
        candidates = [_unless_mirrored(each, found.get(k)) for k, each in enumerate(candidates)]
    notes: list[str] = []
    for label in dict.fromkeys(each.label for each in candidates if each.label is not None):
        own = [k for k, each in enumerate(candidates) if each.label == label]
        for k, verdict in _resolved({k: candidates[k] for k in own}, notes, series).items():
            candidates[k] = verdict
    return ReferenceChoice(tuple(candidates), (*notes, *_refusal_notes(candidates)))


def _labels(annotation: Annotation, patterns: Sequence[str]) -> Sequence[str | None]:
    if patterns:
        return match_rois(annotation.names, patterns, strict=False).labels
    return [normalise_name(name) for name in annotation.names]


def _author_by_copy(one: Candidate, candidates: Sequence[Candidate]) -> Candidate:
    if one.author.person:
        return one
    for other in candidates:
        alike = normalise_name(other.structure.name) == normalise_name(one.structure.name)
        if alike and other.annotation is not one.annotation:
            author = corrected_copy((one.annotation, one.structure), (other.annotation, other.structure))
            if author is not None:
                return replace(one, author=author)
    return one


def _eligible(one: Candidate, accept_automatic: bool) -> Candidate:
    """A candidate that is taken as far as it alone tells, or why not."""
    if one.label is None:
        return replace(one, why=NO_PATTERN)
    if one.annotation.approval == "REJECTED":
        return replace(one, why="its file is rejected (ApprovalStatus)")
    if not one.author.person and not accept_automatic and not one.structure.drawn:
        return replace(one, why=UNDRAWN)
    if not one.author.person and not accept_automatic:
        return replace(one, why=f"{one.author.why}: {ACCEPT_AUTOMATIC} takes it")
    return replace(one, taken=True, why=one.author.why)


def _unless_mirrored(one: Candidate, mirrored: Mirrored | None) -> Candidate:
    if mirrored is None or not one.taken:
        return one
    return replace(one, taken=False, why=str(mirrored), fault=True)


def _resolved(own: Mapping[int, Candidate], notes: list[str], series: Series | None) -> dict[int, Candidate]:
    """The candidates of one label, of which those that conflict give way to another."""
    verdicts = dict(own)
    taken = {k: each for k, each in own.items() if each.taken}
    drawn = {k: each for k, each in taken.items() if each.structure.drawn}
    for k in taken.keys() - drawn.keys() if drawn else ():
        verdicts[k] = replace(own[k], taken=False, why=UNDRAWN)
    drawn = drawn or _newest(taken)
    for k in taken.keys() - drawn.keys():
        verdicts[k] = replace(verdicts[k], taken=False, why=UNDRAWN)
    if any(each.author.person for each in drawn.values()):
        for k, each in drawn.items():
            if not each.author.person:
                verdicts[k] = replace(each, taken=False, why="a person drew this label elsewhere in the scan")
        drawn = {k: each for k, each in drawn.items() if each.author.person}
    by_name: dict[str, list[int]] = defaultdict(list)
    for k, each in drawn.items():
        by_name[normalise_name(each.structure.name)].append(k)
    for places in by_name.values():
        best = max(places, key=lambda k: _rank(own[k]))
        for k in places:
            if own[k].annotation is own[best].annotation:
                continue
            files = f"{own[best].annotation.path.name} and {own[k].annotation.path.name}"
            if series is not None and _of_one_time(own[best], own[k]) and _apart(own[best], own[k], series):
                notes.append(
                    f"Structure {own[k].structure.name!r}: {files} are of one date and time and have no voxel in "
                    "common: taken together"
                )
                continue
            why = _what_decided(own[best], own[k])
            verdicts[k] = replace(own[k], taken=False, why=why)
            notes.append(
                f"Structure {own[k].structure.name!r}: {own[best].annotation.path.name} gives it and not "
                f"{own[k].annotation.path.name}: {why.replace(_OTHER, 'the former')}"
            )
    together = [each for each in verdicts.values() if each.taken]
    if len({id(each.annotation) for each in together}) > 1:
        parts = dict.fromkeys(f"{each.structure.name} of {each.annotation.path.name}" for each in together)
        notes.append(f"Label {together[0].label}: structures of several files come together: {', '.join(parts)}")
        if series is not None:
            notes += _shared_notes(together, series)
    return verdicts


def _of_one_time(one: Candidate, other: Candidate) -> bool:
    """Whether nothing tells which of two is the later version."""
    alike = one.annotation.approval == other.annotation.approval
    return alike and one.annotation.age == other.annotation.age


def _apart(one: Candidate, other: Candidate, series: Series) -> bool:
    """Whether two structures have no voxel in common: parts of one, in files of their own."""
    try:
        first, second = (_drawn_voxels([each], series) for each in (one, other))
    except DataError:
        return False
    return not bool(np.logical_and(first, second).any())


def _shared_notes(together: Sequence[Candidate], series: Series) -> list[str]:
    """A line for each two files whose structures of one label lie on each other: it may be drawn twice."""
    files: dict[int, list[Candidate]] = defaultdict(list)
    for each in together:
        files[id(each.annotation)].append(each)
    lines = []
    for one, other in combinations(files.values(), 2):
        names = [{normalise_name(each.structure.name) for each in several} for several in (one, other)]
        if names[0] & names[1]:  # of one name: a choice was made, or they are parts that share nothing
            continue
        try:
            first, second = (_drawn_voxels(several, series) for several in (one, other))
        except DataError:  # reading the case tells
            continue
        shared = int(np.count_nonzero(first & second))
        sizes = int(np.count_nonzero(first)), int(np.count_nonzero(second))
        if shared and 2 * shared >= min(sizes):
            named = [
                f"{', '.join(each.structure.name for each in several)} of {several[0].annotation.path.name}"
                for several in (one, other)
            ]
            lines.append(
                f"Label {together[0].label}: {named[0]} ({sizes[0]} voxels) and {named[1]} ({sizes[1]} voxels) share "
                f"{shared} voxels, {DRAWN_TWICE}: all are taken. Where one replaces the other, name the one with --roi"
            )
    return lines


def _drawn_voxels(several: Sequence[Candidate], series: Series) -> np.ndarray:
    """The voxels of structures of one file."""
    drawn = replace(several[0].annotation, structures=tuple(each.structure for each in several))
    voxels: np.ndarray = annotation_mask(drawn, series, ["*=any"], {"any": 1}) > 0
    return voxels


def _newest(taken: Mapping[int, Candidate]) -> dict[int, Candidate]:
    """Where nothing is drawn anywhere: the structures of the newest file that has the label, which reading refuses."""
    first = next(iter(taken.values()), None)
    return {k: each for k, each in taken.items() if first is not None and each.annotation is first.annotation}


def _rank(one: Candidate) -> tuple[bool, tuple[tuple[str, ...], int], str]:
    # of two of one age the one of the lower UID, so that the names of files decide nothing
    mirrored = "".join(chr(0x10FFFF - ord(c)) for c in one.annotation.uid)
    return one.annotation.approval == "APPROVED", one.annotation.age, mirrored


def _what_decided(best: Candidate, other: Candidate) -> str:
    if (best.annotation.approval == "APPROVED") != (other.annotation.approval == "APPROVED"):
        return f"{_OTHER} is approved"
    if best.annotation.age == other.annotation.age:
        return "no date, time or number tells which is newer, and its SOPInstanceUID comes first"
    if not all(other.annotation.times[:1]):
        return f"{_OTHER} has a date"
    return f"{_OTHER} is newer"


def _refusal_notes(candidates: Sequence[Candidate]) -> list[str]:
    """A line for each file of which wanted structures are refused, however they were drawn."""
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    lines_taken: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in candidates:
        refused = not each.taken and each.label is not None and each.structure.drawn
        if refused and (each.fault or not each.author.person or each.annotation.approval == "REJECTED"):
            lines[each.annotation.path.name, each.why].append(each.structure.name)
    for each in candidates:
        if each.taken and each.author.person and each.structure.algorithm == AUTOMATIC:
            why = f"AUTOMATIC, and taken as a person's: {each.author.why}"
            lines_taken[each.annotation.path.name, why].append(each.structure.name)
    empty = {each.annotation.path.name for each in candidates if each.why == UNDRAWN and each.label is not None}
    return [
        *(f"{file}: {', '.join(dict.fromkeys(names))}: {why}" for (file, why), names in lines_taken.items()),
        *(f"{file}: not taken ({', '.join(dict.fromkeys(names))}): {why}" for (file, why), names in lines.items()),
        *(f"{file}: passed over where nothing is drawn in it" for file in sorted(empty)),
    ]


def _pattern_for(name: str) -> str:
    """A pattern for the structures of this name: one that is called "LN*" is no wildcard, and some have no name."""
    if normalise_name(name) and escape(name) == name:
        return name
    return escape(normalise_name(name)) or "_"
