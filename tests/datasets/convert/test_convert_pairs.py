"""Which structures belong to which scan: 4D CT, fused scans, several stacks of one UID."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from lnsegfm.datasets.convert import SETS, ConversionOptions, convert
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotated_series import read_annotated_tree
from lnsegfm.imaging.files import read_mask
from tests.datasets.convert.clinic import GRID, NODE, OTHER, SHAPE, ct, filled, rtstruct, scan
from tests.imaging.dicom.scanner import write_series

LN = ConversionOptions(roi=("LN*=lymph_node",))


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


def dicom(tmp_path: Path, options: ConversionOptions = LN):
    return convert(SETS["dicom"], tmp_path / "in", tmp_path / "out", options)


def mask(tmp_path: Path) -> np.ndarray:
    (file,) = (tmp_path / "out" / "labelsTr").glob("*.nii.gz")
    return read_mask(file)[0]


def structures(tmp_path: Path, name: str, series_uid: str, frame: str, box=NODE, **more) -> Path:
    path = tmp_path / "in" / f"{name}.dcm"
    rtstruct(path, {"LN": box}, series_uid=series_uid, frame_uid=frame, **more)
    return path


def test_a_phase_keeps_its_own_structures_beside_those_of_phases_that_are_not_there(tmp_path):
    head = ct(tmp_path / "in" / "phase0", 1)
    frame = head.FrameOfReferenceUID
    structures(tmp_path, "own", head.SeriesInstanceUID, frame, NODE, date="20200101")
    structures(tmp_path, "phase50", "1.2.50", frame, OTHER, date="20200109")
    result = dicom(tmp_path)
    np.testing.assert_array_equal(mask(tmp_path), filled(NODE))
    assert any("has structures of its own" in line and "phase50.dcm" in line for line in result.left_out)


def test_structures_of_several_absent_phases_go_to_none(tmp_path):
    frame = ct(tmp_path / "in" / "phase0", 1).FrameOfReferenceUID
    structures(tmp_path, "phase10", "1.2.10", frame)
    structures(tmp_path, "phase50", "1.2.50", frame, OTHER)
    with pytest.raises(DataError, match="yet another one of this frame"):
        dicom(tmp_path)


def test_structures_drawn_elsewhere_in_the_frame_are_taken_and_told(tmp_path):
    frame = ct(tmp_path / "in" / "a", 1).FrameOfReferenceUID
    structures(tmp_path, "rs", "1.2.3.4.5.6.7", frame)
    result = dicom(tmp_path)
    assert any("drawn on series 1.2.3.4.5.6.7, in the frame of reference of" in line for line in result.notes)
    assert b"1.2.3.4.5.6.7" not in (tmp_path / "out" / "conversion.json").read_bytes()
    assert b"drawn on series UID" in (tmp_path / "out" / "conversion.json").read_bytes()


def test_structures_that_name_no_series_belong_to_the_one_of_their_frame(tmp_path):
    head = ct(tmp_path / "in" / "a", 1)
    structures(tmp_path, "rs", "", head.FrameOfReferenceUID, NODE)
    result = dicom(tmp_path)
    np.testing.assert_array_equal(mask(tmp_path), filled(NODE))
    assert result.notes == ()


def test_a_fused_second_scan_gets_nothing_that_was_not_drawn_in_its_frame(tmp_path):
    planning, other = ct(tmp_path / "in" / "a", 1), ct(tmp_path / "in" / "b", 2)
    path = structures(tmp_path, "rs", planning.SeriesInstanceUID, planning.FrameOfReferenceUID)
    data = dcmread(path)
    fused = Dataset()
    fused.SeriesInstanceUID = other.SeriesInstanceUID
    data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence.append(fused)
    data.FrameOfReferenceUID = other.FrameOfReferenceUID  # what its structures say of themselves counts more
    data.save_as(path)
    result = dicom(tmp_path)
    assert (len(result.written), result.failed) == (1, ())
    assert any(other.SeriesInstanceUID in line for line in result.left_out)


def phases(tmp_path: Path) -> tuple[str, str, list[list[str]]]:
    """Two phases in one series, as some scanners send them; gives its UIDs and the images of each phase."""
    uid, frame = "1.2.826.0.1.7", "1.2.826.0.1.8"
    images = []
    for phase in (1, 2):
        files = write_series(
            tmp_path / "in" / f"phase{phase}", scan(phase), GRID, SeriesInstanceUID=uid, FrameOfReferenceUID=frame,
            StudyInstanceUID="1.2.826.0.1.9", AcquisitionNumber=phase,
        )  # fmt: skip
        images.append([str(dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in files])
    return uid, frame, images


@pytest.mark.parametrize("wanted", [0, 1])
def test_of_several_stacks_of_one_uid_the_one_whose_images_contours_name_is_taken(tmp_path, wanted):
    uid, frame, images = phases(tmp_path)
    path = structures(tmp_path, "rs", uid, frame)
    data = dcmread(path)
    for contour, image in zip(data.ROIContourSequence[0].ContourSequence, images[wanted][1:], strict=False):
        item = Dataset()
        item.ReferencedSOPInstanceUID = image
        contour.ContourImageSequence = Sequence([item])
    data.save_as(path)
    pairs = read_annotated_tree(tmp_path / "in")
    (place,) = pairs.by_series
    assert {s.sop_instance_uid for s in pairs.index.series[place].slices} == set(images[wanted])


def test_where_it_cannot_be_told_which_stack_was_drawn_on_none_is_taken(tmp_path):
    uid, frame, _ = phases(tmp_path)
    structures(tmp_path, "rs", uid, frame)
    (line,) = dicom(tmp_path).failed
    assert "2 stacks of slices, and not on which" in line


def test_an_empty_structure_of_a_newer_plan_does_not_hide_a_drawn_one(tmp_path):
    head = ct(tmp_path / "in" / "a", 1)
    structures(tmp_path, "old", head.SeriesInstanceUID, head.FrameOfReferenceUID, NODE, date="20200101")
    structures(tmp_path, "new", head.SeriesInstanceUID, head.FrameOfReferenceUID, None, date="20200109")
    dicom(tmp_path)
    np.testing.assert_array_equal(mask(tmp_path), filled(NODE))


def test_a_structure_called_like_a_pattern_is_no_pattern(tmp_path):
    head = ct(tmp_path / "in" / "a", 1)
    rois = {"N[o]*": NODE, "Nose": OTHER, "No 2": OTHER}
    rtstruct(tmp_path / "in" / "rs.dcm", rois, series_uid=head.SeriesInstanceUID, frame_uid=head.FrameOfReferenceUID)
    dicom(tmp_path, ConversionOptions(roi=("N?o*=lymph_node",)))
    np.testing.assert_array_equal(mask(tmp_path), filled(NODE))


def test_a_label_that_no_scan_has_is_refused_and_one_that_a_scan_lacks_is_told(tmp_path):
    for number, rois in ((1, {"LN_1": NODE, "Heart": OTHER}), (2, {"LN_1": NODE})):
        head = ct(tmp_path / "in" / f"{number}", number, PatientID=f"P{number}")
        names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
        rtstruct(tmp_path / "in" / f"rs{number}.dcm", rois, **names)
    with pytest.raises(
        DataError, match=r"Label heart: --roi gives it no structure of any scan. Left over are: Heart\."
    ):
        dicom(tmp_path, ConversionOptions(roi=("LN*=lymph_node", "Haert=heart")))
    assert not (tmp_path / "out").exists()
    result = dicom(tmp_path, ConversionOptions(roi=("LN*=lymph_node", "Heart=heart", "Herz=heart")))
    assert "Pattern Herz=heart: no structure of any scan has such a name." in result.notes
    told = [line for line in result.notes if line.startswith("Case")]
    assert len(told) == 1
    assert "heart is background everywhere in this case: no structure gives it" in told[0]


def test_a_label_that_lies_within_another_is_told(tmp_path):
    head = ct(tmp_path / "in" / "a", 1)
    names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
    rtstruct(tmp_path / "in" / "rs.dcm", {"GTV": NODE, "LN": NODE}, **names)
    result = dicom(tmp_path, ConversionOptions(roi=("GTV=tumour", "LN=lymph_node")))
    np.testing.assert_array_equal(mask(tmp_path), filled(NODE))
    assert any("lymph_node is background everywhere in this case" in line for line in result.notes)
    assert any("24 voxels are in tumour and in lymph_node" in line for line in result.notes)


def test_structures_outside_the_scan_are_a_failure(tmp_path):
    head = ct(tmp_path / "in" / "a", 1)
    beside = ((1, 3), (100, 103), (100, 104))
    above = ((100, 102), (5, 8), (6, 10))
    for box, told in (
        (beside, "structure 'LN': its contours lie outside the image, to its side"),
        (above, "of a series that has 1 to 5"),
    ):
        structures(tmp_path, "rs", head.SeriesInstanceUID, head.FrameOfReferenceUID, box)
        (line,) = dicom(tmp_path).failed
        assert told in line
        assert not list((tmp_path / "out" / "imagesTr").glob("*"))


def test_a_tilted_series_is_refused_or_resampled_as_asked(tmp_path):
    def tilt(data: Dataset, k: int) -> None:
        x, y, z = (float(v) for v in data.ImagePositionPatient)
        data.ImagePositionPatient = [x, y + 1.5 * k, z]

    files = write_series(tmp_path / "in" / "a", scan(1), GRID, change=tilt)
    head = dcmread(files[0], stop_before_pixels=True)
    structures(tmp_path, "rs", head.SeriesInstanceUID, head.FrameOfReferenceUID)
    with pytest.raises(DataError, match="sheared"):
        dicom(tmp_path)
    assert not (tmp_path / "out").exists()
    result = dicom(tmp_path, ConversionOptions(roi=LN.roi, straighten=True))
    drawn = mask(tmp_path)
    assert (len(result.written), drawn.shape[0], int(drawn.sum())) == (1, SHAPE[0], int(filled(NODE).sum()))
    with pytest.raises(DataError, match="another straighten"):
        dicom(tmp_path)


def test_structures_that_name_a_scan_and_lie_in_another_frame_are_a_failure_not_left_out(tmp_path):
    head = ct(tmp_path / "in" / "a", 1)
    structures(tmp_path, "rs", head.SeriesInstanceUID, "1.2.3.4.5.6.7")
    (line,) = dicom(tmp_path).failed
    assert "frame of reference 1.2.3.4.5.6.7 is not the series'" in line
    assert f"Series {head.SeriesInstanceUID}: " in line


def test_what_was_drawn_on_a_series_that_cannot_be_used_is_a_failure(tmp_path):
    ct(tmp_path / "in" / "good", 1)
    bad = ct(tmp_path / "in" / "bad", 2)
    structures(tmp_path, "rs", bad.SeriesInstanceUID, bad.FrameOfReferenceUID)
    (tmp_path / "in" / "bad" / "0002.dcm").unlink()
    result = dicom(tmp_path, ConversionOptions(roi=LN.roi, unlabelled=True))
    assert len(result.written) == 1
    assert any(bad.SeriesInstanceUID in line and "gap" in line for line in result.failed)
    assert any("the series that it was drawn on is here and cannot be used" in line for line in result.left_out)


@pytest.mark.parametrize("newer", ["LN", "Heart"])
def test_where_labels_of_two_files_overlap_the_first_named_has_the_voxels(tmp_path, newer):
    head = ct(tmp_path / "in" / "a", 1)
    names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
    for name in ("LN", "Heart"):
        date = "20200109" if name == newer else "20200101"
        rtstruct(tmp_path / "in" / f"{name}.dcm", {name: NODE}, date=date, **names)
    result = dicom(tmp_path, ConversionOptions(roi=("LN=lymph_node", "Heart=heart")))
    np.testing.assert_array_equal(mask(tmp_path), filled(NODE))
    assert any("24 voxels have labels of two files" in line for line in result.notes)
