"""A planning system: structure sets and segmentations over a series, with whatever attributes a test wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

GRID = Grid((10, 24, 28), (3.0, 1.0, 1.0), (-12.0, -14.0, 100.0))
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
NODE: Box = ((2, 5), (6, 11), (7, 12))
SECOND: Box = ((5, 8), (13, 18), (15, 21))
Heads = list[Dataset]


def filled(*boxes: Box, grid: Grid = GRID) -> np.ndarray:
    """The voxels of boxes."""
    mask = np.zeros(grid.shape, bool)
    for (z0, z1), (y0, y1), (x0, x1) in boxes:
        mask[z0:z1, y0:y1, x0:x1] = True
    return mask


def scan(folder: Path, seed: int = 0, *, grid: Grid = GRID, **tags: object) -> Heads:
    """Write a CT; gives the headers of its slices in the order of the array."""
    hu = np.random.default_rng(seed).integers(20, 60, grid.shape).astype(np.int16)
    hu[:, :2], hu[:, -2:], hu[..., :2], hu[..., -2:] = -1000, -1000, -1000, -1000
    return [dcmread(path, stop_before_pixels=True) for path in write_series(folder, hu, grid, **tags)]


def structure_set(
    path: Path,
    heads: Heads,
    rois: Mapping[str, Box | None],
    *,
    images: bool = True,
    listed: bool = True,
    series: bool = True,
    frame: str | None = None,
    algorithm: str = "MANUAL",
    grid: Grid = GRID,
    edit: Callable[[Dataset], None] | None = None,
    **tags: object,
) -> Path:
    """Write a structure set: each structure a box of whole voxels.

    Args:
        path: The file.
        heads: Of the series that it is drawn on.
        rois: Structures; None has no contour.
        images: Contours name their image.
        listed: The file lists the images of the series.
        series: The file names the series.
        frame: Frame of reference; that of the series unless given.
        algorithm: ROIGenerationAlgorithm.
        grid: Of the series.
        edit: Changes the data set before it is written.
        tags: Attributes of the file.
    """
    frame = heads[0].FrameOfReferenceUID if frame is None else frame
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, generate_uid()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID = "RTSTRUCT", generate_uid(), heads[0].StudyInstanceUID
    data.PatientID, data.PatientName, data.Manufacturer = heads[0].PatientID, "Doe^Jane", "Planner"
    data.StructureSetLabel, data.StructureSetDate, data.StructureSetTime = "plan", "20200102", "120000"
    data.OperatorsName = ""
    about = Dataset()
    about.FrameOfReferenceUID = frame
    if series:
        named, study = Dataset(), Dataset()
        named.SeriesInstanceUID = heads[0].SeriesInstanceUID
        if listed:
            named.ContourImageSequence = Items([_image(head) for head in heads])
        study.RTReferencedSeriesSequence = Items([named])
        about.RTReferencedStudySequence = Items([study])
    data.ReferencedFrameOfReferenceSequence = Items([about])
    data.StructureSetROISequence, data.ROIContourSequence = Items(), Items()
    data.RTROIObservationsSequence = Items()
    for number, (name, box) in enumerate(rois.items(), start=1):
        roi, drawn, observed = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        roi.ROIGenerationAlgorithm = algorithm
        drawn.ReferencedROINumber = observed.ReferencedROINumber = observed.ObservationNumber = number
        drawn.ContourSequence = Items(_contours(box, heads if images else (), grid) if box else [])
        observed.RTROIInterpretedType, observed.ROIInterpreter = "", ""
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
        data.RTROIObservationsSequence.append(observed)
    for key, value in tags.items():
        setattr(data, key, value)
    if edit is not None:
        edit(data)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def segmentation(
    path: Path,
    folder: Path,
    mask: np.ndarray,
    *,
    label: str = "LN",
    algorithm: str = "MANUAL",
    edit: Callable[[Dataset], None] | None = None,
    kind: str = "BINARY",
    **tags: object,
) -> Path:
    """Write a segmentation as another program than this one would: of another manufacturer, and of a person.

    Args:
        path: The file.
        folder: Of the series.
        mask: Booleans (z, y, x).
        label: SegmentLabel.
        algorithm: SegmentAlgorithmType.
        edit: Changes the data set before it is written.
        kind: BINARY or LABELMAP.
        tags: Attributes of the file.
    """
    write_seg(path, mask.astype(np.uint8), {label: 1}, series_of(folder), kind=kind)  # type: ignore[arg-type]
    data = dcmread(path)
    data.Manufacturer = data.ManufacturerModelName = "Viewer"
    data.ContentDate, data.ContentTime = "20200102", "120000"
    for segment in data.SegmentSequence:
        segment.SegmentAlgorithmType, segment.SegmentAlgorithmName = algorithm, "Brush"
    for key, value in tags.items():
        setattr(data, key, value)
    if edit is not None:
        edit(data)
    data.save_as(path)
    return path


def other_images(folder: Path, modality: str, sop_class: str, *, grid: Grid = GRID, **tags: object) -> Heads:
    """Write a series of another modality."""
    heads = scan(folder, 5, grid=grid, **tags)
    for path in sorted(folder.iterdir()):
        data = dcmread(path)
        data.Modality, data.SOPClassUID = modality, sop_class
        data.file_meta.MediaStorageSOPClassUID = sop_class
        data.save_as(path)
    for head in heads:
        head.Modality, head.SOPClassUID = modality, sop_class
    return heads


def _image(head: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = head.get("SOPClassUID", CTImageStorage)
    item.ReferencedSOPInstanceUID = head.SOPInstanceUID
    return item


def _contours(box: Box, heads: Sequence[Dataset], grid: Grid) -> list[Dataset]:
    (z0, z1), (y0, y1), (x0, x1) = box
    (sz, sy, sx), (ox, oy, oz) = grid.spacing_mm, grid.origin_mm
    found = []
    for z in range(z0, z1):
        item = Dataset()
        item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", 4
        corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
        item.ContourData = [
            f"{v:.4f}" for x, y in corners for v in ((x - 0.5) * sx + ox, (y - 0.5) * sy + oy, z * sz + oz)
        ]
        if heads:
            item.ContourImageSequence = Items([_image(heads[z])])
        found.append(item)
    return found
