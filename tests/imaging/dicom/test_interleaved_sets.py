"""Two scans that interleave to one even stack, where only their pixels show that they are two."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from lnsegfm.imaging.dicom.series import find_series, read_series
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

COUNT, STEP = 9, 3.0
UIDS = {"SeriesInstanceUID": "1.1", "StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.3"}
SIZE = (12, 14)


def body(heights: np.ndarray, brighter: int = 0, seed: int = 0) -> np.ndarray:
    """HU that change along the normal, with noise; a second scan may be brighter."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    noise = np.random.default_rng(seed).normal(0, 5, (len(heights), *SIZE))
    return np.rint(3 * x + 5 * y + 4 * heights[:, None, None] + brighter + noise).astype(int)


def per_slice(number: int, backwards: bool):
    """A time for each slice, of the second pass later, and from the other end if it is so."""

    def change(data, k):
        data.AcquisitionTime = f"10{number}0{COUNT - 1 - k if backwards and number else k:02d}"

    return change


HOW = {
    "a time for each pass": lambda n: {"AcquisitionTime": f"10100{n}", "AcquisitionNumber": None},
    "times of each slice": lambda n: {"change": per_slice(n, backwards=False), "AcquisitionNumber": None},
    "times of each slice, back": lambda n: {"change": per_slice(n, backwards=True)},
    "instance numbers": lambda n: {"order": range(100 * n, 100 * n + COUNT)},
    "numbers of each slice": lambda n: {"change": lambda d, k: setattr(d, "AcquisitionNumber", 100 * n + k)},
    "SliceThickness": lambda n: {"SliceThickness": 3 + 2 * n, "order": [1] * COUNT},
    "ImageType": lambda n: {"ImageType": [("ORIGINAL", "DERIVED")[n], "PRIMARY", "AXIAL"], "order": [1] * COUNT},
    "ContrastBolusAgent": lambda n: {"ContrastBolusAgent": ["", "Agent"][n], "order": [1] * COUNT},
    "a time for each rotation": lambda n: {"change": lambda d, k: setattr(d, "AcquisitionTime", f"10{n}0{k // 3:02d}")},
}


def write(folder, how, brighter, lacks=None, share=0.5):
    scans = []
    for n in range(2):
        heights = STEP * np.arange(COUNT) + n * STEP * share
        scans.append(body(heights, brighter * n, seed=n))
        grid = Grid((COUNT, *SIZE), (STEP, 1.0, 1.0), (0.0, 0.0, float(heights[0])))
        options = {"order": [1] * COUNT, **HOW[how](n)}
        files = write_series(folder, scans[n], grid, names=lambda k, n=n: f"{n}-{k}", **options, **UIDS)
        if lacks is not None and n:
            files[lacks].unlink()
    return scans


@pytest.mark.parametrize("how", HOW)
def test_they_are_read_as_two(tmp_path, how):
    scans = write(tmp_path, how, 60)
    found = find_series(tmp_path)
    assert found.refused == ()
    assert len(found.series) == 2
    for series in found.series:
        number = int(series.grid.origin_mm[2] > 0)
        assert np.array_equal(read_series(series), scans[number])
        image = sitk.ReadImage([str(s.path) for s in series.slices])
        assert np.array_equal(sitk.GetArrayFromImage(image), scans[number])
        assert image.GetSpacing()[2] == pytest.approx(series.grid.spacing_mm[0])


@pytest.mark.parametrize("how", sorted(set(HOW) - {"a time for each rotation"}))
def test_one_scan_stays_one(tmp_path, how):
    """Slices of one scan that headers tell apart in turn: neighbours are more alike than those of a set."""
    scans = write(tmp_path, how, 0)
    (series,) = find_series(tmp_path).series
    together = np.empty((2 * COUNT, *SIZE), int)
    together[::2], together[1::2] = scans
    assert np.array_equal(read_series(series), together)
    assert sum("interleave in it" in note for note in series.notes) == 1


@pytest.mark.parametrize("how", ["a time for each pass", "SliceThickness"])
def test_neither_are_interpolated_into_each_other(tmp_path, how):
    write(tmp_path, how, 60, lacks=4)
    assert "--resample-uneven" in find_series(tmp_path).refused[0].reason
    found = find_series(tmp_path, resample_uneven=True)
    assert found.refused == ()
    assert [(len(s.slices), s.uneven) for s in found.series] in ([(9, False), (8, True)], [(8, True), (9, False)])


@pytest.mark.parametrize("how", ["a time for each pass", "times of each slice, back", "instance numbers"])
@pytest.mark.parametrize("share", [1 / 3, 0.4])
def test_two_scans_at_another_offset_are_two(tmp_path, how, share):
    scans = write(tmp_path, how, 60, share=share)
    found = find_series(tmp_path)
    assert found.refused == ()
    assert [s.part for s in found.series] == [1, 2]
    for series in found.series:
        assert np.array_equal(read_series(series), scans[int(series.grid.origin_mm[2] > 0)])


def test_pixels_that_cannot_be_read_leave_one_series_and_a_note(tmp_path):
    write(tmp_path, "a time for each pass", 60)
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        data.BitsStored, data.HighBit = 12, 15
        data.save_as(path)
    (series,) = find_series(tmp_path).series
    assert "interleave in it" in series.notes[-1]
