"""What the reference of each series of a tree is taken from, or why it has none: one answer for everybody who asks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lnsegfm.imaging.dicom.annotated_series import AnnotatedTree, PairedAnnotation
from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.pairing_evidence import Pairing
from lnsegfm.imaging.dicom.reference_choice import ACCEPT_AUTOMATIC, ReferenceChoice, weigh_structures
from lnsegfm.imaging.dicom.rois import match_rois
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.series_kinds import projection

_SHOWN = 12  # structure names that a line lists


@dataclass(frozen=True)
class SeriesReference:
    """What the reference of a series is taken from.

    Args:
        choice: The structures that belong to the series, and what became of each.
        refused: Wanted structures that name the series and do not belong to it, as file and pairing.
        strays: Wanted structures of its files that belong to no series, likewise.
        why: Why it has no reference, a clause; empty where it has one.
        notes: What a user should know of the reference, one line each.
    """

    choice: ReferenceChoice
    refused: tuple[tuple[Annotation, Pairing], ...] = ()
    strays: tuple[tuple[Annotation, Pairing], ...] = ()
    why: str = ""
    notes: tuple[str, ...] = ()

    @property
    def chosen(self) -> ReferenceChoice | None:
        """What the reference is taken from; None where there is none."""
        return None if self.why else self.choice

    @property
    def annotations(self) -> tuple[Annotation, ...]:
        """Every file that has to do with the series."""
        return (*self.choice.annotations, *(annotation for annotation, _ in (*self.refused, *self.strays)))

    @property
    def fault(self) -> bool:
        """It has no reference because something is wrong with what was drawn on it."""
        return bool(self.why) and bool(self.refused or any(each.fault for each in self.choice.candidates))


@dataclass(frozen=True)
class TreeReferences:
    """The references of a tree.

    Args:
        tree: The tree.
        on: One for each series of the tree's index.
        without_series: Files none of whose structures belongs to a series and that no series was refused for, with the
            reason.
        on_unusable: Of these, those with wanted structures that were drawn on a series that cannot be used.
    """

    tree: AnnotatedTree
    on: tuple[SeriesReference, ...]
    without_series: tuple[tuple[Annotation, str], ...]
    on_unusable: tuple[Annotation, ...]

    @property
    def refused_series(self) -> tuple[str, ...]:
        """One line for each series that cannot be used and that wanted structures were drawn on."""
        uids = {uid for annotation in self.on_unusable for uid in annotation.series_uids}
        return tuple(str(r) for r in self.tree.index.refused if set(r.series.split()[:1]) & uids)

    def of(self, series: Series) -> SeriesReference:
        """The reference of a series of the tree."""
        return self.on[next(k for k, each in enumerate(self.tree.index.series) if each is series)]

    def needs(self, path: Path) -> bool:
        """Whether a reference is taken from a file, or the file holds nothing that could tell."""
        own = [each for on in self.on for each in on.choice.candidates if each.annotation.path == path]
        return not own or any(each.taken for each in own)


def annotated_places(references: TreeReferences) -> list[int]:
    """Positions of the series that a structure set or segmentation belongs to, or was refused for."""
    by_series = references.tree.by_series
    return [k for k, reference in enumerate(references.on) if by_series.get(k) or reference.annotations]


def tree_references(tree: AnnotatedTree, patterns: Sequence[str] = (), *, mirrored: bool = True) -> TreeReferences:
    """Choose the reference of every series of a tree.

    Args:
        tree: What belongs to which series.
        patterns: ``NAME=label`` of the structures that are wanted; all of them, each with its name, unless given.
        mirrored: Compare structures of one scan for mirror images, which reads their voxels.
    """
    by_series = tree.by_series
    refused: dict[int, list[tuple[Annotation, Pairing]]] = defaultdict(list)
    strays: dict[int, list[tuple[Annotation, Pairing]]] = defaultdict(list)
    without_series, on_unusable = [], []
    for each in tree.paired:
        wanted = list(_wanted_strays(each, patterns))
        for pairing in wanted:
            if pairing.contradicts is not None:
                refused[pairing.contradicts].append((each.annotation, pairing))
            else:
                for place in each.places:
                    strays[place].append((each.annotation, pairing))
        if any(pairing.drawn_on_unusable for pairing in wanted):
            on_unusable.append(each.annotation)
        if not each.places and not any(pairing.contradicts is not None for pairing in wanted):
            without_series.append((each.annotation, each.why))
    on = []
    for place, series in enumerate(tree.index.series):
        annotations = by_series.get(place, ())
        automatic = tree.options.accept_automatic
        compared = series if mirrored else None
        choice = weigh_structures(annotations, patterns, accept_automatic=automatic, series=compared)
        why = "" if choice.parts else _why(choice, refused[place], annotations)
        notes = () if why else _notes(tree, place, choice, [*refused[place], *strays[place]])
        on.append(SeriesReference(choice, tuple(refused[place]), tuple(strays[place]), why, notes))
    return TreeReferences(tree, tuple(on), tuple(without_series), tuple(on_unusable))


def sentence_about(annotation: Annotation, pairing: Pairing) -> str:
    """Why a structure is not taken, one line without its full stop."""
    noun = "Structure" if annotation.kind == "RTSTRUCT" else "Segment"
    return f"{noun} {pairing.structure.name!r} of {annotation.path.name}: {pairing.why}"


def reason_without_reference(annotations: Sequence[Annotation]) -> str:
    """Why a series has no reference whose structures no pattern matches, or that has none."""
    if not annotations:
        return "no RTSTRUCT or SEG belongs to it"
    names = _listed([name for annotation in annotations for name in annotation.names])
    return f"no pattern matches its structures ({names})"


def _wanted_strays(each: PairedAnnotation, patterns: Sequence[str]) -> Iterator[Pairing]:
    """Drawn structures of a file that belong to no series and that a pattern names."""
    strays = [pairing for pairing in each.strays if pairing.structure.drawn]
    names = [pairing.structure.name for pairing in strays]
    labels = match_rois(names, patterns, strict=False).labels if patterns else names
    return (pairing for pairing, label in zip(strays, labels, strict=True) if label is not None)


def _why(
    choice: ReferenceChoice, refused: Sequence[tuple[Annotation, Pairing]], annotations: Sequence[Annotation]
) -> str:
    """Why a series has no reference."""
    wanted = [each for each in choice.candidates if each.label is not None]
    if faults := [each for each in wanted if each.fault]:
        return "; ".join(dict.fromkeys(f"{each.annotation.path.name}: {each.why}" for each in faults))
    if refused:
        return "; ".join(dict.fromkeys(sentence_about(*each) for each in refused))
    if automatic := [each for each in wanted if not each.author.person]:
        names = _listed([each.structure.name for each in automatic])
        files = _listed([each.annotation.path.name for each in automatic])
        return f"its structures {names} were drawn by an algorithm ({files}); {ACCEPT_AUTOMATIC} takes them"
    if wanted:
        files = _listed([each.annotation.path.name for each in wanted])
        return f"its structures are not to be used: {wanted[0].why} ({files})"
    return reason_without_reference(annotations)


def _notes(
    tree: AnnotatedTree, place: int, choice: ReferenceChoice, strays: Sequence[tuple[Annotation, Pairing]]
) -> tuple[str, ...]:
    taken = {(each.annotation.path, each.structure.number) for each in choice.candidates if each.taken}
    of_pairing = (
        f"{pairing.note}" if pairing.foreign else f"{annotation.path.name}: {pairing.note}"
        for annotation, pairing in tree.pairings_on(place)
        if pairing.note and (annotation.path, pairing.structure.number) in taken
    )
    left = (f"{sentence_about(*each)}: not taken" for each in strays)
    kind = projection(tree.index.series[place])
    of_series = [f"The scan is a {kind}, and taken because structures were drawn on it: --series leaves it out"]
    unnamed = (
        f"{each.annotation.path.name}: a structure without a name is drawn, and not taken: '*' would match it"
        for each in choice.candidates
        if each.label is None and each.structure.drawn and not each.structure.name.strip()
    )
    return tuple(dict.fromkeys([*(of_series if kind else ()), *of_pairing, *left, *choice.notes, *unnamed]))


def _listed(names: Sequence[str]) -> str:
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    return (", ".join(different[:_SHOWN]) or "none") + more
