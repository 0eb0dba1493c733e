"""What passes the check of the data trains and gives evidence; what does not is refused in the same lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.check import check
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_volume, write_mask, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.scenes import write_scenes
from tests.world import World

pytestmark = pytest.mark.usefixtures("one_thread")
Change = Callable[[np.ndarray, np.ndarray, Grid], tuple[np.ndarray, np.ndarray, Grid]]


def cut(depth: int, side: int) -> Change:
    def change(image: np.ndarray, mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, Grid]:
        z, y, x = (int(np.median(axis)) for axis in np.nonzero(mask))
        lower = [max(0, c - n // 2) for c, n in zip((z, y, x), (depth, side, side), strict=True)]
        part = tuple(slice(low, low + n) for low, n in zip(lower, (depth, side, side), strict=True))
        image, mask = (np.ascontiguousarray(array[part]) for array in (image, mask))
        return image, mask, dataclasses.replace(grid, shape=mask.shape)

    return change


def spaced(*factors: float) -> Change:
    def change(image: np.ndarray, mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, Grid]:
        spacing = tuple(mm * factor for mm, factor in zip(grid.spacing_mm, factors, strict=True))
        return image, mask, dataclasses.replace(grid, spacing_mm=spacing)

    return change


SETS: dict[str, Change] = {
    "as it is": lambda image, mask, grid: (image, mask, grid),
    "two slices": cut(2, 16),
    "a few voxels": cut(3, 3),
    "one slice": cut(1, 16),
    "one column": cut(8, 1),
    "thick slices": spaced(20, 1, 1),
    "voxels of a tenth of a millimetre": spaced(0.05, 0.05, 0.05),
    "a constant image": lambda image, mask, grid: (np.full_like(image, 40), mask, grid),
    "zeros throughout": lambda image, mask, grid: (np.zeros_like(image), mask, grid),
    "a node throughout": lambda image, mask, grid: (image, np.ones_like(mask), grid),
    "one voxel of a node": lambda image, mask, grid: (image, np.eye(1, mask.size, mask.size // 2, dtype=mask.dtype)
                                                      .reshape(mask.shape), grid),
    "no node": lambda image, mask, grid: (image, mask * 0, grid),
    "huge numbers": lambda image, mask, grid: (image * np.float32(1e30), mask, grid),
    "not finite": lambda image, mask, grid: (np.where(mask > 0, np.nan, image), mask, grid),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    "whole", [pytest.param(True, id="every scan", marks=pytest.mark.long), pytest.param(False, id="the last scan")]
)
def test_what_passes_the_check_completes_and_what_does_not_is_refused_alike(name, whole, world: World, tmp_path: Path):
    folder = write_scenes(tmp_path / "data", 2, seed=300)
    images, labels = (sorted((folder / part).glob("*.nii.gz")) for part in ("imagesTr", "labelsTr"))
    for image_file, label_file in list(zip(images, labels, strict=True))[0 if whole else 1 :]:
        (image, grid), (mask, _) = read_volume(image_file), read_volume(label_file)
        image, mask, grid = SETS[name](image.astype(np.float32), mask.astype(np.uint8), grid)
        write_volume(image_file, image.astype(np.float32), grid)
        write_mask(label_file, mask.astype(np.uint8), grid)
    problems = list(map(str, check(open_dataset(folder))))
    for draw in (0, 1) if not whole else (0,):
        recipe = world.recipe("head", shots=1, iterations=1, draw=draw)
        if problems:
            with pytest.raises(DataError) as refused:
                plan(folder, world.base, recipe)
            assert str(refused.value).splitlines() == problems
            continue
        run = finetune(plan(folder, world.base, recipe), tmp_path / f"run{draw}", device="cpu", workers=0)
        assert run.evidence is not None
