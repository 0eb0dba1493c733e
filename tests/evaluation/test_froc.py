from __future__ import annotations

import json
import math

import numpy as np
import pytest

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.froc import THRESHOLDS, FrocCounts, FrocPoint, froc_counts, froc_curve
from lnsegfm.evaluation.matching import compare_nodes
from lnsegfm.imaging.grid import Grid

SHAPE = (3, 9, 60)
GRID = Grid(SHAPE, (3.0, 1.0, 1.0))


def known() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and reference of which every threshold's answer can be said.

    Node A (x 0 to 10): 0.9 in its first 8 columns, 0.3 in the other two. Node B (20 to 30): 0.6 in columns 20 to 23 and
    26 to 29, 0.2 between. Node C (40 to 44): 0.1. Invented: 0.7 at 34 to 36, 0.4 at 50 to 52; a bridge of 0.2 from B to
    the first of them.
    """
    probability, reference = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, bool)
    for start, stop in ((0, 10), (20, 30), (40, 44)):
        reference[:, 2:6, start:stop] = True
    spans = [(0, 8, 0.9), (8, 10, 0.3), (20, 24, 0.6), (24, 26, 0.2), (26, 30, 0.6), (30, 34, 0.2), (34, 36, 0.7)]
    for start, stop, value in [*spans, (40, 44, 0.1), (50, 52, 0.4)]:
        probability[:, 2:6, start:stop] = value
    return probability, reference


# threshold: (true, false positives) by any overlap, (true, false positives) by IoU 0.5
ANSWERS = {
    0.05: ((3, 1), (3, 1)),  # A and C whole, B with its bridge and the first false positive (10 of 16)
    0.1: ((3, 1), (3, 1)),
    0.15: ((2, 1), (2, 1)),  # C has gone
    0.2: ((2, 1), (2, 1)),
    0.25: ((2, 2), (1, 4)),  # B in two parts of IoU 0.4, the first false positive on its own
    0.3: ((2, 2), (1, 4)),
    0.35: ((2, 2), (1, 4)),  # A is 8 of 10 now
    0.4: ((2, 2), (1, 4)),
    0.45: ((2, 1), (1, 3)),
    0.6: ((2, 1), (1, 3)),
    0.65: ((1, 1), (1, 1)),  # B has gone
    0.7: ((1, 1), (1, 1)),
    0.75: ((1, 0), (1, 0)),
    0.9: ((1, 0), (1, 0)),
    0.95: ((0, 0), (0, 0)),
}


def test_every_threshold_has_its_known_answer():
    probability, reference = known()

    found = froc_counts(probability, reference, GRID, thresholds=tuple(ANSWERS))

    assert found.nodes == 3
    assert found.criteria == (0.0, 0.5)
    for place, (threshold, answer) in enumerate(ANSWERS.items()):
        said = tuple((found.true_positives[row][place], found.false_positives[row][place]) for row in (0, 1))
        assert said == answer, threshold


@pytest.mark.parametrize(
    ("seed", "dtype"),
    [
        *((seed, np.float32) for seed in range(15)),
        *((s, dtype) for s in range(3) for dtype in (np.float16, np.float64)),
    ],
)
def test_each_threshold_is_what_its_mask_scores(seed, dtype):
    rng = np.random.default_rng(seed)
    coarse = rng.random((3, 5, 9)).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    probability = np.round(coarse, 2).astype(dtype)
    reference = rng.random(coarse[::2, ::2, ::2].shape).repeat(2, 0).repeat(2, 1).repeat(2, 2) < 0.15
    ignored = rng.random(coarse.shape) < 0.2
    grid = Grid(coarse.shape, (2.0, 1.0, 1.0))

    found = froc_counts(probability, reference, grid, ignored, criteria=(0.0, 0.3))

    for place, threshold in enumerate(found.thresholds):
        score = compare_nodes(probability >= dtype(threshold), reference, grid, ignored)
        for row, iou in enumerate((0.0, 0.3)):
            assert found.true_positives[row][place] == len(score.matched(iou))
            assert found.false_positives[row][place] == len(score.false_positives(iou))
        assert found.nodes == len(score.reference)


def test_a_voxel_at_the_threshold_counts_in_any_precision():
    for dtype in (np.float16, np.float32, np.float64):
        for threshold in THRESHOLDS:
            probability = np.full((1, 1, 1), threshold, dtype)
            found = froc_counts(probability, np.ones((1, 1, 1), bool), Grid((1, 1, 1), (1, 1, 1)))
            assert found.true_positives[0][THRESHOLDS.index(threshold)] == 1


def test_what_nobody_annotated_is_no_false_positive():
    probability, reference = known()
    ignored = np.zeros(SHAPE, bool)
    ignored[:, :, 32:38] = ignored[:, :, 50:] = True

    found = froc_counts(probability, reference, GRID, ignored, thresholds=(0.25, 0.75))

    assert found.false_positives[0] == (0, 0)
    assert found.true_positives[0] == (2, 1)


def test_cases_are_pooled_from_the_highest_threshold_on():
    probability, reference = known()
    one = froc_counts(probability, reference, GRID, thresholds=(0.2, 0.65, 0.95))
    blank = froc_counts(probability, np.zeros(SHAPE, bool), GRID, thresholds=(0.2, 0.65, 0.95))

    curve = froc_curve([one, blank])

    assert [p.threshold for p in curve] == [0.95, 0.65, 0.2]
    assert [(p.cases, p.nodes, p.true_positives, p.false_positives) for p in curve] == [
        (2, 3, 0, 0),
        (2, 3, 1, 3),
        (2, 3, 2, 4),
    ]
    assert [p.sensitivity for p in curve] == [0, 1 / 3, 2 / 3]
    assert [p.false_positives_per_scan for p in curve] == [0, 1.5, 2]
    assert [p.true_positives for p in froc_curve([one, blank], iou=0.5)] == [0, 1, 2]
    assert froc_curve([]) == ()


def test_without_nodes_there_is_no_sensitivity():
    (point,) = froc_curve(
        [froc_counts(np.zeros((1, 1, 1)), np.zeros((1, 1, 1), bool), Grid((1, 1, 1), (1, 1, 1)), thresholds=(0.5,))]
    )

    assert math.isnan(point.sensitivity)
    assert point.false_positives_per_scan == 0
    assert point.to_json()["sensitivity"] is None


def test_nothing_probable_finds_nothing():
    found = froc_counts(np.full(SHAPE, np.nan), known()[1], GRID)

    assert set(found.true_positives[0]) == set(found.false_positives[0]) == {0}
    assert len(found.thresholds) == 20


def test_counts_and_points_go_through_json():
    probability, reference = known()
    counts = froc_counts(probability, reference, GRID)

    assert FrocCounts.from_json(json.loads(json.dumps(counts.to_json()))) == counts
    for point in froc_curve([counts]):
        assert FrocPoint.from_json(json.loads(json.dumps(point.to_json()))) == point


@pytest.mark.parametrize("thresholds", [(), (0.5, 0.3), (0.0, 0.5), (0.5, 1.5), (0.5, 0.5), (math.nan,)])
def test_thresholds_that_cannot_be_are_refused(thresholds):
    probability, reference = known()

    with pytest.raises(ConfigError, match=r"^Thresholds"):
        froc_counts(probability, reference, GRID, thresholds=thresholds)


def test_what_is_no_probability_map_is_refused():
    probability, reference = known()

    with pytest.raises(DataError, match="not floating point"):
        froc_counts(probability.astype(np.uint8), reference, GRID)
    with pytest.raises(DataError, match=r"^Probability 90: it is above 1"):
        froc_counts(probability * 100, reference, GRID)
    with pytest.raises(DataError, match=r"^Probability map of "):
        froc_counts(probability[1:], reference, GRID)
    with pytest.raises(DataError, match=r"^Ignored voxels of "):
        froc_counts(probability, reference, GRID, reference[1:])
    with pytest.raises(DataError, match="counted at other thresholds"):
        froc_curve([froc_counts(probability, reference, GRID)], iou=0.1)
    with pytest.raises(DataError, match="not what was written"):
        FrocCounts.from_json({})
    with pytest.raises(DataError, match=r"^FROC true positives"):
        FrocCounts((0.5,), 1, (0.0,), ((2,),), ((0,),))
    with pytest.raises(DataError, match="not one number for each"):
        FrocCounts((0.5, 0.6), 1, (0.0,), ((1,),), ((0,),))
