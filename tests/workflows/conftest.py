"""Runs without plots: matplotlib takes a sixth of a tiny run, and tests/report looks at every plot."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that a test starts itself; those of fixtures for many tests, and of test_demo.py, have their plots."""
    if "with_plots" not in request.fixturenames:
        monkeypatch.setattr("lnsegfm.report.page.plots_of", lambda _: ())


@pytest.fixture
def with_plots() -> None:
    """Ask for it where a page is looked at."""
