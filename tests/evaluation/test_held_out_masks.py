"""The predictions of a run are evaluated against the dataset that it was trained on, by its held-out cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lnsegfm.cli.main import app
from lnsegfm.errors import DataError
from lnsegfm.evaluation.folders import evaluate
from lnsegfm.evaluation.held_out_masks import cases_held_out, not_held_out
from lnsegfm.imaging.files import write_volume
from lnsegfm.imaging.grid import Grid

GRID = Grid(shape=(6, 8, 10), spacing_mm=(2.0, 1.0, 1.0))
CASES = ("a", "b", "c", "d")


def mask(path: Path) -> None:
    voxels = np.zeros(GRID.shape, np.uint8)
    voxels[2:4, 2:5, 3:6] = 1
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, voxels, GRID)


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    for case in CASES:
        mask(tmp_path / "clinic" / "labels" / f"{case}.nii.gz")
        mask(tmp_path / "clinic" / "images" / f"{case}.nii.gz")
    (tmp_path / "clinic" / "labels.json").write_text('{"node": 1}')
    return tmp_path / "clinic"


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    for case in ("b", "d"):
        mask(run / "predictions" / "adapted" / f"{case}.nii.gz")
    (run / "recipe.json").write_text(json.dumps({"shots": ["a", "c"], "held_out": ["b", "d"]}))
    return run / "predictions" / "adapted"


def test_the_held_out_cases_alone_are_evaluated_and_it_is_told(clinic: Path, masks: Path):
    done = CliRunner().invoke(app, ["evaluate", str(masks), str(clinic)])
    assert done.exit_code == 0
    said = f"{masks} belongs to a run, which held out 2 cases: it did not predict 2 other cases (a, c)"
    assert said in done.stderr.splitlines()
    assert [case.case for case in evaluate(masks, clinic).cases] == ["b", "d"]
    assert [case.case for case in evaluate(masks, clinic / "labels", labels={"node": 1}).cases] == ["b", "d"]


def test_a_held_out_case_without_a_prediction_is_still_missing(clinic: Path, masks: Path):
    (masks / "d.nii.gz").unlink()
    with pytest.raises(DataError, match=r"1 case has a reference and no prediction: d\. "):
        evaluate(masks, clinic)
    assert CliRunner().invoke(app, ["evaluate", str(masks), str(clinic)]).exit_code == 1


def test_predictions_elsewhere_miss_every_reference(clinic: Path, masks: Path, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    masks.rename(elsewhere)
    with pytest.raises(DataError, match="2 cases have a reference and no prediction: a, c"):
        evaluate(elsewhere, clinic)


@pytest.mark.parametrize("recipe", ["[]", "{}", '{"held_out": 3}', "no JSON"])
def test_a_folder_that_holds_no_run_says_nothing(tmp_path: Path, recipe: str):
    (tmp_path / "recipe.json").write_text(recipe)
    (tmp_path / "predictions").mkdir()
    assert cases_held_out(tmp_path / "predictions") is None
    assert not_held_out(tmp_path / "predictions", CASES, {"a"}) == ()


def test_predictions_of_a_pretraining_and_references_of_other_names(masks: Path):
    both = masks.parent, masks
    assert [cases_held_out(folder) for folder in both] == [(masks.parents[1].resolve(), frozenset("bd"))] * 2
    assert not_held_out(masks, ["a_seg", "b_seg", "c_seg", "d_seg"], {"b_seg"}) == ("a_seg", "c_seg")
