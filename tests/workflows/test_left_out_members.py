"""Members that leave patients out: none trains on a scan that it judges by, and every scan is predicted once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lnsegfm.workflows.left_out_members as left_out
from lnsegfm.datasets.dataset import Case, open_dataset
from lnsegfm.errors import Interrupted
from lnsegfm.imaging.files import read_volume
from lnsegfm.imaging.scan_hash import scan_hash
from lnsegfm.models.model_folder import read_model
from lnsegfm.progress import Silent
from lnsegfm.workflows.left_out_members import members, members_text
from tests.world import World

pytestmark = pytest.mark.usefixtures("one_thread")


@given(patients=st.lists(st.integers(0, 7), min_size=0, max_size=20), most=st.integers(2, 6))
def test_every_scan_is_left_out_once_and_no_patient_is_on_both_sides(patients: list[int], most: int) -> None:
    cases = [Case(f"case_{number}", (), None) for number in range(len(patients))]
    subjects = {case.name: f"p{who}" for case, who in zip(cases, patients, strict=True) if who}
    found = members(cases, subjects, most)
    whose = {case.name: subjects.get(case.name, case.name) for case in cases}
    different = len(set(whose.values()))
    assert len(found) == (0 if different < 2 else min(different, most))
    for member in found:
        assert member.trained
        assert {whose[case.name] for case in member.trained}.isdisjoint(whose[case.name] for case in member.left_out)
        assert sorted(case.name for case in (*member.trained, *member.left_out)) == sorted(whose)
    if found:
        assert sorted(case.name for member in found for case in member.left_out) == sorted(whose)
        sizes = [len({whose[case.name] for case in member.left_out}) for member in found]
        assert max(sizes) - min(sizes) <= 1
    assert members([*cases], subjects, most) == found


def test_the_cost_is_said() -> None:
    cases = [Case(f"case_{number}", (), None) for number in range(7)]
    assert members_text(members(cases[:4], {})) == "4 further trainings, each without one of the 4 shots"
    assert members_text(members(cases, {})) == "5 further trainings, each without 1 to 2 of the 7 shots"


class StopsOnce(Silent):
    """Interrupts at a line."""

    def __init__(self, at: str) -> None:
        self.at: str | None = at

    def stage(self, text: str) -> None:
        if self.at is not None and self.at in text:
            self.at = None
            raise Interrupted("stopped")


def test_no_member_trains_on_what_it_predicts_and_a_stopped_run_goes_on(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[frozenset[str]] = []
    predicted: list[frozenset[str]] = []
    records: list[frozenset[str]] = []
    whole = left_out.train_model, left_out.predict_masks

    def train(job, progress):  # type: ignore[no-untyped-def]
        trained.append(frozenset(case.name for case in job.cases))
        return whole[0](job, progress)

    def predict(model, name, cases, folder, **others):  # type: ignore[no-untyped-def]
        predicted.append(frozenset(case.name for case in cases))
        records.append(model.trained_scans.scans)
        return whole[1](model, name, cases, folder, **others)

    monkeypatch.setattr(left_out, "train_model", train)
    monkeypatch.setattr(left_out, "predict_masks", predict)
    from lnsegfm.workflows.finetune import FinetuneRun, finetune
    from lnsegfm.workflows.finetune_plan import plan
    from lnsegfm.workflows.training_run import RunContext

    recipe = world.recipe(shots=3, postprocessing="shots", iterations=2)
    planned = plan(world.clinic, world.base, recipe)
    ahead = FinetuneRun(planned, RunContext(out=tmp_path / "run", device="cpu", workers=0, progress=Silent()), 0.02)
    assert ahead.time_plan.further == (2, 2, 2)
    work = ahead.prediction_work()
    assert work is not None
    assert work.more == 3
    with pytest.raises(Interrupted):
        finetune(planned, tmp_path / "run", device="cpu", workers=0, progress=StopsOnce("3 of 3"))
    assert len(trained) == 2
    finished = tmp_path / "run" / "work" / "left_out" / "1"
    before = read_model(finished / "model").first.weights_sha256
    run = finetune(planned, tmp_path / "run", device="cpu", workers=0)
    shots = set(run.record["shots"])
    assert run.record["postprocessing"]["scans"] == 3
    assert not finished.exists()
    assert before != read_model(run.model).first.weights_sha256

    hashes = {case.name: scan_hash(*read_volume(case.images[0])) for case in open_dataset(world.clinic).cases}
    for fitted, judged, record in zip(trained[2:], predicted[-3:], records[-3:], strict=True):
        assert fitted.isdisjoint(judged)
        assert fitted | judged == shots
        assert {hashes[name] for name in fitted} <= record
        assert record.isdisjoint({hashes[name] for name in judged})
    assert set.union(*map(set, predicted[-3:])) == shots
