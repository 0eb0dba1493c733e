"""A run as a file: the options of a command, written, read, and refused where they cannot be."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("one_thread")


def dry(lnsegfm_here, *words):
    done = lnsegfm_here("finetune", *words, "--dry-run")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_was_written_gives_the_same_run(world, tmp_path, lnsegfm_here):
    job = tmp_path / "run.toml"
    words = (world.clinic, "--model", world.base, "--out", tmp_path / "run", "--shots", "case_1,case_2")
    more = ("--set", "gamma=2", "--map", "node=node", "--patch-size", 16, 16, 16, "--no-mirroring", "--lr", "0.002")
    resolved = dry(lnsegfm_here, *words, *more, "--write-job", job)
    written = tomllib.loads(job.read_text())
    assert written["shots"] == "case_1,case_2"
    assert written["patch-size"] == [16, 16, 16]
    assert written["mirroring"] is False
    assert written["set"] == {"gamma": "2"}
    assert "iterations" not in written
    assert "write-job" not in written
    assert dry(lnsegfm_here, "--job", job) == resolved


def test_what_is_given_beside_it_wins(world, tmp_path, lnsegfm_here):
    job = tmp_path / "run.toml"
    job.write_text(
        f'data = "{world.clinic}"\nmodel = "{world.base}"\nout = "{tmp_path / "run"}"\nshots = 3\ntime_limit = 60\n'
        'method = "full"\n',
        encoding="utf-8-sig",  # with a byte order mark, as some editors write it
    )
    resolved = dry(lnsegfm_here, "--job", job, "--shots", 2)
    assert (resolved["recipe"]["method"], resolved["recipe"]["shots"]) == ("full", 2)
    assert resolved["recipe"]["time_limit_s"] == 60


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("itterations = 3", "run.toml: itterations: finetune has no such option. Write iterations."),
        ('colour = "red"', "run.toml: colour: finetune has no such option. Its keys are"),
        ("dry-run = true", "run.toml: dry-run: finetune has no such option."),
        ("mirroring = 3", "run.toml: mirroring: 3 cannot stand there. Write true or false."),
        ("iterations = true", "run.toml: iterations: True cannot stand there. Write a value."),
        ("[lr]\na = 1", "run.toml: lr: a table cannot stand there. Write one value."),
        ("lr = ", "not TOML"),
    ],
)
def test_a_key_or_a_value_that_cannot_be_is_refused_with_the_nearest(text, said, world, tmp_path, lnsegfm_here):
    (tmp_path / "run.toml").write_text(text)
    words = (world.clinic, "--model", world.base, "--out", tmp_path / "run")
    done = lnsegfm_here("finetune", *words, "--job", tmp_path / "run.toml")
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    missing = lnsegfm_here("finetune", *words, "--job", tmp_path / "none.toml")
    assert (missing.returncode, "no such file. Write one with --write-job" in missing.stderr) == (2, True)


def test_the_job_that_the_page_shows_is_taken(world, tmp_path, lnsegfm_here, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "finetune.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```toml\n(data = .*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("job.toml").write_text(shown)
    words = ("--job", "job.toml", "--shots", 2, "--model", world.base)
    Path("clinic").symlink_to(world.clinic)
    assert dry(lnsegfm_here, *words)["recipe"]["settings"]["gamma"] == 2


def test_a_pretraining_is_a_file_too(world, tmp_path, lnsegfm_here):
    (tmp_path / "base.toml").write_text(
        f'data = "{world.clinic}"\nout = "{tmp_path / "base"}"\nexclude = ["liver", "x"]\n'
    )
    done = lnsegfm_here("pretrain", "--job", tmp_path / "base.toml", "--write-job", tmp_path / "again.toml")
    assert (done.returncode, "--exclude liver: no labelled case" in done.stderr) == (2, True)
    assert tomllib.loads((tmp_path / "again.toml").read_text())["exclude"] == "liver,x"
