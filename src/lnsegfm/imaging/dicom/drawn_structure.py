"""One structure of a structure set, or one segment of a segmentation, before its voxels are read."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DrawnStructure:
    """One structure of a structure set, or one segment of a segmentation, as the header describes it.

    Args:
        number: ROINumber or SegmentNumber; None where there is none.
        name: ROIName or SegmentLabel.
        drawn: It has contours, or voxels.
        frames_of_reference: That of its coordinates; several where the file lists several and does not say which.
        series_uids: The series that the file names for that frame of reference.
        images: SOPInstanceUIDs of the images that its contours or frames name.
        listed_images: Those that the file lists for that frame of reference. They tell less: planning systems list
            every slice of a series.
        modalities: Of the images that are named, by their SOP class, such as ``CT`` or ``PT``; empty where none says.
        algorithm: ROIGenerationAlgorithm or SegmentAlgorithmType: AUTOMATIC, SEMIAUTOMATIC, MANUAL, or empty.
        algorithm_name: ROIGenerationDescription or SegmentAlgorithmName.
        interpreter: ROIInterpreter; of a segment nobody.
    """

    number: int | None
    name: str
    drawn: bool = True
    frames_of_reference: tuple[str, ...] = ()
    series_uids: tuple[str, ...] = ()
    images: frozenset[str] = field(default=frozenset(), repr=False)
    listed_images: frozenset[str] = field(default=frozenset(), repr=False)
    modalities: frozenset[str] = frozenset()
    algorithm: str = ""
    algorithm_name: str = ""
    interpreter: str = field(default="", repr=False)
