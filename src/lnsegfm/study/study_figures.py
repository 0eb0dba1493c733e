"""What a study shows: each method with its intervals, all comparisons with one correction, the order over draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

import numpy as np
from scipy import stats

from lnsegfm.evaluation.case_scores import nan_to_none
from lnsegfm.evaluation.crossed_statistics import CrossedMean, crossed_mean, crossed_ratio, kendall_w, two_way_bootstrap
from lnsegfm.evaluation.statistics import holm
from lnsegfm.study.study_file import BASE
from lnsegfm.study.study_scores import ScoreGrid, Setting, StudyScores
from lnsegfm.study.study_table import HELD_OUT, SOURCE

ALPHA = 0.05
AGAINST_BASE, AGAINST_REFERENCE, KEPT = "against the base", "against the reference", "on the base's own task"
"""The questions that are asked of each method."""


@dataclass(frozen=True)
class MethodFigures:
    """A method, or the base, in a setting.

    Args:
        setting: Where.
        method: Its name; `BASE` for the base.
        dice: Mean Dice over the held-out cases.
        median: Their median.
        label_dice: Mean Dice by label.
        source: Mean Dice over the source data; None where there are none.
        sensitivity: Nodes found over all nodes; None where no label is one of nodes.
        false_positives: False positives a scan; as above.
        worse: Share of runs' cases whose Dice is below the base's; None of the base, or where it cannot be compared.
        rates: Learning rates of its runs.
        iterations: Steps of a run.
        seconds: Of a training, on average.
        per_step: Share of the parameters that one step may move.
        moved: Share of the entries that differ from the base in the end, on average.
    """

    setting: Setting
    method: str
    dice: CrossedMean
    median: float
    label_dice: Mapping[str, CrossedMean]
    source: CrossedMean | None = None
    sensitivity: CrossedMean | None = None
    false_positives: CrossedMean | None = None
    worse: CrossedMean | None = None
    rates: tuple[float, ...] = ()
    iterations: int = 0
    seconds: float = math.nan
    per_step: float = math.nan
    moved: float = math.nan

    @property
    def is_base(self) -> bool:
        """Whether these are the untouched base's."""
        return self.method == BASE


@dataclass(frozen=True)
class StudyDifference:
    """One question of the study: a method less something else.

    Args:
        setting: Where.
        question: `AGAINST_BASE`, `AGAINST_REFERENCE` or `KEPT`.
        method: The method.
        other: What it is compared with.
        difference: Of the mean Dice, paired by draw and case.
        bootstrap: Ends of the two-way bootstrap's interval; None where cells lack.
        p_corrected: Corrected for the number of all questions of the study (Holm).
        detectable: The minimal detectable difference at the p that this correction asked of it.
    """

    setting: Setting
    question: str
    method: str
    other: str
    difference: CrossedMean
    bootstrap: tuple[float, float] | None = None
    p_corrected: float = math.nan
    detectable: float = math.nan

    @property
    def shown(self) -> bool:
        """Whether there is a difference, by the corrected p."""
        return self.p_corrected < ALPHA

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values; what is not defined is None."""
        found, ends = self.difference, self.difference.interval
        figures = {"difference": found.value, "p": found.p, "p_corrected": self.p_corrected}
        return {
            **vars(self.setting),
            "question": self.question,
            "method": self.method,
            "other": self.other,
            "draws": found.draws,
            "cases": found.cases,
            **nan_to_none(figures | {"detectable": self.detectable}),
            "interval": list(ends) if ends is not None else None,
            "shown": self.shown,
        }


@dataclass(frozen=True)
class RankFigures:
    """How far the order of the methods holds over the draws of a setting.

    Args:
        setting: Where.
        draws: The draws.
        ranks: Of each method the rank in each draw, 1 the best; the highest mean over all first.
        concordance: Kendall's W: 1 the same order in every draw, 0 none.
        pairs: Of each pair, the share of draws in which the first, with the higher mean, is ahead.
    """

    setting: Setting
    draws: tuple[int, ...]
    ranks: Mapping[str, tuple[float, ...]]
    concordance: float
    pairs: Mapping[tuple[str, str], float]


def method_figures(scores: StudyScores, setting: Setting) -> list[MethodFigures]:
    """The base, where it can be scored, and every method of a setting."""
    figures = [_figures(scores, setting, method) for method in (BASE, *scores.methods(setting))]
    return [found for found in figures if found is not None]


def all_differences(scores: StudyScores) -> list[StudyDifference]:
    """Every comparison of the study, with p corrected for their number (Holm)."""
    found: list[StudyDifference] = []
    reference = scores.declared.get("reference")
    for setting in scores.settings:
        known = scores.labels(setting, known_to_base=True)
        for method in scores.methods(setting):
            mine = scores.grid(setting, method, labels=known)
            found += _difference(setting, AGAINST_BASE, method, BASE, mine, scores.base_grid(setting, labels=known))
            if reference and reference != method:
                mine, theirs = scores.grid(setting, method), scores.grid(setting, reference)
                found += _difference(setting, AGAINST_REFERENCE, method, reference, mine, theirs)
            mine, theirs = scores.grid(setting, method, SOURCE), scores.base_grid(setting, SOURCE)
            found += _difference(setting, KEPT, method, BASE, mine, theirs)
    corrected = holm({number: one.difference.p for number, one in enumerate(found)})
    left = sum(not (math.isnan(p) or p < ALPHA) for p in corrected.values())
    asked = ALPHA / max(1, left)  # of the first that was not shown: Holm stops there
    return [
        replace(one, p_corrected=corrected[number], detectable=one.difference.detectable(asked))
        for number, one in enumerate(found)
    ]


def rank_figures(scores: StudyScores, setting: Setting) -> RankFigures | None:
    """The order of the methods in each draw that all of them have; None with fewer than two of either."""
    grids = {method: scores.grid(setting, method) for method in scores.methods(setting)}
    there = {method: grid for method, grid in grids.items() if grid is not None}
    draws = sorted(set.intersection(*(set(grid.draws) for grid in there.values()))) if there else []
    if len(there) < 2 or len(draws) < 2:
        return None
    means = {m: [float(np.nanmean(g.values[g.draws.index(d)])) for d in draws] for m, g in there.items()}
    table = np.array([means[method] for method in there]).T
    ranks = stats.rankdata(-table, axis=1)
    order = sorted(there, key=lambda method: -fmean(means[method]))
    pairs = {
        (first, second): fmean([a > b for a, b in zip(means[first], means[second], strict=True)])
        for i, first in enumerate(order)
        for second in order[i + 1 :]
    }
    by_method = {method: tuple(map(float, ranks[:, list(there).index(method)])) for method in order}
    return RankFigures(setting, tuple(draws), by_method, kendall_w(table), pairs)


def _difference(
    setting: Setting, question: str, method: str, other: str, mine: ScoreGrid | None, theirs: ScoreGrid | None
) -> list[StudyDifference]:
    if mine is None or theirs is None:
        return []
    less = mine.less(theirs)
    if not less.values.size:
        return []
    whole = not np.isnan(less.values).any() and min(less.values.shape) > 1
    ends = two_way_bootstrap(less.values) if whole else None
    return [StudyDifference(setting, question, method, other, crossed_mean(less.values, less.subjects), ends)]


def _figures(scores: StudyScores, setting: Setting, method: str) -> MethodFigures | None:
    def grid(part: str = HELD_OUT, measure: str = "dice", label: str | None = None) -> ScoreGrid | None:
        labels = None if label is None else (label,)
        if method == BASE:
            return scores.base_grid(setting, part, measure, labels)
        return scores.grid(setting, method, part, measure, labels)

    dice, source, found = grid(), grid(SOURCE), grid(measure="nodes_found")
    if dice is None:
        return None
    by_label = {label: one for label in scores.labels(setting) if (one := grid(label=label)) is not None}
    nodes, wrong = grid(measure="nodes"), grid(measure="false_positives")
    with_nodes = found is not None and nodes is not None and not np.isnan(nodes.values).all()
    facts = [record.facts for record in scores.records(setting, method)]
    return MethodFigures(
        setting,
        method,
        crossed_mean(dice.values, dice.subjects),
        float(np.nanmedian(dice.values)),
        {label: crossed_mean(one.values, one.subjects) for label, one in by_label.items()},
        crossed_mean(source.values, source.subjects) if source is not None else None,
        crossed_ratio(found.values, nodes.values, nodes.subjects) if found and nodes and with_nodes else None,
        crossed_mean(wrong.values, wrong.subjects) if wrong is not None and with_nodes else None,
        _worse(scores, setting, method),
        tuple(dict.fromkeys(each["lr"] for each in facts)),
        int(median([each["iterations"] for each in facts])) if facts else 0,
        _mean([each["seconds"] for each in facts]),
        _mean([each["per_step"] / each["total"] for each in facts]),
        _mean([each["moved"] / each["total"] for each in facts]),
    )


def _worse(scores: StudyScores, setting: Setting, method: str) -> CrossedMean | None:
    known = scores.labels(setting, known_to_base=True)
    mine, base = scores.grid(setting, method, labels=known), scores.base_grid(setting, labels=known)
    if method == BASE or mine is None or base is None:
        return None
    less = mine.less(base)
    below = np.where(np.isnan(less.values), np.nan, less.values < 0)
    return crossed_mean(below, less.subjects, bounds=(0.0, 1.0))


def _mean(values: list[float | None]) -> float:
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else math.nan
