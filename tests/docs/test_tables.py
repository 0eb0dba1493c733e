"""The tables of the documents are those that the code gives."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "tables.py"))


@pytest.mark.parametrize("name", ["methods.md", "env.md"])
def test_the_tables_are_up_to_date(name: str, script: dict[str, Any]) -> None:
    assert set(script["PAGES"]) == {"methods.md", "env.md"}
    assert script["page"](name) == (DOCS / name).read_text(encoding="utf-8"), "make tables"
