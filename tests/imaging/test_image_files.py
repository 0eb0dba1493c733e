from __future__ import annotations

import math
import struct

import numpy as np
import pytest
import SimpleITK as sitk

from lnsegfm.errors import DataError
from lnsegfm.imaging.files import (
    IMAGE_ENDINGS,
    ending,
    image_files,
    read_grid,
    read_mask,
    read_volume,
    stem,
    write_mask,
    write_volume,
)
from lnsegfm.imaging.grid import Grid

TURNED = (math.cos(0.3), -math.sin(0.3), 0.0, math.sin(0.3), math.cos(0.3), 0.0, 0.0, 0.0, 1.0)
GRID = Grid((6, 8, 10), (2.5, 0.75, 0.5), (-100.0, -90.5, 12.25), TURNED)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 2000, GRID.shape).astype(np.int16)


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("name", "found", "rest"),
    [
        ("a.nii.gz", ".nii.gz", "a"),
        ("x/b.c_0000.NII.GZ", ".nii.gz", "b.c_0000"),
        ("a.nii", ".nii", "a"),
        ("a.nrrd", ".nrrd", "a"),
        ("a.mha", ".mha", "a"),
        ("a.json", None, "a.json"),
        (".nii.gz", None, ".nii.gz"),
    ],
)
def test_endings_and_stems(name, found, rest):
    assert ending(name) == found
    assert stem(name) == rest


@pytest.mark.parametrize("suffix", IMAGE_ENDINGS)
def test_what_is_written_is_read_again(tmp_path, volume, suffix):
    write_volume(tmp_path / f"a{suffix}", volume, GRID)

    voxels, grid = read_volume(tmp_path / f"a{suffix}")

    assert voxels.dtype == np.int16
    np.testing.assert_array_equal(voxels, volume)
    assert grid.difference(GRID) is None
    assert read_grid(tmp_path / f"a{suffix}") == grid


@pytest.mark.parametrize("suffix", IMAGE_ENDINGS)
def test_geometry_is_what_simpleitk_says_of_the_same_point(tmp_path, volume, suffix):
    write_volume(tmp_path / f"a{suffix}", volume, GRID)
    image = sitk.ReadImage(str(tmp_path / f"a{suffix}"))

    x, y, z = (9, 7, 5)
    assert image.GetPixel(x, y, z) == volume[z, y, x]
    along = np.array([x, y, z]) * np.array(GRID.spacing_mm[::-1])
    expected = np.array(GRID.origin_mm) + np.array(GRID.direction).reshape(3, 3) @ along
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((x, y, z)), expected, atol=1e-3)


@pytest.mark.parametrize(("highest", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.uint16)])
def test_a_mask_takes_the_smallest_type(tmp_path, highest, dtype):
    mask = np.zeros(GRID.shape, dtype=np.int64)
    mask[2, 3, 4] = highest
    write_mask(tmp_path / "deep" / "m.nii.gz", mask, GRID)

    again, _ = read_mask(tmp_path / "deep" / "m.nii.gz")

    assert again.dtype == dtype
    np.testing.assert_array_equal(again, mask)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["m.nii.gz"]


def test_a_boolean_mask_is_written_as_ones(tmp_path):
    write_mask(tmp_path / "m.nrrd", np.ones(GRID.shape, dtype=bool), GRID)

    assert set(np.unique(read_mask(tmp_path / "m.nrrd")[0])) == {1}


def test_equal_masks_give_equal_bytes(tmp_path, volume):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_mask(tmp_path / name, volume > 0, GRID)

    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_whole_floats_are_a_mask(tmp_path):
    write_volume(tmp_path / "m.nii.gz", np.full(GRID.shape, 3.0, dtype=np.float32), GRID)

    mask, _ = read_mask(tmp_path / "m.nii.gz")

    assert np.issubdtype(mask.dtype, np.integer)
    assert np.unique(mask).tolist() == [3]


@pytest.mark.parametrize("odd", [0.5, float("nan"), float("inf"), 1e12])
def test_a_mask_with_other_numbers_is_refused(tmp_path, odd):
    values = np.zeros(GRID.shape, dtype=np.float32)
    values[1, 2, 3] = odd
    write_volume(tmp_path / "m.nii.gz", values, GRID)

    with pytest.raises(DataError, match="whole numbers") as error:
        read_mask(tmp_path / "m.nii.gz")

    assert f"{odd:g}" in one_line(error)
    assert "m.nii.gz" in one_line(error)


@pytest.mark.parametrize("suffix", IMAGE_ENDINGS)
@pytest.mark.parametrize("kept", [0.9, 0.5, 0.0])
def test_a_file_cut_short_is_refused(tmp_path, volume, suffix, kept):
    path = tmp_path / f"a{suffix}"
    write_volume(path, volume, GRID)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])

    with pytest.raises(DataError, match="cut short") as error:
        read_volume(path)

    assert path.name in one_line(error)


def test_a_nifti_that_lacks_its_last_bytes_is_refused(tmp_path, volume):
    write_volume(tmp_path / "a.nii.gz", volume, GRID)
    content = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(content[:-6])

    with pytest.raises(DataError, match="cut short"):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("suffix", IMAGE_ENDINGS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_nan_and_infinity_are_read_as_they_are(tmp_path, suffix, kind):
    voxels = np.random.default_rng(0).normal(size=(40, 70, 60)).astype(kind)  # more than one chunk
    voxels[2, 3, 4], voxels[0, 0, 0], voxels[-1, -1, -1] = np.nan, np.inf, -np.inf
    write_volume(tmp_path / f"a{suffix}", voxels, Grid(voxels.shape, (1, 1, 1)))

    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}")[0], voxels)


def nifti(order: str, kind: int, voxels: np.ndarray, rows: tuple[float, ...]) -> bytes:
    """The bytes of a NIfTI of 2x3x4 voxels with an sform, put together by the standard's table of offsets."""
    content = bytearray(352)
    content[:4] = struct.pack(f"{order}i", 348)
    content[40:56] = struct.pack(f"{order}8h", 3, 2, 3, 4, 1, 1, 1, 1)
    content[70:74] = struct.pack(f"{order}2h", kind, 8 * voxels.itemsize)
    content[76:108] = struct.pack(f"{order}8f", *[1.0] * 8)
    content[108:112] = struct.pack(f"{order}f", 352)
    content[252:256] = struct.pack(f"{order}2h", 0, 1)
    content[280:328] = struct.pack(f"{order}12f", *rows)
    content[344:348] = b"n+1\0"
    return bytes(content) + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_nan_is_found_in_either_byte_order(tmp_path, order):
    voxels = np.array([*range(23), np.nan], dtype=np.float32)
    (tmp_path / "a.nii").write_bytes(nifti(order, 16, voxels, (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)))

    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii")[0].ravel(), voxels)


def test_a_sheared_grid_is_refused(tmp_path):
    voxels = np.zeros(24, dtype=np.int16)
    (tmp_path / "a.nii").write_bytes(nifti("<", 4, voxels, (1, 0.3, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)))

    with pytest.raises(DataError, match="axes are not at right angles") as error:
        read_volume(tmp_path / "a.nii")

    assert "Resample" in one_line(error)
    assert "--fix straighten" in one_line(error)


@pytest.mark.parametrize("suffix", IMAGE_ENDINGS)
def test_a_text_file_is_no_image(tmp_path, suffix):
    (tmp_path / f"a{suffix}").write_text("Dear colleague,")

    for read in (read_volume, read_mask, read_grid):
        with pytest.raises(DataError, match="unreadable") as error:
            read(tmp_path / f"a{suffix}")
        assert f"a{suffix}" in one_line(error)


def test_a_missing_file_and_another_ending_are_named(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_volume(tmp_path / "a.nii.gz")
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"Save it as one of \.nii\.gz"):
        read_volume(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", IMAGE_ENDINGS)
@pytest.mark.parametrize("singles", [1, 2])
def test_axes_of_length_one_behind_the_third_are_dropped(tmp_path, volume, suffix, singles):
    write_volume(tmp_path / "b.nrrd", volume, GRID)
    image = sitk.ReadImage(str(tmp_path / "b.nrrd"))
    for _ in range(singles):
        image = sitk.JoinSeries([image])
    sitk.WriteImage(image, str(tmp_path / f"a{suffix}"))

    voxels, grid = read_volume(tmp_path / f"a{suffix}")

    np.testing.assert_array_equal(voxels, volume)
    assert grid.difference(GRID) is None
    assert read_grid(tmp_path / f"a{suffix}") == grid


def test_a_time_series_is_refused(tmp_path):
    sitk.WriteImage(sitk.JoinSeries([sitk.Image([5, 6, 7], sitk.sitkInt16)] * 2), str(tmp_path / "a.nii.gz"))

    with pytest.raises(DataError, match=r"it is 4D \(5x6x7x2\)"):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("suffix", IMAGE_ENDINGS)
def test_a_slice_is_refused(tmp_path, suffix):
    sitk.WriteImage(sitk.Image([5, 6], sitk.sitkInt16), str(tmp_path / f"a{suffix}"))

    with pytest.raises(DataError, match=r"2D \(5x6\).*3D volume"):
        read_volume(tmp_path / f"a{suffix}")


def test_a_colour_image_is_refused(tmp_path):
    sitk.WriteImage(sitk.Image([5, 6, 7], sitk.sitkVectorUInt8, 3), str(tmp_path / "a.nrrd"))

    with pytest.raises(DataError, match="3 numbers per voxel"):
        read_volume(tmp_path / "a.nrrd")


def test_what_cannot_be_written_is_refused(tmp_path, volume):
    with pytest.raises(DataError, match="no image ending"):
        write_volume(tmp_path / "a.png", volume, GRID)
    with pytest.raises(DataError, match="do not fill"):
        write_volume(tmp_path / "a.nrrd", volume[1:], GRID)
    with pytest.raises(DataError, match="whole numbers"):
        write_mask(tmp_path / "a.nrrd", volume.astype(float), GRID)
    with pytest.raises(DataError, match="do not fit"):
        write_mask(tmp_path / "a.nrrd", volume, GRID)
    assert list(tmp_path.iterdir()) == []


def test_hidden_files_are_no_images(tmp_path, volume):
    write_volume(tmp_path / "a.nii.gz", volume, GRID)
    for name in ("._a.nii.gz", ".partial-12-a.nii.gz", "a.json"):
        (tmp_path / name).write_bytes(b"")

    assert [p.name for p in image_files(tmp_path)] == ["a.nii.gz"]
