"""What a package's source says of itself: its modules, what each imports, and the classes that each defines."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


class SourceTree:
    """A package on disk, read and not imported.

    Args:
        folder: The package's folder; its name is the package's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file of each module, by dotted name."""
        found = {}
        for file in sorted(self.folder.rglob("*.py")):
            parts = (self.folder.name, *file.relative_to(self.folder).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
        return found

    @cached_property
    def parsed(self) -> dict[str, ast.Module]:
        return {module: ast.parse(file.read_text(encoding="utf-8")) for module, file in self.files.items()}

    @cached_property
    def imported(self) -> dict[str, set[str]]:
        """Every name that a module imports: at its top, within functions, and for type checking alone."""
        return {module: set(_imported(module, self.files[module], tree)) for module, tree in self.parsed.items()}

    @cached_property
    def graph(self) -> dict[str, set[str]]:
        """The modules of the package that each module imports."""
        return {m: {n for name in names if (n := self._module(name)) and n != m} for m, names in self.imported.items()}

    def _module(self, name: str) -> str | None:
        """The module of an imported name: itself, or the one that defines it."""
        if name in self.files:
            return name
        parent = name.rpartition(".")[0]
        return parent if parent in self.files else None

    def importers_of(self, package: str) -> set[str]:
        """The modules that import a package from outside, or a part of it."""
        return {m for m, names in self.imported.items() if any(f"{n}.".startswith(f"{package}.") for n in names)}

    def repeated_classes(self) -> dict[str, list[str]]:
        """Class names that are defined more than once, with where."""
        where = defaultdict(list)
        for module, tree in self.parsed.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    where[node.name].append(module)
        return _repeated(where)

    def repeated_stems(self) -> dict[str, list[str]]:
        """File names that several modules have, with the modules."""
        where = defaultdict(list)
        for module, file in self.files.items():
            if file.stem != "__init__":
                where[file.stem].append(module)
        return _repeated(where)


def cycle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty where there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _imported(module: str, file: Path, tree: ast.Module) -> Iterator[str]:
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _repeated(where: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {name: sorted(modules) for name, modules in sorted(where.items()) if len(modules) > 1}
