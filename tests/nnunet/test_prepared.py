"""Scans prepared in files: the same patches as from memory, nothing done twice, nothing half-written taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lnsegfm.datasets.dataset import Case, open_dataset
from lnsegfm.methods.full import Full
from lnsegfm.nnunet import batches
from lnsegfm.nnunet.batches import MemoryDataset, SeededBatches, loader_for, preprocess
from lnsegfm.nnunet.engine import engine
from lnsegfm.nnunet.fit import MemoryTrainer, Schedule
from lnsegfm.nnunet.model import read_model
from lnsegfm.progress import Silent


@pytest.fixture
def trainer(world: Any, tmp_path: Path) -> MemoryTrainer:
    with engine(tmp_path / "work"):
        schedule = Schedule(lr=0.01, iterations=1, seed=0)
        return MemoryTrainer.ready(read_model(world.base).first, Full(), schedule, "cpu")


def prepared(trainer: MemoryTrainer, cases: tuple[Case, ...], folder: Path | None) -> MemoryDataset:
    manager = (trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json)
    return preprocess(cases, *manager, Silent(), folder)


def patches(trainer: MemoryTrainer, dataset: MemoryDataset, rank: int | None = None) -> list[torch.Tensor]:
    found = SeededBatches(loader_for(trainer, dataset), seed=3, rank=rank)
    return [found[i]["data"] for i in range(4)]


def test_patches_from_files_are_those_from_memory(trainer: MemoryTrainer, world: Any, tmp_path: Path) -> None:
    cases = open_dataset(world.clinic).cases
    memory, files = (prepared(trainer, cases, folder) for folder in (None, tmp_path / "prepared"))
    for one, other in zip(patches(trainer, memory), patches(trainer, files), strict=True):
        assert torch.equal(one, other)
    before = [np.asarray(files.load_case(name)[0]).copy() for name in files.identifiers]
    for name, data in zip(files.identifiers, before, strict=True):
        assert np.array_equal(np.load(tmp_path / "prepared" / f"{name}.data.npy"), data)


@pytest.mark.parametrize("on_disk", [False, True])
def test_augmentation_leaves_the_scans_alone(trainer: MemoryTrainer, tmp_path: Path, on_disk: bool) -> None:
    """In scans larger than a patch with its margin, which is then cut out and not padded."""
    random = np.random.default_rng(0)
    data, labels = random.normal(size=(1, 64, 64, 64)).astype(np.float32), np.zeros((1, 64, 64, 64), np.int16)
    labels[:, 20:40, 20:40, 20:40] = 1
    places = np.argwhere(labels == 1)
    if on_disk:
        batches._keep(tmp_path, "large", data, labels, {1: places})
        dataset = MemoryDataset({"large": batches._kept(tmp_path, "large")})
    else:
        dataset = MemoryDataset({"large": (data.copy(), labels.copy(), {"class_locations": {1: places}})})
    found = SeededBatches(loader_for(trainer, dataset), seed=0)
    first = [found[i]["data"].clone() for i in range(20)]
    assert all(torch.equal(found[i]["data"], before) for i, before in enumerate(first))
    assert np.array_equal(np.asarray(dataset.load_case("large")[0]), data)
    assert np.array_equal(np.asarray(dataset.load_case("large")[1]), labels)


def test_what_is_prepared_is_not_prepared_again(
    trainer: MemoryTrainer, world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases, folder = open_dataset(world.clinic).cases, tmp_path / "prepared"
    prepared(trainer, cases, folder)
    (folder / f"{cases[1].name}.npz").unlink()  # as if it had been stopped before the last of this case's files
    (folder / ".partial-1-x.npy").write_bytes(b"half")
    again: list[str] = []
    keep = batches._keep
    monkeypatch.setattr(batches, "_keep", lambda folder, name, *rest: (again.append(name), keep(folder, name, *rest)))
    prepared(trainer, cases, folder)
    assert again == [cases[1].name]
    assert not list(folder.glob(".partial-*"))


def test_places_of_labels_keep_their_keys(tmp_path: Path) -> None:
    """A key is a number, or several where voxels are ignored."""
    data = np.zeros((1, 2, 2, 2), np.float32)
    places = {1: np.array([[0, 1, 1, 0]]), (1, 2): np.array([[0, 0, 0, 0], [0, 1, 1, 1]]), 2: []}
    batches._keep(tmp_path, "case.1", data, data.astype(np.int16), places)
    _, _, properties = batches._kept(tmp_path, "case.1")
    assert properties["class_locations"].keys() == places.keys()
    assert all(np.array_equal(properties["class_locations"][key], np.asarray(places[key])) for key in places)


def test_each_process_draws_patches_of_its_own(trainer: MemoryTrainer, world: Any) -> None:
    dataset = prepared(trainer, open_dataset(world.clinic).cases, None)
    first, second, same = (patches(trainer, dataset, rank) for rank in (0, 1, 0))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True))
