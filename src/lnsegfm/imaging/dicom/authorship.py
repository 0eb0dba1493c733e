"""Whether a person or an algorithm drew a structure, as its file says it.

Names are not guessed at: only attributes count. The rule is the table of the page on conversion.
"""

from __future__ import annotations

from dataclasses import dataclass

from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.drawn_structure import DrawnStructure

SOFTWARE = "lnsegfm"
AUTOMATIC, SEMIAUTOMATIC, MANUAL = "AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"


@dataclass(frozen=True)
class Author:
    """Who drew a structure.

    Args:
        person: A person did, or corrected it.
        why: What says so, a clause.
    """

    person: bool
    why: str


def author_of(annotation: Annotation, structure: DrawnStructure) -> Author:
    """Who drew a structure.

    An algorithm, where the file says AUTOMATIC (ROIGenerationAlgorithm, SegmentAlgorithmType) or is this software's own
    (Manufacturer, ManufacturerModelName) and does not say MANUAL or SEMIAUTOMATIC. A person all the same, where

    1. ApprovalStatus is APPROVED and ReviewerName says by whom;
    2. this software wrote it and OperatorsName, ReviewerName, ROIInterpreter or ContentCreatorName, which it leaves
       empty, is filled in: somebody edited the file;
    3. this software's algorithm drew it (ROIGenerationDescription, SegmentAlgorithmName) and another program wrote the
       file (Manufacturer): somebody opened and stored it there. Not so where this software only added its structures to
       the file of another one, which ContributingEquipmentSequence says.

    Everything else is a person's, also where the type is left empty, as most planning systems leave it.
    """
    ours = written_by_us(annotation)
    if structure.algorithm in (MANUAL, SEMIAUTOMATIC):
        return Author(True, structure.algorithm)
    if structure.algorithm != AUTOMATIC and not ours:
        return Author(True, structure.algorithm or "its type of algorithm is not stated")
    if annotation.approval == "APPROVED" and annotation.reviewer:
        return Author(True, "approved, with the reviewer's name")
    if ours:
        signed = {
            "OperatorsName": annotation.operators,
            "ReviewerName": annotation.reviewer,
            "ROIInterpreter": structure.interpreter,
            "ContentCreatorName": annotation.creator,
        }
        if filled := [keyword for keyword, name in signed.items() if name.strip("^ ")]:
            return Author(True, f"drawn by {SOFTWARE} and edited since ({filled[0]})")
        return Author(False, f"drawn by {SOFTWARE}")
    added = any(_is_ours(each) for each in annotation.contributors)
    if _is_ours(structure.algorithm_name) and annotation.manufacturer.strip() and not added:
        return Author(True, f"drawn by {SOFTWARE} and stored by another program since (Manufacturer)")
    return Author(False, f"drawn by {SOFTWARE}" if _is_ours(structure.algorithm_name) else AUTOMATIC)


def written_by_us(annotation: Annotation) -> bool:
    """Whether this software wrote a file."""
    return _is_ours(annotation.manufacturer) or _is_ours(annotation.model)


def corrected_copy(
    later: tuple[Annotation, DrawnStructure], earlier: tuple[Annotation, DrawnStructure]
) -> Author | None:
    """A person, where an AUTOMATIC structure is an earlier one that somebody else stored again; else None.

    Both are AUTOMATIC, of one algorithm by its name or by Manufacturer and model of their files, the later file is the
    newer one, and it names an operator whom the earlier one does not.
    """
    (file, copy), (before, original) = later, earlier
    if copy.algorithm != AUTOMATIC or original.algorithm != AUTOMATIC or file.age <= before.age:
        return None
    one_algorithm = copy.algorithm_name and copy.algorithm_name == original.algorithm_name
    one_writer = (file.manufacturer, file.model) == (before.manufacturer, before.model) and file.manufacturer
    if not (one_algorithm or one_writer):
        return None
    if file.operators.strip("^ ") and file.operators != before.operators:
        return Author(True, "an automatic structure that another operator stored again (OperatorsName)")
    if one_algorithm and not one_writer and file.manufacturer:
        return Author(True, "an automatic structure that another program stored again (Manufacturer)")
    return None


def _is_ours(text: str) -> bool:
    words = text.strip().casefold().split()
    return bool(words) and words[0] == SOFTWARE
