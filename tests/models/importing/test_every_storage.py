"""A model of whatever form gives one scan the same mask in the patient, however the scan is stored."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lnsegfm.datasets.dataset import Case
from lnsegfm.evaluation.masks_in_memory import evaluate_masks
from lnsegfm.imaging.axis_code import AXIS_CODES
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.segmentation import segments_mask
from lnsegfm.imaging.dicom.series import find_series
from lnsegfm.imaging.dicom.structure_masks import structures_mask
from lnsegfm.imaging.files import read_mask, read_volume, write_mask, write_volume
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.models.model_folder import Model, read_model, write_model
from lnsegfm.nnunet.plan_configuration import plans_managers
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.session import Session, load
from lnsegfm.progress import Silent
from lnsegfm.recipe import Recipe
from lnsegfm.training.prepared_cases import PreparedCase, prepare_cases
from lnsegfm.weights.state import weights_hash
from lnsegfm.workflows.finetune_plan import FinetunePlan, plan
from tests.imaging.dicom.scanner import write_series
from tests.models.importing.model_forms import FORMS, imported
from tests.prediction.test_predict_orientation import GRID, SCAN, in_lps, stored
from tests.scenes import write_scenes

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = PredictOptions(device="cpu", mirroring=False, flags=False, step=1.0)
FEW = ("RPS", "SAL", "PIR")
"""A flip; a permutation with a flip that makes it left-handed; and one as a sagittal series has it."""
STORAGES = [pytest.param(FEW, id="few"), pytest.param(AXIS_CODES, id="all", marks=pytest.mark.long)]
WITHOUT_AXES = [name for name, form in FORMS.items() if form.axes is None]
ADAPTABLE = [name for name, form in FORMS.items() if form.adaptable]
WITH_AXES = [name for name in FORMS if name not in WITHOUT_AXES]
WRITTEN = ("TotalSegmentator folder", "MONAI bundle", "cascade", "ensemble", "regions")
"""The writers see masks and labels alone: these forms differ in them, or in how the masks are made."""
BLOCK = np.zeros(GRID.shape, np.uint8)
BLOCK[6:12, 8:16, 10:18] = 1
"""What is scored: whole masks of random networks fall into hundreds of components."""
FIRST = ("imagesTr/case_0_0000.nii.gz", "labelsTr/case_0.nii.gz")
FORMATS = ("nifti", "rtstruct", "seg")


@dataclass(frozen=True)
class Imported:
    """A model, what fine-tuning it starts from, and how it predicts the scan on LPS axes."""

    base: Path
    model: Model
    planned: FinetunePlan | None
    session: Session
    expected: np.ndarray


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("clinic") / "data", 2, seed=70)


@pytest.fixture(scope="module")
def take(clinic: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Imported]:
    """Import a form, once for all laws. An encoder or backbone predicts as fine-tuning starts, with a fresh head."""
    place = tmp_path_factory.mktemp("forms")
    done: dict[str, Imported] = {}

    def once(name: str) -> Imported:
        if name not in done:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LNSEGFM_HOME", str(place / "home"))
                model = imported(name, place / f"form{list(FORMS).index(name)}")
            planned = plan(clinic, model.folder, Recipe(shots=1)) if FORMS[name].adaptable else None
            predicts = model
            if not FORMS[name].whole:
                assert planned is not None
                write_model(place / f"start of {name}", planned.start)
                predicts = read_model(place / f"start of {name}")
            session = load(predicts, "cpu", options=QUICK)
            done[name] = Imported(model.folder, predicts, planned, session, session.predict(SCAN).array)
        return done[name]

    return once


@pytest.mark.parametrize("name", FORMS)
def test_the_model_knows_its_axes_and_its_network_tells_them_apart(name, take):
    """Without that the laws below would show nothing."""
    known = take(name)
    assert known.model.axes == FORMS[name].axes
    assert len(np.unique(known.expected)) > 1
    turned = known.session.predict(Volume(np.ascontiguousarray(SCAN.array[:, :, ::-1]), GRID)).array
    assert (turned[:, :, ::-1] != known.expected).any()


@pytest.mark.parametrize("storages", STORAGES)
@pytest.mark.parametrize("name", WITH_AXES)
def test_predictions_and_their_scores(name, storages, take):
    known = take(name)
    reference = Volume(np.roll(known.expected, 1, axis=2) * BLOCK, GRID)
    scores = set()
    for axes in ("LPS", *storages):
        volume = stored(axes)
        found = known.session.predict(volume)
        assert found.grid == volume.grid
        np.testing.assert_array_equal(in_lps(found.array, found.grid), known.expected)
        part = Volume(found.array * stored(axes, Volume(BLOCK, GRID)).array, found.grid)
        scored = evaluate_masks({"a": part}, {"a": reference}, known.model.mask_labels)
        labels = scored.cases[0].labels
        scores.add(tuple((each, label.dice, label.prediction_ml, label.reference_ml) for each, label in labels.items()))
    assert len(scores) == 1


@pytest.mark.parametrize("storages", STORAGES)
@pytest.mark.parametrize("name", [name for name in ADAPTABLE if name in WITH_AXES])
def test_training_sees_the_same_arrays_bit_for_bit(name, storages, take, clinic, tmp_path):
    planned = take(name).planned
    first, *others = prepared(planned, ("LPS", *storages), clinic, tmp_path)
    assert len(others) == len(storages)
    for other in others:
        assert torch.equal(other.image, first.image)
        assert torch.equal(other.labels, first.labels)
        assert all(np.array_equal(other.locations[key], places) for key, places in first.locations.items())


def prepared(planned: FinetunePlan, storages: Sequence[str], clinic: Path, place: Path) -> tuple[PreparedCase, ...]:
    cases, (image, mask) = [], (read(clinic / file) for file in FIRST)
    for axes in storages:
        one, other = stored(axes, image), stored(axes, mask)
        files = place / f"{axes}_0000.nii.gz", place / f"{axes}.nii.gz"
        write_volume(files[0], one.array, one.grid)
        write_mask(files[1], other.array, other.grid)
        cases.append(Case(axes, (files[0],), files[1]))
    managers = plans_managers(dict(planned.start.plans), planned.start.configuration)
    return prepare_cases(cases, *managers, dict(planned.start.dataset_json), Silent())


def read(file: Path) -> Volume:
    return Volume(*read_volume(file))


@pytest.mark.parametrize("name", ["nnU-Net folder", "MONAI SegResNet", "SuPreM U-Net", "TotalSegmentator folder"])
def test_a_fine_tuning_begins_alike_on_scans_stored_otherwise(name, take, clinic, tmp_path):
    """Plans, weights and transfer; that a whole run then ends alike is a law of runs."""
    known = take(name)
    for folder in ("imagesTr", "labelsTr"):
        for number, file in enumerate(sorted((clinic / folder).iterdir())):
            volume = stored(FEW[number], read(file))
            write_volume(tmp_path / "data" / folder / file.name, volume.array, volume.grid)
    shutil.copy(clinic / "dataset.json", tmp_path / "data")
    other = plan(tmp_path / "data", known.base, Recipe(shots=1))
    assert other.axes == known.planned.axes == FORMS[name].axes
    assert weights_hash(other.start.weights) == weights_hash(known.planned.start.weights)
    assert other.start.plans["configurations"] == known.planned.start.plans["configurations"]


@pytest.mark.parametrize(
    ("name", "positions"),
    [
        *(pytest.param(name, ("PIR",), id=name) for name in WRITTEN),
        *(pytest.param(name, AXIS_CODES, id=f"{name}-all", marks=pytest.mark.long) for name in WITH_AXES),
    ],
)
def test_structures_and_segments_of_a_dicom_series(name, positions, take, tmp_path):
    known = take(name)
    labels = known.model.labels.covered
    for axes in positions:
        volume, place = stored(axes), tmp_path / axes
        write_series(place / "ct", volume.array, volume.grid)
        with find_inputs(place / "ct", 1, names="series") as scans:
            done = predict_cases(known.model, scans, place / "out", replace(QUICK, formats=FORMATS, names="series"))
        assert not done.failed
        (case,), (series,) = done.done, find_series(place / "ct").series
        mask, grid = read_mask(place / "out" / f"{case}.nii.gz")
        np.testing.assert_array_equal(in_lps(mask, grid), known.expected)
        structures = read_rtstruct(place / "out" / f"{case}.rtstruct.dcm")
        segments = read_seg(place / "out" / f"{case}.seg.dcm")
        for label, values in labels.items():
            expected = np.isin(known.expected, values)
            if not expected.any():
                continue
            for found in (
                structures_mask(structures, series.grid, [f"{label}={label}"], {label: 1}),
                segments_mask(segments, series.grid, [f"{label}={label}"], {label: 1}),
            ):
                np.testing.assert_array_equal(in_lps(found, series.grid), expected)


@pytest.mark.parametrize("name", WITHOUT_AXES)
def test_where_nobody_knows_the_axes_it_is_said_and_they_can_be_stated(name, take):
    known = take(name)
    assert known.model.axes is None
    flagged = load(known.model, "cpu", mirroring=False).predict(stored("PIR")).flags
    assert "orientation" in {flag.kind for flag in flagged}
    assert "nothing says on which axes the base was trained" in known.planned.orientation
    said = load(known.model, "cpu", options=replace(QUICK, model_axes="RAS"))
    first = said.predict(SCAN).array
    for axes in FEW:
        found = said.predict(stored(axes))
        np.testing.assert_array_equal(in_lps(found.array, found.grid), first)
