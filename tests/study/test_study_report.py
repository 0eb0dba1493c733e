"""Figures of made studies: known effects are found, tables say what they rest on, files are those that are promised."""

from __future__ import annotations

import csv
import io
import math
import re

import numpy as np
import pytest
from rich.console import Console

from lnsegfm.errors import DataError
from lnsegfm.evaluation.crossed_statistics import crossed_mean
from lnsegfm.evaluation.statistics import holm
from lnsegfm.study.study_figures import (
    AGAINST_BASE,
    AGAINST_REFERENCE,
    KEPT,
    all_differences,
    method_figures,
    rank_figures,
)
from lnsegfm.study.study_files import write_study_report
from lnsegfm.study.study_scores import Setting, StudyScores
from lnsegfm.study.study_table import TABLE, StudyTable
from lnsegfm.study.study_words import finding, limits, sentences
from tests.study.made_study import made_table

EFFECTS = {"full": 0.10, "dgst": 0.20, "same": 0.10, "none": 0.0}
FIVE = Setting("clinic", "base", 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    made_table(folder, EFFECTS, draws=6, cases=12)
    return folder, write_study_report(folder)


def asked(scores, question, method, setting=FIVE):
    return next(
        one for one in all_differences(scores) if (one.question, one.method, one.setting) == (question, method, setting)
    )


def test_known_effects_are_found_and_none_is_not(made):
    scores = made[1]
    dgst = asked(scores, AGAINST_REFERENCE, "dgst")
    assert dgst.shown
    low, high = dgst.difference.interval
    assert low < 0.10 < high
    same, none = asked(scores, AGAINST_REFERENCE, "same"), asked(scores, AGAINST_BASE, "none")
    assert not same.shown
    assert not none.shown
    assert finding(same) == f"no difference shown; {same.detectable:.3f} would be"
    assert same.detectable > same.difference.detectable()  # the correction asks for more
    assert finding(asked(scores, KEPT, "full")) == "forgets"


def test_all_comparisons_are_corrected_together(made):
    differences = all_differences(made[1])
    settings, methods = 2, 4
    assert len(differences) == settings * (methods + (methods - 1) + methods)
    corrected = holm({number: one.difference.p for number, one in enumerate(differences)})
    assert [one.p_corrected for one in differences] == list(corrected.values())


def test_differences_are_paired_by_draw_and_case_and_the_base_holds_for_every_draw(made):
    scores = made[1]
    mine, base = scores.grid(FIVE, "dgst"), scores.base_grid(FIVE)
    assert mine.values.shape == (6, 12)
    assert base.values.shape == (1, 12)
    assert (mine.less(base).values == mine.values - base.values).all()
    lone = scores.grid(FIVE, "full")
    fewer = type(lone)(lone.values[1:], lone.draws[1:], lone.cases, lone.subjects)
    assert (fewer.less(mine).values == lone.values[1:] - mine.values[1:]).all()
    first = type(lone)(lone.values[:1], lone.draws[:1], lone.cases, lone.subjects)  # of the reference one draw is done
    assert mine.less(first).draws == (0,)
    assert (mine.less(first).values == mine.values[:1] - lone.values[:1]).all()
    expected = crossed_mean(mine.values - base.values)
    assert asked(scores, AGAINST_BASE, "dgst").difference.error == pytest.approx(expected.error)


def test_shares_nodes_and_medians_are_counted(made):
    figures = {one.method: one for one in method_figures(made[1], FIVE)}
    grid, base = (made[1].grid(FIVE, "none"), made[1].base_grid(FIVE))
    assert figures["none"].worse.value == pytest.approx((grid.values < base.values).mean())
    assert figures["dgst"].worse.value == 0
    assert figures["dgst"].sensitivity.value == pytest.approx(
        np.where(made[1].grid(FIVE, "dgst").values > 0.5, 3, 2).mean() / 4
    )
    assert figures["dgst"].false_positives.value == 1
    assert figures["none"].median == pytest.approx(np.median(grid.values))
    assert figures["base"].worse is None


def test_the_order_of_methods_over_draws(made):
    found = rank_figures(made[1], FIVE)
    assert next(iter(found.ranks)) == "dgst"
    assert found.ranks["dgst"] == (1.0,) * 6
    assert found.ranks["none"] == (4.0,) * 6
    assert found.pairs["dgst", "none"] == 1
    assert 0.5 < found.concordance <= 1
    grids = {m: made[1].grid(FIVE, m).values.mean(axis=1) for m in EFFECTS}
    ahead = np.mean(grids["full"] > grids["same"])
    assert ahead in (found.pairs.get(("full", "same")), 1 - found.pairs.get(("same", "full"), math.inf))


def test_one_draw_is_said_to_be_one(tmp_path):
    made_table(tmp_path, {"full": 0.1, "dgst": 0.1}, draws=1)
    scores = StudyScores.of(StudyTable(tmp_path / TABLE))
    differences = all_differences(scores)
    assert any("over cases alone" in line for line in limits(scores, differences))
    assert rank_figures(scores, FIVE) is None


def test_a_study_of_nothing_and_a_table_of_something_else(tmp_path):
    scores = write_study_report(tmp_path)
    assert not scores.settings
    assert list(sentences(all_differences(scores))) == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / TABLE).write_text("no table")
    with pytest.raises(DataError, match="not a study's table"):
        write_study_report(tmp_path / "other")


def test_the_page_needs_nothing_and_runs_its_own_script_alone(made):
    page = (made[0] / "report.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert page.count("<img") == 2
    assert all(name in page for name in EFFECTS)
    assert "Not for clinical use" in page


def test_the_same_results_give_the_same_bytes_whatever_their_order(made, tmp_path):
    table = StudyTable(made[0] / TABLE)
    rows, nodes = table.scores(), table.nodes()
    records = list(table.runs().values())
    results = {
        record.run.name: {
            "scores": [row for row in rows if row["run"] == record.run.name],
            "nodes": [list(row.values())[1:] for row in nodes if row["run"] == record.run.name],
        }
        for record in records
    }
    for part in (records[::2], records[1::2]):
        StudyTable(tmp_path / TABLE).add(part[::-1], results, table.declared())
    write_study_report(tmp_path)
    for file in sorted(made[0].iterdir()):
        if file.suffix in (".csv", ".html"):
            assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_long_form_has_a_value_a_task_case_and_algorithm(made):
    rows = list(csv.DictReader((made[0] / "challenge.csv").open()))
    assert list(rows[0]) == ["task", "case", "algorithm", "value"]
    assert len(rows) == len({(r["task"], r["case"], r["algorithm"]) for r in rows}) == 2 * 5 * 12
    mean = made[1].grid(FIVE, "dgst").values.mean(axis=0)
    mine = [float(r["value"]) for r in rows if r["algorithm"] == "dgst" and r["task"].endswith("5 shots")]
    assert mine == pytest.approx(list(mean), abs=1e-4)


def test_figures_fit_a_terminal_of_80_columns(made, monkeypatch):
    from lnsegfm.cli import study_lines

    terminal = Console(width=80, record=True, file=io.StringIO())
    monkeypatch.setattr("rich.console.Console", lambda: terminal)
    study_lines.show_figures(made[1], all_differences(made[1]))
    text = terminal.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "no difference" in text
    assert all(name in text for name in EFFECTS)
