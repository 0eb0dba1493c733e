"""Which runs of a study are done, and what jobs have finished, taken over into the table; torch stays out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lnsegfm.jobs.job_folder import JobFolder
from lnsegfm.study.study_file import BASE, Study
from lnsegfm.study.study_runs import StudyRun, planned_study_runs
from lnsegfm.study.study_table import DONE, FAILED, TABLE, RunRecord, StudyTable

JOBS = "jobs"
"""Folder of the jobs below a study's; once all runs are in the table it may go."""


@dataclass(frozen=True)
class StudyOutcome:
    """How far a study is.

    Args:
        planned: All its runs.
        done: Names of those whose results the table holds.
        failed: Why runs failed, by name.
        seconds: Of a training, on average, by method and number of shots.
        table_name: Of the table, below the study's folder.
    """

    planned: tuple[StudyRun, ...]
    done: tuple[str, ...]
    failed: Mapping[str, str]
    seconds: Mapping[tuple[str, int], float]
    table_name: str = TABLE

    @property
    def lacking(self) -> tuple[StudyRun, ...]:
        """Runs that are neither done nor failed."""
        return tuple(run for run in self.planned if run.name not in self.done and run.name not in self.failed)

    def counts(self) -> dict[tuple[str, str], tuple[int, int, int]]:
        """Runs that are done, failed and lacking, by data, base and shots in words, and method."""
        found: dict[tuple[str, str], tuple[int, int, int]] = {}
        for run in self.planned:
            shots = f", {run.shots}" if run.method != BASE else ""
            key = f"{run.data}, {run.base}{shots}", run.method
            done, failed, lacking = found.get(key, (0, 0, 0))
            state = (run.name in self.done, run.name in self.failed)
            found[key] = (done + state[0], failed + state[1], lacking + (not any(state)))
        return found

    def seconds_left(self) -> float | None:
        """Of the trainings that lack, one after the other; None where none has been done, or none lacks."""
        known = list(self.seconds.values())
        left = [run for run in self.planned if run.name not in self.done and run.method != BASE]
        if not known or not left:
            return None
        return sum(self.seconds.get((run.method, run.shots), fmean(known)) for run in left)

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values."""
        lacking = [run.name for run in self.lacking]
        return {"planned": len(self.planned), "done": list(self.done), "failed": dict(self.failed), "lacking": lacking}


def study_outcome(study: Study, out: Path) -> StudyOutcome:
    """How far a study is, with what jobs have finished since it was last asked.

    Args:
        study: The study.
        out: Its folder.

    Raises:
        DataError: The folder holds a table of something else.
    """
    collect_results(out)
    planned, there = planned_study_runs(study), StudyTable(out / TABLE).runs()
    mine = [record for run in planned if (record := there.get(run.name)) is not None]
    seconds: dict[tuple[str, int], list[float]] = {}
    for record in mine:
        if record.facts.get("seconds") is not None:
            seconds.setdefault((record.run.method, record.run.shots), []).append(record.facts["seconds"])
    return StudyOutcome(
        planned,
        tuple(record.run.name for record in mine if record.state == DONE),
        {record.run.name: record.reason for record in mine if record.state == FAILED},
        {key: fmean(values) for key, values in seconds.items()},
    )


def collect_results(out: Path, declaration: Mapping[str, Any] | None = None) -> int:
    """Take over into the table what jobs have finished since; gives how many runs.

    Args:
        out: Folder of the study.
        declaration: What the study's file says (`declared`); what was said before unless given.
    """
    table, folder = StudyTable(out / TABLE), JobFolder(out.resolve() / JOBS)
    there = {name for name, record in table.runs().items() if record.state == DONE}
    records: list[RunRecord] = []
    results: dict[str, Mapping[str, Any]] = {}
    for name in sorted(file.stem for file in (folder.place / "jobs").glob("*.json")):
        inputs = folder.job(name).inputs
        if "run" not in inputs or not folder.is_done(name):
            continue
        run, found = StudyRun(**inputs["run"]), folder.result(name)
        if run.name not in there and found is not None:
            records.append(RunRecord(run, DONE, inputs["terms"], found.content["facts"]))
            results[run.name] = found.content
    if records or (declaration is not None and declaration != table.declared()):
        table.add(records, results, declaration if declaration is not None else table.declared())
    return len(records)


def declared(study: Study) -> dict[str, Any]:
    """What a report needs to know of a study's file."""
    return {
        "title": study.title,
        "reference": study.reference,
        "methods": [arm.name for arm in study.arms],
        "data": {data.name: data.title or data.name for data in study.data},
        "bases": list(study.bases),
        "shots": list(study.shots),
        "draws": list(study.draws),
    }
