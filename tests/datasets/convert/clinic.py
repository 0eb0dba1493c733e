"""Miniature DICOM trees: a phantom of soft tissue in air, structures drawn as boxes of whole voxels."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

SHAPE = (5, 16, 20)
GRID = Grid(SHAPE, (3.0, 1.0, 1.0), (-10.0, -8.0, 100.0))
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
NODE: Box = ((1, 3), (5, 8), (6, 10))
OTHER: Box = ((2, 4), (9, 11), (12, 15))


def scan(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Soft tissue of 40 HU with noise, a rim of air; int16."""
    hu = np.random.default_rng(seed).integers(20, 60, shape).astype(np.int16)
    hu[:, :2], hu[:, -2:], hu[..., :2], hu[..., -2:] = -1000, -1000, -1000, -1000
    return hu


def filled(*boxes: Box, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for (z0, z1), (y0, y1), (x0, x1) in boxes:
        mask[z0:z1, y0:y1, x0:x1] = True
    return mask


def ct(folder: Path, seed: int = 0, *, grid: Grid = GRID, **tags: object) -> Dataset:
    """Write a series; gives the header of its first file."""
    return dcmread(write_series(folder, scan(seed, grid.shape), grid, **tags)[0], stop_before_pixels=True)


def rtstruct(
    path: Path,
    rois: Mapping[str, Box | None],
    *,
    series_uid: str,
    frame_uid: str,
    date: str = "20200102",
    tilt_mm: float = 0.0,
    **tags: str,
) -> None:
    """Write a structure set: each structure a box of whole voxels on ``GRID``, or without contours."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SeriesInstanceUID, data.StudyInstanceUID = "RTSTRUCT", generate_uid(), generate_uid()
    data.StructureSetDate, data.StructureSetTime, data.StructureSetLabel = date, "120000", "plan"
    data.PatientID, data.PatientName = "", "Doe^Jane"  # that of any scan; tests of patients say which
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = series_uid
    study.RTReferencedSeriesSequence = Sequence([series])
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = frame_uid, Sequence([study])
    data.ReferencedFrameOfReferenceSequence = Sequence([frame])
    data.StructureSetROISequence, data.ROIContourSequence = Sequence(), Sequence()
    for number, (name, box) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame_uid
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = Sequence(_contours(box, tilt_mm) if box else [])
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(drawn)
    for key, value in tags.items():
        setattr(data, key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)


def _contours(box: Box, tilt_mm: float) -> list[Dataset]:
    (z0, z1), (y0, y1), (x0, x1) = box
    found = []
    for z in range(z0, z1):
        corners = [(x0, y0, 0.0), (x1, y0, 0.0), (x1, y1, tilt_mm), (x0, y1, tilt_mm)]
        item = Dataset()
        item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", 4
        (sz, sy, sx), (ox, oy, oz) = GRID.spacing_mm, GRID.origin_mm
        item.ContourData = [
            v for x, y, dz in corners for v in ((x - 0.5) * sx + ox, (y - 0.5) * sy + oy, z * sz + oz + dz)
        ]
        found.append(item)
    return found


def bytes_under(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def all_text(folder: Path) -> bytes:
    """Everything that a folder says: names of files, their bytes, and what is inside gzip."""
    told = b""
    for name, content in bytes_under(folder).items():
        told += name.encode() + content + (gzip.decompress(content) if name.endswith(".gz") else b"")
    return told
