"""Several methods and draws in one command: a run each, one table."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics

import pytest
from rich.console import Console

from lnsegfm.errors import ConfigError, RunMismatch
from lnsegfm.evaluation.statistics import Interval
from lnsegfm.report.runs_table import PlannedRun, RunRow, over_draws, runs_json, runs_table, sentences_on_runs
from lnsegfm.workflows.several_runs import claim_runs, planned_runs

pytestmark = pytest.mark.usefixtures("one_thread")


def row(method: str, draw: int, dice: float, base: str = "base", failed: str = "") -> RunRow:
    run = PlannedRun(base, method, draw, f"{method}_draw{draw}")
    if failed:
        return RunRow(run=run, failed=failed)
    ends = Interval(dice - 0.6, dice - 0.4, "t")
    return RunRow(run=run, shots=2, held_out=4, dice_base=0.5, dice_adapted=dice, difference=dice - 0.5, interval=ends)


ROWS = (
    row("dgst", 0, 0.6),
    row("dgst", 1, 0.7),
    row("dgst", 2, 0.5),
    row("full", 0, 0.4),
    row("full", 1, 0, failed="x"),
)


def test_every_base_method_and_draw_is_a_run_with_a_folder_of_its_own():
    runs = planned_runs(["a/base", "b/base"], ["dgst", "full"], [0, 2])
    assert len({run.folder for run in runs}) == len(runs) == 8
    assert runs[0] == PlannedRun("a/base", "dgst", 0, "1_base_dgst_draw0")
    assert planned_runs(["base"], ["dgst"], [1])[0].folder == "dgst_draw1"
    with pytest.raises(ConfigError, match="--draw 1,1: one is named twice"):
        planned_runs(["base"], ["dgst"], [1, 1])


def test_draws_are_put_together_by_method():
    (draws, middle, sd), full = over_draws(ROWS)["base", "dgst"], over_draws(ROWS)["base", "full"]
    assert (draws, middle) == (3, pytest.approx(0.6))
    assert sd == pytest.approx(statistics.stdev([0.6, 0.7, 0.5]))
    assert full[0] == 1
    assert math.isnan(full[2])
    assert runs_json(ROWS)["over_draws"][1] == {"base": "base", "method": "full", "draws": 1, "dice": 0.4, "sd": None}
    assert next(iter(sentences_on_runs(ROWS))) == "dgst: Dice 0.600 over 3 draws, SD 0.100."


def test_the_table_fits_a_terminal_of_80_columns():
    rows = [*ROWS, row("random-dynamic", 10, 0.55, base="totalseg-headneck-glands")]
    terminal = Console(width=80, record=True, file=io.StringIO())
    terminal.print(runs_table(rows))
    text = terminal.export_text()
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert "random-dynamic" in text
    assert "-0.050 to +0.150" in text
    assert "Base 2: totalseg-headneck-glands" in list(sentences_on_runs(rows))


def test_a_folder_of_something_else_is_refused_and_more_runs_may_come(tmp_path):
    runs = planned_runs(["base"], ["dgst", "full"], [0])
    claim_runs(tmp_path / "runs", runs[:1])
    claim_runs(tmp_path / "runs", runs)
    assert len(json.loads((tmp_path / "runs" / "runs.json").read_text())["runs"]) == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    with pytest.raises(RunMismatch, match="holds no table of several runs"):
        claim_runs(tmp_path / "other", runs)


def test_one_command_gives_runs_and_their_table_and_goes_on_where_it_was(world, tmp_path, lnsegfm_here):
    words = (world.clinic, "--model", world.base, "--shots", 2, "--iterations", 1, "--no-mirroring")
    out = tmp_path / "runs"
    done = lnsegfm_here("finetune", *words, "--method", "head,bias", "--draw", "0,1", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "head: Dice" in done.stdout
    with (out / "runs.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert [(one["method"], one["draw"]) for one in rows] == [
        ("head", "0"),
        ("head", "1"),
        ("bias", "0"),
        ("bias", "1"),
    ]
    for one in rows:
        record = json.loads((out / one["run"] / "run.json").read_text())
        assert record["recipe"]["method"] == one["method"]
        assert record["recipe"]["draw"] == int(one["draw"])
    (out / "bias_draw1" / "run.json").unlink()
    again = lnsegfm_here("finetune", *words, "--method", "head,bias", "--draw", "0,1", "--out", out, "--json")
    assert again.returncode == 0, again.stderr
    assert [one["folder"] for one in json.loads(again.stdout)["runs"]] == [one["run"] for one in rows]


def test_a_run_that_fails_is_a_row_and_stops_no_other(world, tmp_path, lnsegfm_here):
    words = (world.clinic, "--model", f"{world.base},{tmp_path / 'none'}", "--shots", 2, "--iterations", 1)
    done = lnsegfm_here("finetune", *words, "--method", "head", "--no-mirroring", "--out", tmp_path / "runs")
    assert done.returncode == 1
    assert "lnsegfm: 2_none_head_draw0: Model" in done.stderr
    with (tmp_path / "runs" / "runs.csv").open() as text:
        first, second = csv.DictReader(text)
    assert first["dice_adapted"]
    assert not first["failed"]
    assert "no such folder" in second["failed"]
    wrong = lnsegfm_here("finetune", *words, "--draw", "0,x", "--out", tmp_path / "other")
    assert (wrong.returncode, "--draw 0,x: whole numbers" in wrong.stderr) == (2, True)
