from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.structure_masks import roi_mask, structures_mask
from lnsegfm.imaging.dicom.structure_set import mismatch, note_on_other_series
from lnsegfm.imaging.files import read_mask
from tests.imaging.dicom.test_rtstruct import read_alone

pytestmark = pytest.mark.realdata
EVERY_NEIGHBOUR = np.ones((3, 3, 3))


def test_the_mask_of_the_image_biomarker_initiative_is_reproduced(real_data: Path) -> None:
    folder = real_data / "sts_019"
    expected, grid = read_mask(folder / "CT_mask.nii.gz")
    structures = read_rtstruct(folder / "CT" / "mask" / "RS.dcm")
    told: list[str] = []

    mask = structures_mask(structures, grid, ["gtv mass ct=tumour"], {"tumour": 1}, on_note=told.append)

    assert np.count_nonzero(mask) == 5564
    assert np.array_equal(mask, expected > 0)  # Dice 1.0
    assert told == []


def test_the_three_nodes_of_the_chest_ct(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "lung4d_113"
    expected, grid = read_mask(folder / "label_full.nii.gz")
    series = series_of(folder / "ct")
    structures = read_rtstruct(folder / "rtstruct" / "1-1.dcm")
    labels = {"lymph_node": 1, "tumour": 2}
    assert series.grid.difference(grid) is None
    assert (mismatch(structures, series), note_on_other_series(structures, series)) == (None, None)

    mask = structures_mask(structures, series.grid, ["LN*=lymph_node", "Tumor*=tumour"], labels)

    nodes, number = ndimage.label(mask == 1, EVERY_NEIGHBOUR)
    assert (np.count_nonzero(mask == 1), number) == (2239, 3)
    assert np.array_equal(mask == 1, expected == 1)
    assert np.array_equal(mask == 2, expected == 2)

    path = tmp_path / "rs.dcm"
    write_rtstruct(path, mask, labels, series, instances=nodes)
    read = read_rtstruct(path)
    assert read.names == ("lymph_node_1", "lymph_node_2", "lymph_node_3", "tumour")
    for number, roi in enumerate(read.rois[:3], start=1):
        assert np.array_equal(roi_mask(roi, series.grid), nodes == number)
    alone = read_alone(path, series.grid)
    assert np.array_equal(alone["tumour"], mask == 2)
    assert np.array_equal(sum(n * alone[f"lymph_node_{n}"] for n in (1, 2, 3)), nodes)


def test_a_written_file_passes_the_validator(real_data: Path, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is absent")
    folder = real_data / "lung4d_113"
    expected, _ = read_mask(folder / "label_full.nii.gz")
    write_rtstruct(tmp_path / "rs.dcm", expected, {"lymph_node": 1, "tumour": 2, "none": 3}, series_of(folder / "ct"))

    done = subprocess.run(["dciodvfy", tmp_path / "rs.dcm"], capture_output=True, text=True, check=False)

    said = (done.stdout + done.stderr).splitlines()
    assert "RTStructureSet" in said
    assert [line for line in said if line.startswith("Error")] == []
