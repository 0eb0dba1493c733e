"""Images of other libraries: SimpleITK's reading of the same file says where every voxel lies."""

from __future__ import annotations

import subprocess
import sys
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.errors import DataError
from lnsegfm.imaging.files import write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume, affine_of, as_mask, as_volume, as_volumes, grid_from_affine

SHAPE = (3, 4, 5)


def turned(x: float, y: float, z: float) -> np.ndarray:
    """A rotation by three angles."""
    (cx, cy, cz), (sx, sy, sz) = np.cos([x, y, z]), np.sin([x, y, z])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def directions() -> list[tuple[float, ...]]:
    """Every order and sign of the axes, and some oblique ones."""
    straight = []
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            for column, (row, sign) in enumerate(zip(order, signs, strict=True)):
                matrix[row, column] = sign
            straight.append(matrix)
    oblique = [turned(0.2, -0.4, 1.1), turned(-1.3, 0.3, 0.1) @ np.diag([-1.0, 1, 1]), turned(3.0, 0.1, -2.0)]
    return [tuple(matrix.ravel()) for matrix in (*straight, *oblique)]


def numbers(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)


@pytest.mark.parametrize("direction", directions(), ids=lambda d: " ".join(f"{v:.2g}" for v in d))
def test_nibabel_and_simpleitk_read_one_file_alike(tmp_path: Path, direction: tuple[float, ...]) -> None:
    grid = Grid(SHAPE, (2.5, 0.7, 0.8), (-12.25, 40.5, 7.125), direction)
    write_volume(tmp_path / "a.nii.gz", numbers(), grid)
    seen = Volume.read(tmp_path / "a.nii.gz")
    ours = as_volume(nibabel.load(tmp_path / "a.nii.gz"))
    assert ours.array.dtype == seen.array.dtype
    np.testing.assert_array_equal(ours.array, seen.array)
    assert ours.grid.spacing_mm == seen.grid.spacing_mm  # the same bits: the network's grid depends on them
    assert ours.grid.difference(seen.grid) is None
    # every corner lies where SimpleITK puts it
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    for index in product(*((0, n - 1) for n in image.GetSize())):
        there = np.diag([-1, -1, 1]) @ (affine_of(ours.grid) @ (*index, 1))[:3]
        np.testing.assert_allclose(there, image.TransformIndexToPhysicalPoint(index), atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 8)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    mirrored=st.booleans(),
)
def test_a_grid_survives_the_way_over_an_affine(
    angles: Any, spacing: tuple[float, float, float], origin: tuple[float, float, float], mirrored: bool
) -> None:
    matrix = turned(*angles) @ np.diag([-1.0 if mirrored else 1.0, 1, 1])
    grid = Grid(SHAPE, spacing, origin, tuple(matrix.ravel()))
    back = grid_from_affine(affine_of(grid), SHAPE[::-1])
    assert back.difference(grid, tolerance_mm=1e-9, direction_tolerance=1e-9) is None


@pytest.mark.parametrize("direction", directions()[::5], ids=lambda d: " ".join(f"{v:.2g}" for v in d))
def test_what_is_given_back_is_what_was_taken(tmp_path: Path, direction: tuple[float, ...]) -> None:
    volume = Volume(numbers(), Grid(SHAPE, (2.5, 0.7, 0.8), (-12.25, 40.5, 7.125), direction))
    for image in (volume.to_sitk(), volume.to_nibabel()):
        back = as_volume(image)
        np.testing.assert_array_equal(back.array, volume.array)
        assert back.grid.difference(volume.grid) is None
    nibabel.save(volume.to_nibabel(), tmp_path / "a.nii.gz")
    seen = Volume.read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(seen.array, volume.array)
    assert seen.grid.difference(volume.grid) is None


def test_a_scaled_nifti_is_read_as_simpleitk_reads_it(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(numbers(SHAPE[::-1]), np.eye(4))
    image.header.set_slope_inter(2.0, -1024.0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    seen = Volume.read(tmp_path / "a.nii.gz")
    ours = as_volume(nibabel.load(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(ours.array.astype(np.float32), seen.array.astype(np.float32))
    assert seen.array.min() < -1024


def test_torchio_reads_the_same(tmp_path: Path) -> None:
    torchio = pytest.importorskip("torchio")
    direction = directions()[-2]
    write_volume(tmp_path / "a.nii.gz", numbers(), Grid(SHAPE, (2.5, 0.7, 0.8), (-12.25, 40.5, 7.125), direction))
    seen, image = Volume.read(tmp_path / "a.nii.gz"), torchio.ScalarImage(tmp_path / "a.nii.gz")
    for form in (image, torchio.Subject(ct=image, node=torchio.LabelMap(tmp_path / "a.nii.gz"))):
        ours = as_volume(form)
        np.testing.assert_array_equal(ours.array, seen.array)
        assert ours.grid.spacing_mm == seen.grid.spacing_mm
        assert ours.grid.difference(seen.grid) is None
    two = torchio.ScalarImage(tensor=np.stack([numbers(SHAPE[::-1]), 2 * numbers(SHAPE[::-1])]), affine=image.affine)
    first, second = as_volumes(two)
    np.testing.assert_array_equal(2 * first.array, second.array)
    with pytest.raises(DataError, match="it has 2 channels"):
        as_volume(two)
    with pytest.raises(DataError, match="a torchio Subject with 2 images"):
        as_volume(torchio.Subject(ct=image, pet=image))


def test_an_array_needs_its_grid() -> None:
    grid = Grid(SHAPE, (1, 1, 1))
    for volume in (as_volume(numbers(), grid), as_volume((numbers(), grid))):
        assert volume.grid is grid
    with pytest.raises(DataError, match="an array without a grid lies nowhere"):
        as_volume(numbers())
    with pytest.raises(DataError, match=r"shape \(5, 4, 3\) does not fill a grid of \(3, 4, 5\)"):
        as_volume(numbers().T, grid)
    with pytest.raises(DataError, match="its voxels are complex64"):
        as_volume(numbers().astype(np.complex64), grid)
    with pytest.raises(DataError, match="list is no image that is known"):
        as_volume([1, 2])


def test_images_that_are_no_volume_are_refused() -> None:
    flat = sitk.GetImageFromArray(numbers()[0])
    colour = sitk.GetImageFromArray(numbers((3, 4, 5, 3)), isVector=True)
    for image in (flat, colour, nibabel.Nifti1Image(numbers((5, 4, 3, 2)), np.eye(4))):
        with pytest.raises(DataError, match="Give one 3D image a channel"):
            as_volume(image)
    sheared = np.eye(4)
    sheared[0, 1] = 0.3
    with pytest.raises(DataError, match="the image: Direction"):
        as_volume(nibabel.Nifti1Image(numbers((5, 4, 3)), sheared))


def test_a_mask_holds_whole_numbers() -> None:
    grid = Grid(SHAPE, (1, 1, 1))
    assert as_mask(np.ones(SHAPE, np.float32), grid).array.dtype == np.int32
    for odd in (0.5, np.nan, np.inf):
        with pytest.raises(DataError, match="label values must be whole numbers"):
            as_mask(np.full(SHAPE, odd, np.float32), grid)


def test_optional_libraries_are_never_imported_for_it() -> None:
    code = (
        "import sys, numpy as np, SimpleITK as sitk; from lnsegfm.imaging.image_objects import as_volume, Grid; "
        "v = as_volume((np.zeros((2, 3, 4)), Grid((2, 3, 4), (1, 1, 1)))); as_volume(v.to_sitk()); "
        "sys.exit(bool({'nibabel', 'torchio', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
