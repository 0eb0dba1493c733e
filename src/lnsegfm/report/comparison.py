"""Base against adapted on the held-out cases: paired differences, an interval, and one plain sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.evaluation.evaluate import CaseScore, Evaluation, LabelScore

RESAMPLES = 10_000
FEWEST_FOR_INTERVAL = 3
FEW = 10

Outcome = Literal["adapted better", "no difference", "base ahead", "base better", "no evidence"]


@dataclass(frozen=True)
class Difference:
    """Adapted minus base, paired by case, over the cases where the Dice of both is defined.

    Args:
        base: Dice of the base, by case.
        adapted: Dice of the adapted model, for the same cases in the same order.
        low: Lower end of the 95 % interval of the mean difference; None with fewer than three cases.
        high: Upper end of it.
    """

    base: Mapping[str, float]
    adapted: Mapping[str, float]
    low: float | None
    high: float | None

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
        return round(float(np.mean(list(self.by_case.values()))), 12) if self.n else math.nan

    @property
    def base_mean(self) -> float:
        """Mean Dice of the base over these cases; NaN without any."""
        return _mean(self.base)

    @property
    def adapted_mean(self) -> float:
        """Mean Dice of the adapted model over these cases; NaN without any."""
        return _mean(self.adapted)

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON-able values."""
        return {
            "n": self.n,
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "base_mean": self.base_mean,
            "adapted_mean": self.adapted_mean,
            "by_case": self.by_case,
        }


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same held-out cases against the same references.

    A label that the base cannot know counts for it as an empty mask: Dice 0 wherever the reference holds something,
    and not defined where it does not. ``notes`` says so.

    Args:
        base: Scores of the model one started from.
        adapted: Scores of the model that was made from it. Its labels are the ones compared.
        unknown_to_base: Labels the base has no output for.

    Raises:
        DataError: The two do not cover the same cases, or the base lacks a label that is not named as unknown to it.
    """

    base: Evaluation
    adapted: Evaluation
    unknown_to_base: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        base, adapted = ([score.case for score in e.cases] for e in (self.base, self.adapted))
        if len(set(adapted)) != len(adapted) or sorted(base) != sorted(adapted):
            odd = sorted(set(base) ^ set(adapted)) or sorted({c for c in adapted if adapted.count(c) > 1})
            raise DataError(
                f"Cases {', '.join(odd) or 'repeated'}: base and adapted are compared on the same cases, each once. "
                "Predict the held-out cases with both models."
            )
        missing = [n for n in self.labels if n not in self.unknown_to_base and n not in self.base.labels.names]
        if missing:
            raise DataError(
                f"Label {', '.join(missing)}: the evaluation of the base has no such label. "
                "Evaluate the base on it, or name it in unknown_to_base."
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels compared, in the order of the adapted model's evaluation."""
        return tuple(self.adapted.labels.names)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The compared labels the base cannot know: those named, and those its scores mark so."""
        marked = {name for case in self.base.cases for name, score in case.labels.items() if not score.known}
        return tuple(name for name in self.labels if name in marked or name in self.unknown_to_base)

    @property
    def cases(self) -> tuple[str, ...]:
        """The held-out cases, in the order of the adapted model's evaluation."""
        return tuple(score.case for score in self.adapted.cases)

    def worst_first(self) -> tuple[str, ...]:
        """The cases by the adapted model's Dice (mean over its defined labels), undefined ones last."""
        dice = {score.case: score.mean_dice for score in self.adapted.cases}
        return tuple(sorted(self.cases, key=lambda case: (math.isnan(dice[case]), dice[case])))

    def adapted_score(self, case: str, label: str) -> LabelScore:
        """Score of the adapted model."""
        return _case(self.adapted, case).labels[label]

    def adapted_dice(self, case: str, label: str) -> float | None:
        """Dice of the adapted model; None where it is not defined."""
        return _defined(self.adapted_score(case, label).dice)

    def base_dice(self, case: str, label: str) -> float | None:
        """Dice of the base, or of an empty mask for a label it cannot know; None where it is not defined."""
        if label in self.unknown:
            return 0.0 if self.adapted_score(case, label).reference_ml > 0 else None
        return _defined(_case(self.base, case).labels[label].dice)

    def base_ml(self, case: str, label: str) -> float:
        """Volume of the base's mask, ml; 0 for a label it cannot know."""
        if label in self.unknown:
            return 0.0
        return _case(self.base, case).labels[label].prediction_ml

    def difference(self, label: str | None = None) -> Difference:
        """Paired differences of the Dice, adapted minus base, with a 95 % interval of their mean.

        The interval is the bootstrap percentile interval over cases: 10,000 resamples with replacement, NumPy's
        ``default_rng(0)``, so the same scores give the same interval. With few cases it is too narrow (on normal
        differences it missed the true mean 25 % of the time with 3 cases, 16 % with 5, 10 % with 10, 7 % with 20).

        Args:
            label: One label, or None for the mean over the labels of each case that are defined for both models.
        """
        base, adapted = {}, {}
        for case in self.cases:
            names = self.labels if label is None else (label,)
            pairs = [(self.base_dice(case, name), self.adapted_dice(case, name)) for name in names]
            both = [(b, a) for b, a in pairs if b is not None and a is not None]
            if both:
                base[case], adapted[case] = (float(v) for v in np.mean(both, axis=0))
        differences = np.array([adapted[case] - base[case] for case in base])
        if len(differences) < FEWEST_FOR_INTERVAL:
            return Difference(base, adapted, None, None)
        draws = np.random.default_rng(0).integers(0, len(differences), (RESAMPLES, len(differences)))
        low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5])
        return Difference(base, adapted, round(float(low), 12), round(float(high), 12))

    @property
    def outcome(self) -> Outcome:
        """What ``verdict`` says, for programs."""
        return _outcome(self.difference())

    def verdict(self) -> str:
        """One sentence in plain words.

        The rule: when the interval of the mean difference (over labels, then over cases) excludes 0, the adapted
        model is better, or the base is; otherwise no difference is shown. When the base is ahead on average the
        sentence says to keep it even if the interval includes 0. With fewer than ten cases it says "with only".
        With several labels it names those where the base is ahead although it is not ahead over all.
        """
        found = self.difference()
        outcome = _outcome(found)
        if outcome == "no evidence":
            return (
                f"No evidence: on none of the {len(self.cases)} held-out cases is the Dice of both models defined, "
                "so nothing says whether the adapted model is better than the base."
            )
        where = f"With only {_cases(found.n)}" if found.n < FEW else f"On {_cases(found.n)}"
        by = distance_text(found.mean)
        means = f"mean Dice {dice_text(found.base_mean)} with the base, {dice_text(found.adapted_mean)} adapted"
        if found.low is None or found.high is None:
            interval = "no interval can be given"
        else:
            interval = f"95 % interval of the difference {interval_text(found.low, found.high)}"
        detail = f"{means}; {interval}"
        if outcome == "adapted better":
            said = f"the adapted model is better than the base by {by} on average ({detail})"
        elif outcome == "base better":
            return f"{where}, the base is better by {by} on average ({detail}): keep the base."
        elif outcome == "base ahead":
            return f"{where}, the base is better by {by} on average (no difference shown: {detail}): keep the base."
        elif found.mean > 0:
            said = f"no difference is shown: the adapted model is ahead by {by} on average ({detail})"
        else:
            said = f"no difference is shown ({detail})"
        return f"{where}, {said}{self._labels_behind()}."

    def _labels_behind(self) -> str:
        behind = [(label, self.difference(label).mean) for label in self.labels if len(self.labels) > 1]
        named = [f"{label} (by {distance_text(mean)})" for label, mean in behind if mean < 0]
        return f"; but the base is better on average for {', '.join(named)}" if named else ""

    def notes(self) -> tuple[str, ...]:
        """Sentences beside the verdict: what the base cannot know, what is left out, what few cases mean."""
        said = []
        for label in self.unknown:
            said.append(
                f"The base gives no mask of {label} (it does not know it, or takes other channels): its Dice there "
                "counts as that of an empty mask, which is a low bar to pass."
            )
        for label in self.labels:
            without = len(self.cases) - self.difference(label).n
            if without:
                said.append(
                    f"{label}: {_cases(without)} not counted, because the Dice of one or both models is not defined."
                )
        if failures := {*self.base.failures, *self.adapted.failures}:
            said.append(f"Not every held-out case could be scored: {' '.join(sorted(failures))}")
        if FEWEST_FOR_INTERVAL <= self.difference().n < FEW:
            said.append(
                "A bootstrap interval from so few cases is too narrow (with 5 cases it misses the true mean about "
                "one time in six instead of one in twenty): read it as a hint."
            )
        return tuple(said)

    def to_json(self) -> dict[str, Any]:
        """The sentence, the differences by label and over all, and both evaluations, as JSON-able values."""
        return {
            "verdict": self.verdict(),
            "outcome": self.outcome,
            "notes": list(self.notes()),
            "unknown_to_base": list(self.unknown),
            "overall": self.difference().to_json(),
            "labels": {label: self.difference(label).to_json() for label in self.labels},
            "base": self.base.to_json(),
            "adapted": self.adapted.to_json(),
        }


def dice_text(value: float | None, *, signed: bool = False) -> str:
    """A Dice or a difference with three decimals, ``n/a`` where it is not defined."""
    if _defined(value) is None:
        return "n/a"
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def interval_text(low: float | None, high: float | None) -> str:
    """An interval of differences, ``n/a`` where there is none."""
    if low is None or high is None:
        return "n/a"
    return f"{dice_text(low, signed=True)} to {dice_text(high, signed=True)}"


def distance_text(difference: float) -> str:
    """The size of a difference in a sentence: two decimals, three where two would say nothing."""
    size = abs(difference)
    if size < 0.0005:
        return "less than 0.001 Dice"
    return f"{size:.3f} Dice" if size < 0.0095 else f"{size:.2f} Dice"


def _outcome(found: Difference) -> Outcome:
    if found.n == 0:
        return "no evidence"
    if found.low is not None and found.low > 0:
        return "adapted better"
    if found.high is not None and found.high < 0:
        return "base better"
    return "base ahead" if found.mean < 0 else "no difference"


def _defined(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _mean(values: Mapping[str, float]) -> float:
    return float(np.mean(list(values.values()))) if values else math.nan


def _case(evaluation: Evaluation, case: str) -> CaseScore:
    return next(score for score in evaluation.cases if score.case == case)


def _cases(n: int) -> str:
    return f"{n} held-out case" if n == 1 else f"{n} held-out cases"
