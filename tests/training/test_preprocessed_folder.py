"""nnU-Net's reader finds in our folders what was prepared, and we find in nnU-Net's what it finds there."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import ConfigError, DataError, UnsafeFile
from lnsegfm.models.model_folder import read_model
from lnsegfm.nnunet.plan_configuration import plans_managers
from lnsegfm.progress import Silent
from lnsegfm.storage import read_json
from lnsegfm.training.prepared_cases import prepare_cases
from lnsegfm.training.preprocessed_folder import NnunetFolder, _locations
from lnsegfm.transforms.augmentation.prepared_case import in_memory
from lnsegfm.workflows.pretrain import pretrain
from lnsegfm.workflows.pretrain_plan import PretrainSettings
from tests.training.same import same


def test_scans_go_to_nnunet_and_come_back(world: Any, tmp_path: Path) -> None:
    """One training writes them, nnU-Net's reader reads them, another takes them and ends in the same weights."""
    plans = world.folder / "plans.json"
    settings = PretrainSettings(plans=plans, iterations=2, prepared="float32")
    first = pretrain(world.clinic, tmp_path / "first", settings, device="cpu", write_preprocessed=tmp_path / "nnunet")
    start = read_model(first.folder).first
    (place,) = (tmp_path / "nnunet").iterdir()
    assert read_json(place / "nnUNetPlans.json")["dataset_name"] == place.name
    folder = NnunetFolder.of(place, start.plans, start.configuration)
    cases = open_dataset(world.clinic).cases
    shots = prepare_cases(cases, *plans_managers(start.plans, start.configuration), dict(start.dataset_json), Silent())
    theirs = nnUNetDatasetBlosc2(str(folder.folder))
    assert sorted(theirs.identifiers) == sorted(case.name for case in cases)
    for shot in shots:
        data, labels, _, properties = theirs.load_case(shot.name)
        assert np.array_equal(data[:], in_memory(shot.image).numpy())
        assert np.array_equal(labels[0], in_memory(shot.labels).numpy())
        for key, places in shot.locations.items():
            assert np.array_equal(properties["class_locations"][key], places)
        assert same(folder.read(shot.name), shot)
        part = folder.read(shot.name).image
        assert torch.equal(part.part(slice(1, 5), slice(0, 7), slice(2, 9)), in_memory(shot.image)[:, 1:5, :7, 2:9])  # type: ignore[union-attr]

    again = PretrainSettings(preprocessed=place, iterations=2, prepared="float32")
    second = pretrain(world.clinic, tmp_path / "second", again, device="cpu")
    assert read_model(second.folder).first.weights_sha256 == start.weights_sha256

    (folder.folder / f"{cases[0].name}.pkl").unlink()
    with pytest.raises(DataError, match=rf"1 scan.*\({cases[0].name}\)"):
        pretrain(world.clinic, tmp_path / "third", again, device="cpu")
    assert not (tmp_path / "third").exists()


def test_labels_that_nnunet_did_not_merge_are_refused() -> None:
    with pytest.raises(ConfigError, match="Leave --keep-labels and --merge out"):
        PretrainSettings(preprocessed=Path("nnunet"), keep_labels=("node",))


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_a_pickle_executes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "case.pkl"
    file.write_bytes(pickle.dumps({"class_locations": {1: np.arange(8).reshape(2, 4), (1, 2): []}, "spacing": [1.0]}))
    found = _locations(file)
    assert np.array_equal(found[1], np.arange(8).reshape(2, 4))
    assert len(found[1, 2]) == 0
    file.write_bytes(pickle.dumps({"class_locations": Evil()}))
    with pytest.raises(UnsafeFile, match=r"it would run builtins\.print when read"):
        _locations(file)
    file.write_bytes(b"no pickle")
    with pytest.raises(DataError, match="not the properties of a preprocessed scan"):
        _locations(file)
    assert capsys.readouterr().out == ""
