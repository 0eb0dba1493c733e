"""Scans that hold nothing: kept where the user says so, trained on, held out, counted in false positives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.datasets.shots import draw_shots
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.folders import evaluate
from lnsegfm.imaging.files import read_mask, write_mask
from lnsegfm.nnunet.plan_configuration import plans_managers
from lnsegfm.progress import Silent
from lnsegfm.training.prepared_cases import prepare_cases
from lnsegfm.transforms.augmentation.augmentation_parameters import AugmentationSettings, draw_batch_parameters
from lnsegfm.workflows.finetune import finetune
from lnsegfm.workflows.finetune_plan import plan
from tests.cli.machines import description
from tests.scenes import small_plans

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clinic(world: Any, tmp_path: Path) -> Path:
    """Of four scans the first and the third hold nothing."""
    shutil.copytree(world.clinic, tmp_path / "clinic")
    for case in (0, 2):
        file = tmp_path / "clinic" / "labelsTr" / f"case_{case}.nii.gz"
        mask, grid = read_mask(file)
        write_mask(file, np.zeros_like(mask), grid)
    return tmp_path / "clinic"


def split_with(clinic: Path, base: Path, world: Any, wanted: set[str]) -> Any:
    """The first draw of two shots that takes these."""
    names = [f"case_{number}" for number in range(4)]
    draw = next(k for k in range(99) if set(draw_shots(names, 2, k).shots) == wanted)
    return plan(clinic, base, world.recipe(shots=2, draw=draw), allow_empty=True)


def test_are_refused_unless_the_user_says_so(world, clinic):
    with pytest.raises(DataError) as refused:
        plan(clinic, world.base, world.recipe(shots=2))
    assert [line.split(": ")[0] for line in refused.value.problems] == ["Case case_0", "Case case_2"]
    assert all("--allow-empty" in line for line in refused.value.problems)


def test_are_trained_on_and_held_out_and_their_false_positives_count(world, clinic, tmp_path):
    planned = split_with(clinic, world.base, world, {"case_0", "case_1"})
    done = finetune(planned, tmp_path / "run", device="cpu", workers=0)

    assert done.record["held_out"] == ["case_2", "case_3"]
    after = done.record["result"]["adapted"]
    cases = {case["case"]: case["labels"]["node"] for case in after["cases"]}
    assert cases["case_2"]["reference_ml"] == 0
    predicted = read_mask(tmp_path / "run" / "predictions" / "adapted" / "case_2.nii.gz")[0]
    assert cases["case_2"]["dice"] == (0 if predicted.any() else None)
    (tmp_path / "full").mkdir()
    for case in ("case_2", "case_3"):  # a prediction that finds a node of one voxel in the empty scan
        mask, grid = read_mask(clinic / "labelsTr" / f"{case}.nii.gz")
        mask[5, 5, 5] = mask[5, 5, 5] or case == "case_2"
        write_mask(tmp_path / "full" / f"{case}.nii.gz", mask, grid)
        shutil.copy(clinic / "labelsTr" / f"{case}.nii.gz", tmp_path / f"{case}.nii.gz")
    scored = evaluate(tmp_path / "full", tmp_path, labels={"node": 1})
    assert scored.case("case_2").labels["node"].dice == 0
    assert scored.nodes("node").all_sizes.false_positives_per_scan.value == 0.5


def test_are_told_by_name_and_warned_about_by_the_check(world, clinic, tmp_path, lnsegfm_here):
    words = ("finetune", clinic, "--model", world.base, "--out", tmp_path / "run", "--shots", 3)
    done = lnsegfm_here(*words, "--allow-empty", "--dry-run", "--device", "cpu", "--no-mirroring")
    assert done.returncode == 0, done.stderr
    assert "Empty, kept as scans that hold nothing: 2 of 4 labels (case_0, case_2)" in done.stderr
    refused = lnsegfm_here("data", "check", clinic)
    assert refused.returncode == 2
    kept = lnsegfm_here("data", "check", clinic, "--allow-empty", "--json")
    assert kept.returncode == 0, kept.stderr
    found = [f for f in json.loads(kept.stdout)["findings"] if f["kind"] == "label-empty"]
    assert [(f["case"], f["severity"]) for f in found] == [("case_0", "warning"), ("case_2", "warning")]


def test_shots_without_any_label_are_refused(world, clinic):
    with pytest.raises(ConfigError, match=r"Shots .*: their labels are empty") as refused:
        split_with(clinic, world.base, world, {"case_0", "case_2"})
    assert len(str(refused.value).splitlines()) == 1


def test_a_mask_that_is_ignored_throughout_stays_an_error(world, clinic):
    file = clinic / "labelsTr" / "case_0.nii.gz"
    mask, grid = read_mask(file)
    write_mask(file, np.full_like(mask, 2), grid)
    described = json.loads((clinic / "dataset.json").read_text())
    described["labels"] = {"background": 0, "node": 1, "ignore": 2}
    (clinic / "dataset.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match=r"case_0: .*the label is empty. Annotate it or take the case out\.$"):
        plan(clinic, world.base, world.recipe(shots=2), allow_empty=True)


def test_patches_of_an_empty_scan_come_from_anywhere(clinic):
    cases = [case for case in open_dataset(clinic).cases if case.name == "case_0"]
    (shot,) = prepare_cases(cases, *plans_managers(small_plans(), "3d_fullres"), description(), Silent())
    assert not any(len(places) for places in shot.locations.values())
    settings = AugmentationSettings(patch=(8, 8, 8), box=(8, 8, 8))
    drawn = {p.lower for i in range(40) for p in draw_batch_parameters(settings, [shot], 3, 0, i)}
    assert len(drawn) > 60
    for axis, size in enumerate(shot.shape):
        assert {low[axis] for low in drawn} <= set(range(size - 8 + 1))
        assert len({low[axis] for low in drawn}) > 5
