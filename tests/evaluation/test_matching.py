from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from lnsegfm.datasets.phantom import Domain, make_case
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.components import components
from lnsegfm.evaluation.matching import NodePair, NodeScore, compare_nodes, matched
from lnsegfm.evaluation.nodes import measure_nodes
from lnsegfm.imaging.grid import Grid

SHAPE = (5, 20, 60)
GRID = Grid(SHAPE, (3.0, 1.0, 1.0))


def bars(*spans: tuple[int, int], row: int = 4) -> np.ndarray:
    """A mask of bars of 3 x 4 voxels across, each from one x to before another."""
    mask = np.zeros(SHAPE, bool)
    for start, stop in spans:
        mask[1:4, row : row + 4, start:stop] = True
    return mask


def score(prediction, reference, **options) -> NodeScore:
    return compare_nodes(prediction, reference, GRID, **options)


def test_a_mask_against_itself():
    mask = bars((0, 10), (20, 26), (40, 43))

    same = score(mask, mask)

    assert [(p.reference, p.prediction, p.iou) for p in same.matched(1.0)] == [(1, 1, 1.0), (2, 2, 1.0), (3, 3, 1.0)]
    assert same.false_negatives() == same.false_positives() == same.merged == same.split == same.unjudged == ()
    assert same.reference == same.prediction == measure_nodes(mask, GRID)


def test_shifted_nodes_have_the_iou_of_their_overlap():
    (pair,) = score(bars((12, 22)), bars((10, 20))).pairs

    assert pair == NodePair(reference=1, prediction=1, voxels=8 * 12, iou=8 / 12)
    shifted = score(bars((12, 22)), bars((10, 20)))
    assert shifted.matched(8 / 12) == (pair,)
    assert shifted.matched(0.67) == ()
    assert shifted.false_negatives(0.67) == shifted.false_positives(0.67) == (1,)


def test_dropped_and_added_nodes():
    found = score(bars((0, 10), (30, 36)), bars((0, 10), (20, 25)))

    assert found.false_negatives() == (2,)
    assert found.false_positives() == (2,)
    assert found.reference_status() == {1: "true-positive", 2: "false-negative"}
    assert found.prediction_status() == {1: "true-positive", 2: "false-positive"}


def test_one_prediction_over_two_nodes_finds_one_of_them():
    merged = score(bars((0, 20)), bars((0, 10), (12, 20)))

    assert merged.matched() == (NodePair(1, 1, 120, 0.5),)
    assert merged.merged == (1, 2)
    assert merged.merged_groups == {1: (1, 2)}
    assert merged.touched == (1, 2)
    assert merged.reference_status() == {1: "true-positive", 2: "merged"}
    assert merged.false_negatives() == merged.false_positives() == merged.split == ()


def test_two_predictions_in_one_node_are_one_found_and_one_part():
    split = score(bars((0, 12), (14, 20)), bars((0, 20)))

    assert split.matched() == (NodePair(1, 1, 144, 0.6),)
    assert split.split == (1,)
    assert split.split_groups == {1: (1, 2)}
    assert split.prediction_status() == {1: "true-positive", 2: "part"}
    assert split.false_negatives() == split.false_positives() == split.merged == ()


def test_below_the_threshold_a_touched_node_is_a_false_negative_and_what_touches_it_a_false_positive():
    poor = score(bars((18, 40)), bars((0, 20)))

    assert poor.reference_status(0.5) == {1: "false-negative"}
    assert poor.prediction_status(0.5) == {1: "false-positive"}
    assert poor.touched == (1,)
    assert poor.reference_status() == {1: "true-positive"}


def test_the_best_partner_for_all_is_chosen_not_for_each():
    """Greedy matching would take (1, 1) with 0.5 and leave only 0.05 for the second node."""
    pairs = (NodePair(1, 1, 1, 0.5), NodePair(1, 2, 1, 0.4), NodePair(2, 1, 1, 0.45), NodePair(2, 2, 1, 0.05))

    assert [(p.reference, p.prediction) for p in matched(pairs)] == [(1, 2), (2, 1)]
    assert [(p.reference, p.prediction) for p in matched(pairs, 0.42)] == [(1, 1)]


@st.composite
def tables(draw) -> tuple[NodePair, ...]:
    """Overlaps of up to five by five nodes."""
    rows, columns = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    values = st.one_of(st.just(0.0), st.floats(0.01, 1))
    table = draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    places = itertools.product(range(1, rows + 1), range(1, columns + 1))
    return tuple(NodePair(r, c, 1, iou) for (r, c), iou in zip(places, table, strict=True) if iou > 0)


def best_total(pairs: tuple[NodePair, ...], iou: float) -> float:
    """The largest total of any one-to-one choice, by trying them all."""
    best = 0.0
    by_reference = [[p for p in pairs if p.reference == r and p.iou >= iou] for r in {p.reference for p in pairs}]
    for choice in itertools.product(*([None, *row] for row in by_reference)):
        taken = [p for p in choice if p is not None]
        if len({p.prediction for p in taken}) == len(taken):
            best = max(best, math.fsum(p.iou for p in taken))
    return best


@given(pairs=tables(), iou=st.sampled_from([0.0, 0.1, 0.5]))
def test_matching_is_one_to_one_and_of_the_largest_total(pairs, iou):
    found = matched(pairs, iou)

    assert math.fsum(p.iou for p in found) == pytest.approx(best_total(pairs, iou))
    assert len({p.reference for p in found}) == len({p.prediction for p in found}) == len(found)
    assert set(found) <= {p for p in pairs if p.iou >= iou}


def random_masks(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    boxes = np.zeros((3, 7, 11, 11), bool)
    for mask, count in zip(boxes, (7, 7, 2), strict=True):
        for _ in range(count):
            z, y, x = rng.integers(0, (6, 9, 9))
            dz, dy, dx = rng.integers(1, (3, 5, 5))
            mask[z : z + dz, y : y + dy, x : x + dx] = True
    return boxes[0], boxes[1], boxes[2]


@pytest.mark.parametrize("seed", range(40))
def test_pairs_are_what_counting_voxels_says(seed):
    prediction, reference, ignored = random_masks(seed)
    grid = Grid(prediction.shape, (2.0, 1.0, 1.0))
    reference &= ~ignored

    found = compare_nodes(prediction, reference, grid, ignored)

    ours, n = ndimage.label(prediction, np.ones((3, 3, 3)))
    theirs, m = ndimage.label(reference, np.ones((3, 3, 3)))
    known = sorted(
        (int(both.sum()), float(both.sum() / (((ours == i) | (theirs == j)) & ~ignored).sum()))
        for i in range(1, n + 1)
        for j in range(1, m + 1)
        if (both := (ours == i) & (theirs == j)).any()
    )
    assert sorted((p.voxels, p.iou) for p in found.pairs) == known
    assert len(found.unjudged) == sum(np.mean(ignored[ours == i]) >= 0.5 for i in range(1, n + 1))
    assert len(found.prediction) == n
    assert len(found.reference) == m


@pytest.mark.parametrize("seed", range(20))
def test_swapping_the_masks_swaps_the_pairs(seed):
    prediction, reference, _ = random_masks(seed)
    grid = Grid(prediction.shape, (2.0, 1.0, 1.0))

    one, other = compare_nodes(prediction, reference, grid), compare_nodes(reference, prediction, grid)

    assert {(p.reference, p.prediction, p.iou) for p in one.pairs} == {
        (p.prediction, p.reference, p.iou) for p in other.pairs
    }
    for iou in (0.0, 0.3):
        assert sum(p.iou for p in one.matched(iou)) == pytest.approx(sum(p.iou for p in other.matched(iou)))
        assert len(one.matched(iou)) == len(other.matched(iou))
    assert one.merged_groups == other.split_groups
    assert one.reference == other.prediction


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("axes", [(2, 1, 0), (1, 2, 0)])
def test_the_order_of_axes_and_nodes_does_not_matter(seed, axes):
    prediction, reference, _ = random_masks(seed)
    one = compare_nodes(prediction, reference, Grid(prediction.shape, (1.0, 1.0, 1.0)))
    turned = [np.flip(mask, 1).transpose(axes) for mask in (prediction, reference)]

    other = compare_nodes(*turned, Grid(turned[0].shape, (1.0, 1.0, 1.0)))

    assert sorted((p.voxels, p.iou) for p in one.pairs) == sorted((p.voxels, p.iou) for p in other.pairs)
    assert sum(p.iou for p in one.matched()) == pytest.approx(sum(p.iou for p in other.matched()))
    assert sorted(one.reference_status().values()) == sorted(other.reference_status().values())
    assert sorted(one.prediction_status().values()) == sorted(other.prediction_status().values())


@pytest.mark.parametrize("seed", range(40))
def test_any_overlap_means_touching(seed):
    """What the words promise at threshold 0; and every node has exactly one status."""
    prediction, reference, ignored = random_masks(seed)
    found = compare_nodes(prediction, reference, Grid(prediction.shape, (2.0, 1.0, 1.0)), ignored)
    touched = {p.reference for p in found.pairs}
    touching = {p.prediction for p in found.pairs}

    assert set(found.false_negatives()) == {n.id for n in found.reference} - touched
    assert set(found.false_positives()) == {n.id for n in found.prediction} - touching - set(found.unjudged)
    assert list(found.reference_status()) == [n.id for n in found.reference]
    assert list(found.prediction_status()) == [n.id for n in found.prediction]
    for iou in (0.0, 0.2, 0.5):
        assert list(found.reference_status(iou).values()).count("true-positive") == len(found.matched(iou))
        assert list(found.prediction_status(iou).values()).count("true-positive") == len(found.matched(iou))


def test_what_nobody_annotated_is_not_judged():
    ignored = np.zeros(SHAPE, bool)
    ignored[:, :, 30:] = True

    found = score(bars((0, 10), (26, 34), (40, 45), (20, 25)), bars((0, 10)), ignored=ignored)

    # by size: 10 long and matched, 8 long and half ignored, two of 5: the first in the file judged, the other ignored
    assert found.prediction_status() == {1: "true-positive", 2: "unjudged", 3: "false-positive", 4: "unjudged"}
    assert found.unjudged == (2, 4)
    assert found.false_positives() == (3,)


def test_voxels_nobody_annotated_do_not_count_for_the_overlap():
    ignored = np.zeros(SHAPE, bool)
    ignored[:, :, 10:] = True

    (pair,) = score(bars((0, 16)), bars((0, 10)), ignored=ignored).pairs

    assert (pair.voxels, pair.iou) == (120, 1.0)


def test_a_mostly_ignored_prediction_may_be_a_true_positive_but_never_a_false_one():
    ignored = np.zeros(SHAPE, bool)
    ignored[:, :, 10:] = True

    found = score(bars((8, 30)), bars((0, 10)), ignored=ignored)

    assert found.unjudged == (1,)
    assert found.prediction_status() == {1: "true-positive"}
    assert found.prediction_status(0.5) == {1: "unjudged"}
    assert found.false_positives(0.5) == ()
    assert found.false_negatives(0.5) == (1,)


def test_a_reference_that_nobody_annotated_is_none():
    ignored = np.zeros(SHAPE, bool)
    ignored[:, :, 30:] = True

    assert [n.voxels for n in score(bars(), bars((0, 5), (40, 50)), ignored=ignored).reference] == [60]


def test_phantom_nodes_dropped_moved_split_merged_and_added():
    """Exact counts on the nodes of a phantom that stand alone."""
    case = make_case(Domain(touching_share=0.0, node_count=(10, 14), node_size_mm=(9.0, 22.0)), 8, 0)
    reference, grid = case.instances > 0, case.grid
    nodes = measure_nodes(reference, grid)
    assert len(nodes) >= 6
    labels = components(reference).labels()
    prediction = reference.copy()
    prediction[labels == 1] = False  # dropped
    prediction[labels == 2] = False
    prediction |= np.roll(labels == 2, 1, axis=2)  # moved by a voxel
    third = np.argwhere(labels == 3)
    middle = int(np.median(third[:, 1]))
    prediction[:, middle] &= labels[:, middle] != 3  # split
    ends = [np.argwhere(labels == k).mean(axis=0) for k in (4, 5)]
    for share in np.linspace(0, 1, 500):  # merged by a bridge of voxels
        prediction[tuple(np.rint(ends[0] + share * (ends[1] - ends[0])).astype(int))] = True
    prediction[0:2, 0:2, 0:2] = True  # a false positive

    found = compare_nodes(prediction, reference, grid)

    assert found.false_negatives() == (1,)
    assert found.split == (3,)
    assert {4, 5} <= set(found.merged)
    statuses = list(found.prediction_status().values())
    assert statuses.count("false-positive") == 1
    assert statuses.count("part") == 1
    assert len(found.matched()) == len(nodes) - 1 - (len(found.merged) - len(found.merged_groups))
    assert len(found.touched) == len(nodes) - 1


def test_empty_masks():
    nothing = np.zeros(SHAPE, bool)

    assert score(nothing, nothing) == NodeScore((), (), ())
    assert score(nothing, bars((0, 3))).false_negatives() == (1,)
    assert score(bars((0, 3)), nothing).false_positives() == (1,)


def test_a_score_goes_through_json():
    prediction, reference, ignored = random_masks(3)
    found = compare_nodes(prediction, reference, Grid(prediction.shape, (2.0, 1.0, 1.0)), ignored)

    assert found.pairs
    assert NodeScore.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_cannot_be_is_refused():
    mask = bars((0, 3))
    with pytest.raises(DataError, match=r"^Prediction of "):
        score(mask[1:], mask)
    with pytest.raises(DataError, match=r"^Reference of "):
        score(mask, mask[1:])
    with pytest.raises(DataError, match=r"^Ignored voxels of "):
        score(mask, mask, ignored=mask[1:])
    with pytest.raises(ConfigError, match=r"^IoU threshold 1.5"):
        score(mask, mask).matched(1.5)
    with pytest.raises(DataError, match="overlap so"):
        NodeScore((), (), (NodePair(1, 1, 1, 0.5),))
    with pytest.raises(DataError, match=r"^Unjudged nodes"):
        NodeScore((), (), (), (1,))
    with pytest.raises(DataError, match="not what was written"):
        NodeScore.from_json({"reference": []})
