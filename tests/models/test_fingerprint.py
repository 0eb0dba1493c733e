"""What is known of a data set before it is planned is what nnU-Net finds, but for its draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import DataError
from lnsegfm.models import fingerprint as module
from lnsegfm.models.fingerprint import fingerprint
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.progress import Silent
from tests.scenes import write_image, write_scenes

DRAWN = 400_000
"""Of each case by nnU-Net's function, with replacement."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three scans: one has few and bright foreground voxels, two are 0 at their rims."""
    root = write_scenes(tmp_path / "data", 3)
    random = np.random.default_rng(0)
    mask = np.zeros((20, 24, 28), np.uint8)
    mask[5:7, 5:8, 5:8] = 1
    write_image(root / "imagesTr" / "case_0_0000.nii.gz", random.normal(300, 30, mask.shape).astype(np.int16))
    write_image(root / "labelsTr" / "case_0.nii.gz", mask)
    image = random.normal(50, 10, mask.shape).astype(np.int16)
    image[:4] = image[:, -3:] = 0
    write_image(root / "imagesTr" / "case_1_0000.nii.gz", image)
    image = random.normal(50, 10, mask.shape).astype(np.int16)
    image[:, :2] = 0
    write_image(root / "imagesTr" / "case_2_0000.nii.gz", image)
    return root


def test_it_is_nnunet_s(root: Path) -> None:
    cases = open_dataset(root).cases
    found = fingerprint(cases, Silent())
    with nnunet_environment():
        stock = [
            DatasetFingerprintExtractor.analyze_case([str(case.images[0])], str(case.label), SimpleITKIO, DRAWN)
            for case in cases
        ]
    assert found["shapes_after_crop"] == [[int(v) for v in one[0]] for one in stock]
    assert found["spacings"] == [pytest.approx(one[1]) for one in stock]
    assert found["median_relative_size_after_cropping"] == pytest.approx(np.median([one[4] for one in stock]))
    drawn = np.concatenate([one[2][0] for one in stock]).astype(np.float64)
    ours = found["foreground_intensity_properties_per_channel"]["0"]
    assert (ours["min"], ours["max"]) == (drawn.min(), drawn.max())
    assert ours["mean"] == pytest.approx(drawn.mean(), abs=0.5)
    assert ours["std"] == pytest.approx(drawn.std(), abs=0.5)
    for name, percent in (("percentile_00_5", 0.5), ("median", 50), ("percentile_99_5", 99.5)):
        low, high = np.percentile(drawn, (max(0, percent - 0.2), min(100, percent + 0.2)))
        assert low <= ours[name] <= high


def test_a_case_counts_as_one_whatever_it_holds(root: Path) -> None:
    cases = open_dataset(root).cases
    alone = [fingerprint([case], Silent())["foreground_intensity_properties_per_channel"]["0"] for case in cases]
    together = fingerprint(cases, Silent())["foreground_intensity_properties_per_channel"]["0"]
    assert together["mean"] == pytest.approx(np.mean([one["mean"] for one in alone]))


def test_of_many_voxels_some_are_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = open_dataset(root).cases
    whole = fingerprint(cases, Silent())["foreground_intensity_properties_per_channel"]["0"]
    monkeypatch.setattr(module, "VOXELS", 3 * 60)
    looked_at: list[int] = []
    real = module._statistics
    monkeypatch.setattr(
        module, "_statistics", lambda found: (looked_at.extend(one.size for one in found), real(found))[1]
    )
    some = fingerprint(cases, Silent())["foreground_intensity_properties_per_channel"]["0"]
    assert some != whole
    assert looked_at == [18, 60, 60]  # all of the case that has so few
    assert some == fingerprint(cases, Silent())["foreground_intensity_properties_per_channel"]["0"]
    assert some["mean"] == pytest.approx(whole["mean"], abs=8)


def test_some_voxels_are_different_ones() -> None:
    values = np.arange(24).reshape(2, 12)
    some = module._some(values, 11)
    assert len(set(some[0])) == 11
    assert np.array_equal(some[1], some[0] + 12)
    assert np.array_equal(module._some(values, 12), values)


def test_channels_have_numbers_of_their_own_and_a_case_without_foreground_has_none(root: Path) -> None:
    first, _, third = open_dataset(root).cases
    voxels, _ = SimpleITKIO().read_images([str(first.images[0])])
    write_image(root / "pet.nii.gz", voxels[0] + 7)
    found = fingerprint([replace(first, images=(*first.images, root / "pet.nii.gz"))], Silent())
    ct, pet = found["foreground_intensity_properties_per_channel"].values()
    assert pet["mean"] == pytest.approx(ct["mean"] + 7)
    assert third.label is not None
    write_image(third.label, np.zeros((20, 24, 28), np.uint8))
    with_empty = fingerprint([first, third], Silent())["foreground_intensity_properties_per_channel"]
    assert with_empty == fingerprint([first], Silent())["foreground_intensity_properties_per_channel"]
    with pytest.raises(DataError, match="no voxel of a label"):
        fingerprint([third], Silent())


def test_statistics_do_not_depend_on_the_order_of_voxels() -> None:
    """So they do not on the number of threads either, among which a sum may be shared out."""
    generator = np.random.default_rng(0)
    cases = [generator.normal(65, 31, 30_001).astype(np.float32), generator.normal(-900, 300, 2_000)]
    other = [generator.permutation(case) for case in cases][::-1]
    assert module._statistics(cases) == module._statistics(other)
    exact = [float(case.astype(np.float64).mean()) for case in cases]
    assert module._statistics(cases)["mean"] == pytest.approx(sum(exact) / 2, rel=1e-12)
