"""What the source imports is declared, and what is declared has the bounds that it needs."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [Requirement(line) for lines in PROJECT["optional-dependencies"].values() for line in lines]
NOT_IMPORTED = {"python-gdcm"}  # pydicom finds it by itself


def imported_modules(source: Path) -> Iterator[str]:
    """Top-level names of the modules of others that a file imports, inside its functions as well."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        else:
            continue
        yield from (name.partition(".")[0] for name in names)


@cache
def distributions() -> dict[str, set[str]]:
    """Names of installed distributions by the module that they bring."""
    return {module: set(map(canonicalize_name, names)) for module, names in packages_distributions().items()}


def imports_of_the_package() -> dict[str, list[str]]:
    """Files by the module of others that they import."""
    imports: dict[str, list[str]] = {}
    for source in sorted((ROOT / "src").rglob("*.py")):
        for module in set(imported_modules(source)) - set(sys.stdlib_module_names) - {"lnsegfm"}:
            imports.setdefault(module, []).append(str(source.relative_to(ROOT)))
    return imports


def test_every_import_is_a_declared_dependency() -> None:
    declared = {canonicalize_name(r.name) for r in (*DEPENDENCIES, *EXTRAS)}
    undeclared = {
        module: files
        for module, files in imports_of_the_package().items()
        if not distributions().get(module, {canonicalize_name(module)}) & declared
    }
    assert undeclared == {}


def test_every_dependency_is_imported() -> None:
    imported = {name for module in imports_of_the_package() for name in distributions().get(module, {module})}
    assert {canonicalize_name(r.name) for r in DEPENDENCIES} - imported == NOT_IMPORTED


@pytest.mark.parametrize("requirement", DEPENDENCIES, ids=lambda r: r.name)
def test_bounds(requirement: Requirement) -> None:
    """A lower bound everywhere, an upper one where a version 0.x promises nothing; what is installed fits both."""
    operators = {specifier.operator for specifier in requirement.specifier}
    installed = version(requirement.name)

    assert ">=" in operators
    assert requirement.specifier.contains(installed, prereleases=True)
    if installed.startswith("0."):
        assert "<" in operators


def test_python_versions_agree() -> None:
    """Classifiers, the lowest version and the linter's target name the same versions."""
    prefix = "Programming Language :: Python :: 3."
    minors = sorted(int(c.removeprefix(prefix)) for c in PROJECT["classifiers"] if c.startswith(prefix))
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]

    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"
    assert tools["ruff"]["target-version"] == f"py3{minors[0]}"
