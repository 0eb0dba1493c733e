"""Real series: TCIA 4D-Lung and Soft-tissue-Sarcoma, TotalSegmentator's awkward one, dcmqi's padded one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lnsegfm.imaging.dicom.series import find_series, read_series, series_of
from lnsegfm.imaging.files import read_grid, read_volume
from lnsegfm.imaging.grid import Grid

pytestmark = pytest.mark.realdata


def gdcm(folder: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def test_lung4d(real_data):
    found = find_series(real_data / "lung4d_113")
    (series,) = found.series
    assert (len(series.slices), found.refused, len(found.structures)) == (99, (), 1)
    assert series.grid.difference(Grid((99, 512, 512), (3, 0.9766, 0.9766), (-250, -163.019, -1132))) is None
    volume = read_series(series)
    np.testing.assert_array_equal(volume, sitk.GetArrayFromImage(gdcm(real_data / "lung4d_113" / "ct")))
    assert series.grid.difference(read_grid(real_data / "lung4d_113" / "label_full.nii.gz")) is None


def test_sts_is_its_nifti(real_data):
    series = series_of(real_data / "sts_019")
    expected, grid = read_volume(real_data / "sts_019" / "CT_image.nii.gz")
    assert series.grid.difference(grid) is None
    np.testing.assert_array_equal(read_series(series), expected)


def test_jpeg_2000_without_uid_and_with_a_wrong_thickness(real_data):
    series = series_of(real_data / "totalsegmentator" / "example_ct_dicom")
    assert (series.uid, series.name) == ("", '"CT Body 3.0" (without number, no UID)')
    assert (series.grid.shape, series.grid.spacing_mm[0]) == ((20, 512, 512), 2.0)  # SliceThickness says 3
    image = gdcm(real_data / "totalsegmentator" / "example_ct_dicom")
    np.testing.assert_array_equal(read_series(series), sitk.GetArrayFromImage(image))
    masked = read_grid(real_data / "totalsegmentator" / "example_seg_dicom.nii.gz")
    assert masked.shape == series.grid.shape
    assert masked.spacing_mm == pytest.approx(series.grid.spacing_mm)
    # the same voxels, with rows counted from the other end
    x, y, z = series.grid.origin_mm
    assert masked.origin_mm == pytest.approx((x, y + 511 * series.grid.spacing_mm[1], z))
    assert np.diag(np.reshape(masked.direction, (3, 3))) == pytest.approx((1, -1, 1))


def test_padding_is_air(real_data):
    folder = real_data / "dcmqi" / "ct-3slice"
    series = series_of(folder)
    raw = sitk.GetArrayFromImage(gdcm(folder))
    assert raw.min() == -3024
    np.testing.assert_array_equal(read_series(series), raw.clip(-1024))


def test_all_of_it_at_once(real_data):
    found = find_series(real_data)
    assert [len(s.slices) for s in found.series] == [20, 3, 47, 99]
    assert (found.refused, len(found.structures), len(found.segmentations)) == ((), 2, 2)
