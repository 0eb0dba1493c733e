from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from lnsegfm.errors import ConfigError
from lnsegfm.evaluation.detection import (
    SHORT_AXIS_BINS_MM,
    Counts,
    counts,
    detect,
    detect_by_size,
    pair_errors,
    size_bins,
)
from lnsegfm.evaluation.matching import NodePair, NodeScore
from lnsegfm.evaluation.nodes import Node


def node(number: int, short_mm: float, volume_ml: float = 1.0) -> Node:
    return Node(
        id=number,
        voxels=100,
        volume_ml=volume_ml,
        long_axis_mm=short_mm + 2,
        short_axis_mm=short_mm,
        slice_number=1,
        diameters_3d_mm=(short_mm + 2, short_mm, short_mm),
        centre_mm=(0, 0, 0),
        centre_index=(0, 0, 0),
        inside_index=(0, 0, 0),
        touches_border=False,
    )


# Reference: 1 matched well, 2 poorly, 3 merged into the partner of 2, 4 a false negative.
# Prediction: 1 and 2 matched, 3 a second part of node 1, 4 a false positive, 5 where nobody annotated.
FIRST = NodeScore(
    reference=(node(1, 12, 2.0), node(2, 9.9, 1.0), node(3, 4), node(4, 3)),
    prediction=(node(1, 10, 1.5), node(2, 8.9, 1.5), node(3, 6), node(4, 2.9), node(5, 20)),
    pairs=(NodePair(1, 1, 60, 0.6), NodePair(1, 3, 10, 0.1), NodePair(2, 2, 40, 0.4), NodePair(3, 2, 20, 0.2)),
    unjudged=(5,),
)
EMPTY = NodeScore((), (), ())
INVENTED_ONLY = NodeScore((), (node(1, 5),), ())
MISSED_ONLY = NodeScore((node(1, 15),), (), ())


def test_one_case_by_any_overlap():
    assert counts(FIRST) == Counts(
        nodes=4,
        true_positives=2,
        touched=3,
        merged=2,
        split=1,
        predicted=4,
        matched_predictions=2,
        parts=1,
        false_positives=1,
        unjudged=1,
    )


def test_one_case_by_iou():
    """At 0.5 the second pair does not count: its prediction touches no matched node, and is a false positive."""
    assert counts(FIRST, iou=0.5) == Counts(
        nodes=4,
        true_positives=1,
        touched=3,
        merged=2,
        split=1,
        predicted=4,
        matched_predictions=1,
        parts=1,
        false_positives=2,
        unjudged=1,
    )


def test_figures_of_one_case():
    one = counts(FIRST)

    assert one.sensitivity == 2 / 4
    assert one.touched_share == 3 / 4
    assert one.precision == 2 / 4
    assert one.f1 == 4 / 8
    assert one.matched_predictions + one.parts + one.false_positives == one.predicted


def test_a_reference_is_binned_by_its_own_short_axis_and_a_prediction_by_its():
    """The first pair: 12 mm in the reference, 10 in the prediction; the second: 9.9 and 8.9."""
    assert counts(FIRST, 0.0, 10, 15) == Counts(
        nodes=1, true_positives=1, touched=1, split=1, predicted=1, matched_predictions=1
    )
    assert counts(FIRST, 0.0, 8, 10) == Counts(
        nodes=1, true_positives=1, touched=1, merged=1, predicted=1, matched_predictions=1
    )
    assert counts(FIRST, 0.0, 5, 8) == Counts(predicted=1, parts=1)
    assert counts(FIRST, 0.0, 0, 3) == Counts(predicted=1, false_positives=1)


def test_a_lower_edge_belongs_to_its_bin():
    assert counts(FIRST, 0.0, 3, 5).nodes == 2
    assert counts(FIRST, 0.0, 0, 3).nodes == 0
    assert counts(MISSED_ONLY, 0.0, 10, 15).nodes == 0
    assert counts(MISSED_ONLY, 0.0, 15, math.inf).nodes == 1


@pytest.mark.parametrize("iou", [0.0, 0.3, 0.5, 1.0])
def test_bins_add_up_to_all(iou):
    everything, *bins = detect_by_size([FIRST, EMPTY, INVENTED_ONLY, MISSED_ONLY], iou)

    for field in dataclasses.fields(Counts):
        assert getattr(everything, field.name) == sum(getattr(each, field.name) for each in bins), field.name
    assert sum(len(each.errors) for each in bins) == len(everything.errors) == everything.true_positives


def test_cases_are_pooled():
    pooled = detect([FIRST, EMPTY, INVENTED_ONLY, MISSED_ONLY])

    assert pooled.cases == 4
    assert (pooled.nodes, pooled.true_positives, pooled.predicted, pooled.false_positives) == (5, 2, 5, 2)
    assert pooled.sensitivity == 2 / 5
    assert pooled.precision == 2 / 5
    assert pooled.f1 == pytest.approx(2 * (0.4 * 0.4) / (0.4 + 0.4))
    assert pooled.false_positives_per_scan == 2 / 4


def test_errors_of_found_nodes():
    """Volumes 2 against 1.5 and 1 against 1.5 ml; short axes 12 against 10 and 9.9 against 8.9 mm."""
    pooled = detect([FIRST])

    assert [error.volume_percent for error in pooled.errors] == [-25, 50]
    assert pooled.volume_error_ml == pytest.approx(0)
    assert pooled.volume_abs_error_ml == pytest.approx(0.5)
    assert pooled.volume_error_percent == pytest.approx(12.5)
    assert pooled.volume_abs_error_percent == pytest.approx(37.5)
    assert pooled.short_axis_error_mm == pytest.approx(-1.5)
    assert pooled.short_axis_abs_error_mm == pytest.approx(1.5)
    assert len(pair_errors(FIRST, 0.5)) == 1
    assert len(pair_errors(FIRST, 0.0, 8, 10)) == 1


def test_what_is_undefined_is_no_number_and_null_in_json():
    nothing = detect([EMPTY])

    assert math.isnan(nothing.sensitivity)
    assert math.isnan(nothing.precision)
    assert math.isnan(nothing.f1)
    assert math.isnan(nothing.short_axis_error_mm)
    assert nothing.false_positives_per_scan == 0
    assert math.isnan(detect([]).false_positives_per_scan)
    assert math.isnan(detect([INVENTED_ONLY]).sensitivity)
    assert detect([INVENTED_ONLY]).precision == detect([INVENTED_ONLY]).f1 == 0
    assert detect([MISSED_ONLY]).sensitivity == detect([MISSED_ONLY]).f1 == 0
    content = json.loads(json.dumps(nothing.to_json(), allow_nan=False))
    assert content["sensitivity"] is None
    assert content["high_mm"] is None
    assert content["nodes"] == 0


def test_bins_are_named_and_cover_everything():
    bins = size_bins()

    assert bins[0] == (0, 3)
    assert bins[-1] == (15, math.inf)
    assert len(bins) == len(SHORT_AXIS_BINS_MM) + 1
    assert [each.sizes for each in detect_by_size([])] == [
        "all",
        "< 3 mm",
        "3 to < 5 mm",
        "5 to < 8 mm",
        "8 to < 10 mm",
        "10 to < 15 mm",
        "≥ 15 mm",
    ]


@pytest.mark.parametrize("edges", [(5, 3), (0, 3), (3, 3), (math.nan,)])
def test_edges_that_do_not_ascend_are_refused(edges):
    with pytest.raises(ConfigError, match=r"^Bin edges"):
        size_bins(edges)


def test_counts_of_cases_can_be_summed_in_any_draw():
    """What a bootstrap over cases needs: pooling is summing."""
    drawn = np.random.default_rng(0).integers(0, 3, 10)
    cases = [FIRST, INVENTED_ONLY, MISSED_ONLY]
    each = [counts(case) for case in cases]

    pooled = detect([cases[i] for i in drawn])

    assert pooled.true_positives == sum(each[i].true_positives for i in drawn)
    assert pooled.nodes == sum(each[i].nodes for i in drawn)
