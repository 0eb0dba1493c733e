"""docs/methods.md is run, and says of each method what the code says."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", METHODS)
def test_the_page_names_settings_and_source(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \| .*(?:arXiv|et al|probing).* \|$", PAGE, flags=re.MULTILINE)
    assert all(f"`{field.name}`" in row for field in dataclasses.fields(METHODS[name]))
    assert ("none" in row) == (not dataclasses.fields(METHODS[name]))


@pytest.mark.parametrize("name", METHODS)
def test_the_page_tells_what_moves(name: str) -> None:
    roles = [{Role.HEAD}, {Role.WEIGHT}, {Role.BIAS}, {Role.NORM_WEIGHT}, {Role.NORM_BIAS}, {Role.POSITION, Role.OTHER}]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines()]
    (row,) = [cells for cells in rows if len(cells) == 7 and cells[0] == f"`{name}`"]
    assert [bool(cell) for cell in row[1:]] == [column <= METHODS[name].trains for column in roles]


def test_the_costs_on_the_page_are_those_that_were_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    step = importlib.import_module("step")
    for name in ("step", "machine", "memory", "workload"):
        sys.modules.pop(name, None)
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert step.table(record) in PAGE
    assert all(record["required"].values())
