"""Labelled scans in memory: the model of equal files, bit for bit, and a run that is found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch

import lnsegfm
from lnsegfm.errors import DataError, RunMismatch
from lnsegfm.imaging.files import read_mask, read_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.models.model_folder import read_model
from lnsegfm.workflows.data_in_memory import keep_data
from tests.listening import OnAdvance
from tests.training.test_stopping import at
from tests.workflows.test_finetune import model_bytes

SETTINGS: dict[str, Any] = {"shots": 2, "iterations": 4, "mirroring": False, "device": "cpu", "workers": 0}


def scans(world: Any) -> dict[str, tuple[Path, Path]]:
    """Image and label of each case."""
    images = sorted((world.clinic / "imagesTr").iterdir())
    return {
        file.name.removesuffix("_0000.nii.gz"): (file, world.clinic / "labelsTr" / file.name.replace("_0000", ""))
        for file in images
    }


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(read_model(run).first.weights)


def test_a_list_in_memory_gives_the_weights_of_equal_files(world, tmp_path):
    by_files = lnsegfm.finetune(world.clinic, world.base, tmp_path / "files", labels={"node": 1}, **SETTINGS)
    mixed: dict[str, Any] = {}
    for number, (name, (image, label)) in enumerate(scans(world).items()):
        makers: list[Any] = [lambda p: sitk.ReadImage(str(p)), nibabel.load, lambda p: read_volume(p), str]
        make = makers[number % len(makers)]
        mixed[name] = (make(image), read_mask(label)[0] if number == 1 else make(label))
    run = lnsegfm.finetune(mixed, world.base, tmp_path / "memory", labels={"node": 1}, **SETTINGS)
    ours, theirs = weights(run.folder), weights(by_files.folder)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name
    assert run.record["shots"] == by_files.record["shots"]
    assert run.record["held_out"] == by_files.record["held_out"]
    assert run.evidence.comparison.adapted.cases == by_files.evidence.comparison.adapted.cases
    assert run.record["data"]["folder"] == str(run.folder / "data")

    shown = run._repr_html_()
    assert run.evidence.verdict.split(".")[0] in shown
    assert "mean Dice" in shown


def test_the_same_list_continues_and_another_is_refused(world, tmp_path):
    pairs = [(sitk.ReadImage(str(image)), sitk.ReadImage(str(label))) for image, label in scans(world).values()]
    undisturbed = lnsegfm.finetune(pairs, world.base, tmp_path / "whole" / "run", labels={"node": 1}, **SETTINGS)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        lnsegfm.finetune(pairs, world.base, out, labels={"node": 1}, progress=at(2), **SETTINGS)
    image = sitk.GetArrayFromImage(pairs[0][0])
    image[0, 0, 0] += 1
    other = [((image, Grid.from_image(pairs[0][0])), pairs[0][1]), *pairs[1:]]
    with pytest.raises(RunMismatch, match="it holds a run on other data"):
        lnsegfm.finetune(other, world.base, out, labels={"node": 1}, **SETTINGS)
    before = {file: file.stat().st_mtime_ns for file in (out / "data").rglob("*.nii.gz")}
    stages: list[int] = []
    listener = OnAdvance(lambda done, _, note: stages.append(done) if note.startswith("loss") else None)
    lnsegfm.finetune(pairs, world.base, out, labels={"node": 1}, progress=listener, **SETTINGS)
    assert stages[0] == 3
    assert {file: file.stat().st_mtime_ns for file in (out / "data").rglob("*.nii.gz")} == before
    assert model_bytes(out) == model_bytes(undisturbed.folder)


def test_what_was_killed_before_the_run_began_is_found_again(world, tmp_path):
    pairs = list(scans(world).values())
    folder = keep_data(pairs, tmp_path / "run", ("CT",))
    (tmp_path / "run" / ".partial-data").mkdir()
    (tmp_path / "run" / ".partial-data" / "half.nii.gz").write_bytes(b"half")
    assert keep_data(pairs, tmp_path / "run", ("CT",)) == folder
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "letter.txt").write_text("mine")
    with pytest.raises(RunMismatch, match="it is not empty and holds no run"):
        keep_data(pairs, tmp_path / "own", ("CT",))
    (tmp_path / "second" / "data").mkdir(parents=True)
    with pytest.raises(RunMismatch, match="it is not empty and holds no run"):
        keep_data(pairs, tmp_path / "second", ("CT",))


def test_channels_and_kinds_of_numbers_are_kept(tmp_path):
    grid = Grid((3, 4, 5), (2.0, 1.5, 0.5))
    random = np.random.default_rng(0)
    images = [random.normal(size=grid.shape).astype(kind) for kind in (np.float32, np.int16)]
    label = random.integers(0, 2, grid.shape).astype(bool)
    folder = keep_data({"a": ([(image, grid) for image in images], label)}, tmp_path / "run", ("CT", "PET"))
    for number, image in enumerate(images):
        stored, place = read_volume(folder / "images" / f"a_{number:04d}.nii.gz")
        np.testing.assert_array_equal(stored, image)
        assert stored.dtype == image.dtype
        assert place.difference(grid) is None
    np.testing.assert_array_equal(read_mask(folder / "labels" / "a.nii.gz")[0], label)
    assert json.loads((folder / "dataset.json").read_text())["channel_names"] == {"0": "CT", "1": "PET"}


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_written(tmp_path):
    grid = Grid((3, 4, 5), (2.0, 1.5, 0.5))
    whole = np.zeros(grid.shape, np.int16)
    with pytest.raises(DataError) as caught:
        keep_data([(whole, whole), (whole, grid), ((whole, grid), whole + 0.5), 3], tmp_path / "run", ("CT",))
    assert [line.split(".")[0] for line in caught.value.problems] == [
        "Case case_000: the image: an array without a grid lies nowhere",
        "Case case_001: not a pair of an image and its label",
        "Case case_002: the label: label values must be whole numbers",
        "Case case_003: not a pair of an image and its label",
    ]
    for nothing in ([], {}, 3):
        with pytest.raises(DataError, match="no labelled scans"):
            keep_data(nothing, tmp_path / "run", ("CT",))
    assert not (tmp_path / "run").exists()
