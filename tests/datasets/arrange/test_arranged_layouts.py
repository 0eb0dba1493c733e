"""Every layout that people have becomes the same dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from lnsegfm.datasets.arrange import ArrangeOptions, arrange
from lnsegfm.datasets.check import check
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.storage import sha256
from tests.datasets.arrange.layouts import PARTS, PATIENTS, STRUCTURES, WHOLE, Layout, both, mask, scan

NAMES = LabelMap({"node": 1, "vessel": 2})


def stored(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): sha256(p) for p in sorted(root.rglob("*")) if p.is_file()}


def voxels(folder: Path, name: str) -> np.ndarray:
    """What SimpleITK reads."""
    (path,) = folder.glob(f"{name}.n*")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def arranged(tmp_path: Path, layout: Layout, **more: object) -> Path:
    layout.build(tmp_path / "in")
    before = stored(tmp_path / "in")
    result = arrange(tmp_path / "in", tmp_path / "out", ArrangeOptions(**layout.options, **more))  # type: ignore[arg-type]
    assert stored(tmp_path / "in") == before
    assert sorted(result.written) == sorted(layout.names)
    assert result.failed == ()
    assert result.plan.left_over == ()
    assert result.plan.left_out == ()
    dataset = open_dataset(tmp_path / "out")
    assert check(dataset) == []
    assert dataset.channels == ("CT",)
    return tmp_path / "out"


@pytest.mark.parametrize("layout", WHOLE.values(), ids=WHOLE.keys())
def test_a_mask_a_case(tmp_path, layout):
    listed = (tmp_path / "in" / "dataset.json").is_file
    layout.build(tmp_path / "in")
    out = arranged(tmp_path, layout, **({} if listed() else {"names": NAMES}))
    assert open_dataset(out).labels == NAMES
    originals = set(stored(tmp_path / "in").values())
    for number, name in enumerate(layout.names):
        np.testing.assert_array_equal(voxels(out / "imagesTr", f"{name}_0000"), scan(number))
        np.testing.assert_array_equal(voxels(out / "labelsTr", name), both(number))
        (image,) = (out / "imagesTr").glob(f"{name}_0000.*")
        assert sha256(image) in originals


@pytest.mark.parametrize("layout", STRUCTURES.values(), ids=STRUCTURES.keys())
def test_a_mask_a_structure(tmp_path, layout):
    out = arranged(tmp_path, layout)
    assert open_dataset(out).labels == LabelMap({name: k for k, name in enumerate(PARTS, 1)})
    for number, name in enumerate(PATIENTS):
        expected = np.maximum(mask(number, 1), mask(number, 3) // 3 * 2)
        np.testing.assert_array_equal(voxels(out / "imagesTr", f"{name}_0000"), scan(number))
        np.testing.assert_array_equal(voxels(out / "labelsTr", name), expected)
