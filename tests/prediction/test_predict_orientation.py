"""However a scan is stored, its mask lies at the same place in the patient, bit for bit.

Networks of random weights see at once when an array is turned: they have no symmetry.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lnsegfm.datasets.dataset import Case
from lnsegfm.evaluation.masks_in_memory import evaluate_masks
from lnsegfm.evaluation.scoring import Known, Scoring, evaluate_case
from lnsegfm.imaging.axis_code import AXIS_CODES
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.segmentation import segments_mask
from lnsegfm.imaging.dicom.series import find_series
from lnsegfm.imaging.dicom.structure_masks import structures_mask
from lnsegfm.imaging.files import read_mask, write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.imaging.orientation import axis_codes, turn_to
from lnsegfm.models.model_folder import Model, read_model, write_model
from lnsegfm.nnunet.environment import nnunet_environment
from lnsegfm.nnunet.plan_axes import with_axes
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.predictor import Predictor
from lnsegfm.prediction.session import load
from tests.imaging.dicom.scanner import write_series
from tests.prediction.test_predictor import TWO, coarser, write_random
from tests.scenes import scene

pytestmark = pytest.mark.usefixtures("one_thread")
GRID = Grid((20, 24, 28), (2.0, 1.0, 1.5), (-12.5, 4.0, 100.0))
SCAN = Volume(scene(3)[0], GRID)
FORMS = (".nii.gz", ".nrrd", ".mha")
POSITIONS = {
    "axial": "LPS",
    "coronal": "LIP",
    "sagittal": "PIR",
    "feet first": "RPI",
    "prone": "RAS",
    "prone, feet first": "LAI",
    "sagittal from the right": "AIL",
}
QUICK = PredictOptions(device="cpu", mirroring=False)


def stored(axes: str, volume: Volume = SCAN) -> Volume:
    turn = turn_to(volume.grid, axes)
    return Volume(turn.forth(volume.array), turn.grid(volume.grid))


def in_lps(array: np.ndarray, grid: Grid) -> np.ndarray:
    return turn_to(grid, "LPS").forth(array)


def trained_on(axes: str | None) -> Callable[[dict[str, Any]], None]:
    def change(plans: dict[str, Any]) -> None:
        coarser(plans)
        plans |= with_axes(plans, axes, ".nii.gz") if axes is not None else {}

    return change


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_random(tmp_path_factory.mktemp("model"), labels=TWO, change=trained_on("RAS"), axes=())


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return write_random(tmp_path_factory.mktemp("unknown"), labels=TWO, change=trained_on(None), axes=(0, 1, 2))


def test_every_storage_gives_the_same_mask_and_probabilities(model):
    session = load(model, "cpu", options=QUICK)
    first = session.predict(SCAN, probabilities=True)
    assert 0 < first.array.mean() < 1
    for axes in AXIS_CODES:
        volume = stored(axes)
        found = session.predict(volume, probabilities=True)
        assert found.grid == volume.grid
        assert found.array.flags.c_contiguous  # torch takes no negative strides
        np.testing.assert_array_equal(in_lps(found.array, found.grid), first.array)
        np.testing.assert_array_equal(in_lps(found.probabilities, found.grid), first.probabilities)
        assert found.flags == first.flags


def test_a_model_sees_the_difference_that_a_turn_makes(unknown):
    session = load(unknown, "cpu", options=QUICK)
    first = session.predict(SCAN).array
    differ = [axes for axes in AXIS_CODES if (in_lps(*_mask(session.predict(stored(axes)))) != first).any()]
    assert len(differ) == 47


def _mask(prediction: Any) -> tuple[np.ndarray, Grid]:
    return prediction.array, prediction.grid


@pytest.mark.parametrize("setting", [{"exact": True}, {"fast": "coarse-first"}, {"memory": 3.0}])
def test_settings_of_prediction_keep_that(model, setting):
    session = load(model, "cpu", flags=False, **({} if "fast" in setting else {"mirroring": False}), **setting)
    first = session.predict(SCAN).array
    for axes in ("LPS", "RAS", "PIR", "IAL"):
        np.testing.assert_array_equal(in_lps(*_mask(session.predict(stored(axes)))), first)


def test_files_of_every_format_give_the_network_the_same_scan(model, tmp_path):
    predictor = Predictor(model, mirroring=False)
    expected = predictor.prepare([SCAN]).volume
    for axes in AXIS_CODES:
        volume = stored(axes)
        for form in FORMS:
            write_volume(file := tmp_path / f"{axes}{form}", volume.array, volume.grid)
            assert torch.equal(predictor.prepare([file]).volume, expected)


def test_masks_in_files_and_their_sidecars(model, tmp_path):
    cases = []
    for number, axes in enumerate(AXIS_CODES[::5]):
        volume = stored(axes)
        write_volume(file := tmp_path / "scans" / f"{axes}{FORMS[number % 3]}", volume.array, volume.grid)
        cases.append(Case(axes, (file,)))
    options = replace(QUICK, probabilities=True, nodes=True)
    done = predict_cases(model, cases, tmp_path / "masks", options, summary=True)
    assert not done.failed
    expected = load(model, "cpu", options=QUICK).predict(SCAN, probabilities=True)
    volumes, flagged = set(), {}
    for case in cases:
        mask, grid = read_mask(tmp_path / "masks" / f"{case.name}.nii.gz")
        assert grid.difference(stored(case.name).grid) is None
        np.testing.assert_array_equal(in_lps(mask, grid), expected.array)
        with np.load(tmp_path / "masks" / f"{case.name}.npz") as file:
            likely = in_lps(file["probabilities"], grid)
        np.testing.assert_array_equal(likely, expected.probabilities.astype(np.float16))
        record = json.loads((tmp_path / "masks" / f"{case.name}.case.json").read_text())
        volumes.add(record["volumes_ml"]["node"])
        flagged[case.name] = {(flag["kind"], flag["reason"]) for flag in record["flags"]}
    assert len(volumes) == 1
    assert all(flags == flagged["LPS"] for flags in flagged.values())
    assert not any(kind == "orientation" for kind, _ in flagged["LPS"])


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LIP", "PIR", "SLA", "IAR"])
def test_stock_nnunet_predicts_alike_in_every_storage_where_its_reader_turns_scans(model, axes, tmp_path):
    volume = stored(axes)
    write_volume(file := tmp_path / "scan.nii.gz", volume.array, volume.grid)
    with nnunet_environment(), pytest.MonkeyPatch.context() as patch:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        patch.setattr(torch, "set_num_threads", lambda _: None)
        stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
        stock.initialize_from_trained_model_folder(str(model.folder), (0,))
        reader = stock.plans_manager.image_reader_writer_class()
        data, properties = reader.read_images([str(file)])
        mask = stock.predict_single_npy_array(data, properties)
        reader.write_seg(mask, str(tmp_path / "stock.nii.gz"), properties)
    theirs, grid = read_mask(tmp_path / "stock.nii.gz")
    ours = load(model, "cpu", flags=False, exact=True, mirroring=False).predict(file)
    assert grid.difference(ours.grid) is None
    np.testing.assert_array_equal(ours.array, theirs)


@pytest.mark.parametrize("position", POSITIONS)
def test_dicom_in_every_position_and_its_structures_and_segments(model, position, tmp_path):
    axes = POSITIONS[position]
    volume = stored(axes)
    handed = np.linalg.det(np.reshape(volume.grid.direction, (3, 3)))
    assert handed == pytest.approx(1)  # what DICOM can hold
    write_series(tmp_path / "ct", volume.array, volume.grid)
    options = replace(QUICK, formats=("nifti", "rtstruct", "seg"), names="series")
    with find_inputs(tmp_path / "ct", 1, names="series") as scans:
        done = predict_cases(model, scans, tmp_path / "out", options)
    assert not done.failed
    (case,) = done.done
    mask, grid = read_mask(tmp_path / "out" / f"{case}.nii.gz")
    expected = load(model, "cpu", options=QUICK).predict(SCAN).array
    np.testing.assert_array_equal(in_lps(mask, grid), expected)
    (series,) = find_series(tmp_path / "ct").series
    assert axis_codes(series.grid) == axis_codes(grid)
    drawn = structures_mask(
        read_rtstruct(tmp_path / "out" / f"{case}.rtstruct.dcm"), series.grid, ["*=node"], {"node": 1}
    )
    segments = segments_mask(read_seg(tmp_path / "out" / f"{case}.seg.dcm"), series.grid, ["*=node"], {"node": 1})
    for found in (drawn, segments):
        np.testing.assert_array_equal(in_lps(found, series.grid), expected)


def test_an_oblique_scan_goes_to_the_nearest_axes(model):
    angle = np.radians(20)
    tilt = (1.0, 0.0, 0.0, 0.0, np.cos(angle), -np.sin(angle), 0.0, np.sin(angle), np.cos(angle))
    oblique = Volume(SCAN.array, replace(GRID, direction=tilt))
    session = load(model, "cpu", options=QUICK)
    expected = session.predict(SCAN).array  # the network sees the same array
    for axes in ("LPS", "RAS", "LIP", "PIR"):
        found = session.predict(stored(axes, oblique))
        np.testing.assert_array_equal(turn_to(found.grid, "LPS").forth(found.array), expected)


# what is known of a model's axes


def test_stated_axes_count_before_the_models(unknown, model):
    said = load(unknown, "cpu", model_axes="ras", flags=False, mirroring=False)
    assert said.model.axes == "RAS"
    assert unknown.axes is None
    first = said.predict(SCAN).array
    np.testing.assert_array_equal(in_lps(*_mask(said.predict(stored("PIR")))), first)
    assert load(model, "cpu", model_axes="LPS").model.axes == "LPS"


def test_a_scan_that_is_not_axial_is_flagged_where_nobody_knows_the_models_axes(unknown, tmp_path):
    session = load(unknown, "cpu", mirroring=False)

    def orientation(axes: str, of: Any = session) -> list[str]:
        return [flag.reason for flag in of.predict(stored(axes)).flags if flag.kind == "orientation"]

    assert orientation("LPS") == orientation("RAS") == orientation("LAS") == []
    for axes in ("LIP", "PIR", "PLS"):
        (reason,) = orientation(axes)
        assert f"this scan's run to {axes} (x, y, z)" in reason
        assert "--model-axes" in reason
    never = replace(unknown, folds=(replace(unknown.first, mirroring_axes=None),))
    (reason,) = orientation("LPS", load(never, "cpu"))
    assert "left and right, or front and back, may be swapped" in reason
    assert orientation("PIR", load(unknown, "cpu", model_axes="LPS", mirroring=False)) == []


def test_the_command_says_what_it_assumes(unknown, model, lnsegfm_here, tmp_path):
    volume = stored("LIP")
    write_volume(file := tmp_path / "scan.nii.gz", volume.array, volume.grid)
    words = ("--out", tmp_path / "a", "--no-mirroring", "--device", "cpu")
    said = lnsegfm_here("predict", unknown.folder, file, *words)
    assert said.returncode == 0, said.stderr
    assert "Orientation: nothing says on which axes the model was trained" in said.stderr
    assert "Review scan: Nothing says on which axes the model was trained" in said.stdout
    flags = json.loads((tmp_path / "a" / "flags.json").read_text())["cases"]["scan"]
    assert "orientation" in {flag["kind"] for flag in flags}
    other = lnsegfm_here("predict", unknown.folder, file, *words, "--model-axes", "LPS")
    assert other.returncode == 2
    assert "other settings" in other.stderr
    other = lnsegfm_here("predict", unknown.folder, file, *words, "--model-axes", "LPS", "--overwrite")
    assert other.returncode == 0
    assert "Orientation" not in other.stderr
    assert json.loads((tmp_path / "a" / "masks.json").read_text())["model_axes"] == "LPS"
    wrong = lnsegfm_here("predict", unknown.folder, file, *words, "--model-axes", "up")
    assert wrong.returncode == 2
    assert "--model-axes up: not the directions of three axes" in wrong.stderr


def test_a_model_whose_plans_state_what_is_no_axis_code_is_refused(unknown, tmp_path, lnsegfm_here):
    write_model(tmp_path / "m", replace(unknown.first, plans={**unknown.plans, "axes": ["R"]}))
    refused = lnsegfm_here("predict", tmp_path / "m", tmp_path, "--out", tmp_path / "o")
    assert refused.returncode == 2
    assert "axes ['R']: not the directions of three axes" in refused.stderr
    write_model(tmp_path / "m", replace(unknown.first, plans={**unknown.plans, "axes": "psr"}))
    assert read_model(tmp_path / "m").axes == "PSR"


# evaluation


def test_scores_do_not_depend_on_the_storage_of_prediction_or_reference(model, tmp_path):
    prediction = load(model, "cpu", options=QUICK).predict(SCAN, probabilities=True)
    reference = Volume(scene(3)[1], GRID)
    scoring = Scoring(node_labels=("node",))
    labels = prediction_labels = model.labels

    def scored(ours: str, theirs: str) -> Any:
        predicted, referred = stored(ours, Volume(prediction.array, GRID)), stored(theirs, reference)
        for name, volume in (("p", predicted), ("r", referred)):
            write_volume(tmp_path / f"{name}.nii.gz", volume.array.astype(np.uint8), volume.grid)
        likely = turn_to(GRID, ours).forth(prediction.probabilities).astype(np.float16)
        np.savez(tmp_path / "a.npz", probabilities=likely)
        known = Known(probabilities={"a": tmp_path / "a.npz"})
        files = evaluate_case(
            "a", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz", labels, prediction_labels, scoring=scoring, known=known
        ).labels["node"]
        memory = evaluate_masks({"a": predicted}, {"a": referred}, labels).cases[0].labels["node"]
        assert memory.dice == files.dice
        return files

    expected = scored("LPS", "LPS")
    assert 0 < expected.dice < 1
    assert expected.froc is not None
    for ours, theirs in (("LPS", "PIR"), ("SLA", "IRP")):
        found = scored(ours, theirs)
        assert (found.dice, found.reference_ml, found.prediction_ml) == (
            expected.dice,
            expected.reference_ml,
            expected.prediction_ml,
        )
        assert found.hd95_mm == pytest.approx(expected.hd95_mm, abs=1e-9)
        assert found.nsd == pytest.approx(expected.nsd, abs=1e-9)
        assert found.froc == expected.froc
