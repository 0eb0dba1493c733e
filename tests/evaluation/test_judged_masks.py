"""Which labels of a case the choice of a postprocessing judges."""

from __future__ import annotations

import numpy as np

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.evaluation.doubtful_references import KnownAbsence
from lnsegfm.evaluation.judged_masks import doubtful_apart
from lnsegfm.evaluation.postprocessing_choice import JudgedCase, choose_postprocessing

LABELS = LabelMap({"jaw": 1, "node": 2})


def case(name: str, *, annotated: bool) -> JudgedCase:
    """A jaw predicted in two pieces, of which the smaller is wrong; its reference may have been left out."""
    prediction = np.zeros((4, 8, 8), np.uint8)
    prediction[1:3, 1:4, 1:4] = 1
    prediction[1, 6, 6] = 1
    reference = np.zeros_like(prediction)
    reference[1:3, 1:4, 1:4] = annotated
    return JudgedCase(name, lambda: (prediction, reference), 1.0)


def test_a_label_that_one_reference_lacks_and_the_others_have_is_not_judged_there():
    cases = [case(f"c{n}", annotated=n > 0) for n in range(5)]
    first, *others = doubtful_apart(cases, LABELS)
    assert first.unlabelled == {"jaw"}
    assert not any(other.unlabelled for other in others)
    assert doubtful_apart(cases, LABELS, KnownAbsence(empty_cases=False))[0].unlabelled == frozenset()
    before = choose_postprocessing(cases, LABELS, crossfit=True).scores.means()["jaw"]
    after = choose_postprocessing(doubtful_apart(cases, LABELS), LABELS, crossfit=True).scores.means()["jaw"]
    assert before[2] == 5
    assert before[0] < after[0]  # a Dice of 0 where nobody annotated
    assert after[2] == 4


def test_nodes_are_false_positives_where_there_are_none():
    nodes = LabelMap({"node": 1})
    assert not any(one.unlabelled for one in doubtful_apart([case(f"c{n}", annotated=n > 0) for n in range(5)], nodes))
