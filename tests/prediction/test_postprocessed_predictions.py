"""Rules of postprocessing on every way of predicting: series and files, stages, folds, models, regions, exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnsegfm.evaluation.postprocessing import LargestComponent, Postprocessing, SmallestVolume
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.segmentation import segment_mask
from lnsegfm.imaging.dicom.structure_masks import roi_mask
from lnsegfm.imaging.files import read_mask, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.models.model_folder import read_model, read_models
from lnsegfm.models.postprocessing_files import write_postprocessing
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.ready_predictor import ready
from lnsegfm.prediction.scans import find_scans
from tests.imaging.dicom.scanner import write_series
from tests.prediction.test_cascades_and_ensembles import DATA, EXACT, scans, stock, write_configuration
from tests.prediction.test_regions import write_regions
from tests.scenes import scene

__all__ = ["scans"]
pytestmark = pytest.mark.usefixtures("one_thread")
RULES = Postprocessing((LargestComponent((1, 2)), LargestComponent((2,)), SmallestVolume((1,), 40.0)))
GRID = Grid((26, 30, 34), (2.0, 1.5, 1.5))


def cleaned(raw: np.ndarray, voxel_mm3: float, rules: Postprocessing = RULES) -> np.ndarray:
    """The mask after the rules, which have something to remove."""
    found = rules.applied(raw, voxel_mm3)
    assert (found != raw).any()
    assert found.any()
    return found


def test_a_series_and_a_file_give_one_mask_and_every_export_follows_the_rules(tmp_path: Path) -> None:
    model = write_regions(tmp_path / "model", "kidney")
    covered = model.labels.covered
    rules = Postprocessing((LargestComponent(covered["kidney"]), SmallestVolume(covered["tumour"], 60.0)))
    write_postprocessing(model.folder, rules)
    model = read_model(model.folder)
    image = np.pad(scene(9)[0], 3)[:26, :30, :34]
    write_series(tmp_path / "ct", image, GRID)
    (tmp_path / "nifti").mkdir()
    write_volume(tmp_path / "nifti" / "a.nii.gz", image.astype(np.int16), GRID)

    def predicted(place: str, out: str, **options: Any) -> tuple[Path, np.ndarray]:
        with find_inputs(tmp_path / place, model.channels) as found:
            on = PredictOptions(device="cpu", mirroring=False, **options)
            assert not predict_cases(model, found, tmp_path / out, on, summary=True).failed
        (file,) = (tmp_path / out).glob("*.nii.gz")
        return file, read_mask(file)[0]

    file, mask = predicted("ct", "dicom", formats=("rtstruct", "seg"), nodes=True, probabilities=True)
    _, raw = predicted("ct", "raw", postprocessing=False)
    _, of_file = predicted("nifti", "plain")
    np.testing.assert_array_equal(mask, cleaned(raw, 4.5, rules))
    np.testing.assert_array_equal(mask, of_file)

    place = read_mask(file)[1]
    segments = read_seg(file.with_name(file.name.replace(".nii.gz", ".seg.dcm")))
    rois = {r.name: r for r in read_rtstruct(file.with_name(file.name.replace(".nii.gz", ".rtstruct.dcm"))).rois}
    for number, name in enumerate(model.labels.names, 1):
        expected = model.labels.voxels(mask, name)
        assert expected.any()
        np.testing.assert_array_equal(segment_mask(segments, number, place), expected)
        np.testing.assert_array_equal(roi_mask(rois[name], place), expected)


def test_of_a_cascade_the_last_masks_are_cleaned_and_the_first_go_on_as_they_are(scans: Path, tmp_path: Path) -> None:
    low = write_configuration(tmp_path, "3d_lowres")
    later = write_configuration(tmp_path, "3d_cascade_fullres", seed=11)
    before = stock(low, scans, tmp_path / "low")
    expected = stock(later, scans, tmp_path / "theirs", previous=before)
    write_postprocessing(low, Postprocessing((LargestComponent((1,)), LargestComponent((2,)))))
    write_postprocessing(later, RULES)
    model = read_model(tmp_path / DATA)
    assert model.postprocessing == RULES
    for case in find_scans(scans, 1).cases:
        theirs, grid = read_mask(expected / f"{case.name}.nii.gz")
        predictor = ready(model, EXACT)
        found = predictor.run(predictor.prepare(case.images)).mask
        np.testing.assert_array_equal(found, cleaned(theirs, 1000 * grid.voxel_volume_ml))


@pytest.mark.parametrize("rules", [(RULES, RULES), (RULES, Postprocessing(RULES.rules[:1]))])
def test_of_folds_and_models_the_average_is_cleaned_where_all_agree(rules: Any, scans: Path, tmp_path: Path) -> None:
    folders = [
        write_configuration(tmp_path, name, folds=folds, seed=1) for name, folds in (("3d_fullres", 2), ("2d", 1))
    ]
    (case, *_) = find_scans(scans, 1).cases

    def mask_of(model: Any) -> np.ndarray:
        predictor = ready(model, EXACT)
        mask: np.ndarray = predictor.run(predictor.prepare(case.images)).mask
        return mask

    raw = [mask_of(read_model(folders[0])), mask_of(read_models(folders))]
    for folder, own in zip(folders, rules, strict=True):
        write_postprocessing(folder, own)
    voxel = 1000 * read_mask(case.images[0])[1].voxel_volume_ml
    np.testing.assert_array_equal(mask_of(read_model(folders[0])), cleaned(raw[0], voxel))
    both = read_models(folders)
    alike = rules[0] == rules[1]
    np.testing.assert_array_equal(mask_of(both), cleaned(raw[1], voxel) if alike else raw[1])
    assert any("postprocess" in note.lower() for note in both.notes) == (not alike)


def test_the_command_leaves_rules_out_when_asked_and_probabilities_alone(
    scans: Path, tmp_path: Path, lnsegfm_here: Any
) -> None:
    folder = write_configuration(tmp_path, "3d_fullres")
    write_postprocessing(folder, RULES)
    words = ("predict", folder, scans, "--device", "cpu", "--no-mirroring", "--probabilities")
    with_rules = lnsegfm_here(*words, "--out", tmp_path / "with")
    without = lnsegfm_here(*words, "--out", tmp_path / "without", "--no-postprocessing")
    assert with_rules.returncode == without.returncode == 0, without.stderr
    assert "Postprocessing: the largest component of all foreground is kept" in with_rules.stderr + with_rules.stdout
    assert "Postprocessing:" not in without.stderr + without.stdout
    for case in find_scans(scans, 1).cases:
        (mask, grid), (raw, _) = (read_mask(tmp_path / one / f"{case.name}.nii.gz") for one in ("with", "without"))
        np.testing.assert_array_equal(mask, cleaned(raw, 1000 * grid.voxel_volume_ml))
        with (
            np.load(tmp_path / "with" / f"{case.name}.npz") as one,
            np.load(tmp_path / "without" / f"{case.name}.npz") as other,
        ):
            np.testing.assert_array_equal(one["probabilities"], other["probabilities"])
    again = lnsegfm_here(*words, "--out", tmp_path / "with", "--no-postprocessing")
    assert again.returncode == 2
    assert "postprocessing" in again.stderr
    assert json.loads((tmp_path / "with" / "masks.json").read_text())["postprocessing"]
