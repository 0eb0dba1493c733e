from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.models.install import ImportOptions, install
from lnsegfm.registry.stored_model import Stored
from tests.conftest import Result
from tests.models.importing.producers import Trained, trained_by_nnunet


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    pass


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained_by_nnunet(tmp_path_factory.mktemp("nnunet"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "home"
    monkeypatch.setenv("LNSEGFM_HOME", str(place))
    return place


@pytest.fixture
def take(home: Path) -> Callable[..., Stored]:
    """Import under the name ``it``."""

    def run(source: Path, name: str = "it", **options: Any) -> Stored:
        return install(source, name, ImportOptions(**options))

    return run


@pytest.fixture
def models(lnsegfm_here: Callable[..., Result], home: Path) -> Callable[..., Result]:
    """``lnsegfm models ...``."""
    return lambda *words: lnsegfm_here("models", *words)
