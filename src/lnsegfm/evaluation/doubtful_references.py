"""References that lack a label which most others have: such cases are scored apart and told, not counted as Dice 0."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from lnsegfm.datasets.doubtful_labels import doubtful_labels
from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError
from lnsegfm.evaluation.scores import Evaluation


@dataclass(frozen=True)
class KnownAbsence:
    """What is known of labels that references lack.

    Args:
        absent: Labels that are truly absent where a reference lacks them: what is predicted there counts.
        empty_cases: Doubt references that hold nothing at all, too.
        others: Labels that the references of cases hold which are not judged here, such as those trained on, by case:
            of few judged cases they say whether most have a label.
        unlabelled: Labels that nobody annotated in these cases.
    """

    absent: tuple[str, ...] = ()
    empty_cases: bool = True
    others: Mapping[str, Collection[str]] = field(default_factory=dict)
    unlabelled: Mapping[str, Collection[str]] = field(default_factory=dict)

    def doubtful(
        self,
        labels: Iterable[str],
        holding: Mapping[str, Collection[str]],
        predicted: Mapping[str, Collection[str]],
        unlabelled: Mapping[str, Collection[str]],
    ) -> dict[str, frozenset[str]]:
        """The judged cases of each label whose references may lack it because nobody annotated it.

        Args:
            labels: The labels to judge.
            holding: The labels that each judged reference holds.
            predicted: The labels that are predicted, by case.
            unlabelled: Labels that are known not to be annotated, by case.
        """
        found = doubtful_labels(
            labels,
            holding,
            unlabelled={**self.unlabelled, **unlabelled},
            absent=self.absent,
            predicted=predicted,
            others=self.others,
        )
        kept = {case for case in holding if self.empty_cases or holding[case]}
        return {label: frozenset(kept.intersection(cases)) for label, cases in found.items()}


def require_labels(absent: Iterable[str], labels: LabelMap) -> tuple[str, ...]:
    """Labels that are said to be absent where references lack them, each of them one that there is.

    Raises:
        ConfigError: One that there is not.
    """
    named = tuple(absent)
    if strangers := [name for name in named if name not in labels.names]:
        raise ConfigError(f"--absent {strangers[0]}: there is no such label. Use one of: {labels}.")
    return named


def with_doubtful_apart(
    evaluation: Evaluation,
    known: KnownAbsence = KnownAbsence(),
) -> Evaluation:
    """Mark the scores of predicted labels that the reference lacks, where most other references hold them.

    Or where the label is predicted in most of the cases that lack it, however few hold it.

    Their Dice and NSD would be 0, and are not defined instead. Labels of nodes, tumours and the like are not marked:
    what is predicted of them where there is none is a false positive.

    Args:
        evaluation: Scores of all cases.
        known: What is known of the labels that references lack.
    """
    holding = {case.case: [n for n, s in case.labels.items() if s.reference_ml > 0] for case in evaluation.cases}
    unlabelled = {case.case: [n for n, s in case.labels.items() if not s.annotated] for case in evaluation.cases}
    predicted = {case.case: [n for n, s in case.labels.items() if s.prediction_ml > 0] for case in evaluation.cases}
    judged = [name for name in evaluation.labels.names if name not in evaluation.node_labels]
    doubtful = known.doubtful(judged, holding, predicted, unlabelled)
    cases = []
    for case in evaluation.cases:
        marked = {
            label: score.as_doubtful()
            for label, score in case.labels.items()
            if case.case in doubtful.get(label, ()) and score.prediction_ml > 0
        }
        cases.append(replace(case, labels=case.labels | marked) if marked else case)
    return replace(evaluation, cases=tuple(cases))
