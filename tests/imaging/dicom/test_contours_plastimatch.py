"""Contours as plastimatch (a separate program, where it is installed) and lnsegfm read them: the same voxels."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_masks import roi_mask
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.drawn import again, blob, circle, keyhole, with_points, write_contours
from tests.imaging.dicom.scanner import write_series

GRID = Grid((12, 56, 64), (3.0, 0.93, 0.97), (-31.03, -26.1, 10.0))
Outlines = list[tuple[int, np.ndarray]]
pytestmark = pytest.mark.skipif(shutil.which("plastimatch") is None, reason="plastimatch is not installed")


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Series:
    folder = tmp_path_factory.mktemp("ct")
    write_series(folder, np.zeros(GRID.shape, np.int16), GRID)
    return series_of(folder)


def both(ct: Series, folder: Path, rois: dict[str, Outlines], *options: str) -> dict[str, tuple[np.ndarray, ...]]:
    """By structure the mask that we read, and plastimatch's."""
    path = write_contours(folder / "rs.dcm", ct, rois)
    command = ["plastimatch", "convert", "--input", str(path), "--referenced-ct", str(ct.slices[0].path.parent),
               "--output-prefix", str(folder / "out"), "--prefix-format", "nrrd", *options]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    read = {}
    for roi in read_rtstruct(path).rois:
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "out" / f"{roi.name}.nrrd")))
        read[roi.name] = (roi_mask(roi, ct.grid), theirs > 0)
    return read


def shells(seed: int, count: int) -> list[Outlines]:
    """Random objects on slices 2 to 8, each an outline, its hole and an island in that."""
    rng = np.random.default_rng(seed)
    objects = []
    for x, y in ((-14.2, -8.7), (13.1, 9.4)):
        radii = rng.uniform(0.85, 1.15, 24)
        size = rng.uniform(7, 11)
        shapes = [radii * size * part for part in (1, 0.6, 0.3)[:count]]
        objects.append([(k, blob(x, y, shape * (1 - 0.02 * (k - 5) ** 2))) for k in range(2, 9) for shape in shapes])
    return objects


@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_in_other_ways_is_read_alike(ct, tmp_path, seed):
    rng = np.random.default_rng(seed)
    outlines = [each for several in shells(seed, 1) for each in several]
    other = [
        (k, again(with_points(o, rng.uniform(0, 24, 3)), start=int(rng.integers(24)), back=bool(rng.integers(2)),
                  closed=bool(rng.integers(2))))
        for k, o in outlines
    ]  # fmt: skip
    hole = [blob(*outline.mean(axis=0), np.full(20, 3.0)) for _, outline in outlines]
    holed = [(k, keyhole(o, again(h, back=k % 2 == 0), k % 3)) for (k, o), h in zip(outlines, hole, strict=True)]
    moved = [(k, outline + np.array([4.1, 0.3])) for k, outline in outlines]
    rois = {
        "once": outlines,
        "other": other,
        "several": [*outlines, *other],
        "keyhole": holed,
        "partly": [*outlines, *moved],
    }
    for name, (ours, theirs) in both(ct, tmp_path, rois).items():
        assert np.array_equal(ours, theirs), name
        assert ours.any()


@pytest.mark.parametrize("seed", range(3))
def test_holes_and_islands_are_read_alike_where_it_combines_by_exclusive_or(ct, tmp_path, seed):
    rois = {f"shells{n}": [each for several in shells(seed, n) for each in several] for n in (1, 2, 3)}
    for name, (ours, theirs) in both(ct, tmp_path, rois, "--xor-contours").items():
        assert np.array_equal(ours, theirs), name


def test_where_it_differs(ct, tmp_path):
    outline, hole = circle(0.3, 0.2, 10.3), circle(0.3, 0.2, 6.1)
    rois = {"hole": [(3, outline), (3, hole)], "turns": [(3, np.concatenate((outline, outline)))]}
    read = both(ct, tmp_path, rois)
    assert read["hole"][0].sum() < read["hole"][1].sum()  # it joins all contours: holes are filled
    assert (read["turns"][0].any(), read["turns"][1].any()) == (True, False)  # a second turn undoes the first
