from __future__ import annotations

import dataclasses
import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.evaluate import (
    MEAN,
    CaseScore,
    Evaluation,
    LabelScore,
    Summary,
    evaluate_case,
    evaluate_folders,
    evaluate_what_can_be,
)
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid

GRID = Grid((4, 5, 10), (10.0, 10.0, 10.0))  # 1 ml a voxel
LABELS = LabelMap({"node": 1, "vessel": 2})


def row(**voxels: int) -> np.ndarray:
    """A mask whose first row holds, one after another, so many voxels of each value (v1=2: two voxels of 1)."""
    mask = np.zeros(GRID.shape, dtype=np.uint8)
    mask[0, 0, : sum(voxels.values())] = [int(v[1:]) for v, n in voxels.items() for _ in range(n)]
    return mask


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    for name, ours, theirs in (
        ("a", row(v1=4), row(v1=4)),
        ("b", row(v1=2, v2=1), row(v1=4)),
        ("c", row(v2=1), row(v2=2, v1=2)),
    ):
        write_mask(predictions / f"{name}.nii.gz", ours, GRID)
        write_mask(references / f"{name}.nrrd", theirs, GRID)
    return predictions, references


def test_scores_labels_by_hand(folders):
    predictions, references = folders

    score = evaluate_case("b", predictions / "b.nii.gz", references / "b.nrrd", LABELS)

    assert score.case == "b"
    assert score.labels["node"] == LabelScore(2 * 2 / 6, 4.0, 2.0, -2.0)
    assert score.labels["vessel"] == LabelScore(0.0, 0.0, 1.0, 1.0)


def test_ignored_voxels_count_in_neither(tmp_path):
    write_mask(tmp_path / "p.nii.gz", row(v1=6), GRID)
    write_mask(tmp_path / "r.nii.gz", row(v1=3, v2=2), GRID)

    score = evaluate_case("x", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz", LabelMap({"node": 1}, ignore=2))

    assert score.labels["node"] == LabelScore(2 * 3 / 7, 3.0, 4.0, 1.0)


def test_labels_are_matched_by_name(tmp_path):
    write_mask(tmp_path / "p.nii.gz", row(v1=2, v3=4), GRID)
    write_mask(tmp_path / "r.nii.gz", row(v2=2, v1=4), GRID)
    theirs = LabelMap({"vessel": 1, "bone": 2, "node": 3})

    score = evaluate_case("x", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz", LABELS, theirs)

    assert score.labels["node"] == LabelScore(1.0, 4.0, 4.0, 0.0)
    assert score.labels["vessel"] == LabelScore(1.0, 2.0, 2.0, 0.0)


def test_a_label_the_model_does_not_know_counts_as_empty_and_is_marked(tmp_path):
    write_mask(tmp_path / "p.nii.gz", row(v1=4), GRID)
    write_mask(tmp_path / "r.nii.gz", row(v1=4), GRID)

    score = evaluate_case("x", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz", LABELS, LabelMap({"bone": 1}))

    assert score.labels["node"] == LabelScore(0.0, 4.0, 0.0, -4.0, known=False)
    assert math.isnan(score.labels["vessel"].dice)
    assert not score.labels["vessel"].known


def test_summary_leaves_out_what_is_undefined_and_counts_it(folders):
    summary = evaluate_folders(*folders, LABELS).summary()

    assert list(summary) == ["node", "vessel", MEAN]
    node = [1.0, 4 / 6, 0.0]
    assert summary["node"] == Summary(3, statistics.fmean(node), 4 / 6, statistics.stdev(node), 0)
    assert summary["vessel"] == Summary(2, pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(0.4714045), 1)
    # each case's mean over its defined labels: 1, (4/6 + 0) / 2, (0 + 2/3) / 2
    assert summary[MEAN].mean == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)


@given(st.lists(st.one_of(st.just(math.nan), st.floats(0, 1)), max_size=12))
def test_summary_agrees_with_numpy(values):
    defined = np.array([v for v in values if v == v])
    summary = Summary.of(values)

    assert summary.n + summary.undefined == len(values)
    assert summary.n == len(defined)
    if len(defined):
        assert summary.mean == pytest.approx(np.mean(defined), abs=1e-12)
        assert summary.median == pytest.approx(np.median(defined), abs=1e-12)
    else:
        assert math.isnan(summary.mean)
        assert math.isnan(summary.median)
    assert (
        summary.sd == pytest.approx(np.std(defined, ddof=1), abs=1e-9) if len(defined) > 1 else math.isnan(summary.sd)
    )


def test_json_holds_all_of_it_and_null_for_undefined(folders):
    evaluation = evaluate_folders(*folders, LABELS)

    text = json.dumps(evaluation.to_json(), allow_nan=False)
    content = json.loads(text)

    assert content["format"] == "lnsegfm.evaluation/1"
    assert content["labels"] == {"background": 0, "node": 1, "vessel": 2}
    assert content["cases"][0]["labels"]["vessel"]["dice"] is None
    assert content["summary"]["vessel"]["undefined"] == 1
    assert Evaluation.from_json(content).to_json() == evaluation.to_json()
    assert Evaluation.from_json(content).cases[1:] == evaluation.cases[1:]  # NaN, in the first, equals nothing


def test_one_case_has_no_sd_and_none_has_no_mean():
    one = Evaluation(LabelMap({"node": 1}), (CaseScore("a", {"node": LabelScore(0.5, 1.0, 1.0, 0.0)}),))

    assert one.to_json()["summary"]["node"] == {"n": 1, "mean": 0.5, "median": 0.5, "sd": None, "undefined": 0}
    assert Evaluation(LABELS, ()).to_json()["summary"]["node"]["mean"] is None


@pytest.mark.parametrize(
    "content", [{}, [], {"format": "lnsegfm.evaluation/2"}, {"format": "lnsegfm.evaluation/1", "cases": [{}]}]
)
def test_other_json_is_refused(content):
    with pytest.raises(DataError, match="Evaluat"):
        Evaluation.from_json(content)


def test_all_missing_predictions_are_named(folders):
    predictions, references = folders
    for name in ("a", "c"):
        (predictions / f"{name}.nii.gz").unlink()

    with pytest.raises(DataError, match="2 cases have a reference and no prediction: a, c"):
        evaluate_folders(predictions, references, LABELS)


def test_what_can_be_evaluated_is_and_the_rest_is_told(folders):
    predictions, references = folders
    (predictions / "a.nii.gz").unlink()
    (predictions / "b.nii.gz").write_text("no mask")

    evaluation = evaluate_what_can_be(predictions, references, LABELS)

    assert [case.case for case in evaluation.cases] == ["c"]
    assert len(evaluation.failures) == 2
    assert "no prediction: a" in evaluation.failures[0]
    assert "b.nii.gz: unreadable" in evaluation.failures[1]
    with pytest.raises(DataError) as error:
        evaluate_folders(predictions, references, LABELS)
    assert error.value.problems == evaluation.failures


def test_another_grid_is_refused(folders):
    predictions, references = folders
    write_mask(predictions / "b.nii.gz", row(v1=1), dataclasses.replace(GRID, origin_mm=(1, 0, 0)))

    with pytest.raises(
        DataError, match=r"Case b: .*b\.nii\.gz: its geometry is not its reference's: origin \(1, 0, 0\)"
    ):
        evaluate_folders(predictions, references, LABELS)


@pytest.mark.parametrize("whose", [0, 1])
def test_values_without_a_name_are_refused(folders, whose):
    write_mask(next(folders[whose].glob("b.*")), row(v1=1, v7=1), GRID)

    with pytest.raises(DataError, match=r"Case b: .*label values \[7\] are not among node=1, vessel=2"):
        evaluate_folders(*folders, LABELS)


def test_two_masks_of_one_name_are_refused(folders):
    write_mask(folders[0] / "b.mha", row(v1=1), GRID)

    with pytest.raises(DataError, match=r"b\.mha and b\.nii\.gz are one case's"):
        evaluate_folders(*folders, LABELS)


def test_folders_without_masks_are_refused(folders, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        evaluate_folders(tmp_path / "nowhere", folders[1], LABELS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no masks"):
        evaluate_folders(tmp_path / "empty", folders[1], LABELS)


def test_references_may_be_a_dataset(folders, tmp_path):
    predictions, references = folders
    (tmp_path / "dataset" / "images").mkdir(parents=True)
    references.rename(tmp_path / "dataset" / "labels")
    for name in "abc":
        write_volume(tmp_path / "dataset" / "images" / f"{name}.nii.gz", row(), GRID)

    assert evaluate_folders(predictions, tmp_path / "dataset", LABELS).summary()["node"].n == 3


def test_progress_is_told(folders):
    seen = []
    evaluate_folders(*folders, LABELS, progress=lambda *state: seen.append(state))

    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]
