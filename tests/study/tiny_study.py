"""A study of two methods, shots and draws on a tiny base, run once for all tests that ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.study.run_study import StudyOutcome, run_study
from lnsegfm.study.study_file import read_study
from lnsegfm.study.study_table import TABLE, StudyTable

TOML = """\
title = "Two methods"
reference = "full"
shots = [1, 2]
draws = 2

[training]
iterations = 2
mirroring = false

[bases]
tiny = "{base}"

[data.clinic]
folder = "{clinic}"
held_out = 2
source_data = "{source}"

[methods.full]
lr = 0.01

[methods.bias]
lr = 0.01
"""

MEASURED = {"seconds", "device", "versions"}
"""Facts of a run that another machine or another time changes."""


@dataclass(frozen=True)
class TinyStudy:
    """A study that ran.

    Args:
        file: Its file.
        out: Its folder.
        outcome: What came of it.
    """

    file: Path
    out: Path
    outcome: StudyOutcome


def write_study(world, folder: Path, text: str = TOML) -> Path:
    """The study's file, with its places filled in."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "two.toml"
    source = world.folder / "source"
    file.write_text(text.format(base=world.base.as_posix(), clinic=world.clinic.as_posix(), source=source.as_posix()))
    return file


def content(out: Path) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """What a study's table holds, without times: every figure to its last bit."""
    table = StudyTable(out / TABLE)
    facts = {
        name: (record.state, {key: value for key, value in record.facts.items() if key not in MEASURED})
        for name, record in table.runs().items()
    }
    scores, nodes = (sorted((tuple(row.items()) for row in rows), key=repr) for rows in (table.scores(), table.nodes()))
    return facts, scores, nodes


@pytest.fixture(scope="session")
def tiny_study(world, tmp_path_factory) -> TinyStudy:
    file = write_study(world, tmp_path_factory.mktemp("study"))
    out = file.with_suffix("")
    return TinyStudy(file, out, run_study(read_study(file), out, device="cpu", workers=0))
