from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.cli.machines import write_machine
from tests.nnunet.scenes import write_scenes


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights: what a command refuses does not depend on what a network has learned."""
    return write_machine(tmp_path_factory.mktemp("models") / "model")


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "clinic", 3)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
