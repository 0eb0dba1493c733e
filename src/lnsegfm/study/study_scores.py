"""Scores of a study as grids of draws and cases."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from lnsegfm.study.study_file import BASE
from lnsegfm.study.study_table import DONE, HELD_OUT, RunRecord, StudyTable


@dataclass(frozen=True, order=True)
class Setting:
    """Runs that one compares: the same data, base and number of shots.

    Args:
        data: Name of the data.
        base: Name of the base.
        shots: Scans trained on.
    """

    data: str
    base: str
    shots: int


@dataclass(frozen=True)
class ScoreGrid:
    """A measure by draw and case.

    Args:
        values: (draws, cases); NaN where it is not defined.
        draws: The draws, in order.
        cases: Names of the cases, in order.
        subjects: The patient of each case; a case whose patient is not known is its own.
        every_draw: Whether its one row holds for every draw, as the untouched base's does.
    """

    values: np.ndarray
    draws: tuple[int, ...]
    cases: tuple[str, ...]
    subjects: tuple[str, ...]
    every_draw: bool = False

    def less(self, other: ScoreGrid) -> ScoreGrid:
        """Differences to another grid, paired by draw and case; what only one of both has is left out."""
        cases = tuple(case for case in self.cases if case in other.cases)
        draws = tuple(draw for draw in self.draws if other.every_draw or draw in other.draws)
        mine = self.values[[self.draws.index(d) for d in draws]][:, [self.cases.index(c) for c in cases]]
        rows = [0 if other.every_draw else other.draws.index(d) for d in draws]
        theirs = other.values[rows][:, [other.cases.index(c) for c in cases]]
        return ScoreGrid(mine - theirs, draws, cases, tuple(self.subjects[self.cases.index(c)] for c in cases))


@dataclass(frozen=True)
class StudyScores:
    """What a study's table holds, in memory.

    Args:
        runs: By name.
        rows: Scores.
        nodes: Nodes.
        declared: What the study's file says.
    """

    runs: Mapping[str, RunRecord]
    rows: list[dict[str, Any]]
    nodes: list[dict[str, Any]]
    declared: Mapping[str, Any]

    @classmethod
    def of(cls, table: StudyTable) -> StudyScores:
        """Read a table."""
        return cls(table.runs(), table.scores(), table.nodes(), table.declared())

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All settings with a method that is done, in the order of the study's file."""
        done = {Setting(r.run.data, r.run.base, r.run.shots) for r in self.runs.values() if self._adapted(r)}
        places = [list(self.declared.get(key, ())) for key in ("data", "bases", "shots")]
        return tuple(sorted(done, key=lambda s: tuple(map(_place, places, (s.data, s.base, s.shots)))))

    def methods(self, setting: Setting) -> tuple[str, ...]:
        """The methods that are done in a setting, in the order of the study's file."""
        done = {r.run.method for r in self.records(setting)}
        order = list(self.declared.get("methods", ()))
        return tuple(sorted(done, key=lambda name: _place(order, name)))

    def records(self, setting: Setting, method: str | None = None) -> list[RunRecord]:
        """The runs that are done in a setting, of one method or all, by draw."""
        found = [
            record
            for record in self.runs.values()
            if self._adapted(record)
            and Setting(record.run.data, record.run.base, record.run.shots) == setting
            and method in (None, record.run.method)
        ]
        return sorted(found, key=lambda record: (record.run.method, record.run.draw))

    def labels(self, setting: Setting, part: str = HELD_OUT, *, known_to_base: bool = False) -> tuple[str, ...]:
        """The labels that are scored in a setting, or those of them that the base knows."""
        base = [row for row in self._of(self._base_name(setting), part) if row["known"]]
        adapted = [row for r in self.records(setting) for row in self._of(r.run.name, part) if row["known"]]
        rows = base if known_to_base else adapted or base
        return tuple(dict.fromkeys(row["label"] for row in rows))

    def base_grid(
        self, setting: Setting, part: str = HELD_OUT, measure: str = "dice", labels: Collection[str] | None = None
    ) -> ScoreGrid | None:
        """The base's scores, one draw; None where it knows none of the labels."""
        found = self._grid({0: self._base_name(setting)}, part, measure, labels)
        return replace(found, every_draw=True) if found is not None else None

    def grid(
        self,
        setting: Setting,
        method: str,
        part: str = HELD_OUT,
        measure: str = "dice",
        labels: Collection[str] | None = None,
    ) -> ScoreGrid | None:
        """A method's scores: of each case the mean over labels, or of counts their sum; None where there are none."""
        runs = {record.run.draw: record.run.name for record in self.records(setting, method)}
        return self._grid(runs, part, measure, labels)

    @cached_property
    def _by_run(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in self.rows:
            found.setdefault((row["run"], row["part"]), []).append(row)
        return found

    def _of(self, run: str, part: str) -> list[dict[str, Any]]:
        return self._by_run.get((run, part), [])

    def _grid(
        self, runs: Mapping[int, str], part: str, measure: str, labels: Collection[str] | None
    ) -> ScoreGrid | None:
        values: dict[int, dict[str, list[float]]] = {}
        subjects: dict[str, str] = {}
        for draw, run in sorted(runs.items()):
            for row in self._of(run, part):
                if not row["known"] or (labels is not None and row["label"] not in labels):
                    continue
                value = row[measure]
                values.setdefault(draw, {}).setdefault(row["case_name"], []).append(
                    math.nan if value is None else float(value)
                )
                subjects[row["case_name"]] = row["subject"] or f"case {row['case_name']}"
        if not values:
            return None
        cases, add = sorted(subjects), measure in COUNTS
        grid = [[_together(values[draw].get(case, ()), add=add) for case in cases] for draw in sorted(values)]
        return ScoreGrid(np.array(grid), tuple(sorted(values)), tuple(cases), tuple(subjects[case] for case in cases))

    @staticmethod
    def _adapted(record: RunRecord) -> bool:
        return record.state == DONE and record.run.method != BASE

    def _base_name(self, setting: Setting) -> str:
        return f"{setting.data}/{setting.base}/{BASE}"


COUNTS = frozenset({"nodes", "nodes_found", "false_positives"})


def _together(values: Iterable[float], *, add: bool) -> float:
    defined = [value for value in values if not math.isnan(value)]
    if not defined:
        return math.nan
    return math.fsum(defined) if add else math.fsum(defined) / len(defined)


def _place(order: list[Any], name: Any) -> tuple[int, Any]:
    return (order.index(name) if name in order else len(order), name)
