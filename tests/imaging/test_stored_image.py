from __future__ import annotations

import gzip
import shutil
import struct

import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.loadsave import save
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image

from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_grid, read_mask, read_volume, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.stored_image import nifti_notes
from tests.imaging.test_image_files import GRID, nifti, one_line

PLAIN = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 2000, GRID.shape).astype(np.int16)


def changed(content: bytes, place: int, form: str, *values: float) -> bytes:
    return content[:place] + struct.pack(form, *values) + content[place + struct.calcsize(form) :]


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_metadata_that_came_with_a_nifti_says_nothing_about_the_file(tmp_path, kind, packed, suffix):
    voxels = np.random.default_rng(1).normal(40, 30, (5, 6, 7)).clip(0, 200).astype(kind)
    write_volume(tmp_path / "a.nii.gz", voxels, Grid((5, 6, 7), (3, 1, 1), (-5, 7, 30)))
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    sitk.WriteImage(image, str(tmp_path / f"b{suffix}"), useCompression=packed)

    again, grid = read_volume(tmp_path / f"b{suffix}")

    np.testing.assert_array_equal(again, voxels)
    assert grid.difference(Grid((5, 6, 7), (3, 1, 1), (-5, 7, 30))) is None


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_the_first_volume_of_a_time_series_is_a_volume(tmp_path, volume, suffix):
    four = sitk.JoinSeries([sitk.GetImageFromArray(volume)] * 3)
    sitk.WriteImage(four, str(tmp_path / "four.nii.gz"))
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(tmp_path / "four.nii.gz"))
    reader.ReadImageInformation()
    reader.SetExtractSize([*reader.GetSize()[:3], 0])
    sitk.WriteImage(reader.Execute(), str(tmp_path / f"first{suffix}"))

    np.testing.assert_array_equal(read_volume(tmp_path / f"first{suffix}")[0], volume)


FORMS = ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"]


@pytest.mark.parametrize("written", FORMS)
@pytest.mark.parametrize("named", FORMS)
def test_the_first_bytes_say_what_a_file_is(tmp_path, volume, written, named):
    write_volume(tmp_path / written, volume, GRID)
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / written, tmp_path / "other" / named)

    again, grid = read_volume(tmp_path / "other" / named)

    np.testing.assert_array_equal(again, volume)
    assert grid == read_grid(tmp_path / written)


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_2_is_read_as_nifti_1_is(tmp_path, kind, order, suffix):
    voxels = np.random.default_rng(2).integers(0, 200, (6, 5, 4)).astype(kind)
    matrix = np.array([[0, -0.7, 0, 10], [0.8, 0, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]], float)
    for form, name in ((Nifti1Image, "one"), (Nifti2Image, "two")):
        image = form(voxels, matrix)
        image.header.set_xyzt_units("mm")
        header = image.header.as_byteswapped(order)
        save(form(voxels.astype(np.dtype(kind).newbyteorder(order)), matrix, header), tmp_path / f"{name}{suffix}")

    one, two = read_volume(tmp_path / f"one{suffix}"), read_volume(tmp_path / f"two{suffix}")

    np.testing.assert_array_equal(two[0], voxels.T)
    np.testing.assert_array_equal(one[0], two[0])
    assert two[0].dtype == one[0].dtype == np.dtype(kind)
    assert two[1].difference(one[1]) is None
    assert read_grid(tmp_path / f"two{suffix}") == two[1]


def test_nan_of_a_nifti_2_is_kept_and_one_cut_short_is_refused(tmp_path):
    voxels = np.full((4, 5, 6), np.nan, np.float32)
    save(Nifti2Image(voxels, np.eye(4)), tmp_path / "a.nii")
    assert np.isnan(read_volume(tmp_path / "a.nii")[0]).all()

    (tmp_path / "a.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:-10])
    with pytest.raises(DataError, match="cut short"):
        read_volume(tmp_path / "a.nii")


@pytest.mark.parametrize("steps", [(0, 0, 0), (1, 0, 1), (1, 1, -2), (1, float("nan"), 1), (float("inf"), 1, 1)])
@pytest.mark.parametrize("codes", [(0, 0), (0, 1), (1, 1)])
def test_a_nifti_without_a_spacing_is_refused(tmp_path, steps, codes):
    content = nifti("<", 4, np.arange(24, dtype=np.int16), PLAIN)
    content = changed(changed(content, 80, "<3f", *steps), 252, "<2h", *codes)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))

    for read in (read_volume, read_mask, read_grid):
        with pytest.raises(DataError, match="states a spacing of") as error:
            read(tmp_path / "a.nii.gz")
        assert "Export it again" in one_line(error)


@pytest.mark.parametrize("rows", [(2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0), (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1.02, 0)])
def test_a_nifti_with_two_spacings_is_refused(tmp_path, rows):
    (tmp_path / "a.nii").write_bytes(nifti("<", 4, np.arange(24, dtype=np.int16), rows))

    with pytest.raises(DataError, match=r"by pixdim and .* by its sform") as error:
        read_volume(tmp_path / "a.nii")

    assert "1 x 1 x 1" in one_line(error)


def test_a_spacing_that_differs_by_rounding_is_read(tmp_path):
    rows = (1.0004, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    (tmp_path / "a.nii").write_bytes(nifti("<", 4, np.arange(24, dtype=np.int16), rows))

    assert read_grid(tmp_path / "a.nii").spacing_mm == (1, 1, 1)


@pytest.mark.parametrize(("qform", "sform"), [(q, s) for q in (1, 2, 3) for s in (1, 2, 3)])
def test_the_form_that_is_named_is_the_one_that_is_read(tmp_path, qform, sform):
    content = nifti("<", 4, np.arange(24, dtype=np.int16), (1, 0, 0, 30, 0, 1, 0, 0, 0, 0, 1, 0))
    (tmp_path / "a.nii").write_bytes(changed(content, 252, "<2h", qform, sform))

    (note,) = nifti_notes(tmp_path / "a.nii")

    read = read_grid(tmp_path / "a.nii").origin_mm[0]
    assert read == sitk.ReadImage(str(tmp_path / "a.nii")).GetOrigin()[0]
    assert f"the {'sform' if read == -30 else 'qform'} is taken" in note
    assert "differ by 30.0 mm" in note


def test_forms_that_agree_have_no_note(tmp_path, volume):
    for name in ("a.nii.gz", "a.nrrd"):
        write_volume(tmp_path / name, volume, GRID)
        assert nifti_notes(tmp_path / name) == ()
    assert nifti_notes(tmp_path / "absent.nii") == ()


def pointed(folder, suffix: str, stated: str) -> str:
    """The header of 2x3x4 bytes that lie in another file."""
    if suffix == ".nrrd":
        return f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nencoding: raw\ndata file: {stated}\n"
    return f"ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_UCHAR\nElementDataFile = {stated}\n"


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_voxels_beside_their_header_are_read(tmp_path, suffix):
    (tmp_path / "a.raw").write_bytes(bytes(range(24)))
    (tmp_path / f"a{suffix}").write_text(pointed(tmp_path, suffix, "a.raw"))

    assert read_volume(tmp_path / f"a{suffix}")[0].ravel().tolist() == list(range(24))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
@pytest.mark.parametrize("how", ["absolute", "above", "link", "list", "pattern"])
def test_voxels_elsewhere_are_never_read(tmp_path, suffix, how):
    secret, data = tmp_path / "secret.raw", tmp_path / "data"
    secret.write_bytes(bytes(range(24)))
    data.mkdir()
    (data / "link.raw").symlink_to(secret)
    stated = {
        "absolute": str(secret),
        "above": "../secret.raw",
        "link": "link.raw",
        "list": f"LIST\n{secret}",
        "pattern": "../secret.%d 1 1 1",
    }[how]
    (data / f"a{suffix}").write_text(pointed(data, suffix, stated))

    for read in (read_volume, read_grid):
        with pytest.raises(DataError, match="points to voxels elsewhere") as error:
            read(data / f"a{suffix}")
        assert "in one file" in one_line(error)


@pytest.mark.parametrize("noise", [9.9e-4, -9e-4, 1e-5])
def test_labels_near_whole_numbers_are_labels(tmp_path, noise):
    values = np.random.default_rng(3).integers(0, 5, GRID.shape)
    write_volume(tmp_path / "m.nii.gz", (values + noise).astype(np.float64), GRID)

    np.testing.assert_array_equal(read_mask(tmp_path / "m.nii.gz")[0], values)


def test_labels_farther_from_whole_numbers_are_refused(tmp_path):
    write_volume(tmp_path / "m.nii.gz", np.full(GRID.shape, 1.002), GRID)

    with pytest.raises(DataError, match=r"it holds 1\.002"):
        read_mask(tmp_path / "m.nii.gz")
