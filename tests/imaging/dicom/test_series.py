"""A series comes in as the scanner made it: every voxel with its HU at its place, whatever the files are called."""

from __future__ import annotations

import random
import shutil
import time
import zipfile
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pydicom.valuerep import format_number_as_ds
from scipy.spatial.transform import Rotation

from lnsegfm.imaging.dicom.file_walk import files_under
from lnsegfm.imaging.dicom.series import Series, find_series, read_series, series_of, unpacked_tree
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

SHAPE = (7, 9, 11)


def turned(columns, spacing=(3.0, 0.8, 0.7), origin=(-120.5, 33.25, -700.125), shape=SHAPE) -> Grid:
    """A grid whose directions of x, y and z are the given columns."""
    return Grid(shape, spacing, origin, tuple(np.array(columns, float).T.ravel()))


OBLIQUE = Rotation.from_euler("xyz", [15, -15, 15], degrees=True).as_matrix().T
GEOMETRIES = {
    "axial": turned(np.eye(3)),
    "feet first, written downwards": turned([(1, 0, 0), (0, 1, 0), (0, 0, -1)]),
    "sagittal": turned([(0, 1, 0), (0, 0, -1), (-1, 0, 0)]),
    "sagittal, written from the right": turned([(0, 1, 0), (0, 0, -1), (1, 0, 0)]),
    "coronal": turned([(1, 0, 0), (0, 0, -1), (0, 1, 0)]),
    "prone": turned([(-1, 0, 0), (0, -1, 0), (0, 0, 1)]),
    "mirrored rows": turned([(-1, 0, 0), (0, 1, 0), (0, 0, 1)]),
    "oblique 15 degrees": turned(OBLIQUE),
    "anisotropic": turned(np.eye(3), spacing=(5.0, 0.5, 0.5)),
    "thin": turned(np.eye(3), spacing=(0.4, 0.9, 1.1)),
}


def phantom(grid: Grid, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1024, 3072, grid.shape)


def centres(grid: Grid) -> np.ndarray:
    """LPS of every voxel centre, (z, y, x, 3)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij"), axis=-1)[..., ::-1]
    return index * grid.spacing_mm[::-1] @ np.array(grid.direction).reshape(3, 3).T + grid.origin_mm


def at(grid: Grid, points: np.ndarray) -> tuple[np.ndarray, ...]:
    """Array indices (z, y, x) of points, which must be voxel centres to 1e-6 voxels."""
    direction = np.array(grid.direction).reshape(3, 3)
    exact = ((points - grid.origin_mm) @ direction / grid.spacing_mm[::-1])[..., ::-1]
    whole = np.rint(exact)
    assert np.abs(exact - whole).max() < 1e-6
    return tuple(np.moveaxis(whole.astype(int), -1, 0))


def shuffled(folder: Path, hu: np.ndarray, grid: Grid, seed: int = 1, **more) -> list[Path]:
    """The series under names and with instance numbers that say nothing of the order."""
    draw = random.Random(seed)
    order = draw.sample(range(1, len(hu) + 1), len(hu))
    names = draw.sample(
        ["IM", "a.txt", "b", "x.ima", "0", "C.DCM", "z z", "é", "1.2.3", "_", "q", "~", "n", "m"], len(hu)
    )
    return write_series(folder, hu, grid, names=lambda k: names[k], order=order, **more)


def assert_as_written(series: Series, volume: np.ndarray, hu: np.ndarray, grid: Grid) -> None:
    assert volume.shape == series.grid.shape == hu.shape
    np.testing.assert_array_equal(volume, hu[at(grid, centres(series.grid))])
    direction = np.array(series.grid.direction).reshape(3, 3)
    assert np.linalg.det(direction) == pytest.approx(1)
    corners = centres(series.grid)[:, 0, 0]
    np.testing.assert_allclose([s.position_mm for s in series.slices], corners, atol=1e-6)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_hu_and_places_are_exact(tmp_path, geometry):
    grid = GEOMETRIES[geometry]
    hu = phantom(grid)
    shuffled(tmp_path, hu, grid)
    series = series_of(tmp_path)
    volume = read_series(series)
    assert volume.dtype == np.int16
    assert_as_written(series, volume, hu, grid)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gdcm_reads_the_same(tmp_path, geometry):
    grid = GEOMETRIES[geometry]
    shuffled(tmp_path, phantom(grid), grid)
    series = series_of(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    assert series.grid.difference(Grid.from_image(image), tolerance_mm=1e-5, direction_tolerance=1e-6) is None
    np.testing.assert_array_equal(read_series(series), sitk.GetArrayFromImage(image))


@settings(max_examples=15, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    down=st.booleans(),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    seed=st.integers(0, 1000),
)
def test_any_geometry(tmp_path_factory, angles, down, spacing, seed):
    columns = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().T
    columns[2] *= -1 if down else 1
    grid = turned(columns, tuple(round(s, 4) for s in spacing), shape=(4, 5, 3))
    hu, folder = phantom(grid, seed), tmp_path_factory.mktemp("any")
    shuffled(folder, hu, grid, seed)
    series = series_of(folder)
    assert_as_written(series, read_series(series), hu, grid)


def test_what_a_series_states(tmp_path):
    grid = GEOMETRIES["axial"]
    files = write_series(tmp_path, phantom(grid), grid, SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2")
    series = series_of(tmp_path)
    assert (series.uid, series.study_uid, series.modality, series.number) == ("1.2.3", "1.2", "CT", 3)
    assert (series.description, series.patient_id, series.part) == ("CT of a phantom", "P1", 0)
    assert [s.path for s in series.slices] == files
    assert {s.frame for s in series.slices} == {None}
    assert series.slices[0].sop_instance_uid == pydicom.dcmread(files[0]).SOPInstanceUID
    assert "P1" not in repr(series)


def test_a_tree_of_everything(tmp_path):
    grid = GEOMETRIES["axial"]
    hu = phantom(grid)
    for k, uid in enumerate(("1.1", "1.2", "1.3")):
        for part in (0, 1):  # a series may lie in several folders
            folder = tmp_path / f"patient{k}" / "deep" / str(part)
            shuffled(folder, hu, grid, SeriesInstanceUID=uid, StudyInstanceUID="1", FrameOfReferenceUID="2")
            for n, file in enumerate(sorted(folder.iterdir())):
                if n % 2 == part:
                    file.unlink()
    for name, content in {
        "notes.txt": b"hello",
        "empty.dcm": b"",
        "scan.dcm": b"not at all" * 50,
        "DICOMDIR": b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    found = find_series(tmp_path)
    # each half was shuffled alike, so the halves complete each other
    assert [s.uid for s in found.series] == ["1.1", "1.2", "1.3"]
    assert found.refused == ()


def test_structures_and_segmentations_are_listed_and_other_modalities_counted(tmp_path):
    grid = GEOMETRIES["axial"]
    write_series(tmp_path / "mr", phantom(grid), grid, Modality="MR")
    for name, sop_class in (("rs", "1.2.840.10008.5.1.4.1.1.481.3"), ("seg", "1.2.840.10008.5.1.4.1.1.66.4")):
        file = write_series(tmp_path / name, phantom(grid)[:1], grid)[0]
        data = pydicom.dcmread(file)
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
        data.save_as(file)
    found = find_series(tmp_path)
    assert [p.parent.name for p in found.structures] == ["rs"]
    assert [p.parent.name for p in found.segmentations] == ["seg"]
    assert (found.series, found.others) == ((), (("MR", 7),))
    mr = series_of(tmp_path, modalities=("MR",))
    assert mr.modality == "MR"
    np.testing.assert_array_equal(read_series(mr), phantom(grid))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, "bare"])
def test_encodings(tmp_path, syntax):
    grid = GEOMETRIES["axial"]
    hu = phantom(grid)
    for file in write_series(tmp_path, hu, grid):
        data = pydicom.dcmread(file)
        if syntax == "bare":
            pydicom.dcmwrite(file, _stripped(data), implicit_vr=True, little_endian=True, enforce_file_format=False)
            assert file.read_bytes()[128:132] != b"DICM"
            continue
        little = syntax == ImplicitVRLittleEndian
        data.PixelData = data.pixel_array.astype("<u2" if little else ">u2").tobytes()
        data.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(file, data, implicit_vr=little, little_endian=little, enforce_file_format=True)
    np.testing.assert_array_equal(read_series(series_of(tmp_path)), hu)


def _stripped(data: Dataset) -> Dataset:
    bare = Dataset()
    bare.update(data)
    return bare


GDCM = {
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000Lossless,
    "JPEG-LS": gdcm.TransferSyntax.JPEGLSLossless,
    "JPEG lossless": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "RLE": gdcm.TransferSyntax.RLELossless,
}


def packed(file: Path, codec: str) -> None:
    """Compress a file with GDCM's encoder."""
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(file))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(GDCM[codec]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("bits", [16, 12])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("codec", GDCM)
def test_compressed_without_loss(tmp_path, codec, signed, bits):
    grid = turned(np.eye(3), shape=(3, 32, 32))
    hu = phantom(grid).clip(-1024, 1000)

    def change(data, k):
        data.PixelRepresentation, data.BitsStored, data.HighBit = signed, bits, bits - 1
        data.RescaleIntercept = 0 if signed else -1024
        data.PixelData = (hu[k] + (0 if signed else 1024)).astype("<i2").tobytes()

    for file in write_series(tmp_path, hu, grid, change=change):
        packed(file, codec)
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID.is_compressed
    series = series_of(tmp_path)
    np.testing.assert_array_equal(read_series(series), hu)
    assert series.notes == ()


def enhanced(path: Path, hu: np.ndarray, grid: Grid, order: list[int], shared: bool) -> None:
    """An Enhanced CT file: frame i is slice order[i]; geometry for all frames at once, or in each."""
    one = pydicom.dcmread(write_series(path.parent / "parts", hu[:1], grid)[0])
    shutil.rmtree(path.parent / "parts")
    orientation, measures, direction = Dataset(), Dataset(), np.array(grid.direction).reshape(3, 3)
    orientation.ImageOrientationPatient = one.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = one.PixelSpacing, 99
    common = Dataset()
    common.PlaneOrientationSequence, common.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    frames, planes = [], []
    for n, k in enumerate(order):
        group, place, values = Dataset(), Dataset(), Dataset()
        position = np.array(grid.origin_mm) + direction[:, 2] * grid.spacing_mm[0] * k
        place.ImagePositionPatient = [format_number_as_ds(float(v)) for v in position]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1000 - n, "HU"
        group.PlanePositionSequence, group.PixelValueTransformationSequence = Sequence([place]), Sequence([values])
        if not shared:
            group.update(common)
        frames.append(group)
        planes.append((hu[k] + 1000 + n).astype("<i2"))
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness",
                    "RescaleSlope", "RescaleIntercept", "RescaleType"):  # fmt: skip
        delattr(one, keyword)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    one.SharedFunctionalGroupsSequence = Sequence([common if shared else Dataset()])
    one.PerFrameFunctionalGroupsSequence = Sequence(frames)
    one.NumberOfFrames, one.PixelData, one.PixelRepresentation = len(planes), np.stack(planes).tobytes(), 1
    one.save_as(path)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("geometry", ["axial", "sagittal, written from the right", "oblique 15 degrees"])
def test_enhanced_multi_frame(tmp_path, geometry, shared):
    grid = GEOMETRIES[geometry]
    hu = phantom(grid)
    enhanced(tmp_path / "all.dcm", hu, grid, [3, 1, 6, 0, 2, 5, 4], shared)
    series = series_of(tmp_path)
    assert_as_written(series, read_series(series), hu, grid)
    assert sorted(s.frame for s in series.slices) == list(range(7))
    assert len({s.sop_instance_uid for s in series.slices}) == 1


def test_enhanced_packed(tmp_path):
    grid = GEOMETRIES["axial"]
    hu = phantom(grid)
    enhanced(tmp_path / "all.dcm", hu, grid, [3, 1, 6, 0, 2, 5, 4], True)
    data = pydicom.dcmread(tmp_path / "all.dcm")
    data.compress(RLELossless)
    data.save_as(tmp_path / "all.dcm")
    np.testing.assert_array_equal(read_series(series_of(tmp_path)), hu)


def first_voxel(folder: Path, **tags) -> np.ndarray:
    """Corner values of three slices whose stored values are 0, 1000 and 2000."""
    grid = turned(np.eye(3), shape=(3, 4, 5))
    hu = np.broadcast_to(np.array([-1024, -24, 976])[:, None, None], grid.shape)
    write_series(folder, hu, grid, **tags)
    return read_series(series_of(folder))[:, 0, 0]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, [-1024, -24, 976]),
        ({"RescaleSlope": "0.5"}, [-1024, -524, -24]),
        ({"RescaleSlope": "1.00000", "RescaleIntercept": "-1000.000"}, [-1000, 0, 1000]),
        ({"RescaleSlope": "0.25", "RescaleIntercept": "-100.5"}, [-100.5, 149.5, 399.5]),
        ({"RescaleIntercept": "-3024"}, [-1024, -1024, -1024]),  # below air
        ({"RescaleIntercept": "-24", "PixelPaddingValue": 0}, [-24, 976, 1976]),  # water is no padding
        ({"RescaleIntercept": "-900", "PixelPaddingValue": 0}, [-1024, 100, 1100]),
        ({"RescaleSlope": 4, "RescaleIntercept": 0, "PixelPaddingValue": 2000}, [0, 4000, -1024]),
        (
            {"RescaleSlope": 5, "RescaleIntercept": 0, "PixelPaddingValue": 2000, "PixelPaddingRangeLimit": 1000},
            [0, -1024, -1024],
        ),
        ({"BitsStored": 10, "HighBit": 9}, [-1024, -24, 976 - 1024]),  # what lies above the stored bits is not read
        ({"RescaleSlope": 30, "RescaleIntercept": 0}, [0, 30000, 60000]),
    ],
)
def test_stored_values_become_hu(tmp_path, tags, expected):
    values = first_voxel(tmp_path, **tags)
    np.testing.assert_array_equal(values, expected)
    exact = float(tags.get("RescaleSlope", 1)).is_integer() and max(expected) < 32768
    assert values.dtype == (np.int16 if exact else np.float32)


def test_slope_and_intercept_of_each_slice(tmp_path):
    def change(data, k):
        data.RescaleSlope, data.RescaleIntercept = k + 1, -1000 + k

    np.testing.assert_array_equal(first_voxel(tmp_path, change=change), [-1000, 1001, 5002])


@pytest.mark.parametrize("padding", [-2000, 63536])
def test_signed_padding_whatever_sign_it_is_written_with(tmp_path, padding):
    def change(data, k):
        data.PixelRepresentation, data.RescaleIntercept = 1, 1100  # -2000 is -900 HU: air by its being padding only
        data.PixelData = np.where(np.arange(20) == 0, -2000, 40 + k).astype("<i2").tobytes()
        data.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)

    grid = turned(np.eye(3), shape=(3, 4, 5))
    write_series(tmp_path, phantom(grid), grid, change=change)
    volume = read_series(series_of(tmp_path))
    assert volume[0, 0, 0] == -1024
    assert (volume[1:].reshape(2, -1)[:, 1:] == [[1141], [1142]]).all()


def test_modality_lookup_table(tmp_path):
    def change(data, k):
        lut = Dataset()
        lut.LUTDescriptor, lut.ModalityLUTType = [3, 999, 16], "HU"
        lut["LUTDescriptor"].VR = "US"
        lut.add_new("LUTData", "OW", np.array([5, 60, 700], "<u2").tobytes())
        data.ModalityLUTSequence = Sequence([lut])
        del data.RescaleSlope, data.RescaleIntercept, data.RescaleType

    # 0 lies before the first mapped value, 2000 behind the last
    np.testing.assert_array_equal(first_voxel(tmp_path, change=change), [5, 60, 700])


def test_slice_thickness_does_not_count(tmp_path):
    grid = GEOMETRIES["axial"]
    write_series(tmp_path, phantom(grid), grid, SliceThickness=7)
    assert series_of(tmp_path).grid.spacing_mm == pytest.approx(grid.spacing_mm)


def test_rounded_positions_are_no_gap(tmp_path):
    grid = turned(np.eye(3), spacing=(0.625, 0.8, 0.7))

    def change(data, k):
        data.ImagePositionPatient[2] = round(float(data.ImagePositionPatient[2]), 1)

    write_series(tmp_path, phantom(grid), grid, change=change)
    assert series_of(tmp_path).grid.spacing_mm[0] == pytest.approx(0.625, abs=0.02)


def test_missing_uids(tmp_path):
    grid = GEOMETRIES["axial"]
    for number, seed in ((1, 0), (2, 1)):
        missing = {"StudyInstanceUID": "", "SeriesInstanceUID": "", "SOPInstanceUID": None}
        files = {"names": lambda k, n=number: f"{n}-{k}", "SeriesNumber": number, "FrameOfReferenceUID": "1.5"}
        write_series(tmp_path, phantom(grid, seed), grid, **files, **missing)
    series = find_series(tmp_path).series
    assert [s.name for s in series] == ['"CT of a phantom" (number 1, no UID)', '"CT of a phantom" (number 2, no UID)']
    np.testing.assert_array_equal(read_series(series[1]), phantom(grid, 1))
    assert series[0].slices[0].sop_instance_uid  # the file's meta information has it


def test_what_is_there_twice_counts_once(tmp_path):
    grid = GEOMETRIES["axial"]
    write_series(tmp_path / "a", phantom(grid), grid)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    series = series_of(tmp_path)
    assert series.notes == ("7 slices occur twice with the same pixels: one of each is used",)
    assert {s.path.parent.name for s in series.slices} == {"a"}
    np.testing.assert_array_equal(read_series(series), phantom(grid))


def test_phases_of_one_series_are_told_apart(tmp_path):
    grid = GEOMETRIES["axial"]
    for phase in (1, 2, 3):
        write_series(tmp_path / str(phase), phantom(grid, phase), grid, SeriesInstanceUID="1.2", StudyInstanceUID="1",
                     FrameOfReferenceUID="3", AcquisitionNumber=phase)  # fmt: skip
    series = find_series(tmp_path).series
    assert [s.part for s in series] == [1, 2, 3]
    assert [s.name for s in series] == ["1.2 (part 1)", "1.2 (part 2)", "1.2 (part 3)"]
    for phase, one in enumerate(series, 1):
        np.testing.assert_array_equal(read_series(one), phantom(grid, phase))


def test_mixed_orientations_are_series_of_their_own(tmp_path):
    for name in ("axial", "coronal"):
        grid = GEOMETRIES[name]
        write_series(
            tmp_path / name, phantom(grid), grid, SeriesInstanceUID="1.2", StudyInstanceUID="1", FrameOfReferenceUID="3"
        )
    series = find_series(tmp_path).series
    assert len(series) == 2
    for one in series:
        np.testing.assert_array_equal(read_series(one), phantom(one.grid))


def test_sizes_are_series_of_their_own(tmp_path):
    for rows in (9, 10):
        grid = turned(np.eye(3), shape=(5, rows, 6))
        tags = {"SeriesInstanceUID": "1.2", "StudyInstanceUID": "1", "FrameOfReferenceUID": "3"}
        write_series(tmp_path / str(rows), phantom(grid), grid, **tags)
    assert sorted(s.grid.shape for s in find_series(tmp_path).series) == [(5, 9, 6), (5, 10, 6)]


def test_links_in_a_circle_give_every_file_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "other").symlink_to(tmp_path / "a", target_is_directory=True)
    assert [path.name for path in files_under(tmp_path)] == ["file"]


def plane_wave(points: np.ndarray) -> np.ndarray:
    """HU that a linear interpolation gives back exactly."""
    return np.rint(3 * (points @ np.array([3.0, 2.0, -5.0])))


@pytest.mark.parametrize("tilt", [20.0, -12.0])
@pytest.mark.parametrize("geometry", ["axial", "oblique 15 degrees"])
def test_gantry_tilt_is_straightened(tmp_path, geometry, tilt):
    grid = turned(np.array(GEOMETRIES[geometry].direction).reshape(3, 3).T,
                  spacing=(2.0, 0.5, 0.7), origin=(-5.0, -6.0, 2.0), shape=(12, 40, 30))  # fmt: skip
    direction = np.array(grid.direction).reshape(3, 3)
    lean = np.tan(np.radians(tilt)) * 2.0
    points = centres(grid) + np.arange(12)[:, None, None, None] * lean * direction[:, 1]

    def change(data, k):
        data.ImagePositionPatient = [format_number_as_ds(float(v)) for v in points[k, 0, 0]]

    write_series(tmp_path, plane_wave(points), grid, change=change)
    assert find_series(tmp_path).series == ()
    series = series_of(tmp_path, straighten=True)
    volume = read_series(series)
    assert series.straightened
    assert series.grid.shape[0] == 12
    assert series.grid.shape[1] == 40 + np.ceil(11 * abs(lean) / 0.5)
    seen = volume != -1024
    truth = plane_wave(centres(series.grid))
    assert np.abs(volume - truth)[seen].max() < 1.01  # stored HU are rounded
    assert seen.sum() >= 0.98 * 12 * 39 * 30


def test_zip(tmp_path):
    grid = GEOMETRIES["axial"]
    write_series(tmp_path / "a", phantom(grid), grid)
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (tmp_path / "a").iterdir():
            archive.write(file, f"deep/er/{file.name}")
    np.testing.assert_array_equal(read_series(series_of(tmp_path / "scan.zip")), phantom(grid))
    with unpacked_tree(tmp_path / "scan.zip") as folder:
        series = series_of(folder)
        np.testing.assert_array_equal(read_series(series), phantom(grid))
    assert not folder.exists()


def test_a_big_tree_is_looked_through_fast(tmp_path):
    grid = turned(np.eye(3), shape=(50, 4, 4))
    for k in range(4):
        write_series(tmp_path / str(k), phantom(grid), grid)
    find_series(tmp_path)
    start = time.perf_counter()
    assert len(find_series(tmp_path).series) == 4
    assert (time.perf_counter() - start) / 200 < 0.01  # 1 ms a file; ten times that on a loaded machine
