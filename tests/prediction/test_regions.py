"""Models of regions: imported, predicted as stock nnU-Net does, evaluated region by region."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lnsegfm.datasets.dataset import Case
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.folders import evaluate
from lnsegfm.evaluation.mask_statistics import FOREGROUND
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.segmentation import segment_mask
from lnsegfm.imaging.dicom.structure_masks import roi_mask
from lnsegfm.imaging.files import read_mask, write_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.inference.speed_presets import InferenceSetting
from lnsegfm.models.install import ImportOptions, install
from lnsegfm.models.model_folder import Model, read_model, read_models, write_model
from lnsegfm.nnunet.network_building import build_network
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.prediction.ready_predictor import ready
from lnsegfm.prediction.session import load
from lnsegfm.registry.home import model_place
from lnsegfm.registry.stored_model import read_stored
from lnsegfm.weights.checkpoint import Checkpoint
from tests.cli.machines import description
from tests.imaging.dicom.scanner import write_series
from tests.prediction.test_predictor import NEAR, coarser, stock
from tests.scenes import scene, small_plans, write_image

pytestmark = pytest.mark.usefixtures("one_thread")
NESTED = {"background": 0, "whole": [1, 2], "core": 2}
KIDNEY = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2}
KINDS = {"nested": (NESTED, [1, 2]), "kidney": (KIDNEY, [1, 3, 2])}


def write_regions(folder: Path, kind: str = "nested", seed: int = 3) -> Model:
    """A model of random weights with a sigmoid output a region."""
    labels, order = KINDS[kind]
    plans = small_plans()
    coarser(plans)
    told = description() | {"labels": labels, "regions_class_order": order}
    start = Checkpoint({}, "3d_fullres", plans, told, "nnUNetTrainer", (2,))
    torch.manual_seed(seed)
    network = build_network(start, deep_supervision=True)
    write_model(folder, replace(start, weights=network.state_dict()))
    return read_model(folder)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    write_image(path, np.pad(scene(9)[0], 3))
    return path


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_masks_are_those_of_stock_nnunet(kind, scan, tmp_path):
    model = write_regions(tmp_path / "model", kind)
    expected, likely = stock(model, [scan])
    assert expected.any()
    exact, ours = Predictor(model, exact=True), Predictor(model, watch=True)
    same = exact.run(exact.prepare([scan]), probabilities=True)
    np.testing.assert_array_equal(same.mask, expected)
    assert any(0 < (share > 0.5).mean() < 1 for share in likely)
    np.testing.assert_array_equal(same.probabilities, likely)
    made = ours.run(ours.prepare([scan]), probabilities=True)
    single, likely = stock(model, [scan], single=True)
    near = (np.abs(likely - 0.5) < NEAR).any(0)
    np.testing.assert_array_equal(made.mask[~near], single[~near])
    assert made.mirrored is not None
    assert set(made.mirrored) == {*model.labels.names, FOREGROUND}
    assert any(0 < overlap.both < overlap.plain for overlap in made.mirrored.values())


def test_several_models_are_averaged_region_by_region(scan, tmp_path):
    models = [write_regions(tmp_path / str(seed), "kidney", seed) for seed in (3, 4)]
    both = ready(read_models([tmp_path / "3", tmp_path / "4"]), InferenceSetting(exact=True))
    found = both.run(both.prepare([scan]), probabilities=True)
    mean = np.mean([stock(model, [scan])[1] for model in models], axis=0)
    np.testing.assert_allclose(found.probabilities, mean, atol=1e-6)
    expected = np.zeros_like(found.mask)
    for value, share in zip([1, 3, 2], mean, strict=True):
        expected[share > 0.5] = value
    assert ((found.mask != expected) <= (np.abs(mean - 0.5) < 1e-5).any(0)).all()


def test_imported_predicted_and_evaluated_by_region(scan, tmp_path, monkeypatch, lnsegfm_here):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    model = write_regions(tmp_path / "model")
    install(tmp_path / "model", "brats", ImportOptions())
    stored = read_model(Path("brats"))
    assert read_stored(model_place("brats")).card.shown_labels == ("whole=1+2", "core=2")
    assert stored.labels == model.labels == LabelMap.from_dataset_json(NESTED, [1, 2])
    options = PredictOptions(device="cpu", probabilities=True, nodes=True, flags=True)
    out = predict_cases(stored, [Case("scan", (scan,))], tmp_path / "out", options, summary=True)
    assert not out.failed
    mask, grid = read_mask(tmp_path / "out" / "scan.nii.gz")

    found = load(model, device="cpu").predict(scan, probabilities=True)
    np.testing.assert_array_equal(found.array, mask)
    assert found.volumes_ml["whole"] == pytest.approx(np.count_nonzero(mask > 0) * grid.voxel_volume_ml)
    assert found.volumes_ml["core"] == pytest.approx(np.count_nonzero(mask == 2) * grid.voxel_volume_ml)
    assert set(found.nodes) == {"whole", "core"}

    reference = mask.copy()
    reference[:, :12] = 0
    write_mask(tmp_path / "reference" / "scan.nii.gz", reference, grid)
    scored = evaluate(tmp_path / "out", tmp_path / "reference")
    for name, values in {"whole": (1, 2), "core": (2,)}.items():
        both = [np.isin(array, values) for array in (mask, reference)]
        expected = 2 * np.count_nonzero(both[0] & both[1]) / sum(map(np.count_nonzero, both))
        assert scored.case("scan").labels[name].dice == pytest.approx(expected)
    words = ("evaluate", tmp_path / "out", tmp_path / "reference", "--node", "core", "--out", tmp_path / "page")
    done = lnsegfm_here(*words)
    assert done.returncode == 0, done.stderr
    again = lnsegfm_here("evaluate", tmp_path / "out", tmp_path / "reference", "--json")
    assert again.returncode == 0
    assert type(scored).from_json(scored.to_json(tmp_path), tmp_path).labels == scored.labels


def test_regions_of_a_series_become_dicom(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    image, grid = np.pad(scene(9)[0], 3), Grid((26, 30, 34), (2.0, 1.5, 1.5))
    write_series(tmp_path / "ct", image[:26, :30, :34], grid)
    model = write_regions(tmp_path / "model", "kidney")
    options = PredictOptions(device="cpu", formats=("rtstruct", "seg"), mirroring=False)
    with find_inputs(tmp_path / "ct", model.channels) as scans:
        assert not predict_cases(model, scans, tmp_path / "out", options).failed
    (file,) = (tmp_path / "out").glob("*.nii.gz")
    mask, place = read_mask(file)
    segments = read_seg(file.with_name(file.name.replace(".nii.gz", ".seg.dcm")))
    rois = {r.name: r for r in read_rtstruct(file.with_name(file.name.replace(".nii.gz", ".rtstruct.dcm"))).rois}
    assert list(segments.names) == list(model.labels.names)
    for number, name in enumerate(model.labels.names, 1):
        expected = model.labels.voxels(mask, name)
        assert expected.any()
        np.testing.assert_array_equal(segment_mask(segments, number, place), expected)
        np.testing.assert_array_equal(roi_mask(rois[name], place), expected)
