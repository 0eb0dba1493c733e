"""What a DICOM tree holds, for people to choose patterns by; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lnsegfm.imaging.dicom.annotated_series import AnnotatedTree, PairingOptions, read_annotated_tree
from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.pairing_evidence import Pairing
from lnsegfm.imaging.dicom.reference_choice import Candidate
from lnsegfm.imaging.dicom.series_words import describe
from lnsegfm.imaging.dicom.tree_choice import choose_of_tree
from lnsegfm.imaging.dicom.tree_references import SeriesReference, annotated_places, tree_references


def list_tree(
    source: Path,
    roi: tuple[str, ...] = (),
    *,
    straighten: bool = False,
    resample_uneven: bool = False,
    options: PairingOptions | None = None,
    selectors: Sequence[str] = (),
) -> dict[str, Any]:
    """Series, structures and what becomes of each, as a table that JSON can hold.

    Series are named by UID and description; the patient's name and ID are not in it.

    Args:
        source: The tree.
        roi: Patterns ``NAME=label``; without any, each structure is a label of its own name.
        straighten: Take sheared series too.
        resample_uneven: Take series of uneven slice distances too.
        options: What pairs structures with series beyond their UIDs, and whether what an algorithm drew is taken.
        selectors: Which series are taken (`lnsegfm.imaging.dicom.series_choice.choose_series`).

    Raises:
        DataError: The folder cannot be read.
    """
    tree = read_annotated_tree(source, straighten=straighten, resample_uneven=resample_uneven, options=options)
    references = tree_references(tree, roi)
    choice = choose_of_tree(tree.index.series, selectors, annotated=annotated_places(references))
    series = []
    for place, (each, reference) in enumerate(zip(tree.index.series, references.on, strict=True)):
        series.append({
            "series": each.uid,
            "part": each.part,
            "description": each.description,
            "number": each.number,
            "what": describe(each),
            "taken": choice.takes(each),
            "choice": choice.why(each),
            "shape": list(each.grid.shape),
            "spacing_mm": list(each.grid.spacing_mm),
            "notes": list(each.notes),
            "structures": _files(tree, place, reference, bool(roi)),
            "without_reference": reference.why,
            "remarks": list(reference.notes),
            "refused": [
                {"kind": a.kind, "file": a.path.name, "name": pairing.structure.name, "why": pairing.why}
                for a, pairing in (*reference.refused, *reference.strays)
            ],
        })  # fmt: skip
    return {
        "format": "lnsegfm.dicom-list/2",
        "series": series,
        "without_series": [
            {"kind": a.kind, "file": a.path.name, "why": why, "rois": list(a.names)}
            for a, why in references.without_series
        ],
        "refused": [str(refusal) for refusal in tree.index.refused] + [line for _, line in tree.unreadable],
        "other_images": dict(tree.index.others),
    }


def _files(tree: AnnotatedTree, place: int, reference: SeriesReference, labelled: bool) -> list[dict[str, Any]]:
    """The files of a series, with their structures."""
    pairings = {(a.path, pairing.structure.number): pairing for a, pairing in tree.pairings_on(place)}
    files: dict[Path, dict[str, Any]] = {}
    for annotation in tree.by_series.get(place, ()):
        files[annotation.path] = _described(annotation)
    for candidate in reference.choice.candidates:
        file = files[candidate.annotation.path]
        pairing = pairings.get((candidate.annotation.path, candidate.structure.number))
        file["rois"].append(_structure(candidate, pairing, labelled))
        file["taken"] = file["taken"] or candidate.taken
    return list(files.values())


def _described(annotation: Annotation) -> dict[str, Any]:
    return {
        "kind": annotation.kind,
        "file": annotation.path.name,
        "date": annotation.timestamp[:8],
        "approval": annotation.approval,
        "frames_of_reference": list(annotation.frame_of_reference_uids),
        "taken": False,
        "rois": [],
    }


def _structure(candidate: Candidate, pairing: Pairing | None, labelled: bool) -> dict[str, Any]:
    return {
        "name": candidate.structure.name,
        "label": candidate.label if labelled else None,
        "algorithm": candidate.structure.algorithm,
        "person": candidate.author.person,
        "author": candidate.author.why,
        "drawn": candidate.structure.drawn,
        "paired_by": pairing.decided if pairing else "",
        "note": pairing.note if pairing else "",
        "taken": candidate.taken,
        "why": candidate.why,
    }
