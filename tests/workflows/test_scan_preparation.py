"""Scans prepared in parts, before the training, are those that one process prepares, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Result
from tests.datasets.convert.clinic import bytes_under
from tests.scenes import write_scenes

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scans") / "data", 5)


def words(data: Path, out: Path, *more: Any) -> list[Any]:
    options = ("--iterations", 2, "--held-out", 1, "--no-mirroring", "--device", "cpu", "--workers", 1)
    return ["pretrain", data, "--out", out, *options, *more]


def prepared(data: Path, out: Path, *more: Any) -> list[Any]:
    return words(data, out, "--prepare-only", *more)


def test_parts_prepare_what_one_process_prepares(data: Path, tmp_path: Path, lnsegfm_here: Run) -> None:
    serial, parts = tmp_path / "serial", tmp_path / "parts"
    said = json.loads(lnsegfm_here(*prepared(data, serial, "--json")).stdout)
    assert (said["scans"], said["folder"]) == (4, str(serial / "work" / "prepared"))
    assert said["bytes"] == sum(file.stat().st_size for file in (serial / "work" / "prepared").iterdir())

    first = [lnsegfm_here(*prepared(data, parts, "--part", f"{k}/3", "--json")).stdout for k in (3, 1)]
    assert [json.loads(one) for one in first] == [
        {"part": "3/3", "items": 1, "lacking": [1, 2], "step": "read"},
        {"part": "1/3", "items": 2, "lacking": [2], "step": "read"},
    ]
    assert not parts.exists()
    last = lnsegfm_here(*prepared(data, parts, "--part", "2/3")).stdout  # finds all read, and prepares its share
    assert last == "Part 2/3: 1 case prepared.\nLacking  1/3, 3/3\n"
    ends = [lnsegfm_here(*prepared(data, parts, "--part", f"{k}/3")) for k in (1, 3)]
    assert [one.returncode for one in ends] == [0, 0]
    assert ends[1].stdout.startswith("4 scans prepared in ")
    assert bytes_under(parts) == bytes_under(serial)

    trained = tmp_path / "trained"
    for place in (trained, parts):
        result = lnsegfm_here(*words(data, place))
        assert result.returncode == 0, result.stderr
    assert bytes_under(parts / "model") == bytes_under(trained / "model")
    assert (parts / "recipe.json").read_bytes() == (trained / "recipe.json").read_bytes()
    assert not (parts / "work").exists()
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(".")) == [".serial-scans"]


def test_nothing_is_read_or_prepared_again(
    data: Path, tmp_path: Path, lnsegfm_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "base"
    assert lnsegfm_here(*prepared(data, out)).returncode == 0
    there = {file: file.stat().st_mtime_ns for file in (out / "work" / "prepared").iterdir()}
    again: list[str] = []
    monkeypatch.setattr("lnsegfm.models.case_readings._read", lambda case, *_, **__: again.append(case.name))
    for more in (["--part", "1/2"], [], ["--iterations", 9, "--lr", 0.1, "--seed", 3, "--gpus", 2]):
        assert lnsegfm_here(*prepared(data, out, *more)).returncode == 0
    assert again == []
    assert {file: file.stat().st_mtime_ns for file in (out / "work" / "prepared").iterdir()} == there


def test_scans_prepared_in_another_way_are_not_taken(data: Path, tmp_path: Path, lnsegfm_here: Run) -> None:
    out = tmp_path / "base"
    assert lnsegfm_here(*prepared(data, out)).returncode == 0
    before = bytes_under(out)
    for more, why in ((["--prepared", "float32"], "prepared half, not float32"), (["--exclude", "case_1"], "data ")):
        for command in (words, prepared):
            found = lnsegfm_here(*command(data, out, *more))
            assert found.returncode == 2
            assert f"scans were prepared there in another way ({why}" in found.stderr
    assert bytes_under(out) == before
    assert len(list((tmp_path / ".base-scans").glob("*.json"))) >= 5  # a refusal costs nobody what was read


@pytest.mark.long
def test_jobs_of_this_machine(data: Path, tmp_path: Path, lnsegfm_here: Run) -> None:
    serial, jobs = tmp_path / "serial", tmp_path / "jöbs of two"
    lnsegfm_here(*prepared(data, serial))
    found = lnsegfm_here(*prepared(data, jobs, "--jobs", 2))
    assert (found.returncode, found.stdout[:16]) == (0, "4 scans prepared"), found.stderr
    assert bytes_under(jobs) == bytes_under(serial)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--part", "1/2"], "--part 1/2: jobs read and prepare scans, they do not train. Add --prepare-only"),
        (["--jobs", 2], "--on, --jobs: jobs read and prepare scans, they do not train. Add --prepare-only"),
        (["--prepare-only", "--part", "3/2"], "--part 3/2: parts are numbered"),
        (["--prepare-only", "--preprocessed", "x"], "--prepare-only: the scans in x are prepared already"),
    ],
)
def test_what_is_refused(data: Path, tmp_path: Path, lnsegfm_here: Run, more: list[Any], said: str) -> None:
    found = lnsegfm_here(*words(data, tmp_path / "base", *more))
    assert found.returncode == 2
    assert said in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_is_not_taken(data: Path, tmp_path: Path, lnsegfm_here: Run) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "notes.txt").write_text("mine")
    found = lnsegfm_here(*prepared(data, tmp_path / "base"))
    assert (found.returncode, "it is not empty and holds no run" in found.stderr) == (2, True)
