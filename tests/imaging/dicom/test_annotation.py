"""What the header of an RTSTRUCT or SEG tells, also of one that is damaged."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import DataElement, dcmread
from pydicom.datadict import tag_for_keyword

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotation import read_annotation
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import series_of
from tests.datasets.convert.clinic import NODE, OTHER, ct, filled, rtstruct


def test_a_structure_set_tells_what_is_drawn_when_and_where(tmp_path):
    rtstruct(tmp_path / "rs", {"LN": NODE, "Heart": None}, series_uid="1.2.3", frame_uid="1.2.4", SeriesDate="20250101")
    found = read_annotation(tmp_path / "rs")
    assert (found.kind, found.names, found.has_contours) == ("RTSTRUCT", ("LN", "Heart"), (True, False))
    assert (found.series_uids, found.frame_of_reference_uids) == (("1.2.3",), ("1.2.4",))
    assert found.timestamp == "20200102120000"


def test_where_the_structures_have_no_date_that_of_the_series_counts_and_then_the_study_s(tmp_path):
    for dates, when in (
        ({"SeriesDate": "20210101", "StudyDate": "20200101"}, "20210101"),
        ({"StudyDate": "20200101", "StudyTime": "0930"}, "202001010930"),
        ({}, ""),
    ):
        rtstruct(tmp_path / "rs", {"LN": NODE}, series_uid="1.2.3", frame_uid="1.2.4", date="", **dates)
        assert read_annotation(tmp_path / "rs").timestamp == when


def test_a_segmentation_is_as_old_as_its_content(tmp_path):
    ct(tmp_path / "ct", 1)
    series = series_of(tmp_path / "ct")
    write_seg(tmp_path / "seg", filled(NODE, OTHER).astype(np.uint8), {"LN": 1}, series)
    data = dcmread(tmp_path / "seg")
    data.ContentDate, data.ContentTime, data.SeriesDate = "20200102", "113000", "20250101"
    data.save_as(tmp_path / "seg")
    found = read_annotation(tmp_path / "seg")
    assert (found.kind, found.names, found.has_contours, found.timestamp) == ("SEG", ("LN",), (True,), "20200102113000")
    assert (found.series_uids, found.frame_of_reference_uids) == ((series.uid,), (series.frame_of_reference_uid,))


@pytest.mark.parametrize("keyword", ["StructureSetROISequence", "ReferencedFrameOfReferenceSequence"])
def test_a_sequence_that_holds_something_else_is_empty(tmp_path, keyword):
    rtstruct(tmp_path / "rs", {"LN": NODE}, series_uid="1.2.3", frame_uid="1.2.4")
    data = dcmread(tmp_path / "rs")
    data[tag_for_keyword(keyword)] = DataElement(tag_for_keyword(keyword), "LO", "none")
    data.save_as(tmp_path / "rs")
    found = read_annotation(tmp_path / "rs")
    assert (found.names if keyword.startswith("Structure") else found.series_uids) == ()


def test_what_is_neither_is_refused(tmp_path):
    ct(tmp_path / "ct", 1)
    with pytest.raises(DataError, match="it is CT, not RTSTRUCT or SEG"):
        read_annotation(next((tmp_path / "ct").iterdir()))
