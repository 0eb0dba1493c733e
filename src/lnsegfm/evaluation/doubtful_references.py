"""References that lack a label which most others have: such cases are scored apart and told, not counted as Dice 0."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from lnsegfm.datasets.doubtful_labels import doubtful_labels
from lnsegfm.evaluation.scores import Evaluation


def with_doubtful_apart(
    evaluation: Evaluation, absent: Collection[str] = (), *, empty_cases: bool = True
) -> Evaluation:
    """Mark the scores of predicted labels that the reference lacks, where most other references hold them.

    Or where the label is predicted in most of the cases that lack it, however few hold it.

    Their Dice and NSD would be 0, and are not defined instead. Labels of nodes, tumours and the like are not marked:
    what is predicted of them where there is none is a false positive.

    Args:
        evaluation: Scores of all cases.
        absent: Labels that are truly absent where the reference lacks them: these count.
        empty_cases: Doubt references that hold nothing at all, too.
    """
    holding = {case.case: [n for n, s in case.labels.items() if s.reference_ml > 0] for case in evaluation.cases}
    unlabelled = {case.case: [n for n, s in case.labels.items() if not s.annotated] for case in evaluation.cases}
    predicted = {case.case: [n for n, s in case.labels.items() if s.prediction_ml > 0] for case in evaluation.cases}
    judged = [name for name in evaluation.labels.names if name not in evaluation.node_labels]
    doubtful = doubtful_labels(judged, holding, unlabelled=unlabelled, absent=absent, predicted=predicted)
    cases = []
    for case in evaluation.cases:
        marked = {
            label: score.as_doubtful()
            for label, score in case.labels.items()
            if case.case in doubtful.get(label, ()) and score.prediction_ml > 0 and (empty_cases or holding[case.case])
        }
        cases.append(replace(case, labels=case.labels | marked) if marked else case)
    return replace(evaluation, cases=tuple(cases))
