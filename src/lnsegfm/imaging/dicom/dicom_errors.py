"""What cannot be used of DICOM."""

from __future__ import annotations

from lnsegfm.errors import DataError


class DicomError(DataError):
    """A DICOM file or series that cannot be used: one line that names it and says what to do.

    Args:
        problems: One line each; blanks and line breaks out of names and values count as one blank.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*(" ".join(problem.split()) for problem in problems))


class EmptyStructureSet(DicomError):
    """A mask without a voxel: a structure set has a structure, and none without contours is safe for every reader."""
