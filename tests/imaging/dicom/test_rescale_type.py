"""RescaleType: what is HU by whatever name is read, and told; what is another quantity is refused by its meaning."""

from __future__ import annotations

import numpy as np
import pytest

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rescale_type import other_quantity, rescale_type_notes
from lnsegfm.imaging.dicom.series import read_series, series_of
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series
from tests.imaging.dicom.test_seg import enhanced

GRID = Grid((4, 9, 11), (3.0, 0.8, 0.7))
HU = np.random.default_rng(0).integers(-1000, 3000, GRID.shape)

PLAIN = ("HU", "hu", " HU ", "US", "UNSPECIFIED", "unspecified")
UNUSUAL = {
    "HU_MOD": "modified HU", "hu mod": "modified HU", "HU*": "read as HU", "HU_XXX": "read as HU", "HU_ASIR": "read as",
    "HU (50keV)": "read as", "Hounsfield Unit": "read as", "Hounsfield Units": "read as", "HOUNSFIELD_UNITS": "read as",
    "CT Number": "read as", "H.U.": "read as", "normalized": "no defined term, read as HU", "X": "no defined term",
}  # fmt: skip
OTHER = {
    "ED": "electron density", "ed ": "electron density", "EDW": "relative to water", "OD": "optical density",
    "Z_EFF": "effective atomic number", "ZEFF": "effective atomic number", "Z EFF": "effective atomic number",
    "PCT": "per cent", "MGML": "mg/ml", "mg/ml": "mg/ml", "IOD": "iodine", "IODINE_DENSITY": "iodine", "Hz": "in Hz",
    "Electron Density": "electron density", "BQML": "Bq/ml", "VIRTUAL_FAT": "fat", "RSP": "stopping power",
}  # fmt: skip


@pytest.mark.parametrize("term", [*PLAIN, *UNUSUAL])
def test_hu_by_any_name_is_read(tmp_path, term):
    write_series(tmp_path, HU, GRID, RescaleType=term)
    series = series_of(tmp_path)
    assert np.array_equal(read_series(series), HU)
    notes = [note for note in series.notes if "RescaleType" in note]
    assert len(notes) == (term in UNUSUAL)
    assert all(UNUSUAL[term] in note for note in notes)


@pytest.mark.parametrize("term", OTHER)
def test_another_quantity_is_refused_by_its_meaning(tmp_path, term):
    write_series(tmp_path, HU, GRID, RescaleType=term)
    series = series_of(tmp_path)
    assert not [note for note in series.notes if "RescaleType" in note]
    with pytest.raises(DicomError, match=rf"no HU but .*{OTHER[term]}.*\(RescaleType {term.strip().upper()}\)\. Give"):
        read_series(series)


def test_no_rescale_type(tmp_path):
    write_series(tmp_path, HU, GRID, RescaleType=None)
    assert np.array_equal(read_series(series_of(tmp_path)), HU)
    assert series_of(tmp_path).notes == ()


def test_one_line_a_term(tmp_path):
    def change(data, k):
        data.RescaleType = ["HU", "HU_MOD", "hu_mod ", "HU*"][k]

    write_series(tmp_path, HU, GRID, change=change)
    assert [note.split(":")[0] for note in series_of(tmp_path).notes] == ["RescaleType HU*", "RescaleType HU_MOD"]


def test_in_a_functional_group(tmp_path):
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    enhanced(tmp_path / "e.dcm", GRID, True)
    for file in (tmp_path / "e-slices").iterdir():
        file.unlink()
    data, values = dcmread(tmp_path / "e.dcm"), Dataset()
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU_MOD"
    data.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [values]
    data.save_as(tmp_path / "e.dcm")
    assert "RescaleType HU_MOD" in series_of(tmp_path).notes[0]


def test_terms_are_compared_as_people_write_them():
    assert {other_quantity(t) for t in ("Z_EFF", "z eff", "Z-EFF", "zeff")} == {"effective atomic number"}
    assert rescale_type_notes(["HU", "", "US"]) == ()
    assert other_quantity("PERIOD") is None  # no iodine in it
