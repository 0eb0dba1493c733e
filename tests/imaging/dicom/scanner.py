"""A CT scanner: writes an array as the DICOM series that a scanner would send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import format_number_as_ds

from lnsegfm.imaging.grid import Grid

INTERCEPT = -1024


def write_series(
    folder: Path,
    hu: np.ndarray,
    grid: Grid,
    *,
    names: Callable[[int], str] = lambda k: f"{k:04d}.dcm",
    order: Sequence[int] | None = None,
    change: Callable[[Dataset, int], None] | None = None,
    **tags: Any,
) -> list[Path]:
    """Write one file a slice; gives the files in the order of the array's slices.

    Args:
        folder: Where; it is made.
        hu: Whole HU (z, y, x), from -1024.
        grid: Of the array. Its first array axis need not be the normal that DICOM computes: slices get the position
            that the grid gives them.
        names: File name of slice k.
        order: InstanceNumber of each slice; 1, 2, ... unless given.
        change: Changes slice k's data set before it is written.
        tags: Attributes of every slice, such as ``PatientID="P1"``; None leaves one out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    direction = np.array(grid.direction).reshape(3, 3)
    series, study, frame = (str(tags.pop(key, generate_uid())) for key in
                            ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"))  # fmt: skip
    files = []
    for k, plane in enumerate(hu):
        position = np.array(grid.origin_mm) + direction[:, 2] * grid.spacing_mm[0] * k
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / names(k)
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, frame
        data.Modality, data.PatientID, data.PatientName = "CT", "P1", "Doe^Jane"
        data.PatientBirthDate, data.PatientSex = "19700101", "F"
        data.StudyDate, data.StudyTime, data.AccessionNumber, data.StudyID = "20200102", "101112", "", "1"
        data.ReferringPhysicianName, data.PositionReferenceIndicator = "", ""
        data.Manufacturer, data.SeriesNumber, data.SeriesDescription = "Phantom", 3, "CT of a phantom"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.InstanceNumber = order[k] if order is not None else k + 1
        data.ImageOrientationPatient = [format_number_as_ds(float(v)) for v in (*direction[:, 0], *direction[:, 1])]
        data.ImagePositionPatient = [format_number_as_ds(float(v)) for v in position]
        data.PixelSpacing = [grid.spacing_mm[1], grid.spacing_mm[2]]
        data.SliceThickness = grid.spacing_mm[0]
        data.KVP, data.AcquisitionNumber = "120", 1
        data.Rows, data.Columns = plane.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleSlope, data.RescaleIntercept, data.RescaleType = 1, INTERCEPT, "HU"
        data.PixelData = (plane.astype(np.int32) - INTERCEPT).astype("<u2").tobytes()
        for key, value in tags.items():
            if value is None:
                delattr(data, key)
            else:
                setattr(data, key, value)
        if change is not None:
            change(data, k)
        data.save_as(path, enforce_file_format=True)
        files.append(path)
    return files
