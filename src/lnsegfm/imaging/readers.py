"""Readers of image files that other packages bring (entry points ``lnsegfm.readers``), by the file's ending."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lnsegfm.imaging.grid import Grid
from lnsegfm.plugins import Plugin, PluginTable


@dataclass(frozen=True)
class Reader:
    """How files of one ending are read. The entry point's name is the ending without its first dot.

    Args:
        read: Gives the voxels (z, y, x), one number each, and where they lie. It raises an `OSError` or `ValueError`
            for a file that it cannot read, with what is wrong.
        read_grid: Gives where the voxels lie, from the file's header alone; ``read`` is used unless given.
    """

    read: Callable[[Path], tuple[np.ndarray, Grid]]
    read_grid: Callable[[Path], Grid] | None = None


def accept_reader(value: Any, plugin: Plugin) -> Reader:
    """A plugin's reader.

    Raises:
        PluginError: It is no reader, or its name is no ending.
    """
    if not isinstance(value, Reader):
        raise plugin.error("it is no lnsegfm.imaging.readers.Reader")
    if plugin.name != plugin.name.lower() or plugin.name.startswith("."):
        raise plugin.error(f"the ending {plugin.name} is to be written in small letters, without its first dot")
    return value


def reader_table(builtin_endings: tuple[str, ...]) -> PluginTable[Reader | None]:
    """The readers by ending without its first dot; None for an ending that is read here."""
    return PluginTable("readers", dict.fromkeys((e.removeprefix(".") for e in builtin_endings), None), accept_reader)
