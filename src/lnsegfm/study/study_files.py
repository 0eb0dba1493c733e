"""What a report of a study leaves: one page, and tables as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lnsegfm.evaluation.crossed_statistics import CrossedMean
from lnsegfm.evaluation.metric_table import METRICS
from lnsegfm.evaluation.tables import CSV_DECIMALS, NODE_COLUMNS
from lnsegfm.storage import write_text
from lnsegfm.study.study_figures import StudyDifference, all_differences, method_figures
from lnsegfm.study.study_file import BASE
from lnsegfm.study.study_page import write_study_page
from lnsegfm.study.study_scores import StudyScores
from lnsegfm.study.study_table import TABLE, StudyTable

PAGE = "report.html"
_RUN = ("data", "base", "method", "shots", "draw")
_SCORES = (*METRICS, "reference_ml", "prediction_ml", "nodes", "nodes_found", "false_positives", "judged")


def write_study_report(out: Path) -> StudyScores:
    """Write the page and the tables of a study's results into its folder; gives the results.

    ``report.html``; ``methods.csv`` and ``comparisons.csv``, figures with their intervals; ``runs.csv``, ``cases.csv``
    and ``nodes.csv``, what the table holds; ``challenge.csv``, the Dice of each case in the long form that challengeR
    reads (Wiesenfarth et al., Scientific Reports 11, 2021): task, case, algorithm, value.

    Args:
        out: The study's folder.

    Raises:
        DataError: It holds no table, or one of something else.
    """
    scores = StudyScores.of(StudyTable(out / TABLE))
    differences = all_differences(scores)
    write_study_page(out / PAGE, scores, differences)
    for name, (columns, rows) in {
        "methods.csv": (_METHODS, _method_rows(scores)),
        "comparisons.csv": (_COMPARISONS, _comparison_rows(differences)),
        "runs.csv": (_RUNS, _run_rows(scores)),
        "cases.csv": ((*_RUN, "part", "case", "subject", "label", *_SCORES), _case_rows(scores)),
        "nodes.csv": ((*_RUN, "part", *NODE_COLUMNS), _node_rows(scores)),
        "challenge.csv": (("task", "case", "algorithm", "value"), _challenge_rows(scores)),
    }.items():
        write_text(out / name, _csv(columns, rows))
    return scores


_MEAN = ("", "_low", "_high")
_MEASURES = ("dice", "source_dice", "sensitivity", "false_positives_per_scan", "worse_than_base")
_METHODS = (
    *("data", "base", "shots", "method", "draws", "cases"),
    *(f"{name}{end}" for name in _MEASURES for end in _MEAN),
    *("median_dice", "iterations", "seconds", "per_step_share", "moved_share"),
)
_COMPARISONS = (
    *("data", "base", "shots", "question", "method", "other", "draws", "cases", "difference", "low", "high", "p"),
    *("p_corrected", "shown", "detectable", "sd_draws", "sd_cases", "sd_rest", "bootstrap_low", "bootstrap_high"),
)
_RUNS = (*_RUN, "state", "lr", "iterations", "seconds", "trained_on", "reason")


def _method_rows(scores: StudyScores) -> Iterator[list[Any]]:
    for setting in scores.settings:
        for one in method_figures(scores, setting):
            means = (one.dice, one.source, one.sensitivity, one.false_positives, one.worse)
            yield [
                *(setting.data, setting.base, setting.shots, one.method, one.dice.draws, one.dice.cases),
                *(value for mean in means for value in _with_ends(mean)),
                *(one.median, one.iterations or "", one.seconds, one.per_step, one.moved),
            ]


def _comparison_rows(differences: Sequence[StudyDifference]) -> Iterator[list[Any]]:
    for one in differences:
        found = one.difference
        yield [
            *(one.setting.data, one.setting.base, one.setting.shots, one.question, one.method, one.other),
            *(found.draws, found.cases, *_with_ends(found), _p(found.p), _p(one.p_corrected), str(one.shown).lower()),
            *(one.detectable, found.sd_draws, found.sd_cases, found.sd_rest, *(one.bootstrap or ("", ""))),
        ]


def _run_rows(scores: StudyScores) -> Iterator[list[Any]]:
    for record in _ordered(scores):
        facts = record.facts
        rate = f"{facts['lr']:g}" if facts.get("lr") is not None else ""
        figures = [rate, facts.get("iterations", ""), facts.get("seconds", ""), " ".join(facts.get("trained_on", ()))]
        yield [*(getattr(record.run, name) for name in _RUN), record.state, *figures, record.reason]


def _case_rows(scores: StudyScores) -> Iterator[list[Any]]:
    runs = {record.run.name: record.run for record in scores.runs.values()}
    for row in scores.rows:
        run = [getattr(runs[row["run"]], name) for name in _RUN]
        yield [*run, row["part"], row["case_name"], row["subject"], row["label"], *(row[name] for name in _SCORES)]


def _node_rows(scores: StudyScores) -> Iterator[list[Any]]:
    runs = {record.run.name: record.run for record in scores.runs.values()}
    for row in scores.nodes:
        run = [getattr(runs[row["run"]], name) for name in _RUN]
        cells = [row["case_name" if name == "case" else name] for name in NODE_COLUMNS]
        yield [*run, row["part"], *cells]


def _challenge_rows(scores: StudyScores) -> Iterator[list[Any]]:
    """Dice of each case, mean over labels and draws; a task is a setting, the base one of the algorithms."""
    for setting in scores.settings:
        task = f"{setting.data}, {setting.base}, {setting.shots} shots"
        for method in (BASE, *scores.methods(setting)):
            grid = scores.base_grid(setting) if method == BASE else scores.grid(setting, method)
            for number, case in enumerate(grid.cases) if grid is not None else ():
                values = [value for value in grid.values[:, number] if not math.isnan(value)] if grid else []
                yield [task, case, method, sum(values) / len(values) if values else math.nan]


def _ordered(scores: StudyScores) -> list[Any]:
    return [scores.runs[name] for name in sorted(scores.runs)]


def _with_ends(found: CrossedMean | None) -> tuple[Any, Any, Any]:
    if found is None:
        return "", "", ""
    return (found.value, *(found.interval or ("", "")))


def _p(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return round(value, CSV_DECIMALS) if isinstance(value, float) else value


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()
