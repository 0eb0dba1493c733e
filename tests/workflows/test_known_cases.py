"""Scans that trained a model are known wherever it goes: not held out, and told where they are predicted or scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import lnsegfm
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.shots import draw_shots
from lnsegfm.evaluation.flags import TRAINED_ON
from lnsegfm.imaging.files import read_volume, write_volume
from lnsegfm.imaging.orientation import turn_to
from lnsegfm.imaging.scan_hash import scan_hash
from lnsegfm.models.adapter_files import apply_adapter
from lnsegfm.models.export_model import export_model
from lnsegfm.models.install import install
from lnsegfm.models.model_folder import read_model
from lnsegfm.models.trained_scans import TrainedScans
from lnsegfm.progress import Progress, Silent
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.known_cases import KnownCases, TrainedCases
from lnsegfm.workflows.pretrain_plan import PretrainSettings, plan_pretrain

pytestmark = pytest.mark.usefixtures("one_thread")
CASES = [f"case_{number}" for number in range(4)]


class Noted(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture(scope="module")
def first(world: Any) -> Any:
    """A run on two of the clinic's scans."""
    return world.run("first_round")


def draw_without(shots: tuple[str, ...]) -> int:
    """A draw of two shots that takes the others."""
    return next(k for k in range(99) if not set(draw_shots(CASES, 2, k).shots) & set(shots))


def hashes(data: Path, cases: Any) -> set[str]:
    return {scan_hash(*read_volume(case.images[0])) for case in open_dataset(data).cases if case.name in cases}


def test_a_run_records_its_shots_before_those_of_its_base(first, world):
    own, before = read_model(first.model).trained_scans, read_model(world.base).trained_scans
    assert set(own.trainings[0].scans) == hashes(world.clinic, first.record["shots"])
    assert own.trainings[1:] == before.trainings
    assert before.scans
    assert first.record["known_to_base"] == {"recorded": True, "not_held_out": [], "source_data": [], "facts": {}}


def test_a_second_round_holds_out_no_scan_that_trained_its_base(first, world):
    noted, shots = Noted(), first.record["shots"]
    again = plan(world.clinic, first.folder, world.recipe(shots=2, draw=draw_without(shots)), progress=noted)
    assert not set(again.split.shots) & set(shots)
    assert again.split.held_out == ()
    assert again.known.held_out.scans == tuple(sorted(shots))
    (line,) = [line for line in noted.said if line.startswith("Not held out")]
    assert all(case in line for case in shots)
    theirs = read_model(world.base).trained_scans.scans
    assert TrainedScans.of_plans(again.start.plans).scans == hashes(world.clinic, CASES) | theirs
    same = plan(world.clinic, first.folder, world.recipe(shots=2))
    assert same.split.held_out == tuple(first.record["held_out"])
    assert not list(same.known.lines())


def test_scans_are_known_in_another_storage_and_patients_by_their_names(first, world, tmp_path):
    clinic, shots = tmp_path / "clinic", first.record["shots"]
    shutil.copytree(world.clinic, clinic)
    for folder in ("imagesTr", "labelsTr"):
        for file in sorted((clinic / folder).iterdir()):
            array, grid = read_volume(file)
            turn = turn_to(grid, "SAR")
            write_volume(file, turn.forth(array), turn.grid(grid))
    recipe = world.recipe(shots=2, draw=draw_without(shots))
    assert plan(clinic, first.folder, recipe).known.held_out.scans == tuple(sorted(shots))

    other = next(case for case in CASES if case not in shots)
    (clinic / "subjects.csv").write_text(f"case,subject\n{shots[0]},Ann\n{other},Ann\n")
    draw = next(k for k in range(99) if shots[0] not in (s := draw_shots(CASES, 1, k).shots) and other not in s)
    known = plan(clinic, first.folder, world.recipe(shots=1, draw=draw)).known.held_out
    assert known.subjects == (other,)


def test_the_patients_of_a_training_are_known_without_their_scans(world, tmp_path):
    clinic = tmp_path / "clinic"
    shutil.copytree(world.clinic, clinic)
    (clinic / "subjects.csv").write_text("case,subject\n" + "".join(f"{case},of {case}\n" for case in CASES))
    shots = plan(clinic, world.base, world.recipe(shots=2)).split.shots
    trained = TrainedScans.of_plans(plan(clinic, world.base, world.recipe(shots=2)).start.plans)
    fresh = {case: str(number) * 32 for number, case in enumerate(CASES)}
    assert trained.among(fresh, {case: f"of {case}" for case in CASES}).subjects == tuple(sorted(shots))


def test_the_record_goes_with_adapters_exports_and_imports(first, world, tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))
    recorded = read_model(first.model).trained_scans
    apply_adapter(world.base, first.folder, tmp_path / "applied")
    assert read_model(tmp_path / "applied").trained_scans == recorded
    export_model(first.folder, "nnunet-zip", tmp_path / "adapted.zip")
    install(tmp_path / "adapted.zip", "adapted")
    assert read_model(Path("adapted")).trained_scans == recorded
    export_model(first.folder, "safetensors", tmp_path / "tensors")
    install(tmp_path / "tensors", "tensors")
    assert read_model(Path("tensors")).trained_scans == recorded


def test_predict_and_evaluate_say_which_scans_trained_the_model(first, world, tmp_path, lnsegfm_here):
    shots = first.record["shots"]
    done = lnsegfm_here("predict", first.folder, world.clinic / "imagesTr", "--out", tmp_path / "p", "--no-mirroring")
    assert done.returncode == 0, done.stderr
    flags = json.loads((tmp_path / "p" / "flags.json").read_text())["cases"]
    known = {case for case, raised in flags.items() if any(flag["kind"] == TRAINED_ON for flag in raised)}
    assert known == set(shots)
    scored = lnsegfm_here("evaluate", tmp_path / "p", world.clinic / "labelsTr")
    assert f"2 of 4 cases trained the model that predicted them ({', '.join(sorted(shots))})" in scored.stderr

    session = lnsegfm.load(first.folder, mirroring=False, flags=True)
    for case in open_dataset(world.clinic).cases:
        kinds = [flag.kind for flag in session.predict(case.images[0]).flags]
        assert (TRAINED_ON in kinds) == (case.name in shots)


def test_source_data_that_trained_the_base_are_told(first, world):
    noted = Noted()
    known = plan(
        world.clinic, first.folder, world.recipe(shots=2), source_data=world.clinic, progress=noted
    ).known.source_data
    assert known.scans == tuple(sorted(first.record["shots"]))
    assert any("forgetting overstated" in line for line in noted.said)


def test_what_learns_nothing_of_its_base_records_its_own_scans_alone(first, world):
    recipe = world.recipe("scratch", shots=2, draw=draw_without(first.record["shots"]))
    planned = plan(world.clinic, first.folder, recipe)
    assert TrainedScans.of_plans(planned.start.plans).scans == hashes(world.clinic, planned.split.shots)
    untouched = plan(world.clinic, first.folder, world.recipe("zero-shot", shots=2))
    assert TrainedScans.of_plans(untouched.start.plans) == read_model(first.model).trained_scans


def test_a_base_records_the_scans_of_its_pretraining(world, tmp_path):
    settings = PretrainSettings(preset="tiny", held_out=1)
    planned = plan_pretrain(world.clinic, settings, tmp_path / "work", progress=Silent())
    assert TrainedScans.of_plans(planned.start.plans).scans == hashes(world.clinic, planned.split.shots)


def test_the_lines_name_eight_cases_at_most():
    many = KnownCases(recorded=True, held_out=TrainedCases(tuple(f"c{n:02}" for n in range(11))))
    (line,) = many.lines()
    assert "c07 and 3 others;" in line
    assert list(many.facts()) == ["Known to the base"]
    assert list(KnownCases().facts()) == ["Scans of the base"]  # such as one of stock nnU-Net
