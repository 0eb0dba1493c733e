"""What the network is given: nnU-Net's readers' own arrays, for every storage of a scan and of its reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from scipy.spatial.transform import Rotation

from lnsegfm.errors import DataError, ModelError
from lnsegfm.imaging.axis_code import AXIS_CODES
from lnsegfm.imaging.files import write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.imaging.orientation import TURNS, turn_to
from lnsegfm.nnunet.plan_axes import AXES, axes_of_plans, with_axes
from lnsegfm.nnunet.scan_arrays import ScanArrays

GRID = Grid((3, 4, 5), (2.5, 0.9, 1.1), (-10.0, 20.0, 3.5))
ARRAY = np.random.default_rng(0).integers(-1000, 1000, GRID.shape).astype(np.int16)
OBLIQUE = Grid(
    GRID.shape,
    GRID.spacing_mm,
    GRID.origin_mm,
    tuple(Rotation.from_euler("zyx", (20, -15, 8), degrees=True).as_matrix().ravel()),
)


def stored(axes: str, scan: Grid = GRID, array: np.ndarray = ARRAY) -> Volume:
    turn = turn_to(scan, axes)
    return Volume(turn.forth(array), turn.grid(scan))


def agrees(reader: type, file: Path, axes: str | None) -> None:
    theirs, properties = reader().read_images([str(file)])
    ours = ScanArrays.stack([Volume.read(file)], axes)
    np.testing.assert_array_equal(ours.data, theirs)
    assert ours.data.dtype == theirs.dtype == np.float32
    np.testing.assert_allclose(ours.properties["spacing"], properties["spacing"], rtol=1e-6)


@pytest.mark.parametrize("axes", AXIS_CODES)
def test_arrays_are_those_of_nnunets_readers(axes, tmp_path):
    for name, scan in (("straight", GRID), ("oblique", OBLIQUE)):
        file = tmp_path / f"{name}.nii.gz"
        volume = stored(axes, scan)
        write_volume(file, volume.array, volume.grid)
        agrees(NibabelIOWithReorient, file, "RAS")
        agrees(SimpleITKIOWithReorient, file, "RAS")
        agrees(NibabelIO, file, None)
        agrees(SimpleITKIO, file, None)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR"])
def test_every_storage_gives_the_same_arrays_bit_for_bit(axes):
    mask = (ARRAY > 0).astype(np.uint8)
    expected = ScanArrays.stack([Volume(ARRAY, GRID)], axes)
    reference = expected.reference(Volume(mask, GRID))
    for number, code in enumerate(AXIS_CODES):
        other = AXIS_CODES[(number * 7 + 5) % 48]
        found = ScanArrays.stack([stored(code), stored(other, array=ARRAY + 1)], axes)
        np.testing.assert_array_equal(found.data[0], expected.data[0])
        assert found.data.flags.c_contiguous  # else sums over it, as of a mean, would round by its storage
        np.testing.assert_array_equal(found.data[1], expected.data[0] + 1)
        assert found.grid.spacing_mm == expected.grid.spacing_mm
        np.testing.assert_array_equal(found.reference(stored(other, array=mask)), reference)
        np.testing.assert_array_equal(found.turn.back(found.data[0]), stored(code).array)


def test_channels_of_another_size_or_spacing_are_refused():
    for other in (Grid((3, 4, 6), GRID.spacing_mm), Grid(GRID.shape, (2.5, 0.9, 1.2))):
        with pytest.raises(DataError, match="pet: its grid is not that of ct, another channel"):
            ScanArrays.stack([Volume(ARRAY, GRID, "a/ct"), Volume(np.zeros(other.shape), other, "pet")], "RAS")


def test_plans_say_the_axes_or_imply_them():
    plain = {"image_reader_writer": "SimpleITKIO", "dataset_name": "Dataset001_Nodes"}
    assert axes_of_plans(plain) == (None, "")
    assert axes_of_plans({}) == (None, "")
    reorienting = plain | {"image_reader_writer": "NibabelIOWithReorient"}
    assert axes_of_plans(reorienting) == ("RAS", "the reader in its plans, NibabelIOWithReorient")
    total = plain | {"dataset_name": "Dataset291_TotalSegmentator_part1"}
    assert axes_of_plans(total) == ("RAS", "its origin, TotalSegmentator")
    assert axes_of_plans(reorienting | {AXES: "LPS"}) == ("LPS", "its plans")
    with pytest.raises(ModelError, match=r"^plans\.json: axes up: not the directions"):
        axes_of_plans(plain | {AXES: "up"})


def test_plans_that_state_axes_name_the_reader_by_which_stock_nnunet_turns_scans():
    plain = {"image_reader_writer": "SimpleITKIO"}
    assert with_axes(plain, "RAS", ".nii.gz")["image_reader_writer"] == "NibabelIOWithReorient"
    assert with_axes(plain, "RAS", ".nrrd")["image_reader_writer"] == "SimpleITKIOWithReorient"
    assert with_axes(plain, "LPS", ".nii.gz") == {"image_reader_writer": "SimpleITKIO", AXES: "LPS"}
    turning = {"image_reader_writer": "NibabelIOWithReorient"}
    assert with_axes(turning, "LPS", ".nii.gz")["image_reader_writer"] == "SimpleITKIO"
    assert axes_of_plans(with_axes(plain, "PIR", ".nii")) == ("PIR", "its plans")


def test_turns_cover_the_codes():
    assert {stored(code).grid for code in AXIS_CODES} == {turn.grid(GRID) for turn in TURNS}
