"""Series of uneven slice distances, resampled on purpose: HU between slices, masks on the slices themselves."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from lnsegfm.imaging.dicom.annotation import read_annotation
from lnsegfm.imaging.dicom.annotation_masks import annotation_mask
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import Series, find_series, read_series, series_of
from lnsegfm.imaging.dicom.uneven_stack import (
    mask_on_planes,
    mask_on_slices,
    nearest_slices,
    planes_of_slices,
    slice_heights_mm,
)
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series
from tests.imaging.dicom.test_series import GEOMETRIES, centres, phantom

HEIGHTS = {
    "a slice is missing": [0, 3, 6, 12, 15, 18],
    "two distances": [0, 1, 2, 3, 4, 5, 10, 15, 20],
    "every distance another": [0, 2, 4.5, 7.7, 9.8, 13.8, 16],
    "a thin step": [0, 3, 6, 9, 9.4, 12.4, 15.4, 18.4, 21.4, 24.4, 27.4, 30.4, 33.4],
}


def uneven(folder: Path, heights, geometry="axial", hu=None, lean=0.0) -> np.ndarray:
    """Slices at these heights over the geometry's first; gives the LPS of their voxel centres (n, y, x, 3)."""
    base = GEOMETRIES[geometry]
    grid = Grid((len(heights), *base.shape[1:]), base.spacing_mm, base.origin_mm, base.direction)
    direction = np.array(grid.direction).reshape(3, 3)
    normal = np.cross(direction[:, 0], direction[:, 1])
    flat = centres(Grid((1, *grid.shape[1:]), grid.spacing_mm, grid.origin_mm, grid.direction))[0]
    points = np.stack([flat + normal * h + direction[:, 1] * lean * h for h in heights])
    values = phantom(grid) if hu is None else hu(points)

    def change(data: Dataset, k: int) -> None:
        data.ImagePositionPatient = [format_number_as_ds(float(v)) for v in points[k, 0, 0]]

    write_series(folder, np.rint(values).astype(int), grid, change=change, SeriesInstanceUID="1.2.3")
    return points


def slanted(points: np.ndarray) -> np.ndarray:
    """HU that linear interpolation gives back, but for the rounding of stored values."""
    return points @ np.array([3.0, 2.0, -5.0]) - 500


@pytest.mark.parametrize("heights", HEIGHTS)
def test_it_is_refused_unless_asked_for(tmp_path, heights):
    uneven(tmp_path, HEIGHTS[heights])
    (refusal,) = find_series(tmp_path).refused
    assert str(refusal).endswith("or have it resampled on purpose: --resample-uneven.")
    series = series_of(tmp_path, resample_uneven=True)
    assert series.uneven
    assert len(series.slices) == len(HEIGHTS[heights])
    assert "interpolated onto" in series.notes[0]


@pytest.mark.parametrize("geometry", ["axial", "sagittal", "oblique 15 degrees", "feet first, written downwards"])
@pytest.mark.parametrize("heights", HEIGHTS)
def test_hu_are_those_of_the_volume(tmp_path, geometry, heights):
    uneven(tmp_path, HEIGHTS[heights], geometry, slanted)
    series = series_of(tmp_path, resample_uneven=True)
    volume = read_series(series)
    assert volume.shape == series.grid.shape
    assert np.abs(volume - slanted(centres(series.grid))).max() < 0.51
    first, last = centres(series.grid)[0, 0, 0], centres(series.grid)[-1, 0, 0]
    np.testing.assert_allclose([first, last], [series.slices[k].position_mm for k in (0, -1)], atol=1e-6)
    assert series.grid.spacing_mm[0] <= np.diff(HEIGHTS[heights]).max()


@pytest.mark.parametrize("heights", HEIGHTS)
def test_simpleitk_interpolates_the_same_between_each_two_slices(tmp_path, heights):
    uneven(tmp_path, HEIGHTS[heights])
    series = series_of(tmp_path, resample_uneven=True)
    volume, at = read_series(series), slice_heights_mm(series)
    places = np.arange(series.grid.shape[0]) * series.grid.spacing_mm[0]
    seen = 0
    for k, (low, high) in enumerate(pairwise(at)):
        pair = np.stack([dcmread(series.slices[n].path).pixel_array - 1024.0 for n in (k, k + 1)])
        image = sitk.GetImageFromArray(pair)
        image.SetSpacing((1, 1, float(high - low)))
        image.SetOrigin((0, 0, float(low)))
        for plane in np.flatnonzero((places >= low - 1e-6) & (places <= high + 1e-6)):
            to = sitk.Image(*image.GetSize()[:2], 1, sitk.sitkFloat64)
            to.SetOrigin((0, 0, float(np.clip(places[plane], low, high))))
            there = sitk.GetArrayFromImage(sitk.Resample(image, to, sitk.Transform(), sitk.sitkLinear, -9999.0))
            np.testing.assert_allclose(volume[plane], there[0], atol=1e-2)
            seen += 1
    assert seen >= series.grid.shape[0]


def test_sheared_and_uneven_at_once(tmp_path):
    uneven(tmp_path, HEIGHTS["a slice is missing"], hu=slanted, lean=0.3)
    assert find_series(tmp_path, resample_uneven=True).series == ()
    series = series_of(tmp_path, resample_uneven=True, straighten=True)
    volume = read_series(series)
    inside = volume != -1024
    near_air = np.abs(volume - slanted(centres(series.grid))) > 0.6  # planes between slices mix with what lies outside
    assert inside.mean() > 0.5
    assert (near_air & inside).mean() < 0.25
    on_slices = [0, 1, 2, 4, 5, 6]
    assert not (near_air & inside)[on_slices].any()


steps = st.lists(st.integers(4, 60).map(lambda tenths: tenths / 10), min_size=2, max_size=24)


def stacked(gaps: list[float]) -> Series:
    """A series object with these gaps, without files."""
    from lnsegfm.imaging.dicom.series import Slice
    from lnsegfm.imaging.dicom.uneven_stack import even_planes

    heights = np.concatenate([[0.0], np.cumsum(gaps)])
    planes, step = even_planes(heights)
    slices = tuple(Slice(Path("a"), None, str(k), "1", (0.0, 0.0, float(h))) for k, h in enumerate(heights))
    return Series(
        uid="1", study_uid="1", frame_of_reference_uid="1", modality="CT", description="", number=1, patient_id="",
        slices=slices, grid=Grid((planes, 3, 3), (step, 1, 1)), uneven=True,
    )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(gaps=steps, seed=st.integers(0, 99))
def test_a_mask_of_the_slices_comes_back_wherever_each_has_a_plane(gaps, seed):
    series = stacked(gaps)
    mask = np.random.default_rng(seed).integers(0, 3, (len(series.slices), 3, 3)).astype(np.uint8)
    again = mask_on_slices(mask_on_planes(mask, series), series)
    with_plane = np.isin(np.arange(len(mask)), nearest_slices(series))
    np.testing.assert_array_equal(again[with_plane], mask[with_plane])
    if len(gaps) <= 10:  # the grid's distance is the smallest step then
        assert with_plane.all()
    assert (np.diff(planes_of_slices(series)) >= 0).all()


@pytest.mark.parametrize("kind", ["rtstruct", "seg"])
@pytest.mark.parametrize("geometry", ["axial", "oblique 15 degrees"])
@pytest.mark.parametrize("heights", ["a slice is missing", "two distances", "every distance another"])
def test_exports_lie_on_the_slices_and_come_back(tmp_path, heights, geometry, kind):
    points = uneven(tmp_path / "ct", HEIGHTS[heights], geometry)
    series = series_of(tmp_path / "ct", resample_uneven=True)
    mask = np.random.default_rng(3).integers(0, 2, (len(series.slices), *series.grid.shape[1:])).astype(np.uint8)
    on_grid, path = mask_on_planes(mask, series), tmp_path / "out.dcm"
    if kind == "rtstruct":
        write_rtstruct(path, on_grid, {"background": 0, "ln": 1}, series)
        drawn = {}
        for contour in read_rtstruct(path).rois[0].contours:
            k = int(np.abs((points[:, 0, 0] - contour.points_mm[0]) @ normal_of(series)).argmin())
            assert np.abs((contour.points_mm - points[k, 0, 0]) @ normal_of(series)).max() < 1e-5
            drawn.setdefault(k, []).append(contour)
        assert set(drawn) == set(np.flatnonzero(mask.any(axis=(1, 2))))
        named = {item.ContourImageSequence[0].ReferencedSOPInstanceUID
                 for item in dcmread(path).ROIContourSequence[0].ContourSequence}  # fmt: skip
        assert named == {series.slices[k].sop_instance_uid for k in drawn}
    else:
        write_seg(path, on_grid, {"background": 0, "ln": 1}, series)
        seg = read_seg(path)
        at = np.array([frame.plane.position_mm for frame in seg.frames])
        ours = points[np.flatnonzero(mask.any(axis=(1, 2))), 0, 0]
        np.testing.assert_allclose(sorted(at.tolist()), sorted(ours.tolist()), atol=1e-5)
        assert seg.slice_distance_mm is None
    again = annotation_mask(read_annotation(path), series, ["ln=ln"], {"ln": 1})
    np.testing.assert_array_equal(again, on_grid)
    np.testing.assert_array_equal(mask_on_slices(again, series), mask)


def normal_of(series: Series) -> np.ndarray:
    return np.array(series.grid.direction).reshape(3, 3)[:, 2]


def test_too_wide_a_gap_is_not_filled(tmp_path):
    uneven(tmp_path, [0, 3, 6, 9, 45, 48, 51])
    (refusal,) = find_series(tmp_path, resample_uneven=True).refused
    assert "has a gap of 36 mm, more than 10 times the 3 mm of its other slices" in str(refusal)


def test_an_even_series_is_left_as_it_is(tmp_path):
    uneven(tmp_path, [0, 3, 6, 9])
    assert series_of(tmp_path, resample_uneven=True) == series_of(tmp_path)
