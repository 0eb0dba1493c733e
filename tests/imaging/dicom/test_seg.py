"""Masks to DICOM SEG and back: not one voxel may differ, on any series; and what cannot be read is told in one line."""

from __future__ import annotations

import datetime
import math
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, JPEG2000Lossless, JPEGLSLossless, RLELossless, generate_uid

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.dicom import seg_write
from lnsegfm.imaging.dicom.codes import codes_of
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.seg_encode import SegProvenance
from lnsegfm.imaging.dicom.seg_read import read_seg, segment_mask, segments_mask
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series, Slice
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

LABELS = {"background": 0, "lymph_node": 1, "GTVp": 2, "something": 5}
NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)


def turned(degrees: float) -> tuple[float, ...]:
    """About x and then about z."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    about_x, about_z = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]), np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return tuple(float(v) for v in (about_z @ about_x).ravel())


SAGITTAL = (0, 0, -1, 1, 0, 0, 0, -1, 0)  # columns to the back, rows to the feet, slices to the right
CORONAL = (1, 0, 0, 0, 0, 1, 0, -1, 0)
GRIDS = {
    "axial": Grid((24, 50, 45), (1.25, 0.9, 0.9), (-20.5, -31.25, 100)),
    "sagittal": Grid((45, 24, 50), (0.9, 1.25, 1.0), (10, -20, 300), SAGITTAL),
    "coronal": Grid((24, 45, 50), (1.0, 0.9, 0.8), (10, -20, 300), CORONAL),
    "negated x and y": Grid((24, 50, 45), (1.25, 0.9, 0.9), (20, 30, -700), (-1, 0, 0, 0, -1, 0, 0, 0, 1)),
    "negated z": Grid((24, 50, 45), (1.25, 0.9, 0.9), (20, 30, -700), (1, 0, 0, 0, 1, 0, 0, 0, -1)),
    "oblique": Grid((24, 45, 50), (1.25, 0.9, 0.8), (-12.3456, 7.89, 1234.5), turned(15)),
    "anisotropic": Grid((7, 60, 60), (5, 0.5, 0.5), (-100.25, -200.5, 33.3)),
}


def scan(folder: Path, grid: Grid, **tags: object) -> Series:
    """A series on disk whose file names and numbers say nothing of the order of its slices."""
    shuffled = np.random.default_rng(0).permutation(grid.shape[0])
    air = np.full(grid.shape, -1000, np.int16)
    write_series(folder, air, grid, names=lambda k: f"{shuffled[k]}.x", order=[int(k) for k in shuffled], **tags)
    return series_of(folder)


@pytest.fixture(scope="module", params=sorted(GRIDS))
def series(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Series:
    return scan(tmp_path_factory.mktemp("ct"), GRIDS[request.param])


@pytest.fixture(scope="module")
def axial(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return scan(tmp_path_factory.mktemp("ct"), GRIDS["axial"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Series:
    # 35 pixels a frame: frames start within a byte
    return scan(tmp_path_factory.mktemp("ct"), Grid((4, 5, 7), (2.5, 0.7, 0.6), (1, 2, 3), turned(15)))


def ball(grid: Grid, diameter_mm: float, centre: tuple[float, float, float] = (0.5, 0.5, 0.5)) -> np.ndarray:
    """Voxels whose centres lie within a ball; ``centre`` in parts of the volume (z, y, x)."""
    axes = [(np.arange(n) - c * (n - 1)) * s for n, s, c in zip(grid.shape, grid.spacing_mm, centre, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    inside = z**2 + y**2 + x**2 <= (diameter_mm / 2) ** 2
    if not inside.any():
        inside[tuple(int(c * (n - 1)) for n, c in zip(grid.shape, centre, strict=True))] = True
    return inside


def masks(grid: Grid) -> dict[str, np.ndarray]:
    made = {f"{d} mm": ball(grid, d).astype(np.uint8) for d in (3, 5, 8, 10, 20)}
    made["hole"] = (ball(grid, 18) & ~ball(grid, 8)).astype(np.uint8)
    touching = ball(grid, 12).astype(np.uint8)
    touching[:, grid.shape[1] // 2 :][touching[:, grid.shape[1] // 2 :] > 0] = 2
    made["touching labels"] = touching
    one = np.zeros(grid.shape, np.uint8)
    one[grid.shape[0] // 2, 3, 4] = 1
    made["one voxel"] = one
    border = np.zeros(grid.shape, np.uint8)
    border[0, 0, 0] = border[-1, -1, -1] = 1
    border[0, -1, :] = 2
    border[:, 0, -1] = 5
    made["border"] = border
    made["full"] = np.ones(grid.shape, np.uint8)
    return made


def read_mask(path: Path, series: Series) -> np.ndarray:
    """What our own reader makes of a file with the segments lymph_node, GTVp and something."""
    patterns = [f"{label}=" + label for label in LABELS if label != "background"]
    return segments_mask(read_seg(path), series.grid, patterns, LABELS)


def in_patient(grid: Grid, mask: np.ndarray) -> np.ndarray:
    """Centres of the voxels of a mask in mm, sorted."""
    axes = np.array(grid.direction).reshape(3, 3) * np.array(grid.spacing_mm[::-1])
    return ordered(np.argwhere(mask)[:, ::-1] @ axes.T + np.array(grid.origin_mm))


def ordered(points: np.ndarray) -> np.ndarray:
    points = np.round(points, 3) + 0.0
    return points[np.lexsort(points.T)]


def by_pydicom(path: Path, number: int) -> np.ndarray:
    """Centres of the pixels of a segment in mm, by pydicom alone."""
    data = dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    row = np.array([float(v) for v in shared.PlaneOrientationSequence[0].ImageOrientationPatient])
    down, right = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    pixels = data.pixel_array.reshape(-1, data.Rows, data.Columns)
    points = [np.empty((0, 3))]
    for plane, own in zip(pixels, data.PerFrameFunctionalGroupsSequence, strict=True):
        group = own if "SegmentIdentificationSequence" in own else shared
        if data.SegmentationType == "BINARY":
            if group.SegmentIdentificationSequence[0].ReferencedSegmentNumber != number:
                continue
            inside = np.argwhere(plane)
        else:
            inside = np.argwhere(plane == number)
        corner = np.array([float(v) for v in own.PlanePositionSequence[0].ImagePositionPatient])
        points.append(corner + inside[:, :1] * down * row[3:] + inside[:, 1:] * right * row[:3])
    return ordered(np.concatenate(points))


# ---------------------------------------------------------------------------------------------------- round trip


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_no_voxel_differs(series, tmp_path, kind):
    for name, mask in masks(series.grid).items():
        path = tmp_path / f"{name}.dcm"
        write_seg(path, mask, LABELS, series, kind=kind)
        assert np.count_nonzero(read_mask(path, series) != mask) == 0, name
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(f"{name}.dcm" for name in masks(series.grid))


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_pydicom_and_highdicom_find_the_same_places(series, tmp_path, kind):
    for name in ("5 mm", "touching labels", "border"):
        mask = masks(series.grid)[name]
        path = tmp_path / f"{name}.dcm"
        write_seg(path, mask, LABELS, series, kind=kind)
        for number, value in ((1, 1), (2, 2), (3, 5)):
            expected = in_patient(series.grid, mask == value)
            np.testing.assert_allclose(by_pydicom(path, number), expected, atol=2e-3)
        volume = hd.seg.segread(path).get_volume(combine_segments=True, allow_missing_positions=True)
        found = np.argwhere(volume.array > 0) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        np.testing.assert_allclose(ordered(found), in_patient(series.grid, mask > 0), atol=2e-3)


def test_simpleitk_reads_the_frames(axial, tmp_path):
    import SimpleITK as sitk

    mask = ball(axial.grid, 10).astype(np.uint8)
    write_seg(tmp_path / "a.dcm", mask, {"lymph_node": 1}, axial)
    image = sitk.ReadImage(str(tmp_path / "a.dcm"))
    frames = sitk.GetArrayFromImage(image)
    planes = [k for k, plane in enumerate(mask) if plane.any()]
    assert np.array_equal(frames > 0, mask[planes] > 0)
    np.testing.assert_allclose(image.GetSpacing()[:2], axial.grid.spacing_mm[:0:-1], atol=1e-6)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mask=arrays(np.uint8, (4, 5, 7), elements=st.sampled_from([0, 0, 0, 1, 2, 5])), labelmap=st.booleans())
def test_any_mask_comes_back(small, tmp_path, mask, labelmap):
    write_seg(tmp_path / "a.dcm", mask, LABELS, small, kind="LABELMAP" if labelmap else "BINARY")
    assert np.array_equal(read_mask(tmp_path / "a.dcm", small), mask)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=arrays(np.int32, (4, 5, 7), elements=st.sampled_from([0, 0, 1, 2, 3, 300, 70000])))
def test_any_instances_come_back(small, tmp_path, pieces):
    mask = (pieces > 0).astype(np.uint8)
    write_seg(tmp_path / "a.dcm", mask, {"lymph_node": 1}, small, instances=pieces, names={3: "left one"})
    back = read_seg(tmp_path / "a.dcm")
    present = [int(p) for p in np.unique(pieces) if p]
    assert list(back.names) == ["left one" if p == 3 else f"lymph_node {p}" for p in present] or not present
    for number, piece in enumerate(present, 1):
        assert np.array_equal(segment_mask(back, number, small.grid), pieces == piece)


def test_the_distance_of_slices_is_the_scans_where_frames_are_left_out(small, tmp_path):
    mask = np.zeros((4, 5, 7), np.uint8)
    mask[[1, 3], 2, 3] = 1
    write_seg(tmp_path / "a.dcm", mask, {"LN": 1}, small)
    assert read_seg(tmp_path / "a.dcm").slice_distance_mm == pytest.approx(2.5)


def test_more_than_255_segments(tmp_path, small):
    pieces = np.zeros((4, 5, 7), np.int32)
    pieces.ravel()[:] = np.arange(140)
    mask = (pieces > 0).astype(np.uint8)
    labels = {"a": 1, **{f"empty {k}": k for k in range(2, 200)}}
    write_seg(tmp_path / "a.dcm", mask, labels, small, instances=pieces)
    back = read_seg(tmp_path / "a.dcm")
    assert len(back.segments) == 139 + 198
    assert np.array_equal(segment_mask(back, 139, small.grid), pieces == 139)


def test_slices_of_a_multi_frame_scan(tmp_path):
    for shared in (True, False):
        series = enhanced(tmp_path / f"e{shared}.dcm", Grid((5, 6, 7), (2, 0.7, 0.6), (1, 2, 3), turned(15)), shared)
        mask = np.zeros(series.grid.shape, np.uint8)
        mask[1:3, 2:4, 3:6] = 1
        write_seg(tmp_path / "a.dcm", mask, {"lymph_node": 1}, series)
        assert np.array_equal(segment_mask(read_seg(tmp_path / "a.dcm"), 1, series.grid), mask > 0)
        for own in dcmread(tmp_path / "a.dcm").PerFrameFunctionalGroupsSequence:
            number = own.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
            source = dcmread(series.slices[0].path).PerFrameFunctionalGroupsSequence[int(number) - 1]
            theirs, ours = (item.PlanePositionSequence[0].ImagePositionPatient for item in (source, own))
            assert [float(v) for v in ours] == pytest.approx([float(v) for v in theirs], abs=1e-6)


def enhanced(path: Path, grid: Grid, shared: bool) -> Series:
    """A multi-frame CT whose frames run against the normal."""
    ct = write_series(path.parent / f"{path.stem}-slices", np.zeros((1, *grid.shape[1:]), np.int16),
                      replace(grid, shape=(1, *grid.shape[1:])))  # fmt: skip
    data = dcmread(ct[0])
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    data.NumberOfFrames, data.PixelData = grid.shape[0], data.PixelData * grid.shape[0]
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = data.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = data.PixelSpacing, data.SliceThickness
    common = Dataset()
    common.PlaneOrientationSequence, common.PixelMeasuresSequence = [orientation], [measures]
    normal = np.array(grid.direction).reshape(3, 3)[:, 2]
    positions = [
        tuple(float(v) for v in grid.origin_mm + normal * grid.spacing_mm[0] * k) for k in range(grid.shape[0])
    ]
    data.SharedFunctionalGroupsSequence = [common if shared else Dataset()]
    data.PerFrameFunctionalGroupsSequence = []
    for position in positions[::-1]:
        own, place = Dataset(), Dataset()
        place.ImagePositionPatient = [f"{v:.10g}" for v in position]
        own.PlanePositionSequence = [place]
        if not shared:
            own.PlaneOrientationSequence, own.PixelMeasuresSequence = [orientation], [measures]
        data.PerFrameFunctionalGroupsSequence.append(own)
    del data.ImageOrientationPatient, data.ImagePositionPatient, data.PixelSpacing
    data.save_as(path, enforce_file_format=True)
    last = grid.shape[0] - 1
    slices = tuple(Slice(path, last - k, data.SOPInstanceUID, data.SOPClassUID, p) for k, p in enumerate(positions))
    return Series(
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID, "CT", "", 1, "P1", slices, grid
    )


def test_a_straightened_series_is_referred_to_and_placed_by_its_grid(tmp_path, axial):
    grid = replace(axial.grid, origin_mm=(-25.0, -40.0, 100.0), shape=(24, 60, 45))
    straight = replace(axial, grid=grid, straightened=True)
    mask = ball(grid, 10).astype(np.uint8)
    write_seg(tmp_path / "a.dcm", mask, {"lymph_node": 1}, straight)
    assert np.array_equal(segment_mask(read_seg(tmp_path / "a.dcm"), 1, grid), mask > 0)
    np.testing.assert_allclose(by_pydicom(tmp_path / "a.dcm", 1), in_patient(grid, mask), atol=2e-3)


# ------------------------------------------------------------------------------------------------- what it says


@pytest.fixture(scope="module")
def written(axial, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seg") / "a.dcm"
    provenance = SegProvenance(seed="test", now=NOW, model="ln-resencl", version="1.2")
    write_seg(path, masks(axial.grid)["touching labels"], LABELS, axial, provenance=provenance)
    return path


def test_what_the_file_says(written, axial):
    data, source = dcmread(written), dcmread(axial.slices[0].path)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
                    "StudyTime", "AccessionNumber", "StudyID", "FrameOfReferenceUID"):  # fmt: skip
        assert data[keyword].value == source[keyword].value
    assert data.SeriesInstanceUID != source.SeriesInstanceUID
    assert (data.Modality, data.SeriesNumber, data.ContentLabel) == ("SEG", 1003, "LNSEGFM")
    assert data.ContentDescription == "Not for clinical use"
    assert "Not for clinical use" in data.SeriesDescription
    assert (data.ContentDate, data.ContentTime, data.SeriesDate) == ("20260102", "030405", "20260102")
    assert data.SegmentsOverlap == "NO"
    referenced = {r.ReferencedSOPInstanceUID for r in data.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    planes = [k for k, p in enumerate(masks(axial.grid)["touching labels"]) if p.any()]
    assert referenced == {axial.slices[k].sop_instance_uid for k in planes}
    for own in data.PerFrameFunctionalGroupsSequence:
        position = tuple(float(v) for v in own.PlanePositionSequence[0].ImagePositionPatient)
        uid = own.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert next(s.position_mm for s in axial.slices if s.sop_instance_uid == uid) == pytest.approx(position)


def test_what_a_segment_says(written, axial):
    back = read_seg(written)
    node, tumour, other = back.segments
    assert (node.label, node.type.value, node.category.value) == ("lymph_node", "59441001", "91723000")
    assert (tumour.label, tumour.type.value, tumour.category.value) == ("GTVp", "108369006", "49755003")
    assert (other.label, other.type.meaning) == ("something", "Tissue")
    assert (node.algorithm_type, node.algorithm_name, node.description) == (
        "AUTOMATIC",
        "lnsegfm",
        "Not for clinical use",
    )
    assert len({s.tracking_uid for s in back.segments}) == 3
    assert node.tracking_id == "lymph_node"
    assert (back.kind, back.study_uid, back.referenced_series_uids) == ("BINARY", axial.study_uid, (axial.uid,))
    algorithm = dcmread(written).SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion, algorithm.AlgorithmSource) == (
        "lnsegfm",
        "1.2",
        "ln-resencl",
    )
    assert len(dcmread(written).SegmentSequence[0].RecommendedDisplayCIELabValue) == 3


def test_a_seed_gives_the_same_file_and_none_gives_another(axial, tmp_path):
    mask = masks(axial.grid)["5 mm"]
    for name, provenance in (
        ("a", SegProvenance(seed="s", now=NOW)),
        ("b", SegProvenance(seed="s", now=NOW)),
        ("c", SegProvenance(now=NOW)),
    ):
        write_seg(tmp_path / name, mask, LABELS, axial, provenance=provenance)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert dcmread(tmp_path / "a").SOPInstanceUID != dcmread(tmp_path / "c").SOPInstanceUID


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_an_empty_mask_is_a_file_that_says_that_nothing_was_found(axial, tmp_path, kind):
    write_seg(tmp_path / "a.dcm", np.zeros(axial.grid.shape, np.uint8), {"lymph_node": 1}, axial, kind=kind)
    back = read_seg(tmp_path / "a.dcm")
    assert (back.names, len(back.frames)) == (("lymph_node",), 1)
    assert not segment_mask(back, 1, axial.grid).any()


def test_what_the_source_lacks_is_empty_and_what_is_odd_is_taken_over(tmp_path):
    grid = Grid((3, 5, 7), (2, 1, 1))
    series = scan(tmp_path / "ct", grid, PatientName=None, StudyTime=None, AccessionNumber=None, PatientSex="female",
                  PatientBirthDate="about 1970")  # fmt: skip
    write_seg(tmp_path / "a.dcm", np.ones(grid.shape, np.uint8), {"LN": 1}, series)
    data = dcmread(tmp_path / "a.dcm")
    assert (str(data.PatientName), data.AccessionNumber) == ("", "")
    assert (data.PatientSex, data["PatientBirthDate"].value) == ("female", "about 1970")


@pytest.mark.parametrize(
    ("label", "type_value", "category", "region"),
    [
        ("lymph_node", "59441001", "91723000", None),
        ("LN", "59441001", "91723000", None),
        ("LN_c40", "59441001", "91723000", None),
        ("Lymph Node 12", "59441001", "91723000", None),
        ("mediastinal lymph nodes", "59441001", "91723000", None),
        ("GTVn", "14799000", "49755003", "59441001"),
        ("GTV_N1", "14799000", "49755003", "59441001"),
        ("GTVnd", "14799000", "49755003", "59441001"),
        ("GTV-LN 3", "14799000", "49755003", "59441001"),
        ("GTVp", "108369006", "49755003", None),
        ("Tumor_c40", "108369006", "49755003", None),
        ("CTVn", "85756007", "85756007", None),
        ("PTV lymph nodes", "85756007", "85756007", None),
        ("Oesophagus", "32849002", "91723000", None),
        ("SpinalCord", "2748008", "91723000", None),
        ("whatever", "85756007", "85756007", None),
    ],
)
def test_codes_of_labels(label, type_value, category, region):
    found = codes_of(label)
    assert (found.type.value, found.category.value) == (type_value, category)
    assert (found.region.value if found.region else None) == region


def test_codes_are_those_of_the_standard():
    assert codes_of("LN").type.value == codes.CID7166.LymphNode.value
    assert codes_of("LN").category.value == codes.CID7150.AnatomicalStructure.value
    assert codes_of("GTVn").category.value == codes.CID7150.MorphologicallyAbnormalStructure.value
    assert codes_of("GTVn").type.value == codes.CID7159.NeoplasmSecondary.value
    assert codes_of("x").type.value == codes.CID7150.Tissue.value
    for name in ("RightParotid", "Parotid_R", "parotid right"):
        assert codes_of(name).side.meaning == "Right"
        assert codes_of(name).type.value == codes.SCT.ParotidGland.value
    assert codes_of("Lung_L").side.value == codes.SCT.Left.value


# ------------------------------------------------------------------------------------------ what is not written


def test_what_is_refused_on_the_way_out(axial, tmp_path):
    mask = masks(axial.grid)["5 mm"]
    pieces = mask.astype(np.int32)
    stray = pieces.copy()
    stray[0, 0, 0] = 9
    partly = pieces.copy()
    partly[tuple(np.argwhere(pieces)[0])] = 0
    two = mask.copy()
    two[tuple(np.argwhere(mask)[0])] = 2
    both = {"a": 1, "b": 2}
    refused: list[tuple[str, Callable[[], None]]] = [
        ("does not fit, its shape", lambda: write_seg(tmp_path / "a", mask[1:], LABELS, axial)),
        ("Pass whole numbers", lambda: write_seg(tmp_path / "a", mask.astype(float), LABELS, axial)),
        ("Mask value 1: no label", lambda: write_seg(tmp_path / "a", mask, {"b": 2}, axial)),
        ("value of its own", lambda: write_seg(tmp_path / "a", mask, {"a": 1, "b": 1}, axial)),
        ("value of its own", lambda: write_seg(tmp_path / "a", mask, {}, axial)),
        ("Instance 9: it has voxels where", lambda: write_seg(tmp_path / "a", mask, both, axial, instances=stray)),
        ("voxels are of no instance", lambda: write_seg(tmp_path / "a", mask, both, axial, instances=partly)),
        ("Instance 1: it lies in a and b", lambda: write_seg(tmp_path / "a", two, both, axial, instances=pieces)),
        ("Segment name", lambda: write_seg(tmp_path / "a", mask, {"a\\b": 1}, axial)),
        ("Segment name", lambda: write_seg(tmp_path / "a", mask, {" ": 1}, axial)),
        ("Segmentation type", lambda: write_seg(tmp_path / "a", mask, LABELS, axial, kind="X")),  # type: ignore[arg-type]
        ("DICOM takes 64 characters", lambda: SegProvenance(description="x" * 65) and None),
        ("FrameOfReferenceUID to refer to", lambda: no_frame_of_reference(tmp_path)),
    ]
    for expected, call in refused:
        with pytest.raises(DicomError, match=expected) as error:
            call()
        assert len(str(error.value).splitlines()) == 1
        assert "Doe" not in str(error.value)
        assert not (tmp_path / "a").exists()
    assert [p for p in tmp_path.iterdir() if p.is_file()] == []


def no_frame_of_reference(folder: Path) -> None:
    grid = Grid((3, 5, 7), (2, 1, 1))
    series = scan(folder / "ct", grid, change=lambda data, _: delattr(data, "FrameOfReferenceUID"))
    write_seg(folder / "a", np.ones(grid.shape, np.uint8), {"LN": 1}, series)


@pytest.mark.parametrize("what", ["a voxel more", "a voxel less", "shifted", "swapped", "renamed"])
def test_a_file_that_differs_is_not_put_in_place(axial, tmp_path, monkeypatch, what):
    mask = masks(axial.grid)["touching labels"]
    encode = seg_write.encode

    def wrong(layers, texts, *rest):
        numbers = layers[0].copy()
        if what == "a voxel more":
            numbers[0, 0, 0] = 1
        elif what == "a voxel less":
            numbers[tuple(np.argwhere(numbers)[0])] = 0
        elif what == "shifted":
            numbers = np.roll(numbers, 1, axis=0)
        elif what == "swapped":
            numbers = np.where(numbers > 0, 3 - numbers, 0).astype(numbers.dtype)
        else:
            texts = [replace(texts[0], name="x"), *texts[1:]]
        return encode([numbers], texts, *rest)

    monkeypatch.setattr(seg_write, "encode", wrong)
    (tmp_path / "a.dcm").write_bytes(b"before")
    with pytest.raises(DicomError, match=r"when it is read back|do not come back"):
        write_seg(tmp_path / "a.dcm", mask, LABELS, axial)
    assert [p.name for p in tmp_path.iterdir()] == ["a.dcm"]
    assert (tmp_path / "a.dcm").read_bytes() == b"before"


# --------------------------------------------------------------------------------------- other people's files


def other_seg(series: Series, pixels: np.ndarray, kind: str, **more: object) -> hd.seg.Segmentation:
    """A segmentation straight from highdicom: (z, y, x, segment)."""
    sources = [dcmread(s.path) for s in series.slices]
    described = [
        hd.seg.SegmentDescription(k + 1, name, codes.SCT.Tissue, codes.SCT.Tissue, "MANUAL")
        for k, name in enumerate(["LN 1", "ln-2", "Tumour"][: pixels.shape[3]])
    ]
    return hd.seg.Segmentation(
        sources, pixels, kind, described, generate_uid(), 1, generate_uid(), 1, "m", "n", "1", "0", **more
    )


def saved(data: Dataset, path: Path) -> Path:
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.1", str(RLELossless), str(JPEG2000Lossless), str(JPEGLSLossless)]
)
def test_fractional(axial, tmp_path, syntax):
    values = np.random.default_rng(1).integers(0, 201, (*axial.grid.shape, 2))
    values[0, 0, 0] = [100, 99]
    data = other_seg(axial, values / 200, "FRACTIONAL", max_fractional_value=200)
    if syntax == RLELossless:  # by pydicom's encoder: GDCM's ends the process on frames of odd sizes
        data = dcmread(saved(data, tmp_path / "plain.dcm"))
        data.compress(RLELossless, encoding_plugin="pydicom")
    saved(data, tmp_path / "a.dcm")
    if syntax in (JPEG2000Lossless, JPEGLSLossless):
        transcoded(tmp_path / "a.dcm", syntax)
    back = read_seg(tmp_path / "a.dcm")
    for number in (1, 2):
        half = segment_mask(back, number, axial.grid)
        assert np.array_equal(half, values[..., number - 1] >= 100)
        most = segment_mask(back, number, axial.grid, threshold=0.9)
        assert np.array_equal(most, values[..., number - 1] >= 180)
    for threshold in (0.0, 1.01, float("nan")):
        with pytest.raises(ConfigError, match="Threshold"):
            segment_mask(back, 1, axial.grid, threshold=threshold)


def transcoded(path: Path, syntax: str) -> None:
    """Compress the pixels with GDCM, and keep pydicom's header: GDCM's writer loses where frames lie."""
    import gdcm

    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(f"{path}.packed")
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    data, packed = dcmread(path), dcmread(f"{path}.packed")
    data.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    assert data.file_meta.TransferSyntaxUID == syntax
    data["PixelData"] = packed["PixelData"]
    saved(data, path)


def test_overlapping_segments_are_read_on_their_own_and_merged_by_priority(small, tmp_path):
    pixels = (np.random.default_rng(2).random((4, 5, 7, 3)) < 0.5).astype(np.uint8)
    back = read_seg(saved(other_seg(small, pixels, "BINARY"), tmp_path / "a.dcm"))
    for k in range(3):
        assert np.array_equal(segment_mask(back, k + 1, small.grid), pixels[..., k] > 0)
    node, tumour = (pixels[..., 0] | pixels[..., 1]) > 0, pixels[..., 2] > 0
    labels, said = {"node": 1, "tumour": 7}, []
    mask = segments_mask(back, small.grid, ["LN*=node", "tum*=tumour"], labels, on_note=said.append)
    assert np.array_equal(mask, np.where(node, 1, np.where(tumour, 7, 0)))
    assert said == [f"{np.count_nonzero(node & tumour)} voxels are in node and in tumour: given to node."]
    assert np.array_equal(segments_mask(back, small.grid, ["tum*=tumour", "LN*=node"], labels),
                          np.where(tumour, 7, np.where(node, 1, 0)))  # fmt: skip
    assert np.array_equal(segments_mask(back, small.grid, ["LN*=node", "tum*=tumour"], labels, priority=["tumour"]),
                          np.where(tumour, 7, np.where(node, 1, 0)))  # fmt: skip
    assert np.array_equal(segments_mask(back, small.grid, ["LN 1=node"], labels), pixels[..., 0])
    with pytest.raises(DataError, match="no structure has such a name"):
        segments_mask(back, small.grid, ["liver=node"], labels)
    assert not segments_mask(back, small.grid, ["liver=node"], labels, strict=False, on_note=said.append).any()
    assert said[-1] == "Pattern liver=node: no segment has such a name."
    with pytest.raises(DicomError, match="no value from 1 to 255"):
        segments_mask(back, small.grid, ["LN*=other"], labels)
    with pytest.raises(DicomError, match="Priority x"):
        segments_mask(back, small.grid, ["LN*=node"], labels, priority=["x"])


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_frames_in_any_order(small, tmp_path, kind):
    mask = np.random.default_rng(3).integers(0, 3, (4, 5, 7)).astype(np.uint8)
    pixels = np.stack([mask == 1, mask == 2], -1).astype(np.uint8)
    data = other_seg(small, pixels, kind)
    shuffled = np.random.default_rng(4).permutation(int(data.NumberOfFrames))
    frames = data.pixel_array[shuffled]
    data.PerFrameFunctionalGroupsSequence = [data.PerFrameFunctionalGroupsSequence[k] for k in shuffled]
    data.PixelData = (
        np.packbits(frames, axis=None, bitorder="little").tobytes() if kind == "BINARY" else frames.tobytes()
    )
    data.PixelData += b"\0" * (len(data.PixelData) % 2)
    back = read_seg(saved(data, tmp_path / "a.dcm"))
    assert np.array_equal(segments_mask(back, small.grid, ["ln 1=a", "ln 2=b"], {"a": 1, "b": 2}), mask)


def test_a_grid_whose_axes_run_otherwise(small, tmp_path):
    """The same voxels, counted from another corner or along another axis: still exact, so not refused."""
    mask = np.random.default_rng(5).random((4, 5, 7)) < 0.3
    write_seg(tmp_path / "a.dcm", mask.astype(np.uint8), {"LN": 1}, small)
    back, grid = read_seg(tmp_path / "a.dcm"), small.grid
    axes = np.array(grid.direction).reshape(3, 3)
    end = np.array(grid.origin_mm) + axes @ ((np.array(grid.shape[::-1]) - 1) * np.array(grid.spacing_mm[::-1]))
    flipped = replace(grid, origin_mm=tuple(end), direction=tuple((-axes).ravel()))
    assert np.array_equal(segment_mask(back, 1, flipped), mask[::-1, ::-1, ::-1])
    swapped = Grid((7, 4, 5), tuple(np.array(grid.spacing_mm)[[2, 0, 1]]), grid.origin_mm,
                   tuple(axes[:, [1, 2, 0]].ravel()))  # fmt: skip
    assert np.array_equal(segment_mask(back, 1, swapped), mask.transpose(2, 0, 1))
    larger = replace(grid, shape=(9, 9, 9))
    assert np.array_equal(segment_mask(back, 1, larger)[:4, :5, :7], mask)
    assert segment_mask(back, 1, larger).sum() == mask.sum()


def moved(grid: Grid, by: tuple[float, float, float]) -> Grid:
    """By parts of a voxel (z, y, x)."""
    step = np.array(by[::-1]) * np.array(grid.spacing_mm[::-1])
    return replace(grid, origin_mm=tuple(np.array(grid.origin_mm) + np.array(grid.direction).reshape(3, 3) @ step))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda g: moved(g, (0.5, 0, 0)), r"between voxels \(off by 0.5, 0, 0"),
        (lambda g: moved(g, (0, 0.5, 0)), r"between voxels \(off by 0, 0.5, 0"),
        (lambda g: moved(g, (0, 0, 0.25)), r"between voxels \(off by 0, 0, 0.25"),
        (lambda g: moved(g, (1, 0, 0)), "voxels outside the grid"),
        (lambda g: replace(g, shape=(3, 5, 7)), "voxels outside the grid"),
        (lambda g: replace(g, shape=(4, 5, 6)), "voxels outside the grid"),
        (lambda g: replace(g, spacing_mm=(2.5, 1.4, 1.2)), "its pixels are 0.7 x 0.6 mm and the grid's"),
        (lambda g: replace(g, spacing_mm=(2.5, 0.75, 0.6)), "its pixels are 0.7 x 0.6 mm and the grid's"),
        (lambda g: replace(g, spacing_mm=(3.0, 0.7, 0.6)), "between voxels"),
        (lambda g: replace(g, direction=turned(17)), "[12].[0-9]* degrees off"),
    ],
)  # fmt: skip
def test_another_grid_is_refused_with_the_difference(small, tmp_path, change, expected):
    write_seg(tmp_path / "a.dcm", np.ones((4, 5, 7), np.uint8), {"LN": 1}, small)
    with pytest.raises(DicomError, match=expected) as error:
        segment_mask(read_seg(tmp_path / "a.dcm"), 1, change(small.grid))
    assert len(str(error.value).splitlines()) == 1
    assert str(error.value).startswith("Segmentation a.dcm: ")


def test_frames_on_every_second_slice_are_reported_and_filled_on_request(small, tmp_path):
    write_seg(tmp_path / "a.dcm", np.ones((4, 5, 7), np.uint8), {"LN": 1}, small)
    thin = replace(small.grid, spacing_mm=(1.25, 0.7, 0.6), shape=(8, 5, 7))
    notes: list[str] = []

    comb = segment_mask(read_seg(tmp_path / "a.dcm"), 1, thin, on_note=notes.append)
    assert list(comb.any(axis=(1, 2))) == [True, False] * 4
    assert notes == ["Segment 'LN': frames on every second slice (2.5 mm apart, slices 1.25 mm)."]

    whole = segment_mask(read_seg(tmp_path / "a.dcm"), 1, thin, fill_between=True, on_note=notes.append)
    assert whole[:7].all()
    assert not whole[7].any()
    assert notes[2] == "Segment 'LN': slices 2, 4, 6 are filled by interpolation between contoured slices: 105 voxels."
    merged = segments_mask(read_seg(tmp_path / "a.dcm"), thin, ["LN=a"], {"a": 1}, fill_between=True)
    assert np.array_equal(merged > 0, whole)


def test_rounded_headers_are_no_other_grid(small, tmp_path):
    mask = np.random.default_rng(6).random((4, 5, 7)) < 0.5
    write_seg(tmp_path / "a.dcm", mask.astype(np.uint8), {"LN": 1}, small)
    rounded = replace(
        small.grid,
        origin_mm=tuple(round(v, 2) for v in small.grid.origin_mm),
        direction=tuple(round(v, 5) for v in small.grid.direction),
    )
    assert np.array_equal(segment_mask(read_seg(tmp_path / "a.dcm"), 1, rounded), mask)


def test_another_frame_of_reference_is_refused(small, tmp_path):
    write_seg(tmp_path / "a.dcm", np.ones((4, 5, 7), np.uint8), {"LN": 1}, small)
    back = read_seg(tmp_path / "a.dcm")
    segment_mask(back, 1, small.grid, frame_of_reference_uid=small.frame_of_reference_uid)
    with pytest.raises(DicomError, match="frame of reference is"):
        segment_mask(back, 1, small.grid, frame_of_reference_uid="1.2.3")
    with pytest.raises(DicomError, match=r"it has no segment 2\. It has 1"):
        segment_mask(back, 2, small.grid)


def drop(*keywords: str) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        for groups in (data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence):
            for item in (data, *groups):
                for keyword in keywords:
                    if keyword in item:
                        delattr(item, keyword)

    return change


def put(keyword: str, value: object) -> Callable[[Dataset], None]:
    return lambda data: setattr(data, keyword, value)


def frame_item(sequence: str, keyword: str, value: object, shared: bool = False) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        groups = data.SharedFunctionalGroupsSequence if shared else data.PerFrameFunctionalGroupsSequence
        setattr(getattr(groups[0], sequence)[0], keyword, value)

    return change


def twice(data: Dataset) -> None:
    data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence = data.PerFrameFunctionalGroupsSequence[
        0
    ].PlanePositionSequence


def same_number(data: Dataset) -> None:
    data.SegmentSequence[1].SegmentNumber = 1


BROKEN = {
    "a CT": (put("SOPClassUID", CTImageStorage), "not a segmentation but CT Image Storage"),
    "unknown type": (put("SegmentationType", "SURFACE"), "unknown segmentation type 'SURFACE'"),
    "no type": (drop("SegmentationType"), "unknown segmentation type ''"),
    "no segments": (drop("SegmentSequence"), "describes no segment"),
    "a number twice": (same_number, "two of its segments have the same number"),
    "no frames": (put("NumberOfFrames", 0), "it has no frames"),
    "no pixels": (drop("PixelData"), "it has no frames"),
    "no groups": (drop("PerFrameFunctionalGroupsSequence"), "frames and functional groups of 0"),
    "no positions": (drop("PlanePositionSequence"), "frame 1 has no ImagePositionPatient"),
    "no orientation": (drop("PlaneOrientationSequence"), "frame 1 has no ImageOrientationPatient"),
    "no spacing": (drop("PixelMeasuresSequence"), "frame 1 has no PixelSpacing"),
    "no number": (drop("SegmentIdentificationSequence"), "does not say which segment"),
    "undescribed": (frame_item("SegmentIdentificationSequence", "ReferencedSegmentNumber", 9), "segment 9, which"),
    "sheared": (
        frame_item("PlaneOrientationSequence", "ImageOrientationPatient", [1, 0, 0, 0.5, 0.5, 0], True), "right"),
    "spacing 0": (frame_item("PixelMeasuresSequence", "PixelSpacing", [0, 1], True), "pixels of 0 x 1 mm"),
    "cut pixels": (lambda d: setattr(d, "PixelData", d.PixelData[:10]), "its pixels are cut short"),
    "32 bits": (put("BitsAllocated", 32), "32 bits a pixel"),
    "huge": (lambda d: (setattr(d, "Rows", 60000), setattr(d, "Columns", 60000)), "60000 x 60000 pixels are"),
    "no rows": (drop("Rows"), "frames of 0 x 7 pixels"),
    "contradiction": (twice, "contradicts an earlier frame"),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_broken_files_are_told_in_one_line(small, tmp_path, what):
    change, expected = BROKEN[what]
    pixels = (np.random.default_rng(7).random((4, 5, 7, 2)) < 0.5).astype(np.uint8)
    data = other_seg(small, pixels, "BINARY")
    change(data)
    path = saved(data, tmp_path / "a.dcm") if "SOPClassUID" in data else tmp_path
    with pytest.raises(DicomError, match=expected) as error:
        segment_mask(read_seg(path), 1, small.grid)
    assert len(str(error.value).splitlines()) == 1
    assert "Doe" not in str(error.value)


def test_files_that_are_none(small, tmp_path, written):
    (tmp_path / "a.txt").write_text("no DICOM at all, but long enough to be looked at" * 10)
    whole = written.read_bytes()
    for name, content in (("half", whole[: len(whole) // 2]), ("head", whole[:2000]), ("start", whole[:140])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DicomError) as error:
            read_seg(tmp_path / name)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(DicomError, match="not a DICOM file"):
        read_seg(tmp_path / "a.txt")
    with pytest.raises(DicomError, match="no such file"):
        read_seg(tmp_path / "none.dcm")


def test_frames_that_do_not_decode(small, tmp_path):
    values = np.random.default_rng(1).random((4, 5, 7, 1))
    data = dcmread(saved(other_seg(small, values, "FRACTIONAL"), tmp_path / "plain.dcm"))
    data.compress(RLELossless, encoding_plugin="pydicom")
    data.PixelData = data.PixelData[:60] + bytes(len(data.PixelData) - 60)
    with pytest.raises(DicomError, match=r"does not decode|damaged") as error:
        segment_mask(read_seg(saved(data, tmp_path / "a.dcm")), 1, small.grid)
    assert len(str(error.value).splitlines()) == 1


def test_a_label_map_with_an_undescribed_segment(small, tmp_path):
    pixels = (np.indices((4, 5, 7)).sum(0) % 3 == 0).astype(np.uint8)[..., None]
    data = other_seg(small, pixels, "LABELMAP")
    data.PixelData = b"\x07" + data.PixelData[1:]
    with pytest.raises(DicomError, match="pixels of segment 7, which is not described"):
        segment_mask(read_seg(saved(data, tmp_path / "a.dcm")), 1, small.grid)


def test_a_label_map_whose_background_is_not_0(small, tmp_path):
    pixels = (np.indices((4, 5, 7)).sum(0) % 3 == 0).astype(np.uint8)[..., None]
    data = other_seg(small, pixels, "LABELMAP")
    data.PixelPaddingValue = data.SegmentSequence[0].SegmentNumber = 9
    data.PixelData = data.PixelData.replace(b"\0", b"\x09")
    back = read_seg(saved(data, tmp_path / "a.dcm"))
    assert [s.number for s in back.segments] == [1]
    assert np.array_equal(segment_mask(back, 1, small.grid), pixels[..., 0] > 0)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_a_byte_gone_wrong_is_an_error_or_nothing_but_never_a_traceback(small, tmp_path, at, byte):
    path = tmp_path / "a.dcm"
    if not path.exists():
        write_seg(path, np.ones((4, 5, 7), np.uint8), {"LN": 1}, small, provenance=SegProvenance(seed="s", now=NOW))
    content = bytearray(path.read_bytes())
    content[at % len(content)] = byte
    (tmp_path / "b.dcm").write_bytes(content)
    said = []
    try:
        segment_mask(read_seg(tmp_path / "b.dcm"), 1, small.grid)
    except DicomError as error:
        said = str(error).splitlines()
    assert len(said) <= 1


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(series, tmp_path):
    mask = masks(series.grid)["touching labels"]
    pieces = mask.astype(np.int32)
    write_seg(tmp_path / "labels.dcm", mask, LABELS, series)
    write_seg(tmp_path / "nodes.dcm", mask, {"GTVn": 1, "Parotid_L": 2}, series, instances=pieces)
    write_seg(tmp_path / "empty.dcm", mask * 0, LABELS, series)
    for path in tmp_path.glob("*.dcm"):
        checked = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        assert "Error" not in checked.stdout + checked.stderr, path.name
        assert "Segmentation" in checked.stdout + checked.stderr
