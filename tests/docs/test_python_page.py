"""docs/python.md: its examples run in their order, and it lists all that is public."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lnsegfm

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_examples_run(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """In a folder with a base and a clinic; the blocks share their names."""
    (tmp_path / "base").symlink_to(world.base)
    (tmp_path / "clinic").symlink_to(world.clinic)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    blocks = re.findall(r"<!-- page -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == PAGE.read_text(encoding="utf-8").count("```python")
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    said = capsys.readouterr()
    assert said.out.count("\n") == 1  # the verdict that the example prints
    assert said.err == ""


def test_all_that_is_public_is_listed_once() -> None:
    table = PAGE.read_text(encoding="utf-8").split("## All there is")[1]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(listed) == sorted(lnsegfm.__all__)
