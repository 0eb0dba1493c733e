from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from lnsegfm.errors import DataError
from lnsegfm.evaluation.evaluate import Evaluation
from lnsegfm.report.comparison import Comparison

from .scores import evaluation, nodes

NAN = math.nan


def test_differences_are_paired_by_case_and_not_by_place():
    base, adapted = evaluation({"node": [0.1, 0.5, 0.9]}), evaluation({"node": [0.3, 0.6, 0.8]})
    shuffled = Evaluation(base.labels, base.cases[::-1])

    found = Comparison(shuffled, adapted).difference("node")

    assert found.by_case == pytest.approx({"case_0": 0.2, "case_1": 0.1, "case_2": -0.1})
    assert found.mean == pytest.approx(0.2 / 3)
    assert (found.base_mean, found.adapted_mean) == pytest.approx((0.5, 1.7 / 3))


def test_a_case_counts_only_where_both_are_defined():
    found = nodes([0.2, NAN, 0.4, 0.4], [0.5, 0.9, NAN, 0.6]).difference("lymph_node")

    assert found.by_case == pytest.approx({"case_0": 0.3, "case_3": 0.2})
    assert found.base_mean == pytest.approx(0.3)


def test_interval_is_scipys_percentile_bootstrap_and_repeats():
    rng = np.random.default_rng(3)
    base, adapted = rng.uniform(0.2, 0.6, 12), rng.uniform(0.3, 0.8, 12)

    found, again = (nodes(base, adapted).difference() for _ in range(2))

    scipys = stats.bootstrap(
        (adapted - base,), np.mean, n_resamples=20_000, method="percentile", random_state=1
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high), abs=0.006)
    assert (found.low, found.high) == (again.low, again.high)


@pytest.mark.parametrize(("n", "given"), [(1, False), (2, False), (3, True)])
def test_interval_needs_three_cases(n, given):
    found = nodes([0.1] * n, [0.2] * n).difference()

    assert (found.low is not None) == given


def test_over_all_labels_each_case_counts_once_with_the_labels_defined_for_both():
    base = evaluation({"node": [0.2, 0.4], "larynx": [0.6, NAN]})
    adapted = evaluation({"node": [0.4, 0.5], "larynx": [0.8, 0.9]})

    assert Comparison(base, adapted).difference().by_case == pytest.approx({"case_0": 0.2, "case_1": 0.1})


def test_a_label_unknown_to_the_base_counts_as_an_empty_mask_and_is_said():
    base, adapted = evaluation({"node": [0.5, 0.5, 0.5]}), evaluation({"node": [0.5] * 3, "larynx": [0.7, 0.8, NAN]})

    comparison = Comparison(base, adapted, unknown_to_base=("larynx",))

    assert comparison.difference("larynx").by_case == pytest.approx({"case_0": 0.7, "case_1": 0.8})
    assert comparison.base_ml("case_0", "larynx") == 0.0
    assert any("gives no mask of larynx" in note and "empty mask" in note for note in comparison.notes())


def test_a_label_the_scores_mark_as_unknown_needs_no_naming():
    comparison = Comparison(evaluation({"node": [0.0] * 3}, known=False), evaluation({"node": [0.5] * 3}))

    assert comparison.unknown == ("node",)


@pytest.mark.parametrize(
    ("base", "adapted", "outcome", "said"),
    [
        ([0.3, 0.4, 0.2] * 4, [0.6, 0.7, 0.6] * 4, "adapted better", ("On 12 held-out cases, the adapted", "by 0.33")),
        ([0.3, 0.4, 0.2, 0.3, 0.3], [0.6] * 5, "adapted better", ("With only 5 held-out cases,", "is better")),
        ([0.5, 0.6, 0.7, 0.5], [0.6, 0.5, 0.8, 0.6], "no difference", ("no difference is shown", "ahead by 0.05")),
        ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], "no difference", ("no difference is shown (mean Dice 0.600",)),
        ([0.5, 0.6, 0.7, 0.5], [0.4, 0.66, 0.6, 0.56], "base ahead", ("is better by 0.02", "no difference shown")),
        (
            [0.5, 0.6, 0.7, 0.5],
            [0.3, 0.5, 0.5, 0.4],
            "base better",
            ("the base is better by 0.15 Dice", "difference -0.2"),
        ),
        ([0.5, 0.5], [0.9, 0.9], "no difference", ("With only 2 held-out cases", "no interval can be given")),
        ([0.5], [0.4], "base ahead", ("With only 1 held-out case,", "no interval can be given")),
        ([NAN, 0.1], [0.5, NAN], "no evidence", ("No evidence: on none of the 2 held-out cases",)),
    ],
)
def test_verdict(base, adapted, outcome, said):
    comparison = nodes(base, adapted)
    verdict = comparison.verdict()

    assert comparison.outcome == outcome
    assert [part for part in said if part not in verdict] == []
    assert verdict.endswith("keep the base.") == outcome.startswith("base")
    assert verdict.count(". ") == 0  # one sentence


def test_verdict_names_a_label_where_the_base_is_ahead():
    base = evaluation({"node": [0.2, 0.3, 0.2], "larynx": [0.9, 0.8, 0.9]})
    adapted = evaluation({"node": [0.8, 0.9, 0.8], "larynx": [0.7, 0.7, 0.8]})

    verdict = Comparison(base, adapted).verdict()

    assert "the adapted model is better" in verdict
    assert "but the base is better on average for larynx (by 0.13 Dice)" in verdict


def test_rounding_errors_are_no_difference():
    base, adapted = [0.1, 0.2, 0.9], [0.2, 0.9, 0.1]
    assert np.mean(np.subtract(adapted, base)) < 0  # by 4e-17

    assert nodes(base, adapted).outcome == "no difference"


def test_notes_say_how_many_cases_are_left_out_and_what_few_cases_mean():
    notes = nodes([0.1, 0.2, 0.3, NAN], [0.2, 0.3, 0.4, NAN]).notes()

    assert any("1 held-out case not counted" in note for note in notes)
    assert any("too narrow" in note for note in notes)
    assert not nodes([0.1] * 10, [0.2] * 10).notes()


def test_worst_adapted_case_comes_first_and_undefined_last():
    assert nodes([0.1] * 4, [0.7, NAN, 0.2, 0.5]).worst_first() == ("case_2", "case_3", "case_0", "case_1")


def test_other_cases_are_refused():
    adapted = evaluation({"lymph_node": [0.1, 0.2]})
    with pytest.raises(DataError, match=r"case_1.*the same cases"):
        Comparison(evaluation({"lymph_node": [0.1]}), adapted)
    with pytest.raises(DataError, match=r"case_0.*each once"):
        Comparison(*[Evaluation(adapted.labels, (adapted.cases[0],) * 2)] * 2)


def test_a_label_the_base_lacks_must_be_named():
    with pytest.raises(DataError, match=r"Label larynx.*unknown_to_base"):
        Comparison(evaluation({"node": [0.1]}), evaluation({"node": [0.1], "larynx": [0.2]}))


def test_to_json_is_json():
    content = nodes([0.1, 0.2, 0.3], [0.4, 0.5, 0.7]).to_json()

    assert json.loads(json.dumps(content, allow_nan=False))["labels"]["lymph_node"]["mean"] == pytest.approx(1 / 3)
    assert content["verdict"].startswith("With only 3 held-out cases, the adapted model is better")
