"""Imports point one way: no circles, rooms in layers, nnU-Net behind its bridge."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import SourceTree, cycle_in

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "lnsegfm"
OF_NNUNET = ("lnsegfm.nnunet.", "lnsegfm.training.")


@pytest.fixture(scope="module")
def source() -> SourceTree:
    return SourceTree(PACKAGE)


def package(folder: Path, files: dict[str, str]) -> SourceTree:
    """A package named ``house`` of these files."""
    for name, text in files.items():
        file = folder / "house" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        (file.parent / "__init__.py").touch()
    return SourceTree(folder / "house")


def lint(folder: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the contracts of ``folder/pyproject.toml``, with packages of ``path``."""
    environment = {**os.environ, "PYTHONPATH": str(path)}
    call = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    return subprocess.run(
        [sys.executable, "-c", call], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_no_modules_import_each_other_in_a_circle(source: SourceTree) -> None:
    assert cycle_in(source.graph) == []


def test_nnunet_is_imported_by_the_bridge_and_the_trainers_only(source: SourceTree) -> None:
    importers = source.importers_of("nnunetv2")
    assert importers, "the bridge imports it"
    assert [module for module in sorted(importers) if not module.startswith(OF_NNUNET)] == []


def test_rooms_lie_in_layers() -> None:
    pytest.importorskip("importlinter", reason="import-linter is one of the development tools")
    done = lint(ROOT, ROOT / "src")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    "late",
    [
        "from house.b import B\n",
        "import house.b\n",
        "from house import b\n",
        "from . import b\n",
        "from .b import B\n",
        "def f():\n    from house.b import B\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.b import B\n",
    ],
)
def test_a_circle_is_noticed(tmp_path: Path, late: str) -> None:
    tree = package(
        tmp_path, {"a.py": late, "b.py": "from house.c import x\nB = x\n", "c.py": "from house.a import y\n"}
    )
    assert set(cycle_in(tree.graph)) == {"house.a", "house.b", "house.c"}
    (tmp_path / "house" / "c.py").write_text("x = 1\n")
    assert cycle_in(SourceTree(tmp_path / "house").graph) == []


def test_an_import_of_nnunet_elsewhere_is_noticed(tmp_path: Path) -> None:
    files = {
        "nnunet/bridge.py": "import nnunetv2.paths\n",
        "report/page.py": "def f():\n    from nnunetv2.paths import x\n",
        "report/other.py": "import nnunetv2_and_more\n",
    }
    assert package(tmp_path, files).importers_of("nnunetv2") == {"house.nnunet.bridge", "house.report.page"}


def test_a_broken_layer_is_noticed(tmp_path: Path) -> None:
    """The project's own contracts, on a copy of the package in which a lower room imports an upper one."""
    pytest.importorskip("importlinter", reason="import-linter is one of the development tools")
    shutil.copytree(PACKAGE, tmp_path / "src" / "lnsegfm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    lower = tmp_path / "src" / "lnsegfm" / "evaluation" / "overlap.py"
    lower.write_text(lower.read_text() + "\n\ndef _late() -> None:\n    import lnsegfm.workflows.finetune\n")
    done = lint(tmp_path, tmp_path / "src")
    assert done.returncode == 1
    assert "lnsegfm.evaluation.overlap -> lnsegfm.workflows.finetune" in done.stdout
