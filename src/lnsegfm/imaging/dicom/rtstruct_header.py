"""The header of a structure set: patient, study, equipment, and the structure set itself."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Sequence
from datetime import datetime

from pydicom.config import IGNORE
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.series_numbers import RTSTRUCT, number_after
from lnsegfm.imaging.dicom.values import quiet, read_dataset, value_of

NOT_CLINICAL = "Not for clinical use."

# type 2 of the modules: present even if empty
_IDENTITY = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
             "StudyID", "ReferringPhysicianName", "PositionReferenceIndicator")  # fmt: skip
_IF_PRESENT = ("IssuerOfPatientID", "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod",
             "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified")  # fmt: skip


def dataset_with_identity(series: Series, stamp: datetime, seed: str | None) -> Dataset:
    """A data set with patient, study, equipment and everything else that is not about contours."""
    source = read_dataset(series.slices[0].path)
    data = Dataset()
    data.SpecificCharacterSet = "ISO_IR 192"
    with quiet():
        for keyword in (*_IDENTITY, *_IF_PRESENT):
            if keyword in source:
                _copy(source, keyword, data)
            elif keyword in _IDENTITY:
                setattr(data, keyword, "")
    data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, new_uid(seed, "instance")
    data.StudyInstanceUID, data.SeriesInstanceUID = series.study_uid, new_uid(seed, "series")
    data.FrameOfReferenceUID = series.frame_of_reference_uid
    data.Modality, data.InstanceNumber = "RTSTRUCT", 1
    data.SeriesNumber = number_after(series.number, RTSTRUCT)
    data.SeriesDescription = f"lnsegfm structures ({NOT_CLINICAL[:-1].lower()})"
    data.Manufacturer, data.ManufacturerModelName = "lnsegfm", "lnsegfm"
    data.OperatorsName = ""
    stamp_series(data, stamp)
    data.ApprovalStatus = "UNAPPROVED"
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = (
        data.SOPClassUID,
        data.SOPInstanceUID,
    )
    # implicit, because an explicit ContourData ends at 65534 bytes: some 1500 points
    data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return data


def stamp_series(data: Dataset, stamp: datetime) -> None:
    """Set the dates and times of series, instance and structure set."""
    day, time = stamp.strftime("%Y%m%d"), stamp.strftime("%H%M%S")
    data.InstanceCreationDate = data.SeriesDate = data.StructureSetDate = day
    data.InstanceCreationTime = data.SeriesTime = data.StructureSetTime = time


def _copy(source: Dataset, keyword: str, data: Dataset) -> None:
    value = value_of(source, keyword)
    if dictionary_VR(keyword) == "SQ":
        setattr(data, keyword, copy.deepcopy(value))
        return
    value = "" if value is None else value
    # as text, to be encoded anew; and as it stands, even where the standard would have it otherwise
    text = [str(v) for v in value] if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
    data.add(DataElement(keyword, dictionary_VR(keyword), text, validation_mode=IGNORE))


def new_uid(seed: str | None, of: str) -> str:
    """A UID; the same for the same seed."""
    value = uuid.uuid4() if seed is None else uuid.uuid5(uuid.NAMESPACE_OID, f"lnsegfm {of} {seed}")
    return f"2.25.{value.int}"
