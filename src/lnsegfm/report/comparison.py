"""Two models on the same cases: paired differences by label and over all, voxel by voxel and node by node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.case_scores import MEAN, LabelScore
from lnsegfm.evaluation.metric_table import Metric
from lnsegfm.evaluation.scores import Evaluation
from lnsegfm.evaluation.statistics import Interval, Paired, holm, paired

BASE, ADAPTED = "base", "adapted"
SMALLEST_DIFFERENCE = 0.02
"""A smaller difference of the mean Dice is too small to matter, whatever its p, unless the user says otherwise."""

Outcome = Literal[
    "adapted better",
    "no difference",
    "too small to matter",
    "base ahead",
    "base better",
    "learnt from nothing",
    "one subject",
    "no evidence",
]


def require_difference(value: float) -> None:
    """Refuse a smallest difference of the mean Dice that is none, before anything long begins.

    Raises:
        ConfigError: It is below 0, not below 1, or not a number.
    """
    if not 0 <= value < 1:
        raise ConfigError(
            f"--smallest-difference {value:g}: a difference of Dice is at least 0 and below 1. "
            f"Use for example {SMALLEST_DIFFERENCE}."
        )


@dataclass(frozen=True)
class Difference:
    """Adapted minus base, paired by case, over the cases where the metric of both is defined.

    Args:
        metric: What differs; one whose best value is 0 is compared by its size.
        base: The base's figure by case.
        adapted: The adapted model's, for the same cases in the same order.
        paired: The mean difference with its interval and test.
    """

    metric: Metric
    base: Mapping[str, float]
    adapted: Mapping[str, float]
    paired: Paired

    @property
    def by_case(self) -> dict[str, float]:
        """The difference of each case."""
        return {case: self.adapted[case] - self.base[case] for case in self.base}

    @property
    def n(self) -> int:
        """How many cases are paired."""
        return len(self.base)

    @property
    def mean(self) -> float:
        """Mean difference; NaN when no case is paired. Rounded, so that rounding error is no difference."""
        return round(self.paired.effect.value, 12)

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the mean difference; None with fewer than three subjects."""
        return self.paired.effect.interval

    @property
    def gain(self) -> float:
        """The mean difference with the sign that makes more of it better; NaN when no case is paired."""
        return self.mean if self.metric.better == "higher" else -self.mean

    @property
    def base_mean(self) -> float:
        """Mean of the base over these cases; NaN without any."""
        return _mean(self.base)

    @property
    def adapted_mean(self) -> float:
        """Mean of the adapted model over these cases; NaN without any."""
        return _mean(self.adapted)

    @property
    def outcome(self) -> Outcome:
        """What the interval of the mean difference says."""
        if self.n == 0:
            return "no evidence"
        if self.interval is not None and 0.0 not in self.interval:
            return "adapted better" if self.gain > 0 else "base better"
        return "base ahead" if self.gain < 0 else "no difference"

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-able values."""
        defined = self.n > 0
        return {
            "n": self.n,
            "mean": self.mean if defined else None,
            "base_mean": self.base_mean if defined else None,
            "adapted_mean": self.adapted_mean if defined else None,
            **self.paired.to_json(),
            "by_case": self.by_case,
        }


@dataclass(frozen=True)
class NodeDifference:
    """Nodes of one label, found by either model in the same cases.

    Args:
        iou: Least overlap of a match; 0: any.
        nodes: Reference nodes.
        base_true_positives: Of these, found by the base.
        adapted_true_positives: Found by the adapted model.
        base_false_positives: Predicted nodes of the base that no reference node stands for.
        adapted_false_positives: Those of the adapted model.
        sensitivity: Adapted minus base.
        false_positives_per_scan: Adapted minus base.
    """

    iou: float
    nodes: int
    base_true_positives: int
    adapted_true_positives: int
    base_false_positives: int
    adapted_false_positives: int
    sensitivity: Paired
    false_positives_per_scan: Paired

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-able values."""
        plain = {key: value for key, value in vars(self).items() if not isinstance(value, Paired)}
        return plain | {key: getattr(self, key).to_json() for key in ("sensitivity", "false_positives_per_scan")}


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same cases against the same references.

    A label that a model does not know counts for it as an empty mask: Dice 0 wherever the reference holds something,
    and not defined where it does not. ``lnsegfm.report.verdict.notes`` says so.

    Args:
        base: Scores of the model one started from, or of any other to compare with.
        adapted: Scores of the model that was made from it. Its labels are the ones compared.
        names: What the two are called.
        smallest_difference: Of the mean Dice: a smaller one is too small to matter, whatever its p.

    Raises:
        ConfigError: A smallest difference that is none.
        DataError: The two do not cover the same cases, or the base lacks a label.
    """

    base: Evaluation
    adapted: Evaluation
    names: tuple[str, str] = (BASE, ADAPTED)
    smallest_difference: float = SMALLEST_DIFFERENCE

    def __post_init__(self) -> None:
        require_difference(self.smallest_difference)
        base, adapted = ([score.case for score in e.cases] for e in (self.base, self.adapted))
        if len(set(adapted)) != len(adapted) or sorted(base) != sorted(adapted):
            odd = sorted(set(base) ^ set(adapted)) or sorted({c for c in adapted if adapted.count(c) > 1})
            raise DataError(
                f"Cases {', '.join(odd) or 'repeated'}: two models are compared on the same cases, each once. "
                "Predict and evaluate the same cases with both."
            )
        if missing := [name for name in self.labels if name not in self.base.labels.names]:
            raise DataError(
                f"Label {', '.join(missing)}: the evaluation of {self.names[0]} has no such label. "
                "Evaluate both with the same references."
            )

    @property
    def called(self) -> tuple[str, str]:
        """What the two models are called in a sentence."""
        base, adapted = ({BASE: "the base", ADAPTED: "the adapted model"}.get(name, name) for name in self.names)
        return base, adapted

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels compared, in the order of the adapted model's evaluation."""
        return tuple(self.adapted.labels.names)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The compared labels that the base does not know."""
        marked = {name for case in self.base.cases for name, score in case.labels.items() if not score.known}
        return tuple(name for name in self.labels if name in marked)

    @property
    def compared(self) -> tuple[str, ...]:
        """The labels whose mean is compared: those that the base knows, or all where it knows none."""
        return tuple(name for name in self.labels if name not in self.unknown) or self.labels

    @property
    def cases(self) -> tuple[str, ...]:
        """The cases, in the order of the adapted model's evaluation."""
        return tuple(score.case for score in self.adapted.cases)

    def worst_first(self) -> tuple[str, ...]:
        """The cases by the adapted model's Dice (mean over its defined labels), undefined ones last."""
        return self.adapted.worst_first()

    def adapted_score(self, case: str, label: str) -> LabelScore:
        """Score of the adapted model."""
        return self.adapted.case(case).labels[label]

    def base_score(self, case: str, label: str) -> LabelScore:
        """Score of the base."""
        return self.base.case(case).labels[label]

    def difference(self, label: str = MEAN, metric: str = "dice") -> Difference:
        """Paired differences of a metric, adapted minus base.

        Args:
            label: One label, or ``MEAN`` for the mean over the labels of each case that are defined for both models:
                those that the base knows, or all where it knows none.
            metric: A key of ``adapted.metrics``.
        """
        base, adapted = {}, {}
        absolute = self.adapted.metrics[metric].better == "zero"
        for case in self.cases:
            names = self.compared if label == MEAN else (label,)
            pairs = [
                (self.base_score(case, name).value(metric), self.adapted_score(case, name).value(metric))
                for name in names
            ]
            both = np.array([pair for pair in pairs if not any(map(math.isnan, pair))])
            if len(both):
                base[case], adapted[case] = map(float, (np.abs(both) if absolute else both).mean(axis=0))
        subjects = dict(zip(self.cases, self.adapted.subjects, strict=True))
        comparison = paired(list(adapted.values()), list(base.values()), [subjects[case] for case in base])
        return Difference(self.adapted.metrics[metric], base, adapted, comparison)

    def nodes(self, label: str, iou: float = 0.0) -> NodeDifference | None:
        """True and false positives of a label's nodes by either model; None where the label is not one of nodes.

        Args:
            label: The label.
            iou: Least overlap of a match; 0: any.
        """
        counts, judged = [], list[str]()
        for case in self.cases:
            if not self.adapted_score(case, label).annotated:
                continue
            judged.append(case)
            scores = [f(case, label).nodes for f in (self.base_score, self.adapted_score)]
            if scores[0] is None or scores[1] is None:
                return None
            counts.append(
                (
                    len(scores[1].reference),
                    *(len(score.matched(iou)) for score in scores if score is not None),
                    *(len(score.false_positives(iou)) for score in scores if score is not None),
                )
            )
        if not judged:
            return None
        nodes, base_matched, adapted_matched, base_false, adapted_false = np.array(counts).reshape(-1, 5).T
        of_case = dict(zip((score.case for score in self.adapted.cases), self.adapted.subjects, strict=True))
        subjects = [of_case[case] for case in judged]
        return NodeDifference(
            iou=iou,
            nodes=int(nodes.sum()),
            base_true_positives=int(base_matched.sum()),
            adapted_true_positives=int(adapted_matched.sum()),
            base_false_positives=int(base_false.sum()),
            adapted_false_positives=int(adapted_false.sum()),
            sensitivity=paired(adapted_matched, base_matched, subjects, denominators=nodes),
            false_positives_per_scan=paired(adapted_false, base_false, subjects),
        )

    @property
    def outcome(self) -> Outcome:
        """What is shown by the mean over labels of the Dice."""
        return self.outcome_of(MEAN)

    def outcome_of(self, label: str) -> Outcome:
        """What the Dice of a label shows, or of the mean over labels (``MEAN``).

        A label that the base does not know is never compared: its mask there is empty, which anything beats.
        """
        difference = self.difference(label)
        if label in self.unknown or (label == MEAN and len(self.unknown) == len(self.labels)):
            return "learnt from nothing"
        if difference.n and difference.paired.effect.clusters == 1:
            return "one subject"
        shown = difference.outcome
        small = abs(difference.mean) < self.smallest_difference
        if small and shown in ("adapted better", "base better"):
            return "too small to matter"
        return "no difference" if small and shown == "base ahead" else shown

    def corrected_p(self) -> dict[str, float]:
        """P value of the Dice of each label, corrected for their number (Holm)."""
        return holm({label: self.difference(label).paired.p for label in self.labels})


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else math.nan
