"""Scans prepared in files: the same samples as from memory, nothing done twice, nothing half-written taken.

Whether one process prepares them or several, and whether or not they were stopped, the files have the same bytes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from lnsegfm.datasets.dataset import Case, open_dataset
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.methods.full import Full
from lnsegfm.nnunet.augmentation_settings import augmentation_settings
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.lookup import STOCK_TRAINER
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.progress import Silent
from lnsegfm.training import prepared_cases as module
from lnsegfm.training.in_memory_trainer import InMemoryTrainer
from lnsegfm.training.prepared_cases import prepare_cases, prepare_in_files
from lnsegfm.training.prepared_files import LOSS, PreparedFiles
from lnsegfm.training.schedule import Schedule
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase, in_memory
from lnsegfm.weights.checkpoint import Checkpoint
from tests.scenes import small_plans, write_scenes
from tests.training.same import same


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, ...]:
    return open_dataset(write_scenes(tmp_path_factory.mktemp("clinic"), 3)).cases


@pytest.fixture
def trainer(tmp_path: Path) -> InMemoryTrainer:
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "node": 1}, "file_ending": ".nii.gz"}
    plans = small_plans()
    plans["configurations"]["3d_fullres"]["spacing"] = [1.7, 1.1, 1.6]  # other than the scans'
    empty = Checkpoint({}, "3d_fullres", plans, description, STOCK_TRAINER, (0, 2))
    start = replace(empty, weights=build_network(empty, deep_supervision=True).state_dict())
    with nnunet_environment(tmp_path / "work"):
        return InMemoryTrainer.ready(start, Full(), Schedule(lr=0.01, iterations=1, seed=0), "cpu")


def prepared(trainer: InMemoryTrainer, cases: tuple[Case, ...], folder: Path | None = None) -> tuple[PreparedCase, ...]:
    if folder is not None:
        return prepare_in_files(cases, trainer.start, PreparedFiles(folder), Silent())
    return prepare_cases(cases, trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json, Silent())


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_scans_are_prepared_as_by_nnunet(trainer: InMemoryTrainer, cases: tuple[Case, ...]) -> None:
    shots = prepared(trainer, cases[::-1])
    assert [shot.name for shot in shots] == sorted(case.name for case in cases)
    for case, shot in zip(cases, shots, strict=True):
        with nnunet_environment():
            data, labels, properties = trainer.configuration_manager.preprocessor_class(verbose=False).run_case(
                [str(image) for image in case.images],
                str(case.label),
                trainer.plans_manager,
                trainer.configuration_manager,
                trainer.dataset_json,
            )
        np.testing.assert_allclose(shot.image.numpy(), data, atol=1e-5)
        assert np.array_equal(shot.labels.numpy(), labels[0])
        assert shot.locations.keys() == properties["class_locations"].keys()
        assert all(np.array_equal(shot.locations[key], at) for key, at in properties["class_locations"].items())


def test_samples_from_files_are_those_from_memory(
    trainer: InMemoryTrainer, cases: tuple[Case, ...], tmp_path: Path
) -> None:
    memory, files = (prepared(trainer, cases, folder) for folder in (None, tmp_path / "prepared"))
    before = [shot.image.clone() for shot in memory]
    for i in range(4):
        one, other = (trainer.feed(shots, seed=3)[i] for shots in (memory, files))
        assert torch.equal(one["data"], other["data"])
        assert all(torch.equal(a, b) for a, b in zip(one["target"], other["target"], strict=True))
    for shot, stored, image in zip(memory, files, before, strict=True):
        assert torch.equal(shot.image, image)
        assert torch.equal(in_memory(stored.image), image)
        assert same(shot, stored)


@pytest.mark.parametrize("std", [60.0, 1.0])
def test_half_precision_changes_no_intensity_by_more_than_the_bound(
    trainer: InMemoryTrainer, cases: tuple[Case, ...], tmp_path: Path, std: float
) -> None:
    """A scan that would lose more, because its intensities are large, stays as it is."""
    shot = prepared(trainer, cases[:1])[0]
    shot = replace(shot, image=shot.image * (60 / std))
    files = PreparedFiles(tmp_path, "half")
    facts = files.write(shot)
    difference = float((in_memory(files.read(shot.name).image) - shot.image).abs().max())
    assert difference == facts["largest_difference"] <= LOSS
    assert (facts["stored"] == "half") == (float(shot.image.abs().max()) < 8)
    assert (difference == 0) == (facts["stored"] == "float32")
    assert torch.equal(in_memory(files.read(shot.name).labels), shot.labels)
    assert files.has(shot.name)
    assert not PreparedFiles(tmp_path, "float32").has(shot.name)  # the other choice prepares it anew


def test_what_is_prepared_is_not_prepared_again(
    trainer: InMemoryTrainer, cases: tuple[Case, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "prepared"
    prepared(trainer, cases, folder)
    undisturbed = content(folder)
    (folder / f"{cases[1].name}.json").unlink()  # as if it had been stopped before the last of this case's files
    (folder / f"{cases[1].name}.image.b2nd").write_bytes(b"half")
    (folder / ".partial-1-x.npy").write_bytes(b"half")
    again: list[str] = []
    write = PreparedFiles.write
    monkeypatch.setattr(PreparedFiles, "write", lambda files, shot: (again.append(shot.name), write(files, shot))[1])
    prepared(trainer, cases, folder)
    assert again == [cases[1].name]
    assert content(folder) == undisturbed


def test_two_processes_write_the_bytes_of_one(
    trainer: InMemoryTrainer, cases: tuple[Case, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one of them is killed and the call is made again."""
    prepared(trainer, cases, tmp_path / "one")

    def two(folder: str) -> None:
        files = PreparedFiles(tmp_path / folder)
        prepare_in_files(cases, trainer.start, files, Silent(), processes=2, join_after_s=0)

    monkeypatch.setattr(module, "PREPARER", "tests.training.slow_preparer:preparer")
    monkeypatch.setenv("KILLED", "1")
    with pytest.raises(DataError, match="ended with code -9"):
        two("two")
    left = {file.stem for file in (tmp_path / "two").glob("*.json")}
    assert left < {case.name for case in cases}
    monkeypatch.delenv("KILLED")
    two("two")
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_an_error_of_another_process_is_told_as_it_is(
    trainer: InMemoryTrainer, cases: tuple[Case, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PREPARER", "tests.training.slow_preparer:preparer")
    unlabelled = tuple(replace(case, label=None if case is cases[1] else case.label) for case in cases)
    with pytest.raises(DataError, match=rf"^Case {cases[1].name}: it has no reference\. Label it, or leave it out\.$"):
        prepare_in_files(unlabelled, trainer.start, PreparedFiles(tmp_path), Silent(), processes=2, join_after_s=0)


def test_places_of_labels_keep_their_keys(tmp_path: Path) -> None:
    """A key is a number, or several where voxels are ignored."""
    data = np.zeros((1, 2, 2, 2), np.float32)
    places = {1: np.array([[0, 1, 1, 0]]), (1, 2): np.array([[0, 0, 0, 0], [0, 1, 1, 1]]), 2: []}
    shot = PreparedCase.prepared("case.1", data, data.astype(np.int16), places)
    files = PreparedFiles(tmp_path)
    files.write(shot)
    assert same(shot, files.read("case.1"))


def test_each_process_draws_samples_of_its_own(
    trainer: InMemoryTrainer, cases: tuple[Case, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    shots = prepared(trainer, cases)
    found = []
    for rank in (0, 1, 0):
        monkeypatch.setattr(InMemoryTrainer, "rank", rank)
        found.append([trainer.feed(shots, seed=3)[i]["data"] for i in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))


def stock(patch: tuple[int, ...], labels: dict[str, Any], **configuration: Any) -> nnUNetTrainer:
    """nnU-Net's own trainer for plans with these changes."""
    plans = small_plans()
    plans["configurations"]["3d_fullres"] |= {"patch_size": list(patch), **configuration}
    description = {"channel_names": {"0": "CT", "1": "PET"}, "labels": labels, "file_ending": ".nii.gz"}
    if any(isinstance(value, list) for value in labels.values()):
        description["regions_class_order"] = [1, 2]
    return SimpleNamespace(
        configuration_manager=(manager := PlansManager(plans)).get_configuration("3d_fullres"),
        plans_manager=manager,
        label_manager=manager.get_label_manager(description),
        dataset_json=description,
        configuration_name="3d_fullres",
        is_cascaded=False,
        oversample_foreground_percent=0.33,
    )


PLAIN = {"background": 0, "a": 1, "b": 2}


def settled(trainer: Any) -> Any:
    trainer.print_to_log_file = lambda *_: None
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size = lambda: (
        nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
    )
    return augmentation_settings(trainer)


def test_settings_are_what_nnunet_takes_from_its_plans() -> None:
    usual = stock((32, 40, 48), PLAIN, use_mask_for_norm=[False, True])
    usual.oversample_foreground_percent = 0.2
    thick = settled(usual)
    assert (thick.patch, thick.channels, thick.masked) == ((32, 40, 48), 2, (1,))
    assert not thick.in_plane
    assert thick.angle == pytest.approx(math.radians(30))
    assert thick.mirror_axes == (0, 1, 2)
    limits = (-math.pi / 6, math.pi / 6)
    assert thick.box == tuple(get_patch_size((32, 40, 48), limits, limits, limits, (0.85, 1.25)))
    assert not thick.has_ignore
    assert thick.foreground == 0.2  # as the trainer says, not nnU-Net's usual share
    thin = settled(stock((8, 40, 48), PLAIN | {"ignore": 3}, use_mask_for_norm=[False, False]))
    assert thin.in_plane
    assert thin.box[0] == 8
    assert thin.angle == pytest.approx(math.pi)
    assert thin.has_ignore
    assert thin.every_label == (-1, 0, 1, 2)


def test_only_axes_that_the_base_was_mirrored_along_are(trainer: InMemoryTrainer) -> None:
    assert augmentation_settings(trainer).mirror_axes == (0, 2)


def test_a_trainer_may_mirror_along_no_axis(trainer: InMemoryTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net's trainers without mirroring say None."""
    told = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()[:3]
    monkeypatch.setattr(
        InMemoryTrainer, "configure_rotation_dummyDA_mirroring_and_inital_patch_size", lambda _: (*told, None)
    )
    assert augmentation_settings(trainer).mirror_axes == ()


def test_what_samples_cannot_be_made_for_is_refused() -> None:
    cascade = stock((16, 16, 16), PLAIN)
    cascade.is_cascaded = True
    with pytest.raises(ConfigError, match="cascade"):
        settled(cascade)
    with pytest.raises(ConfigError, match="3D"):
        settled(stock((16, 16), PLAIN))
