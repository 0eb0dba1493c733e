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
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.case_scores import MEAN, CaseScore, LabelScore
from lnsegfm.evaluation.metric_table import METRICS
from lnsegfm.evaluation.references import scans_of
from lnsegfm.evaluation.scores import Evaluation, Summary
from lnsegfm.evaluation.scoring import Known, Scoring, evaluate_case, evaluate_folders
from lnsegfm.imaging.files import write_mask, write_volume
from lnsegfm.imaging.grid import Grid
from tests.listening import OnAdvance

GRID = Grid((4, 5, 10), (10.0, 10.0, 10.0))  # 1 ml a voxel
LABELS = LabelMap({"node": 1, "vessel": 2})


def row(**voxels: int) -> np.ndarray:
    """A mask whose first row holds, one after another, so many voxels of each value (v1=2: two voxels of 1)."""
    mask = np.zeros(GRID.shape, dtype=np.uint8)
    mask[0, 0, : sum(voxels.values())] = [int(v[1:]) for v, n in voxels.items() for _ in range(n)]
    return mask


OVERLAP = Scoring(surfaces=False)


def overlap(name: str, prediction: Path, reference: Path, *labels: LabelMap) -> dict[str, LabelScore]:
    """Scores without distances, which are tested on their own; NaN compares as 0."""
    score = evaluate_case(name, prediction, reference, *labels, scoring=OVERLAP)
    assert score.case == name
    return {label: dataclasses.replace(found, nsd=0, hd95_mm=0, assd_mm=0) for label, found in score.labels.items()}


def by_overlap(*figures, **known) -> LabelScore:
    return LabelScore(*figures, nsd=0, hd95_mm=0, assd_mm=0, **known)


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

    score = overlap("b", predictions / "b.nii.gz", references / "b.nrrd", LABELS)

    assert score["node"] == by_overlap(2 * 2 / 6, 4.0, 2.0, -2.0)
    assert score["vessel"] == by_overlap(0.0, 0.0, 1.0, 1.0)


def test_ignored_voxels_count_in_neither(tmp_path):
    write_mask(tmp_path / "p.nii.gz", row(v1=6), GRID)
    write_mask(tmp_path / "r.nii.gz", row(v1=3, v2=2), GRID)

    score = overlap("x", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz", LabelMap({"node": 1}, ignore=2))

    assert score["node"] == by_overlap(2 * 3 / 7, 3.0, 4.0, 1.0)


def test_labels_are_matched_by_name(tmp_path):
    write_mask(tmp_path / "p.nii.gz", row(v1=2, v3=4), GRID)
    write_mask(tmp_path / "r.nii.gz", row(v2=2, v1=4), GRID)
    theirs = LabelMap({"vessel": 1, "bone": 2, "node": 3})

    score = overlap("x", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz", LABELS, theirs)

    assert score["node"] == by_overlap(1.0, 4.0, 4.0, 0.0)
    assert score["vessel"] == by_overlap(1.0, 2.0, 2.0, 0.0)


def test_a_label_the_model_does_not_know_counts_as_empty_and_is_marked(tmp_path):
    write_mask(tmp_path / "p.nii.gz", row(v1=4), GRID)
    write_mask(tmp_path / "r.nii.gz", row(v1=4), GRID)

    score = overlap("x", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz", LABELS, LabelMap({"bone": 1}))

    assert score["node"] == by_overlap(0.0, 4.0, 0.0, -4.0, known=False)
    assert math.isnan(score["vessel"].dice)
    assert not score["vessel"].known


def test_summary_leaves_out_what_is_undefined_and_counts_it(folders):
    summary = evaluate_folders(*folders, LABELS).summary()

    assert list(summary) == ["node", "vessel", MEAN]
    node = [1.0, 4 / 6, 0.0]
    by_label = {label: found["dice"] for label, found in summary.items()}
    found = dataclasses.replace(by_label["node"], interval=None)
    assert found == Summary(3, statistics.fmean(node), 4 / 6, statistics.stdev(node), 0)
    assert by_label["node"].interval.kind == "t"
    assert by_label["vessel"] == Summary(2, pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(0.4714045), 1)
    # each case's mean over its defined labels: 1, (4/6 + 0) / 2, (0 + 2/3) / 2
    assert by_label[MEAN].mean == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)


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

    assert content["format"] == "lnsegfm.evaluation/3"
    assert content["labels"] == {"background": 0, "node": 1, "vessel": 2}
    assert content["cases"][0]["labels"]["vessel"]["dice"] is None
    assert content["summary"]["vessel"]["dice"]["undefined"] == 1
    assert Evaluation.from_json(content).to_json() == evaluation.to_json()


def test_one_case_has_no_sd_and_none_has_no_mean():
    one = Evaluation(LabelMap({"node": 1}), (CaseScore("a", {"node": LabelScore(0.5, 1.0, 1.0, 0.0)}),))

    assert one.to_json()["summary"]["node"]["dice"] == {
        "n": 1,
        "mean": 0.5,
        "median": 0.5,
        "sd": None,
        "undefined": 0,
        "interval": None,
    }
    assert Evaluation(LABELS, ()).to_json()["summary"]["node"]["dice"]["mean"] is None


@pytest.mark.parametrize(
    "content", [{}, [], {"format": "lnsegfm.evaluation/4"}, {"format": "lnsegfm.evaluation/3", "cases": [{}]}]
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

    evaluation = evaluate_folders(predictions, references, LABELS, partial=True)

    assert [case.case for case in evaluation.cases] == ["c"]
    assert len(evaluation.failures) == 2
    assert "no prediction: a" in evaluation.failures[0]
    assert "b.nii.gz: unreadable" in evaluation.failures[1]
    with pytest.raises(DataError) as error:
        evaluate_folders(predictions, references, LABELS)
    assert error.value.problems == evaluation.failures


def test_another_grid_is_refused(folders):
    predictions, references = folders
    write_mask(predictions / "b.nii.gz", row(v1=1), dataclasses.replace(GRID, origin_mm=(5, 0, 0)))

    with pytest.raises(
        DataError, match=r"Case b: .*b\.nii\.gz: its geometry is not its reference's: origin \(5, 0, 0\)"
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

    assert evaluate_folders(predictions, tmp_path / "dataset", LABELS).summary()["node"]["dice"].n == 3


def test_progress_is_told(folders):
    seen = []
    evaluate_folders(*folders, LABELS, progress=OnAdvance(lambda *state: seen.append(state)))

    assert seen == [(1, 3, "a"), (2, 3, "b"), (3, 3, "c")]


def test_every_metric_is_a_field_of_a_score_and_keeps_its_bounds(folders):
    evaluation = evaluate_folders(*folders, LABELS)

    for case in evaluation.cases:
        for score in case.labels.values():
            for key, metric in METRICS.items():
                value = getattr(score, key)
                assert math.isnan(value) or metric.bounds[0] <= value <= metric.bounds[1]
    # rows of 4 and 2 voxels of 10 mm: over most of the longer one's sides the other surface is near
    assert 0 < evaluation.case("b").labels["node"].nsd < 1
    assert 0 < evaluation.case("b").labels["node"].assd_mm < evaluation.case("b").labels["node"].hd95_mm <= 20


def test_nodes_are_counted_for_the_labels_that_are_nodes(folders):
    evaluation = evaluate_folders(*folders, LABELS, scoring=Scoring(node_labels=("node",)))

    assert evaluation.node_labels == ("node",)
    assert evaluation.nodes("vessel") is None
    found = evaluation.nodes("node")
    # a and b: true positives; c: a false negative
    assert (found.all_sizes.detection.nodes, found.all_sizes.detection.true_positives) == (3, 2)
    assert found.all_sizes.sensitivity.value == pytest.approx(2 / 3)
    assert evaluation.nodes("node", 0.6).all_sizes.detection.true_positives == 1  # b has an IoU of a half
    assert Evaluation.from_json(json.loads(json.dumps(evaluation.to_json()))).nodes("node") == found


def test_probabilities_give_points_of_the_froc(folders):
    files = {}
    for name in "abc":
        probability = np.zeros((3, *GRID.shape), dtype=np.float32)
        probability[1] = np.where(row(v1=3) > 0, 0.7, 0.0)
        files[name] = folders[0] / f"{name}.npz"
        np.savez(files[name], probabilities=probability)

    evaluation = evaluate_folders(
        *folders, LABELS, scoring=Scoring(node_labels=("node",)), known=Known(probabilities=files)
    )

    points = {point.threshold: point for point in evaluation.froc("node")}
    # the row is where the nodes of a and b are, and in c one voxel of the node lies in it, too
    assert points[0.7].sensitivity == pytest.approx(1.0)
    assert points[0.75].sensitivity == 0.0
    assert points[0.7].false_positives_per_scan == 0.0
    assert evaluate_folders(*folders, LABELS, scoring=Scoring(node_labels=("node",))).froc("node") == ()


def test_cases_of_one_subject_are_drawn_together(folders):
    alone = evaluate_folders(*folders, LABELS)
    together = evaluate_folders(*folders, LABELS, known=Known(subjects=dict.fromkeys("abc", "one")))

    assert alone.summary()["node"]["dice"].interval is not None
    assert together.summary()["node"]["dice"].interval is None
    assert set(together.subjects) == {"subject one"}


def test_places_of_files_follow_a_folder_that_is_moved(folders, tmp_path):
    evaluation = evaluate_folders(*folders, LABELS)

    content = evaluation.to_json(tmp_path)
    moved = Evaluation.from_json(content, Path("elsewhere"))

    assert content["cases"][0]["files"] == {
        "image": None,
        "prediction": "predictions/a.nii.gz",
        "reference": "references/a.nrrd",
    }
    assert moved.cases[0].files.prediction == Path("elsewhere/predictions/a.nii.gz")


@pytest.mark.parametrize("settings", [{"tolerance_mm": -1}, {"tolerance_mm": math.nan}, {"connectivity": 8}])
def test_scoring_that_cannot_be_is_refused(settings):
    with pytest.raises(ConfigError, match="Use"):
        Scoring(**settings)


def test_of_several_channels_the_first_is_drawn(tmp_path):
    for name in ("a_0000", "a_0001", "b"):
        write_volume(tmp_path / "scans" / f"{name}.nii.gz", row(), GRID)

    found = scans_of(tmp_path, LABELS, tmp_path / "scans")

    assert {case: file.name for case, file in found.items()} == {"a": "a_0000.nii.gz", "b": "b.nii.gz"}


def test_precision_is_of_the_predicted_nodes_and_sensitivity_of_the_reference(tmp_path):
    def nodes(*at: int) -> np.ndarray:
        mask = row()
        for x in at:
            mask[0, 0, x] = 1
        return mask

    for name in "abc":
        write_mask(tmp_path / "r" / f"{name}.nii.gz", nodes(0, 2), GRID)
        write_mask(tmp_path / "p" / f"{name}.nii.gz", nodes(0, 4, 6), GRID)

    found = evaluate_folders(
        tmp_path / "p", tmp_path / "r", LabelMap({"node": 1}), scoring=Scoring(node_labels=("node",))
    ).nodes("node")

    assert found.all_sizes.sensitivity.value == pytest.approx(1 / 2)
    assert found.all_sizes.precision.value == pytest.approx(1 / 3)
    assert found.all_sizes.f1.value == pytest.approx(2 / 5)
    assert found.all_sizes.false_positives_per_scan.value == pytest.approx(2.0)
    assert found.all_sizes.sensitivity.interval.kind == "binomial"
    assert found.all_sizes.false_positives_per_scan.interval.kind == "poisson"
