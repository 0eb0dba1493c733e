from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import DataError
from lnsegfm.evaluation.case_scores import MEAN, CaseScore, LabelScore
from lnsegfm.evaluation.matching import NodePair, NodeScore
from lnsegfm.evaluation.nodes import Node
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.statistics import mean, paired
from lnsegfm.report.comparison import Comparison
from lnsegfm.report.comparison_json import from_json, to_json
from lnsegfm.report.verdict import forgetting, limits, notes, verdict

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


def test_the_interval_is_that_of_the_differences():
    rng = np.random.default_rng(3)
    base, adapted = rng.uniform(0.2, 0.6, 12), rng.uniform(0.3, 0.8, 12)

    found = nodes(base, adapted).difference()

    assert found.paired == paired(adapted, base)
    assert found.interval == mean(adapted - base).interval


@pytest.mark.parametrize(("n", "given"), [(1, False), (2, False), (3, True)])
def test_interval_needs_three_cases(n, given):
    found = nodes([0.1] * n, [0.2] * n).difference()

    assert (found.interval is not None) == given


def test_cases_of_one_subject_are_one_witness():
    comparison = nodes([0.1, 0.2, 0.3, 0.1], [0.3, 0.4, 0.4, 0.4])
    of_two = [
        Evaluation(e.labels, tuple(replace(c, subject=c.case[-1:] in "01") for c in e.cases))
        for e in (comparison.base, comparison.adapted)
    ]

    assert comparison.difference().interval is not None
    assert Comparison(*of_two).difference().interval is None
    assert "With only 4 held-out cases of 2 subjects" in verdict(Comparison(*of_two))


def test_many_cases_of_few_subjects_are_few():
    comparison = nodes([0.1] * 12, [0.3] * 12)
    of_six = [
        Evaluation(e.labels, tuple(replace(c, subject=str(i % 6)) for i, c in enumerate(e.cases)))
        for e in (comparison.base, comparison.adapted)
    ]

    assert verdict(Comparison(*of_six)).startswith("With only 12 held-out cases of 6 subjects, the adapted")


@pytest.mark.parametrize(
    ("metric", "base", "adapted", "outcome"),
    [
        ("nsd", [0.1] * 4, [0.2, 0.3, 0.2, 0.3], "adapted better"),
        ("hd95_mm", [9.0] * 4, [5.0, 6.0, 5.0, 6.0], "adapted better"),
        ("assd_mm", [1.0] * 4, [5.0, 6.0, 5.0, 6.0], "base better"),
        ("volume_difference_ml", [-3.0, 3.0, -3.0, 3.0], [1.0, -1.0, 1.1, -1.1], "adapted better"),
    ],
)
def test_each_metric_knows_which_way_is_better(metric, base, adapted, outcome):
    one = evaluation({"node": [0.5] * 4})
    changed = [
        Evaluation(
            one.labels,
            tuple(
                replace(case, labels={"node": replace(case.labels["node"], **{metric: value})})
                for case, value in zip(one.cases, values, strict=True)
            ),
        )
        for values in (base, adapted)
    ]

    assert Comparison(*changed).difference("node", metric).outcome == outcome


def test_over_all_labels_each_case_counts_once_with_the_labels_defined_for_both():
    base = evaluation({"node": [0.2, 0.4], "larynx": [0.6, NAN]})
    adapted = evaluation({"node": [0.4, 0.5], "larynx": [0.8, 0.9]})

    assert Comparison(base, adapted).difference().by_case == pytest.approx({"case_0": 0.2, "case_1": 0.1})


def test_a_label_unknown_to_the_base_is_said():
    comparison = Comparison(evaluation({"node": [0.0] * 3}, known=False), evaluation({"node": [0.5] * 3}))

    assert comparison.unknown == ("node",)
    assert any("gives no mask of node" in note and "nothing is compared" in note for note in notes(comparison))


@pytest.mark.parametrize(
    ("base", "adapted", "outcome", "said"),
    [
        ([0.3, 0.4, 0.2] * 4, [0.6, 0.7, 0.6] * 4, "adapted better", ("On 12 held-out cases, the adapted", "by 0.33")),
        ([0.3, 0.4, 0.2, 0.3, 0.3], [0.6] * 5, "adapted better", ("With only 5 held-out cases,", "is better")),
        ([0.5, 0.6, 0.7, 0.5], [0.6, 0.5, 0.8, 0.6], "no difference", ("no difference is shown", "ahead by 0.05")),
        ([0.5, 0.6, 0.7], [0.5, 0.6, 0.7], "no difference", ("no difference is shown (mean Dice 0.600",)),
        ([0.5, 0.6, 0.7, 0.5], [0.4, 0.66, 0.6, 0.56], "base ahead", ("is ahead by 0.02", "no difference shown")),
        (
            [0.5, 0.6, 0.7, 0.5],
            [0.3, 0.5, 0.5, 0.4],
            "base better",
            ("the base is better by 0.15 Dice", "difference -0.2"),
        ),
        ([0.5, 0.5], [0.9, 0.9], "no difference", ("With only 2 held-out cases", "no interval can be given")),
        (
            [0.5],
            [0.4],
            "one subject",
            ("1 held-out case cannot show which model is better", "no interval can be given"),
        ),
        ([NAN, 0.1], [0.5, NAN], "no evidence", ("No evidence: on none of the 2 cases",)),
    ],
)
def test_the_verdict(base, adapted, outcome, said):
    comparison = nodes(base, adapted)
    sentence = verdict(comparison)

    assert comparison.outcome == outcome
    assert [part for part in said if part not in sentence] == []
    assert sentence.endswith("keep the base.") == outcome.startswith("base")
    assert sentence.count(". ") == 0  # one sentence


def test_verdict_names_a_label_where_the_base_is_ahead():
    base = evaluation({"node": [0.2, 0.3, 0.2], "larynx": [0.9, 0.8, 0.9]})
    adapted = evaluation({"node": [0.8, 0.9, 0.8], "larynx": [0.7, 0.7, 0.8]})

    sentence = verdict(Comparison(base, adapted))

    assert "the adapted model is better" in sentence
    assert "but the base is better on average for larynx (by 0.13 Dice, no difference shown)" in sentence


def test_rounding_errors_are_no_difference():
    base, adapted = [0.1, 0.2, 0.9], [0.2, 0.9, 0.1]
    assert np.mean(np.subtract(adapted, base)) < 0  # by 4e-17

    assert nodes(base, adapted).outcome == "no difference"


def test_notes_say_how_many_cases_are_left_out_and_what_few_cases_mean():
    said = notes(nodes([0.1, 0.2, 0.3, NAN], [0.2, 0.3, 0.6, NAN]))

    assert any("1 case not counted" in note for note in said)
    assert any("none can show a difference at 5 %" in note for note in said)
    assert any("could not have been distinguished from none" in note for note in said)
    assert not notes(nodes([0.1] * 20, [0.2] * 20))


def test_what_so_many_subjects_can_show():
    assert "no interval" in limits(2)[0]
    assert "p below 0.062" in limits(5)[0]
    assert "0.031" in limits(6)[0]
    assert "none can show" not in limits(6)[0]
    assert not limits(20)


def test_p_values_of_several_labels_are_corrected():
    rng = np.random.default_rng(0)
    base = {name: rng.uniform(0.3, 0.5, 10).tolist() for name in ("a", "b")}
    adapted = {"a": [v + 0.1 for v in base["a"]], "b": base["b"]}

    corrected = Comparison(evaluation(base), evaluation(adapted)).corrected_p()

    assert corrected["a"] == pytest.approx(2 * 2 / 2**10)
    assert corrected["b"] == 1.0


@pytest.mark.parametrize(
    ("base", "adapted", "said"),
    [
        ([0.9, 0.8, 0.9], [0.5, 0.4, 0.5], "has forgotten: 0.40 Dice less"),
        ([0.9, 0.8, 0.9, 0.8], [0.8, 0.85, 0.7, 0.84], "no loss is shown, though it is behind by"),
        ([0.5, 0.6, 0.5], [0.5, 0.6, 0.5], "no loss is shown ("),
        ([0.5, 0.6, 0.5], [0.7, 0.8, 0.75], "nothing is forgotten"),
    ],
)
def test_forgetting_in_a_sentence(base, adapted, said):
    assert said in forgetting(nodes(base, adapted))


def test_worst_adapted_case_comes_first_and_undefined_last():
    assert nodes([0.1] * 4, [0.7, NAN, 0.2, 0.5]).worst_first() == ("case_2", "case_3", "case_0", "case_1")


def test_other_cases_are_refused():
    adapted = evaluation({"lymph_node": [0.1, 0.2]})
    with pytest.raises(DataError, match=r"case_1.*the same cases"):
        Comparison(evaluation({"lymph_node": [0.1]}), adapted)
    with pytest.raises(DataError, match=r"case_0.*each once"):
        Comparison(*[Evaluation(adapted.labels, (adapted.cases[0],) * 2)] * 2)


def test_a_label_the_base_lacks_is_refused():
    with pytest.raises(DataError, match=r"Label larynx.*no such label"):
        Comparison(evaluation({"node": [0.1]}), evaluation({"node": [0.1], "larynx": [0.2]}))


def test_json_gives_the_comparison_back():
    comparison = nodes([0.1, 0.2, 0.3], [0.4, 0.5, 0.7])
    content = json.loads(json.dumps(to_json(comparison), allow_nan=False))

    assert content["labels"]["lymph_node"]["mean"] == pytest.approx(1 / 3)
    assert content["verdict"].startswith("With only 3 held-out cases, the adapted model is better")
    assert verdict(from_json(content)) == verdict(comparison)
    assert to_json(from_json(content)) == to_json(comparison)


def test_models_by_other_names_are_called_by_them():
    one, other = evaluation({"node": [0.5] * 4}), evaluation({"node": [0.7, 0.8, 0.75, 0.7]})

    sentence = verdict(Comparison(one, other, ("old", "new")))

    assert sentence.startswith("With only 4 cases, new is better than old by 0.24 Dice")
    assert "keep" not in verdict(Comparison(other, one, ("new", "old")))


def test_nodes_are_compared_case_by_case():
    def found(*counts: int) -> Evaluation:
        cases = []
        for case, n in enumerate(counts):
            reference = tuple(node(i + 1) for i in range(4))
            prediction = tuple(node(i + 1) for i in range(n + 1))  # the last one is a false positive
            pairs = tuple(NodePair(i + 1, i + 1, 1, 0.5) for i in range(n))
            score = LabelScore(0.5, 1.0, 1.0, 0.0, nodes=NodeScore(reference, prediction, pairs))
            cases.append(CaseScore(f"case_{case}", {"lymph_node": score}))
        return Evaluation(LabelMap({"lymph_node": 1}), tuple(cases), node_labels=("lymph_node",))

    comparison = Comparison(found(1, 2, 1, 2), found(3, 3, 2, 4))
    difference = comparison.nodes("lymph_node")

    assert (difference.nodes, difference.base_true_positives, difference.adapted_true_positives) == (16, 6, 12)
    assert difference.sensitivity.effect.value == pytest.approx(6 / 16)
    assert difference.false_positives_per_scan.effect.value == 0.0
    assert difference.sensitivity.p == pytest.approx(2 / 2**4)
    assert "the base finds 6 of 16 nodes (38%) with 1 false positives a scan" in verdict(comparison)
    assert any(
        "finds fewer nodes (6 against 12 of 16)" in n for n in notes(Comparison(found(3, 3, 2, 4), found(1, 2, 1, 2)))
    )
    assert comparison.difference(MEAN).outcome == "no difference"


def node(number: int) -> Node:
    return Node(number, 1, 0.1, 5.0, 4.0, 1, (5.0, 4.0, 3.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0, 0, 0), False)
