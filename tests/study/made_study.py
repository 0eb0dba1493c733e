"""Tables of studies that never ran: scores with known effects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.study.study_file import BASE
from lnsegfm.study.study_runs import StudyRun
from lnsegfm.study.study_table import DONE, FAILED, HELD_OUT, SOURCE, TABLE, RunRecord, StudyTable

FACTS = {
    "lr": 0.01,
    "iterations": 120,
    "seconds": 20.0,
    "diverged": False,
    "parameters": 100,
    "per_step": 5,
    "total": 200,
    "moved": 50,
    "trained_on": ["a"],
    "device": "cpu",
}


def made_table(
    folder: Path,
    effects: Mapping[str, float],
    *,
    draws: int = 4,
    cases: int = 8,
    shots: tuple[int, ...] = (1, 5),
    sds: tuple[float, float, float] = (0.02, 0.08, 0.02),
    forgets: float = 0.1,
    seed: int = 0,
    failed: str = "",
) -> StudyTable:
    """A table with one data set and base; the base has Dice 0.5 in the mean, a method that and its effect.

    Effects grow with the shots: a fifth of them holds for one shot, all of it for five.
    """
    rng, table = np.random.default_rng(seed), StudyTable(folder / TABLE)
    of_case = sds[1] * rng.normal(size=cases)
    records = [RunRecord(StudyRun("clinic", "base"), DONE, {}, {})]
    results = {records[0].run.name: result(0.5 + of_case, np.full(cases, 0.8))}
    for method, effect in effects.items():
        for number in shots:
            of_draw = sds[0] * rng.normal(size=draws)
            for draw in range(draws):
                run = StudyRun("clinic", "base", method, number, draw)
                rest = sds[2] * rng.normal(size=cases)
                dice = 0.5 + effect * number / 5 + of_case + of_draw[draw] + rest
                records.append(RunRecord(run, DONE, {}, FACTS))
                results[run.name] = result(dice, np.full(cases, 0.8 - forgets) + rest)
    if failed:
        records.append(RunRecord(StudyRun("clinic", "base", failed, 1, 0), FAILED, {}, {}, "it did not work"))
    declared = {
        "title": "Made",
        "reference": next(iter(effects)),
        "methods": list(effects),
        "bases": ["base"],
        "data": {"clinic": "A clinic"},
        "shots": list(shots),
        "draws": list(range(draws)),
    }
    table.add(records, results, declared)
    return table


def result(held_out: np.ndarray, source: np.ndarray) -> dict[str, Any]:
    """What a job gives: a label of nodes, four of which each case has."""
    scores = []
    for part, values in ((HELD_OUT, held_out), (SOURCE, source)):
        for number, value in enumerate(values):
            row = {"part": part, "case_name": f"{part}_{number}", "subject": None, "label": "lymph_node", "known": 1}
            row |= {
                "dice": float(value),
                "nsd": float(value),
                "judged": "yes",
                "reference_ml": 1.0,
                "prediction_ml": 1.0,
            }
            row |= {"nodes": 4, "nodes_found": 3 if value > 0.5 else 2, "false_positives": 1}
            scores.append(row)
    node = ["case", "lymph_node", "reference", 1, "true-positive", 1, 0.5, 1.0, 12.0, 9.0, 9.0, "", 3, 0, 0, 0, "false"]
    return {"facts": {}, "scores": scores, "nodes": [[HELD_OUT, *node]]}


assert BASE == "base"
