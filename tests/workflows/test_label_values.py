"""Labels of any values: the same training as with 1, 2, 3, ..., and masks with the data's values."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.folders import evaluate
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.segmentation import segments_mask
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.structure_masks import structures_mask
from lnsegfm.imaging.files import image_files, read_mask, write_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.models.adapter_files import apply_adapter
from lnsegfm.models.export_model import export_model
from lnsegfm.models.install import ImportOptions, install
from lnsegfm.models.model_folder import Model, read_model, write_model
from lnsegfm.prediction.session import load
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.imaging.dicom.scanner import write_series
from tests.prediction.test_predictor import write_random
from tests.scenes import SHAPE, scene

pytestmark = pytest.mark.usefixtures("one_thread")
PLAIN, GAPS = {"node": 1, "vessel": 2, "ignore": 3}, {"vessel": 300, "node": 17, "ignore": 2}


def clinic(source: Path, to: Path, labels: dict[str, int]) -> Path:
    """A copy of a dataset whose masks hold nodes, vessels and ignored voxels with these values."""
    shutil.copytree(source / "imagesTr", to / "imagesTr")
    for file in image_files(source / "labelsTr"):
        mask, grid = read_mask(file)
        written = np.where(mask > 0, labels["node"], 0).astype(np.uint16)
        written[:, :, 14:] = np.where(mask[:, :, 14:] > 0, labels["vessel"], 0)
        written[:2] = labels["ignore"]
        write_mask(to / "labelsTr" / file.name, written, grid)
    described = json.loads((source / "dataset.json").read_text())
    (to / "dataset.json").write_text(json.dumps(described | {"labels": {"background": 0, **labels}}))
    return to


def test_a_run_on_any_values_is_the_run_on_consecutive_ones(world: Any, tmp_path: Path) -> None:
    runs = {}
    for name, labels in (("plain", PLAIN), ("gaps", GAPS)):
        planned = plan(clinic(world.clinic, tmp_path / name, labels), world.base, world.recipe())
        runs[name] = finetune(planned, tmp_path / f"{name}_run", device="cpu", workers=0)
    models = {name: read_model(tmp_path / f"{name}_run") for name in runs}

    assert models["gaps"].weights_sha256 == models["plain"].weights_sha256
    assert models["gaps"].labels == models["plain"].labels == LabelMap.from_dataset_json(PLAIN)
    assert models["gaps"].mask_labels == LabelMap.from_dataset_json(GAPS)
    assert models["gaps"].dataset_json["labels"] == {"background": 0, **PLAIN}  # what stock nnU-Net needs
    records = {name: json.loads((tmp_path / f"{name}_run" / "run.json").read_text()) for name in runs}
    assert records["gaps"]["result"]["verdict"] == records["plain"]["result"]["verdict"]

    folders = {name: tmp_path / f"{name}_run" / "predictions" / "adapted" for name in runs}
    for file in image_files(folders["plain"]):
        mask, _ = read_mask(file)
        expected = np.select([mask == PLAIN[name] for name in PLAIN], [GAPS[name] for name in PLAIN], 0)
        np.testing.assert_array_equal(read_mask(folders["gaps"] / file.name)[0], expected)
    scored = {name: evaluate(folders[name], tmp_path / name / "labelsTr", partial=True) for name in runs}
    assert [case.labels for case in scored["gaps"].cases] == [case.labels for case in scored["plain"].cases]
    assert scored["gaps"].prediction_labels == LabelMap.from_dataset_json(GAPS)


def test_the_values_go_with_adapter_export_and_import(world: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    planned = plan(clinic(world.clinic, tmp_path / "data", GAPS), world.base, world.recipe(shots=None))
    finetune(planned, tmp_path / "run", device="cpu", workers=0)
    apply_adapter(world.base, tmp_path / "run", tmp_path / "applied")
    told = export_model(tmp_path / "run", "folder", tmp_path / "exported").notes
    assert any("Stock tools write" in note for note in told)
    install(tmp_path / "exported", "stored", ImportOptions())
    for place in (tmp_path / "applied", Path("stored")):
        assert read_model(place).mask_labels == LabelMap.from_dataset_json(GAPS)


def valued(folder: Path) -> Model:
    """A model of random weights whose masks hold 300 and 17."""
    first = write_random(folder / "random").first
    labels = LabelMap({"node": 17, "vessel": 300})
    write_model(folder / "valued", replace(first, dataset_json={**first.dataset_json, **labels.to_model_json()}))
    return read_model(folder / "valued")


def test_dicom_of_any_values(tmp_path: Path) -> None:
    model, plain = valued(tmp_path), read_model(tmp_path / "random" / "0")
    write_series(tmp_path / "ct", scene(5)[0], Grid(SHAPE, (2.0, 1.0, 1.5), (-12.25, 40.5, 7.125)))
    series = series_of(tmp_path / "ct")
    found, same = (load(one, device="cpu").predict(series, probabilities=True) for one in (model, plain))
    values = {"node": 17, "vessel": 300}
    assert found.labels == values
    for name, value in values.items():
        np.testing.assert_array_equal(found.array == value, same.array == same.labels[name])
    assert found.volumes_ml == same.volumes_ml
    np.testing.assert_array_equal(found.probabilities, same.probabilities)
    assert {flag.reason for flag in found.flags} == {flag.reason for flag in same.flags}

    rules = [f"{name}={name}" for name in values]
    segments = read_seg(found.to_dicom_seg(tmp_path / "b.dcm"))
    np.testing.assert_array_equal(segments_mask(segments, series.grid, rules, {"node": 1, "vessel": 2}), same.array)
    drawn = read_rtstruct(found.to_rtstruct(tmp_path / "a.dcm"))
    np.testing.assert_array_equal(structures_mask(drawn, series.grid, rules, {"node": 1, "vessel": 2}), same.array)
