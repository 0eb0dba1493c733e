"""docs/methods.md is run, and says of each method what the code says."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from lnsegfm.methods.shares import share_of
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.role import Role

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
RECORD = ROOT / "results" / "step_cpu.json"


@pytest.mark.usefixtures("one_thread")
def test_the_code_of_the_page_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/methods.md", "exec"), {})
    promised = re.findall(r"print\(.*\)  # (.*)", PAGE)
    assert capsys.readouterr().out.splitlines() == promised


def row_of(name: str, cells: int) -> list[str]:
    """The one row of a table of so many columns that begins with a method's name."""
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in PAGE.splitlines() if line.startswith("|")]
    (row,) = [row for row in rows if len(row) == cells and row[0] == f"`{name}`"]
    return row[1:]


@pytest.mark.parametrize("name", METHODS)
def test_the_page_names_settings_and_source(name: str) -> None:
    settings, source = row_of(name, 3)
    defaults = {field.name: field.default for field in dataclasses.fields(METHODS[name])}
    told = dict(re.findall(r"`(\w+)` \((.*?)\)(?=, `\w+` \(|$)", settings))
    assert told.keys() == defaults.keys()
    assert (settings == "none") == (not defaults)
    for setting, default in defaults.items():
        if default is None or isinstance(default, (str, bool)):
            assert told[setting] == f"`{str(default).lower()}`"
        else:
            assert float(told[setting]) == default
    assert all(found in source for found in re.findall(r"arXiv [\d.]+|doi \S+", METHODS[name].source))


@pytest.mark.parametrize("name", METHODS)
def test_the_page_tells_what_moves(name: str) -> None:
    roles = [{Role.HEAD}, {Role.WEIGHT}, {Role.BIAS}, {Role.NORM_WEIGHT}, {Role.NORM_BIAS}, {Role.POSITION, Role.OTHER}]
    what, *columns, added, share = row_of(name, 10)
    assert what == METHODS[name].summary
    trains = METHODS[name].trains
    assert [bool(cell) for cell in columns] == [column <= trains for column in roles]
    assert bool(added) == (Role.ADAPTER in trains and Role.WEIGHT not in trains)
    assert share == f"{share_of(METHODS[name]):g} %"


@pytest.mark.parametrize("name", [name for name, cls in METHODS.items() if cls.learns])
def test_the_page_tells_how_a_method_is_trained(name: str) -> None:
    training = METHODS[name].training
    iterations, lr, grid, trainer = row_of(name, 5)
    assert (int(iterations), float(lr), grid) == (
        training.iterations,
        training.lr,
        ", ".join(map(str, training.lr_grid)),
    )
    assert trainer == f"`{METHODS[name].trainer_name()}`"


def test_the_page_describes_every_method() -> None:
    for name in METHODS:
        assert len(re.findall(f"`{name}`", PAGE)) >= 3, name


def test_the_costs_on_the_page_are_those_that_were_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    step = importlib.import_module("step")
    for name in ("step", "machine", "memory", "workload"):
        sys.modules.pop(name, None)
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert step.table(record) in PAGE
    assert all(record["required"].values())
