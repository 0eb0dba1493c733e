from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.cli.machines import write_machine
from tests.conftest import Result
from tests.scenes import write_scenes


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


PROGRESS = re.compile(
    r"(Checking|Predicting|Reading|Making) \d+ .*|(Base|Labels): .*|Method .* parameters train, .*"
    r"|No scan is held out: .*|Orientation.*|(Trained on|Held out) \d+ scans?: .*"
)


def tree(folder: Path) -> dict[str, str]:
    """Everything below a folder, with a hash of each file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(lnsegfm_here: Callable[..., Result], tmp_path: Path) -> Callable[..., list[str]]:
    """Run a command that must end with code 2, say what is wrong and nothing else, and leave everything as it was."""

    def run(*words: object) -> list[str]:
        before = tree(tmp_path)
        done = lnsegfm_here(*words)
        lines = [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line)]
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert all(line.startswith("lnsegfm: ") for line in lines), lines
        assert tree(tmp_path) == before
        return [line.removeprefix("lnsegfm: ") for line in lines]

    return run


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
