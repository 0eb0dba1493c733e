"""Runs on cases that are named: which are trained on, held out and passed over."""

from __future__ import annotations

import json

import pytest

from lnsegfm.errors import ConfigError
from lnsegfm.progress import Silent
from lnsegfm.workflows.finetune_plan import plan
from lnsegfm.workflows.pretrain_plan import PretrainSettings, plan_pretrain

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_trains_on_the_scans_that_are_named(world, tmp_path, lnsegfm_here):
    (tmp_path / "test.txt").write_text("case_0\n")
    words = ("--shots", "case_3,case_1", "--held-out", tmp_path / "test.txt", "--iterations", 1, "--no-mirroring")
    done = lnsegfm_here("finetune", world.clinic, "--model", world.base, *words, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert set(record["shots"]) == {"case_1", "case_3"}
    assert record["held_out"] == ["case_0"]
    assert "Trained on 2 scans: case_" in done.stderr
    assert "Held out 1 scan: case_0" in done.stderr


def test_names_and_numbers_are_part_of_what_a_run_is(world):
    def identity(**changes: object) -> str:
        return plan(world.clinic, world.base, world.recipe(**changes)).identity

    same = identity(shots=["case_3", "case_1"])
    assert same == identity(shots="case_1,case_3")
    assert same != identity(shots=["case_2", "case_1"])
    assert identity(shots=2) != identity(shots=2, held_out=1)
    assert identity(shots=2) != identity(shots=2, exclude=["case_0"])


def test_scans_that_are_left_out_play_no_part(world, tmp_path):
    some = plan(world.clinic, world.base, world.recipe(shots=1, exclude="case_0"))
    assert {case.name for case in some.data.cases} == {"case_1", "case_2", "case_3"}
    assert {*some.split.shots, *some.split.held_out} == {"case_1", "case_2", "case_3"}
    one = plan(world.clinic, world.base, world.recipe(shots=None, cases=["case_2"]))
    assert one.split.shots == ("case_2",)
    settings = PretrainSettings(preset="tiny", held_out=1, cases=("case_1", "case_2"), exclude=("case_0",))
    base = plan_pretrain(world.clinic, settings, tmp_path / "work", progress=Silent())
    assert {*base.split.shots, *base.split.held_out} == {"case_1", "case_2"}
    with pytest.raises(ConfigError, match=r"--exclude case_9: no labelled case has this name. Near it: case_"):
        plan(world.clinic, world.base, world.recipe(exclude=["case_9"]))
