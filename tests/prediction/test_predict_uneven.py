"""Series of uneven slice distances through the commands: RTSTRUCT and SEG on their own slices, and read again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lnsegfm.imaging.dicom.annotated_series import read_annotated_tree
from lnsegfm.imaging.dicom.annotation_masks import annotation_mask
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.uneven_stack import mask_on_slices
from lnsegfm.imaging.files import read_mask
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series
from tests.scenes import SHAPE, scene
from tests.world import World


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


@pytest.mark.long
def test_from_the_slices_and_back(lnsegfm_here, world: World, tmp_path):
    image = np.rint(scene(0)[0]).astype(int).clip(-1024, 3000)
    files = write_series(tmp_path / "ct", image, Grid(SHAPE, (2.0, 1.0, 1.0)), SeriesInstanceUID="1.2.3")
    files[SHAPE[0] // 2].unlink()
    out = tmp_path / "out"
    words = ("predict", world.base, tmp_path / "ct", "--out", out, "--no-mirroring", "--device", "cpu", "--no-flags")
    refused = lnsegfm_here(*words)
    assert refused.returncode == 2
    assert "--resample-uneven" in refused.stderr

    done = lnsegfm_here(*words, "--resample-uneven", "--format", "nifti,rtstruct,seg", "--names", "series")

    assert done.returncode == 0, done.stderr
    (record,) = out.glob("*.case.json")
    assert json.loads(record.read_text())["series"]["uneven"] is True
    (nifti,) = out.glob("*.nii.gz")
    mask = np.asarray(read_mask(nifti)[0])
    series = series_of(tmp_path / "ct", resample_uneven=True)
    assert mask.shape == series.grid.shape == SHAPE
    assert mask.any()
    tree = read_annotated_tree(tmp_path, resample_uneven=True)
    of_series = tree.by_series[0]
    assert sorted(each.kind for each in of_series) == ["RTSTRUCT", "SEG"]
    for each in of_series:
        names = [structure.name for structure in each.structures]
        again = annotation_mask(each, tree.index.series[0], [f"{names[0]}=ln"], {"ln": 1})
        np.testing.assert_array_equal(mask_on_slices(again, series), mask_on_slices(mask, series) == 1)
