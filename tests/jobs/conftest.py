from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.jobs.bodies import ENTRY_POINTS
from tests.plugins.packages import describe

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installed package that brings the bodies of tests; this process and its children see it."""
    folder = tmp_path / "installed"
    describe(folder, "test-bodies", ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(folder))
    paths = [str(folder), str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return folder
