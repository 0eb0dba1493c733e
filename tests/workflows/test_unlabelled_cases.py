"""A label that some cases lack is left out of their loss and of the evidence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnsegfm.errors import ConfigError
from lnsegfm.evaluation.folders import evaluate
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.imaging.files import read_mask, write_mask
from lnsegfm.training.partial_loss import PartialLoss
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.listening import Stages

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clinic(world: Any, tmp_path: Path) -> Path:
    """Nodes in every case; vessels annotated in the first two only."""
    shutil.copytree(world.clinic, tmp_path / "clinic")
    described = json.loads((tmp_path / "clinic" / "dataset.json").read_text())
    described["labels"] = {"background": 0, "node": 1, "vessel": 2}
    (tmp_path / "clinic" / "dataset.json").write_text(json.dumps(described))
    for case in range(4):
        file = tmp_path / "clinic" / "labelsTr" / f"case_{case}.nii.gz"
        mask, grid = read_mask(file)
        mask[:, :, 14:] = np.where(mask[:, :, 14:] > 0, 2 if case < 2 else 0, 0)
        mask[3, 3, 3] = 1
        write_mask(file, mask, grid)
    (tmp_path / "clinic" / "unlabelled.csv").write_text("case,label\ncase_2,vessel\ncase_3,vessel\n")
    return tmp_path / "clinic"


def test_training_and_evidence_leave_it_out(world, clinic, tmp_path, monkeypatch, lnsegfm_here):
    seen = set()

    def noted(judge: PartialLoss, logits: Any, target: Any) -> Any:
        seen.update(tuple(values) for values in judge.unlabelled)
        return forward(judge, logits, target)

    forward = PartialLoss.forward
    monkeypatch.setattr(PartialLoss, "forward", noted)
    drawn = next(d for d in range(99) if len({"case_2", "case_3"} & set(planned(clinic, world, d).split.shots)) == 1)
    done = finetune(planned(clinic, world, drawn), tmp_path / "run", device="cpu", workers=0)
    assert seen == {(), (2,)}

    after = Evaluation.from_json(done.record["result"]["adapted"])
    (without,) = [case for case in after.cases if case.case in ("case_2", "case_3")]
    assert not without.labels["vessel"].annotated
    assert without.labels["node"].annotated
    assert (after.summary()["node"]["dice"].n + after.summary()["node"]["dice"].undefined) == 2
    assert after.summary()["vessel"]["dice"].n <= 1
    nodes = after.nodes("node")
    assert nodes is not None
    assert "not annotated" in (tmp_path / "run" / "report.html").read_text() or done.record["result"]["verdict"]

    shutil.copytree(clinic / "labelsTr", tmp_path / "masks")
    scored = evaluate(tmp_path / "masks", clinic)
    assert (scored.summary()["node"]["dice"].n, scored.summary()["vessel"]["dice"].n) == (4, 2)
    assert scored.summary()["vessel"]["dice"].undefined == 2
    same = evaluate(tmp_path / "masks", clinic / "labelsTr")
    assert [case.labels.keys() for case in same.cases] == [case.labels.keys() for case in scored.cases]
    assert same.summary()["vessel"]["dice"].n == 2
    shown = lnsegfm_here("evaluate", tmp_path / "masks", clinic, "--out", tmp_path / "page", "--node", "vessel")
    assert shown.returncode == 0, shown.stderr
    assert "vessel (not annotated)" in shown.stdout
    assert "vessel: not annotated in 2 cases" in (tmp_path / "page" / "report.html").read_text()
    read = Evaluation.from_json(json.loads((tmp_path / "page" / "evaluation.json").read_text()))
    assert [case.labels["vessel"].annotated for case in read.cases] == [True, True, False, False]


def planned(clinic: Path, world: Any, draw: int) -> Any:
    return plan(clinic, world.base, world.recipe(shots=2, draw=draw))


def test_it_is_part_of_a_runs_identity(world, clinic):
    start = planned(clinic, world, 0)
    (clinic / "unlabelled.csv").unlink()
    assert planned(clinic, world, 0).identity != start.identity


def test_what_is_said_to_be_absent_is_not_in_doubt_and_part_of_the_identity(world, clinic):
    """Three of four cases have the vessel."""
    (clinic / "unlabelled.csv").unlink()
    file = clinic / "labelsTr" / "case_2.nii.gz"
    mask, grid = read_mask(file)
    mask[9, 9, 9] = 2
    write_mask(file, mask, grid)

    def lines(**changes: Any) -> tuple[Any, list[str]]:
        told = Stages()
        return plan(clinic, world.base, world.recipe(shots=2, **changes), progress=told), told.lines

    start, said = lines()
    sure, nothing = lines(absent=("vessel",))

    assert any("Label vessel: 1 of 4 cases have none (case_3)" in line and "--absent vessel" in line for line in said)
    assert not any("vessel: 1 of 4" in line for line in nothing)
    assert (sure.absence.absent, start.absence.absent) == (("vessel",), ())
    assert sure.identity != start.identity
    assert set(start.absence.others) == {f"case_{number}" for number in range(4)}  # the shots', too
    with pytest.raises(ConfigError, match="--absent jaw: there is no such label"):
        lines(absent=("jaw",))
