"""The results of a study as one SQLite file: runs, and their scores by case, label and node.

It appears whole: rows are added to a copy, which is renamed. The jobs that a study runs as never write to it; whoever
runs the study takes their results over, under a lock, so any number of processes may.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lnsegfm.errors import DataError, RunMismatch
from lnsegfm.evaluation.metric_table import METRICS
from lnsegfm.evaluation.tables import NODE_COLUMNS
from lnsegfm.storage import LOCK, PARTIAL, atomic_write, try_lock
from lnsegfm.study.study_runs import StudyRun

TABLE = "study.sqlite"
FORMAT = "lnsegfm.study/1"
HELD_OUT, SOURCE = "held-out", "source"
"""Parts of a run's scores: on the held-out scans, and on those of the base's own task."""
DONE, FAILED = "done", "failed"
_WAIT_S = 120.0
_RUNS = ("run", "data", "base", "method", "shots", "draw", "state", "reason", "terms", "facts")
_SCORES = (
    *("run", "part", "case_name", "subject", "label", *METRICS, "reference_ml", "prediction_ml", "known", "judged"),
    *("nodes", "nodes_found", "false_positives"),
)
_NODES = ("run", "part", *("case_name" if name == "case" else name for name in NODE_COLUMNS))
_TEXT = frozenset(
    {"run", "data", "base", "method", "state", "reason", "terms", "facts", "part", "case_name", "subject", "label"}
    | {"judged", "mask", "status", "category", "touches_border"}
)
_WHOLE = frozenset({"shots", "draw", "known", "nodes", "nodes_found", "false_positives", "node", "slice"})


@dataclass(frozen=True)
class RunRecord:
    """What the table holds of a run.

    Args:
        run: Which one.
        state: `DONE` or `FAILED`.
        terms: Under which the result holds: settings, and hashes of data and base.
        facts: How it went: rate, iterations, seconds, what moved.
        reason: Why it failed.
    """

    run: StudyRun
    state: str
    terms: Mapping[str, Any]
    facts: Mapping[str, Any]
    reason: str = ""


@dataclass(frozen=True)
class StudyTable:
    """The table of a study.

    Args:
        file: Where it is.
    """

    file: Path

    def runs(self) -> dict[str, RunRecord]:
        """The runs that are done or failed, by name; empty where there is no table yet.

        Raises:
            DataError: The file is no such table.
        """
        found = {}
        for row in self._rows("runs"):
            run = StudyRun(row["data"], row["base"], row["method"], row["shots"], row["draw"])
            found[run.name] = RunRecord(
                run, row["state"], json.loads(row["terms"]), json.loads(row["facts"]), row["reason"]
            )
        return found

    def scores(self) -> list[dict[str, Any]]:
        """All rows of scores."""
        return self._rows("scores")

    def nodes(self) -> list[dict[str, Any]]:
        """All rows of nodes."""
        return self._rows("nodes")

    def declared(self) -> dict[str, Any]:
        """What the study's file said when results were last added."""
        found = {row["key"]: row["value"] for row in self._rows("meta")}
        return dict(json.loads(found["study"])) if "study" in found else {}

    def add(
        self, records: Sequence[RunRecord], results: Mapping[str, Mapping[str, Any]], declared: Mapping[str, Any]
    ) -> None:
        """Add runs, in place of what is there of them.

        Args:
            records: The runs.
            results: Scores and nodes by name of the run, as jobs give them.
            declared: What the study's file says.

        Raises:
            RunMismatch: Another process holds the table for minutes.
        """
        with self._mine(), atomic_write(self.file) as partial:
            if self.file.is_file():
                self._rows("meta")  # which refuses another file
                shutil.copyfile(self.file, partial)
            with closing(sqlite3.connect(partial)) as table, table:
                _make(table)
                table.execute("INSERT OR REPLACE INTO meta VALUES ('study', ?)", (_json(declared),))
                for record in records:
                    _put(table, record, results.get(record.run.name, {}))

    @contextmanager
    def _mine(self) -> Iterator[None]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lock = try_lock(self.file.parent / f"{PARTIAL}table{LOCK}", wait_s=_WAIT_S)
        if lock is None:
            raise RunMismatch(f"{self.file}: another process holds it. Run the same command again.")
        with lock:
            yield

    def _rows(self, name: str) -> list[dict[str, Any]]:
        if not self.file.is_file():
            return []
        try:
            with closing(sqlite3.connect(f"{self.file.resolve().as_uri()}?mode=ro", uri=True)) as table:
                table.row_factory = sqlite3.Row
                stated = table.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
                if stated is None or stated[0] != FORMAT:
                    raise DataError(f"{self.file}: not a table of the format {FORMAT}. Name another study.")
                order = {"runs": _RUNS[:1], "meta": ("key",), "scores": _SCORES[:5], "nodes": _NODES[:6]}[name]
                rows = table.execute(f"SELECT * FROM {name} ORDER BY {', '.join(order)}").fetchall()
        except sqlite3.DatabaseError as error:
            raise DataError(f"{self.file}: not a study's table ({error}). Name another study.") from None
        return [dict(row) for row in rows]


def _make(table: sqlite3.Connection) -> None:
    for name, columns, key in (("runs", _RUNS, _RUNS[:1]), ("scores", _SCORES, _SCORES[:5]), ("nodes", _NODES, ())):
        kinds = ", ".join(f"{column} {_kind(column)}" for column in columns)
        keyed = tuple(column for column in key if column != "subject")
        primary = f", PRIMARY KEY ({', '.join(keyed)})" if keyed else ""
        table.execute(f"CREATE TABLE IF NOT EXISTS {name} ({kinds}{primary})")
    table.execute("CREATE INDEX IF NOT EXISTS nodes_by_run ON nodes (run)")
    table.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT)")
    table.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))


def _kind(column: str) -> str:
    return "TEXT" if column in _TEXT else "INTEGER" if column in _WHOLE else "REAL"


def _put(table: sqlite3.Connection, record: RunRecord, result: Mapping[str, Any]) -> None:
    run = record.run
    values = (run.name, run.data, run.base, run.method, run.shots, run.draw, record.state, record.reason)
    for name in ("runs", "scores", "nodes"):
        table.execute(f"DELETE FROM {name} WHERE run = ?", (run.name,))
    _insert(table, "runs", _RUNS, [(*values, _json(record.terms), _json(record.facts))])
    scores = [(run.name, *(row.get(column) for column in _SCORES[1:])) for row in result.get("scores", ())]
    _insert(table, "scores", _SCORES, scores)
    nodes = [(run.name, *(None if cell == "" else cell for cell in row)) for row in result.get("nodes", ())]
    _insert(table, "nodes", _NODES, nodes)


def _insert(table: sqlite3.Connection, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    places = ", ".join("?" for _ in columns)
    table.executemany(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({places})", rows)


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True)
