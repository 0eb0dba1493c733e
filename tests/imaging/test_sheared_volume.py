from __future__ import annotations

import numpy as np
import pytest
from nibabel.loadsave import save
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image

from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_mask, read_volume
from lnsegfm.imaging.sheared_volume import straightened

TILT = np.tan(np.radians(12))
SPACING = np.array([1.5, 1.25, 3.0])


def tilted(shape: tuple[int, int, int], turn: np.ndarray | None = None) -> np.ndarray:
    """Index (x, y, z) to mm, RAS, of a gantry that is tilted: each slice is shifted along the columns."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag(SPACING)
    matrix[1, 2] = SPACING[2] * TILT
    matrix[:3, 3] = (-20, 10, 5)
    if turn is not None:
        matrix[:3] = turn @ matrix[:3]
    return matrix


def ramp(matrix: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A linear function of the place, which linear interpolation keeps exactly: voxels (z, y, x)."""
    z, y, x = np.indices(shape)
    places = np.stack([x, y, z, np.ones_like(x)]).reshape(4, -1)
    return (np.array([2.0, -3.0, 5.0]) @ (matrix @ places)[:3]).reshape(shape)


@pytest.mark.parametrize("turned", [False, True])
def test_a_linear_function_of_the_place_is_kept(turned):
    shape = (9, 14, 11)
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0] if turned else None
    matrix = tilted(shape, turn)
    values = ramp(matrix, shape) + 1000

    voxels, grid = straightened(values, matrix, labels=False)

    z, y, x = np.indices(grid.shape)
    axes = np.array(grid.direction).reshape(3, 3) * np.array(grid.spacing_mm[::-1])
    lps = axes @ np.stack([x, y, z]).reshape(3, -1) + np.array(grid.origin_mm)[:, None]
    expected = (np.array([2.0, -3.0, 5.0]) @ (np.diag([-1, -1, 1]) @ lps)).reshape(grid.shape) + 1000
    inside = voxels != values.min().astype(np.float32)
    assert inside.sum() > 0.6 * values.size
    np.testing.assert_allclose(voxels[inside], expected[inside], atol=2e-2)
    np.testing.assert_allclose(grid.spacing_mm, SPACING[::-1])
    assert grid.shape[1] > shape[1]


def test_a_cube_keeps_its_volume_and_place():
    shape = (20, 40, 30)
    matrix = tilted(shape)
    z, y, x = np.indices(shape)
    places = (matrix @ np.stack([x, y, z, np.ones_like(x)]).reshape(4, -1))[:3]
    cube = (np.abs(places - places.mean(axis=1, keepdims=True)).max(axis=0) < 12).reshape(shape).astype(np.uint8)

    mask, grid = straightened(cube, matrix, labels=True)

    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}
    assert mask.sum() * np.prod(grid.spacing_mm) == pytest.approx(24**3, rel=0.08)
    centre = np.argwhere(mask)[:, ::-1].mean(axis=0) * grid.spacing_mm[::-1]
    lps = np.array(grid.origin_mm) + np.array(grid.direction).reshape(3, 3) @ centre
    np.testing.assert_allclose(np.diag([-1, -1, 1]) @ lps, places.mean(axis=1), atol=0.7)


@pytest.mark.parametrize("form", [Nifti1Image, Nifti2Image])
def test_a_sheared_file_is_refused_and_straightened_when_asked(tmp_path, form):
    shape = (9, 14, 11)
    matrix = tilted(shape)
    values = (ramp(matrix, shape) % 7 > 3).astype(np.int16)
    image = form(values.T, matrix)
    image.set_qform(None, 0)
    image.set_sform(matrix, 1)
    save(image, tmp_path / "a.nii.gz")

    with pytest.raises(DataError, match="not at right angles"):
        read_volume(tmp_path / "a.nii.gz")
    voxels, grid = read_volume(tmp_path / "a.nii.gz", straighten=True)
    mask, same = read_mask(tmp_path / "a.nii.gz", straighten=True)

    assert grid == same
    assert np.issubdtype(mask.dtype, np.integer)
    expected = straightened(values, matrix, labels=False)
    assert expected[1].difference(grid) is None
    np.testing.assert_allclose(voxels, expected[0], atol=1e-4)
