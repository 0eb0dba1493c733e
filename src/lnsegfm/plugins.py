"""What other installed packages bring: methods, networks, metrics, readers, writers, datasets, commands, jobs.

A package names what it brings in its metadata, under ``[project.entry-points."lnsegfm.methods"]`` and so on. Only the
metadata is read until something of a plugin is used, so listing names costs no import.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from lnsegfm.errors import PluginError

GROUPS = ("methods", "networks", "metrics", "readers", "writers", "datasets", "commands", "jobs")
T = TypeVar("T")


@dataclass(frozen=True)
class Plugin:
    """One entry point of an installed package.

    Args:
        group: One of `GROUPS`.
        name: What a user types.
        value: Where it lies, ``module:name``.
        package: The package that brings it.
        summary: The package in a line, from its metadata.
    """

    group: str
    name: str
    value: str
    package: str
    summary: str

    def __str__(self) -> str:
        return f"Plugin {self.package}, entry point lnsegfm.{self.group}: {self.name} = {self.value}"

    @property
    def module(self) -> str:
        """Import path of the module that it lies in."""
        return self.value.partition(":")[0].strip()

    def load(self) -> Any:
        """Import it.

        Raises:
            PluginError: Whatever its import raises, as one line that names the package and the entry point.
        """
        try:
            return EntryPoint(self.name, self.value, f"lnsegfm.{self.group}").load()
        except (Exception, SystemExit) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise self.error(f"it cannot be loaded ({reason})") from error

    def error(self, why: str) -> PluginError:
        """The error that something is wrong with it."""
        return PluginError(f"{self}: {why}. Update or uninstall {self.package}.")


def plugins(group: str) -> tuple[Plugin, ...]:
    """The plugins of a group by name, without importing any.

    Args:
        group: One of `GROUPS`.
    """
    return _scan(tuple(sys.path)).get(group, ())


@lru_cache(maxsize=4)
def _scan(path: tuple[str, ...]) -> Mapping[str, tuple[Plugin, ...]]:  # noqa: ARG001 - what it was read from
    installed = entry_points()
    found = [_plugin(entry) for group in GROUPS for entry in installed.select(group=f"lnsegfm.{group}")]
    found.sort(key=lambda plugin: (plugin.name, plugin.package))
    return {group: tuple(plugin for plugin in found if plugin.group == group) for group in GROUPS}


def _plugin(entry: EntryPoint) -> Plugin:
    described: Any = entry.dist.metadata if entry.dist is not None else {}
    package, summary = (str(described[key] or "") if key in described else "" for key in ("Name", "Summary"))
    return Plugin(entry.group.removeprefix("lnsegfm."), entry.name, entry.value, package or "without name", summary)


class PluginTable(Mapping[str, T], Generic[T]):
    """What is built in, by name, then what plugins bring; a plugin is imported when it is first looked up.

    Looking up a name that a plugin shares with something built in or with another plugin is an error, and so is looking
    up a plugin that cannot be loaded; all other names stay usable.

    Args:
        group: One of `GROUPS`.
        builtin: What is built in.
        accept: Gives what a plugin's object stands for in the table, or raises the plugin's `Plugin.error`.
    """

    def __init__(self, group: str, builtin: Mapping[str, T], accept: Callable[[Any, Plugin], T]) -> None:
        self.group, self.builtin = group, dict(builtin)
        self._accept = accept
        self._loaded: dict[Plugin, T] = {}

    def brought(self) -> dict[str, Plugin]:
        """Each name that plugins bring, with the first of them."""
        return {plugin.name: plugin for plugin in reversed(plugins(self.group))}

    def __getitem__(self, name: str) -> T:
        theirs = [plugin for plugin in plugins(self.group) if plugin.name == name]
        if not theirs:
            return self.builtin[name]
        plugin, *others = theirs
        if name in self.builtin:
            raise PluginError(
                f"{plugin}: {name} is built into lnsegfm too. Rename the one in {plugin.package}, or uninstall it."
            )
        if others:
            raise PluginError(f"{plugin}: {others[0].package} brings {name} too. Uninstall one of the two.")
        if plugin not in self._loaded:
            self._loaded[plugin] = self._accept(plugin.load(), plugin)
        return self._loaded[plugin]

    def require(self, name: str) -> None:
        """Look a name up, so that what cannot be used is refused now.

        Raises:
            PluginError: The plugin of that name cannot be used.
        """
        self[name]

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or name in self.brought()

    def __iter__(self) -> Iterator[str]:
        yield from self.builtin
        yield from (name for name in sorted(self.brought()) if name not in self.builtin)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def usable(self) -> tuple[dict[str, T], list[str]]:
        """Everything that can be looked up, by name, and a line for each name that cannot."""
        found: dict[str, T] = {}
        problems: list[str] = []
        for name in self:
            try:
                found[name] = self[name]
            except PluginError as error:
                problems.append(str(error))
        return found, problems
