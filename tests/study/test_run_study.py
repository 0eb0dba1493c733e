"""A real study, tiny: every run once, the product's own figures, failures as rows, more draws later."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

from lnsegfm.errors import ConfigError, RunMismatch
from lnsegfm.jobs.parts import ListPart
from lnsegfm.progress import Progress
from lnsegfm.study.run_study import run_study
from lnsegfm.study.study_collection import collect_results, study_outcome
from lnsegfm.study.study_file import read_study
from lnsegfm.study.study_files import write_study_report
from lnsegfm.study.study_runs import planned_study_runs
from lnsegfm.study.study_scores import Setting
from lnsegfm.study.study_table import TABLE, StudyTable
from tests.study.tiny_study import TOML, write_study

pytestmark = pytest.mark.usefixtures("one_thread")
ONE = TOML.replace("shots = [1, 2]", "shots = [1]").replace("draws = 2", "draws = 1")


class Counted(Progress):
    """Counts trainings, and interrupts when so many jobs have ended."""

    def __init__(self, stop_after: int = 99) -> None:
        self.trained, self.stop_after = 0, stop_after

    def stage(self, text: str) -> None:
        self.trained += text.startswith("Training")

    def advance(self, done: int, total: int, note: str = "") -> None:  # noqa: ARG002
        if note.startswith("run_") and done == self.stop_after:
            raise KeyboardInterrupt


def run(file: Path, out: Path | None = None, progress: Progress | None = None, **how):
    return run_study(read_study(file), out or file.with_suffix(""), device="cpu", workers=0, progress=progress, **how)


def test_every_run_is_a_row_and_the_base_is_among_them(tiny_study):
    runs = StudyTable(tiny_study.out / TABLE).runs()
    assert len(runs) == 1 + 2 * 2 * 2
    assert {record.state for record in runs.values()} == {"done"}
    assert tiny_study.outcome.done == tuple(run.name for run in tiny_study.outcome.planned)
    assert not tiny_study.outcome.lacking
    adapted = runs["clinic/tiny/bias/2 shots/draw 1"]
    assert len(adapted.facts["trained_on"]) == 2
    assert 0 < adapted.facts["moved"] < runs["clinic/tiny/full/2 shots/draw 1"].facts["moved"]


def test_all_runs_are_scored_on_the_same_scans_and_none_trains_on_them(tiny_study):
    table = StudyTable(tiny_study.out / TABLE)
    held_out: dict[str, set[str]] = {}
    for row in table.scores():
        if row["part"] == "held-out":
            held_out.setdefault(row["run"], set()).add(row["case_name"])
    assert len(set(map(frozenset, held_out.values()))) == 1
    scored = next(iter(held_out.values()))
    assert len(scored) == 2
    assert not any(scored & set(record.facts.get("trained_on", ())) for record in table.runs().values())


def test_the_figures_are_those_of_a_fine_tuning_with_the_same_scans(tiny_study, world):
    table = StudyTable(tiny_study.out / TABLE)
    record = table.runs()["clinic/tiny/bias/2 shots/draw 1"]
    dice: dict[str, dict[str, float]] = {}
    for row in table.scores():
        if row["part"] == "held-out":
            dice.setdefault(row["run"], {})[row["case_name"]] = row["dice"]
    mine, base = dice[record.run.name], dice["clinic/tiny/base"]
    shots = tuple(record.facts["trained_on"])
    how = {"shots": shots, "held_out": tuple(mine), "draw": 1, "iterations": 2, "lr": 0.01, "postprocessing": "none"}
    theirs = world.run("as_in_the_study", "bias", **how)
    assert theirs.record["shots"] == list(shots)  # in the same order, on which the batches depend
    evidence = theirs.evidence.comparison
    assert {case.case: case.value("dice") for case in evidence.adapted.cases} == mine
    assert {case.case: case.value("dice") for case in evidence.base.cases} == base


def test_the_same_again_does_nothing_and_more_draws_do_only_these(tiny_study, world, tmp_path):
    out = tmp_path / "two"
    shutil.copytree(tiny_study.out, out)
    again = Counted()
    assert run(tiny_study.file, out, again).done == tiny_study.outcome.done
    assert again.trained == 0
    more = write_study(world, tmp_path, TOML.replace("draws = 2", "draws = 3").replace("[1, 2]", "[1]"))
    assert len(study_outcome(read_study(more), out).lacking) == 2
    outcome = run(more, out, again)
    assert again.trained == 2
    assert not outcome.lacking
    assert len(StudyTable(out / TABLE).runs()) == 9 + 2  # those of two shots stay


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("[methods.bias]\nlr = 0.01", "[methods.bias]\nlr = 0.02", "is done with lr 0.01, not 0.02"),
        ("iterations = 2", "iterations = 3", "is done with iterations 2, not 3"),
        ("held_out = 2", "held_out = 1", "held_out"),
        ('folder = "{clinic}"', 'folder = "{source}"\nexclude = []', "content of scans"),
    ],
)
def test_other_settings_or_data_of_finished_runs_are_refused(tiny_study, world, tmp_path, before, after, said):
    other = write_study(world, tmp_path, TOML.replace(before, after))
    with pytest.raises((RunMismatch, ConfigError)) as refused:
        run(other, tiny_study.out)
    assert (
        said in str(refused.value)
        or "a base was trained on" in str(refused.value)
        or "trained a base" in str(refused.value)
    )


def test_a_study_that_was_stopped_goes_on_and_the_table_has_what_was_done(world, tmp_path):
    file = write_study(world, tmp_path, ONE)
    with pytest.raises(KeyboardInterrupt):
        run(file, progress=Counted(stop_after=2))
    assert len(StudyTable(tmp_path / "two" / TABLE).runs()) == 2
    left = Counted()
    assert len(run(file, progress=left).done) == 3
    assert left.trained == 1


def test_a_run_that_fails_is_a_row_with_its_reason_and_is_tried_again(world, tmp_path):
    broken = ONE.replace("[methods.bias]\nlr = 0.01", "[methods.bias]\nlr = 1e30")
    file = write_study(world, tmp_path, broken)
    outcome = run(file)
    assert list(outcome.failed) == ["clinic/tiny/bias/1 shots/draw 0"]
    assert "not a finite number" in outcome.failed["clinic/tiny/bias/1 shots/draw 0"]
    assert len(outcome.done) == 2
    scores = write_study_report(tmp_path / "two")
    assert "Failed: clinic/tiny/bias/1 shots/draw 0" in (tmp_path / "two" / "report.html").read_text()
    with (tmp_path / "two" / "runs.csv").open() as text_file:
        assert [row["state"] for row in csv.DictReader(text_file)].count("failed") == 1
    assert scores.methods(scores.settings[0]) == ("full",)
    corrected = write_study(world, tmp_path, ONE)
    assert not run(corrected).failed


def test_parts_together_are_the_whole_and_each_run_is_done_once(world, tmp_path, tiny_study):
    file, count = write_study(world, tmp_path, ONE), Counted()
    for number in (1, 2):
        outcome = run(file, part=ListPart(number, 2), progress=count)
    assert not outcome.lacking
    assert count.trained == 2
    whole, parts = (StudyTable(place / TABLE) for place in (tiny_study.out, tmp_path / "two"))
    names = set(outcome.done)
    assert [row for row in whole.scores() if row["run"] in names] == parts.scores()
    assert [row for row in whole.nodes() if row["run"] in names] == parts.nodes()


def test_a_rate_chosen_once_holds_for_all_draws(world, tmp_path):
    text = ONE.replace("[methods.bias]\nlr = 0.01", "[methods.bias]\nrates = [0.001, 0.5]").replace(
        "draws = 1", "draws = 2"
    )
    text = text.replace('source_data = "{source}"\n', "") + "\n[rate_choice]\nshots = 2\n"
    outcome = run(
        write_study(
            world, tmp_path, text.replace("[methods.full]\nlr = 0.01\n\n", "").replace('reference = "full"\n', "")
        )
    )
    assert not outcome.failed
    runs = StudyTable(tmp_path / "two" / TABLE).runs()
    rates = {record.facts["lr"] for record in runs.values() if record.run.method == "bias"}
    assert len(rates) == 1
    assert rates <= {0.001, 0.5}


def test_a_folder_of_something_else_is_refused(world, tmp_path):
    file = write_study(world, tmp_path, ONE)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    with pytest.raises(RunMismatch, match="holds no study"):
        run(file, tmp_path / "other")
    assert collect_results(tmp_path / "none") == 0


def test_the_example_of_the_page_runs(world, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "study.md").read_text(encoding="utf-8")
    example = re.search(r"<!-- study -->\n```toml\n(.*?)```", page, flags=re.DOTALL)[1]
    for name, place in (("base", world.base), ("clinic", world.clinic), ("source", world.folder / "source")):
        (tmp_path / name).symlink_to(place)
    file = tmp_path / "neck.toml"
    file.write_text(example)
    assert len(planned_study_runs(read_study(file))) == 1 + 2 * 2 * 3
    shorter = re.sub(r"iterations = \d+", "iterations = 1", example)
    file.write_text(shorter.replace("shots = [1, 2]", "shots = [1]").replace("draws = 2", "draws = [1]"))
    assert len(run(file).done) == 4
    assert list(write_study_report(tmp_path / "neck").settings) == [Setting("clinic", "small", 1)]
    assert {name.name for name in (tmp_path / "neck").iterdir() if not name.name.startswith(".")} == {
        *("study.sqlite", "report.html", "methods.csv", "comparisons.csv", "runs.csv", "cases.csv", "nodes.csv"),
        *("challenge.csv", "jobs"),
    }
