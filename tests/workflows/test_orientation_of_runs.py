"""Training, too, sees every scan on the model's axes: a data set stored otherwise gives the same model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lnsegfm.datasets.dataset import Case, open_dataset
from lnsegfm.datasets.stored_axes import commonest_axes, stored_axes, turned_words
from lnsegfm.imaging.axis_code import AXIS_CODES
from lnsegfm.imaging.files import image_files, read_volume, write_volume
from lnsegfm.imaging.orientation import axis_codes, turn_to
from lnsegfm.models.adapter_files import apply_adapter
from lnsegfm.models.export_model import export_model
from lnsegfm.models.fingerprint import fingerprint
from lnsegfm.models.install import ImportOptions, install
from lnsegfm.models.model_folder import Model, read_model, write_model
from lnsegfm.nnunet.plan_axes import AXES, with_axes
from lnsegfm.nnunet.plan_configuration import plans_managers
from lnsegfm.progress import Progress, Silent
from lnsegfm.training.prepared_cache import PreparedCache
from lnsegfm.training.prepared_cases import prepare_cases
from lnsegfm.workflows.finetune import Run, finetune
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.pretrain_plan import PretrainSettings, plan_pretrain
from tests.cli.machines import description
from tests.scenes import small_plans, write_scenes
from tests.world import World

pytestmark = pytest.mark.usefixtures("one_thread")


class Noted(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        self.said.append(text)


def turned(source: Path, to: Path, codes: Sequence[str]) -> Path:
    """A copy of a dataset whose cases are stored with these axis codes, in turn."""
    for folder in ("imagesTr", "labelsTr"):
        for number, file in enumerate(image_files(source / folder)):
            array, grid = read_volume(file)
            turn = turn_to(grid, codes[number % len(codes)])
            write_volume(to / folder / file.name, turn.forth(array), turn.grid(grid))
    shutil.copy(source / "dataset.json", to / "dataset.json")
    return to


def one_case(folder: Path, name: str, axes: str, source: Case) -> Case:
    files = []
    for kind, file in (("image", source.images[0]), ("label", source.label)):
        array, grid = read_volume(file)
        turn = turn_to(grid, axes)
        write_volume(folder / f"{name}_{kind}.nii.gz", turn.forth(array), turn.grid(grid))
        files.append(folder / f"{name}_{kind}.nii.gz")
    return Case(name, (files[0],), files[1])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "data", 5)


def test_prepared_cases_of_every_storage_are_equal_bit_for_bit(scenes, tmp_path):
    source = open_dataset(scenes).cases[0]
    plans = small_plans()
    plans["configurations"]["3d_fullres"]["spacing"] = [1.7, 1.1, 1.6]
    cases = [one_case(tmp_path, axes, axes, source) for axes in AXIS_CODES]
    managers = plans_managers(with_axes(plans, "PSR", ".nii.gz"), "3d_fullres")
    first, *others = prepare_cases(cases, *managers, description(), Silent())
    assert len(others) == 47
    for other in others:
        assert torch.equal(other.image, first.image)
        assert torch.equal(other.labels, first.labels)
        assert other.locations.keys() == first.locations.keys()
        assert all(np.array_equal(other.locations[key], first.locations[key]) for key in first.locations)


def test_scans_prepared_on_other_axes_are_not_taken_from_the_cache(scenes, tmp_path):
    case, cache = open_dataset(scenes).cases[0], PreparedCache(tmp_path, 10**9)
    keys = set()
    for axes in (None, "LPS", "RAS"):
        plans = small_plans() if axes is None else small_plans() | {AXES: axes}
        keys.add(cache.key(case, *plans_managers(plans, "3d_fullres"), description()))
    assert len(keys) == 3


def test_the_fingerprint_is_that_of_the_turned_scans(scenes, tmp_path):
    cases = open_dataset(scenes).cases
    others = open_dataset(turned(scenes, tmp_path / "turned", ("PIR", "RAS", "LIP"))).cases
    assert fingerprint(others, Silent(), "LPS") == fingerprint(cases, Silent(), "LPS") == fingerprint(cases, Silent())
    assert fingerprint(others, Silent())["spacings"] != fingerprint(cases, Silent())["spacings"]


def test_the_commonest_storage_and_of_equally_many_the_first(scenes, tmp_path):
    codes = stored_axes(open_dataset(turned(scenes, tmp_path / "a", ("PIR", "RAS", "PIR", "LPS", "LPS"))).cases)
    assert list(codes.items()) == [("PIR", 2), ("RAS", 1), ("LPS", 2)]
    assert commonest_axes(codes) == "PIR"
    assert turned_words(codes, "PIR") == "3 of 5 scans are turned to it (1 stored as RAS, 2 stored as LPS)"
    assert turned_words(codes - codes + stored_axes(()), "LPS") == ""


def test_a_base_is_trained_on_the_commonest_axes_and_says_so(scenes, tmp_path):
    mixed = turned(scenes, tmp_path / "mixed", ("LPS", "PIR", "LPS", "RAS", "LPS"))
    said = Noted()
    planned = plan_pretrain(mixed, PretrainSettings(), tmp_path / "work", progress=said)
    plain = plan_pretrain(scenes, PretrainSettings(), tmp_path / "work", progress=Silent())
    assert planned.axes == plain.axes == "LPS" == planned.to_json()["axes"]
    assert "Orientation LPS, the commonest of the scans: 2 of 5 scans are turned to it" in " ".join(said.said)
    ours, theirs = (json.dumps(each.start.plans, sort_keys=True) for each in (planned, plain))
    assert ours.replace("Dataset001_mixed", "") == theirs.replace("Dataset001_data", "")


def without_axes(world: World, folder: Path, **changes: object) -> Model:
    model = read_model(world.base)
    plans = {key: value for key, value in model.plans.items() if key != AXES} | changes
    write_model(folder, replace(model.first, plans=plans))
    return read_model(folder)


def test_the_axes_of_a_base_are_kept_and_those_of_the_scans_taken_where_it_has_none(world, tmp_path):
    other = turned(world.clinic, tmp_path / "clinic", ("RAS", "RAS", "PIR"))
    planned = plan(other, world.base, world.recipe())
    assert planned.axes == planned.to_json()["axes"] == "LPS"
    assert planned.orientation.startswith(
        "Orientation LPS, by its plans; 4 of 4 scans are turned to it (3 stored as RAS"
    )
    assert "LPS" in planned.orientation

    unknown = without_axes(world, tmp_path / "unknown")
    assert unknown.axes is None
    guessed = plan(other, unknown.folder, world.recipe())
    assert guessed.axes == guessed.base.axes == "RAS"
    assert "nothing says on which axes the base was trained" in guessed.orientation
    assert guessed.start.plans["image_reader_writer"] == "NibabelIOWithReorient"  # stock nnU-Net turns to RAS, too

    stated = plan(other, unknown.folder, world.recipe(model_axes="pir"))
    assert stated.axes == "PIR"
    assert stated.identity not in (guessed.identity, planned.identity)

    reader = without_axes(world, tmp_path / "reader", image_reader_writer="NibabelIOWithReorient")
    planned = plan(world.clinic, reader.folder, world.recipe())
    assert planned.orientation.startswith("Orientation RAS, by the reader in its plans, NibabelIOWithReorient; 4 of 4")


@pytest.fixture(scope="module")
def other_storage(world: World, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("other")
    data = turned(world.clinic, folder / "clinic", ("RAS", "PIR", "LIP", "SAL"))
    return finetune(plan(data, world.base, world.recipe()), folder / "run", device="cpu", workers=0)


def test_a_run_on_scans_stored_otherwise_is_the_same_run(run, other_storage):
    ours, theirs = (read_model(each.model) for each in (other_storage, run))
    assert ours.first.weights_sha256 == theirs.first.weights_sha256
    assert ours.axes == theirs.axes == "LPS"
    assert other_storage.record["losses"] == run.record["losses"]
    domains = [json.loads((each.model / "training_domain.json").read_text()) for each in (other_storage, run)]
    assert domains[0] == domains[1]
    assert domains[0]["domains"][0]["axes"] == domains[0]["domains"][1]["axes"] == "LPS"
    compared = [each.evidence.comparison for each in (other_storage, run)]
    for mine, other in zip(*([c.adapted.cases for c in compared]), strict=True):
        assert (mine.case, mine.labels["node"].dice) == (other.case, other.labels["node"].dice)
        mask, grid = read_volume(mine.files.prediction)
        expected, place = read_volume(other.files.prediction)
        assert axis_codes(grid) != axis_codes(place)
        np.testing.assert_array_equal(turn_to(grid, "LPS").forth(mask), expected)
    assert "data-plane" in (other_storage.folder / "report.html").read_text(encoding="utf-8")  # its pictures are drawn


def test_the_axes_go_with_adapters_and_exports(world, run, tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    assert apply_adapter(world.base, run.folder, tmp_path / "applied").out == tmp_path / "applied"
    assert read_model(tmp_path / "applied").axes == "LPS"
    for number, to in enumerate(("folder", "safetensors", "nnunet-zip")):
        out = tmp_path / (f"{to}.zip" if to == "nnunet-zip" else to)
        notes = export_model(run.model, to, out).notes
        assert any("Stock nnU-Net turns no scan to LPS" in note for note in notes) == (to != "safetensors")
        said = Noted()
        install(out, f"back{number}", progress=said)
        assert read_model(Path(f"back{number}")).axes == "LPS"
        assert "Orientation LPS, by its plans: scans are turned to it, and masks back" in said.said


def test_an_import_says_what_it_takes_for_the_axes(world, tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    unknown = without_axes(world, tmp_path / "unknown")
    said = Noted()
    install(unknown.folder, "plain", progress=said)
    assert any(
        "nothing says on which axes it was trained" in line and "--axes RAS or LPS" in line for line in said.said
    )
    assert read_model(Path("plain")).axes is None
    install(unknown.folder, "told", ImportOptions(axes="ras"), progress=said)
    model = read_model(Path("told"))
    assert (model.axes, model.plans["image_reader_writer"]) == ("RAS", "NibabelIOWithReorient")
    assert "Orientation RAS, by --axes: scans are turned to it, and masks back" in said.said
    export_model(Path("told"), "folder", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "plans.json").read_text())["image_reader_writer"] == "NibabelIOWithReorient"
