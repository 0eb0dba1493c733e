"""A name means one thing: classes and modules are called once, and tests lie where what they test lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.tree import SourceTree

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "lnsegfm"
OF_THE_PROJECT = {"architecture", "docs", "packaging", "plugins"}
"""Folders of tests of the project as a whole."""


@pytest.fixture(scope="module")
def source() -> SourceTree:
    return SourceTree(PACKAGE)


def rooms(folder: Path) -> set[Path]:
    """The folders with Python files in them, relative to ``folder``."""
    return {file.parent.relative_to(folder) for file in folder.rglob("*.py")} - {Path()}


def test_class_names_are_unique(source: SourceTree) -> None:
    assert source.repeated_classes() == {}


def test_module_names_are_unique(source: SourceTree) -> None:
    assert source.repeated_stems() == {}


def test_every_folder_of_tests_has_the_room_that_it_tests() -> None:
    of_rooms = {room for room in rooms(ROOT / "tests") if room.parts[0] not in OF_THE_PROJECT}
    assert of_rooms - rooms(PACKAGE) == set()


def test_every_room_has_tests() -> None:
    tested = {file.parent.relative_to(ROOT / "tests").parts[0] for file in (ROOT / "tests").rglob("*/test_*.py")}
    assert {room.parts[0] for room in rooms(PACKAGE)} - tested == set()


def test_repeated_names_are_noticed(tmp_path: Path) -> None:
    for folder, text in (("a", "class Node: ..."), ("b", "def f():\n    class Node: ...\nclass Edge: ...")):
        (tmp_path / "house" / folder).mkdir(parents=True)
        for name in ("__init__.py", "same.py"):
            (tmp_path / "house" / folder / name).write_text(text if name == "same.py" else "")
    tree = SourceTree(tmp_path / "house")
    assert tree.repeated_classes() == {"Node": ["house.a.same", "house.b.same"]}
    assert tree.repeated_stems() == {"same": ["house.a.same", "house.b.same"]}
