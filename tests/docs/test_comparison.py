"""The tables of docs/comparison.md are those of the recorded results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.study.arms import ARMS
from benchmarks.study.settings import SETTINGS
from benchmarks.study.tables import PAGE, Scores, against, blocks, fill, interval

from lnsegfm.methods.table import METHODS

RESULTS = Path(__file__).parents[2] / "results" / "study"
RUNS = sorted(RESULTS.glob("*/*-s*-d*.json"))


def test_the_page_holds_the_tables_of_the_results() -> None:
    page = PAGE.read_text()
    assert fill(page, blocks(RESULTS)) == page


def test_every_method_was_run_on_one_setting_at_least() -> None:
    assert {json.loads(file.read_text())["method"] for file in RUNS} == set(METHODS)


@pytest.mark.parametrize("file", RUNS, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_result_is_of_its_arm_and_setting(file: Path) -> None:
    run = json.loads(file.read_text())
    arm, setting = ARMS[run["arm"]], SETTINGS[file.parent.name]
    assert run["setting"] == setting.name
    assert run["method"] == arm.method
    assert run["iterations"] == (setting.iterations if arm.rates else 0)
    assert all(run["settings"][name] == value for name, value in arm.settings.items())
    assert len(set(run["trained_on"])) == run["shots"]
    assert not set(run["trained_on"]) & set(run["dice"])
    if arm.rates:
        name = (arm.rates_of or arm.name).replace(" ", "_")
        assert run["lr"] == json.loads((file.parent / f"lr-{name}.json").read_text())["lr"]


def test_an_interval_holds_the_mean_and_grows_with_the_spread() -> None:
    narrow, wide = np.array([[0.5, 0.6], [0.6, 0.5]]), np.array([[0.1, 0.9], [0.9, 0.2]])
    for grid in (narrow, wide):
        low, high = interval(grid)
        assert low <= grid.mean() <= high
    assert np.diff(interval(wide)) > np.diff(interval(narrow))
    assert interval(np.full((3, 4), 0.25)) == (0.25, 0.25)


def test_differences_are_paired_by_draw() -> None:
    def scores(*draws: int) -> Scores:
        grid = np.array([[float(d), 10.0 * d] for d in draws])
        return Scores(grid, grid, [{"draw": d, "iterations": 1} for d in draws])

    found = against(scores(1, 2, 3), scores(2, 3, 4), "target")
    assert found is not None
    assert not found.any()
    assert found.shape == (2, 2)
