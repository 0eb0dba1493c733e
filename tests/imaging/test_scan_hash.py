"""A scan has one hash in every storage, and other scans have others."""

from __future__ import annotations

import numpy as np
import pytest

from lnsegfm.imaging.files import read_volume, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.orientation import TURNS
from lnsegfm.imaging.scan_hash import scan_hash

GRID = Grid((4, 5, 6), (3.0, 1.0, 1.5), (-3.0, 7.0, 50.0))
SCAN = np.random.default_rng(0).integers(-1000, 1000, GRID.shape).astype(np.int16)


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_is_the_same_in_every_storage(turn):
    assert scan_hash(turn.forth(SCAN), turn.grid(GRID)) == scan_hash(SCAN, GRID)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float64])
def test_number_types_and_roundings_play_no_part(dtype):
    near = SCAN.astype(dtype) + (1e-4 if np.issubdtype(dtype, np.inexact) else 0)
    assert scan_hash(near, GRID) == scan_hash(SCAN, GRID)
    zero = np.zeros(GRID.shape, np.float32)
    assert scan_hash(-zero, GRID) == scan_hash(zero, GRID)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_formats_play_no_part(ending, tmp_path):
    write_volume(tmp_path / f"scan{ending}", SCAN, GRID)
    assert scan_hash(*read_volume(tmp_path / f"scan{ending}")) == scan_hash(SCAN, GRID)


def test_other_scans_have_other_hashes():
    one_voxel = SCAN.copy()
    one_voxel[2, 2, 2] += 1
    mirrored = np.ascontiguousarray(SCAN[:, :, ::-1])
    cropped = (SCAN[1:], Grid((3, 5, 6), GRID.spacing_mm, (-3.0, 7.0, 53.0)))
    hashes = {scan_hash(*each) for each in ((SCAN, GRID), (one_voxel, GRID), (mirrored, GRID), cropped)}
    assert len(hashes) == 4
    assert all(len(one) == 32 for one in hashes)
