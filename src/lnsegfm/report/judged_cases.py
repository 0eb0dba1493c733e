"""Over how many cases a label is judged, which are left out, and why."""

from __future__ import annotations

import math

from lnsegfm.evaluation.case_scores import LabelScore
from lnsegfm.messages import counted, listed
from lnsegfm.report.comparison import Comparison

MOST_NAMED = 6


def judged_text(comparison: Comparison, label: str) -> str:
    """Over how many cases a label is judged, and of how many where some are left out: ``10 of 12 cases``."""
    judged, cases = len(comparison.cases) - len(_reasons(comparison, label)), len(comparison.cases)
    return counted(judged, "case") if judged == cases else f"{judged} of {counted(cases, 'case')}"


def left_out_sentence(comparison: Comparison, label: str) -> str | None:
    """The cases by which a label is not judged, by their reason; None where there are none."""
    reasons = _reasons(comparison, label)
    if not reasons:
        return None
    by_reason: dict[str, list[str]] = {}
    for case, reason in reasons.items():
        by_reason.setdefault(reason, []).append(case)
    parts = [f"{reason} in {listed(cases, MOST_NAMED)}" for reason, cases in by_reason.items()]
    sentence = f"{label}: {counted(len(reasons), 'case')} not counted: {'; '.join(parts)}."
    doubtful = comparison.adapted.doubtful().get(label)
    if doubtful is None:
        return sentence
    return (
        f"{sentence} Dice of {comparison.called[1]} {doubtful.dice:.2f} over {counted(doubtful.n, 'case')}, "
        f"{doubtful.dice_if_absent:.2f} if they count as absent. List them in unlabelled.csv if nobody annotated it "
        f"there; --absent {label} counts them."
    )


def _reasons(comparison: Comparison, label: str) -> dict[str, str]:
    """Why a case does not count, by case: the Dice of one or both models is not defined."""
    found = {}
    alone = label in comparison.unknown
    for case in comparison.cases:
        second = comparison.adapted_score(case, label)
        first = second if alone else comparison.base_score(case, label)
        if math.isnan(first.dice) or math.isnan(second.dice):
            found[case] = _reason(first, second, comparison.called)
    return found


def _reason(first: LabelScore, second: LabelScore, names: tuple[str, str]) -> str:
    if not (first.annotated and second.annotated):
        return "not annotated"
    if first.doubtful or second.doubtful:
        return "predicted where the reference has none, and perhaps nobody annotated it,"
    if first.prediction_ml > 0 or second.prediction_ml > 0:
        return f"predicted by {names[first.prediction_ml == 0]} alone, where the reference has none,"
    return "neither the reference nor a prediction has it"
