"""The tables of a study's page: text to read, numbers to sort by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lnsegfm.evaluation.crossed_statistics import CrossedMean
from lnsegfm.messages import counted
from lnsegfm.report.figure_text import dice_text
from lnsegfm.report.page_rows import CaseColumn, Cell
from lnsegfm.study.study_figures import AGAINST_BASE, KEPT, MethodFigures, RankFigures, StudyDifference
from lnsegfm.study.study_file import BASE
from lnsegfm.study.study_scores import StudyScores
from lnsegfm.study.study_words import ends_text, finding, p_text, setting_title


@dataclass(frozen=True)
class FigureTable:
    """A table of a page.

    Args:
        caption: What it shows.
        columns: Its columns; the first names the row.
        rows: Its rows.
    """

    caption: str
    columns: Sequence[CaseColumn]
    rows: Sequence[Sequence[Cell]]


def method_table(methods: Sequence[MethodFigures], differences: Sequence[StudyDifference]) -> FigureTable:
    """A row a method of a setting, the base first.

    Args:
        methods: Their figures.
        differences: The comparisons of the setting.
    """
    asked = {(one.question, one.method): one.difference for one in differences}
    nodes = any(one.sensitivity is not None for one in methods)
    source = any(one.source is not None for one in methods)
    columns = [
        CaseColumn("Method", words=True),
        CaseColumn("Rate", "learning rate"),
        CaseColumn("Dice", "mean over draws and cases"),
        CaseColumn("Median"),
        CaseColumn("Less the base", "Dice, paired by case"),
        CaseColumn("Cases worse", "share of the runs' cases whose Dice is below the base's"),
        *([CaseColumn("Node sensitivity"), CaseColumn("False positives a scan")] if nodes else []),
        *([CaseColumn("Base's own task, less the base", "Dice; below 0: forgotten")] if source else []),
        CaseColumn("Entries moved", "of the network, in the end"),
        CaseColumn("Seconds", "of a training"),
    ]
    rows = []
    for one in methods:
        row = [
            Cell(one.method),
            Cell(", ".join(f"{rate:g}" for rate in one.rates), one.rates[0] if one.rates else None),
            _mean_cell(one.dice),
            Cell(dice_text(one.median), one.median),
            _mean_cell(asked.get((AGAINST_BASE, one.method)), signed=True),
            _share_cell(one.worse),
        ]
        row += [_mean_cell(one.sensitivity), _number_cell(one.false_positives, 2)] if nodes else []
        row += [_mean_cell(asked.get((KEPT, one.method)), signed=True)] if source else []
        moved, seconds = one.moved, one.seconds
        row += [Cell("", None) if math.isnan(moved) else Cell(f"{moved:.1%}", moved)]
        row += [Cell("", None) if math.isnan(seconds) else Cell(f"{seconds:.0f}", seconds)]
        rows.append(row)
    draws = max((one.dice.draws for one in methods if one.method != BASE), default=0)
    cases = max((one.dice.cases for one in methods), default=0)
    caption = f"{counted(draws, 'draw')}, {counted(cases, 'case')}; below each mean its 95 % interval."
    return FigureTable(caption, columns, rows)


def label_table(methods: Sequence[MethodFigures], labels: Sequence[str]) -> FigureTable:
    """Dice by label, a row a method."""
    rows = [[Cell(one.method), *(_mean_cell(one.label_dice.get(label)) for label in labels)] for one in methods]
    return FigureTable("Mean Dice.", [CaseColumn("Method", words=True), *map(CaseColumn, labels)], rows)


def rank_table(found: RankFigures) -> FigureTable:
    """Rank of each method in each draw, and how often the order of neighbours holds."""
    order = list(found.ranks)
    columns = [CaseColumn("Method", words=True), CaseColumn("Ahead of the next", "share of draws")]
    columns += [CaseColumn(f"Draw {draw}") for draw in found.draws]
    rows = []
    for number, method in enumerate(order):
        share = found.pairs.get((method, order[number + 1])) if number + 1 < len(order) else None
        ahead = Cell("") if share is None else Cell(f"{share:.0%}", share)
        rows.append([Cell(method), ahead, *(Cell(f"{rank:g}", rank) for rank in found.ranks[method])])
    return FigureTable(
        "Rank in each draw: 1 has the highest mean Dice over the cases. By mean rank over all.", columns, rows
    )


def comparison_table(scores: StudyScores, differences: Sequence[StudyDifference]) -> FigureTable:
    """Every comparison of the study, with one correction."""
    columns = [
        CaseColumn("Setting", words=True),
        CaseColumn("Method", words=True),
        CaseColumn("Question", words=True),
        CaseColumn("Draws × cases"),
        CaseColumn("Difference", "of the mean Dice, paired by draw and case"),
        CaseColumn("p"),
        CaseColumn("p corrected", "Holm, for all of these"),
        CaseColumn("Finding", words=True),
    ]
    rows = [
        [
            Cell(setting_title(scores, one.setting)),
            Cell(one.method),
            Cell(one.question if one.other == BASE else f"{one.question} ({one.other})"),
            Cell(f"{one.difference.draws} × {one.difference.cases}", float(one.difference.draws)),
            _mean_cell(one.difference, signed=True),
            _p_cell(one.difference.p),
            _p_cell(one.p_corrected),
            Cell(finding(one)),
        ]
        for one in differences
    ]
    caption = "Differences of the mean Dice, paired by draw and case, with 95 % intervals that are not corrected."
    return FigureTable(caption, columns, rows)


def _mean_cell(found: CrossedMean | None, *, signed: bool = False) -> Cell:
    if found is None or math.isnan(found.value):
        return Cell("")
    return Cell(dice_text(found.value, signed=signed), found.value, ends_text(found, signed=signed))


def _share_cell(found: CrossedMean | None) -> Cell:
    return Cell("") if found is None or math.isnan(found.value) else Cell(f"{found.value:.0%}", found.value)


def _number_cell(found: CrossedMean | None, decimals: int) -> Cell:
    return Cell("") if found is None or math.isnan(found.value) else Cell(f"{found.value:.{decimals}f}", found.value)


def _p_cell(p: float) -> Cell:
    return Cell(p_text(p), None if math.isnan(p) else p)
