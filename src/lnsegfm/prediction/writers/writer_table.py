"""The formats that masks are written in, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lnsegfm.errors import ConfigError
from lnsegfm.plugins import Plugin, PluginTable
from lnsegfm.prediction.writers.mask_writer import MaskWriter
from lnsegfm.prediction.writers.nifti_writer import NiftiWriter
from lnsegfm.prediction.writers.rtstruct_writer import RtstructWriter
from lnsegfm.prediction.writers.seg_writer import SegWriter

MASK = NiftiWriter.name
"""The mask itself, which is always written; its ending is the one of the model's ``dataset.json``."""
_BUILTIN: dict[str, MaskWriter] = {writer.name: writer for writer in (NiftiWriter(), RtstructWriter(), SegWriter())}
_MEMBERS = ("file_name", "check_labels", "write")


def writer_problem(writer: object) -> str | None:
    """What is wrong with a writer, as a clause; None where nothing is."""
    if isinstance(writer, type):
        return f"it is the class {writer.__name__}; name an instance"
    missing = [name for name in _MEMBERS if not callable(getattr(writer, name, None))]
    missing += [name for name in ("name", "needs_series") if not hasattr(writer, name)]
    return f"it lacks {', '.join(missing)}; see lnsegfm.prediction.writers.mask_writer" if missing else None


def accept_writer(value: Any, plugin: Plugin) -> MaskWriter:
    """A plugin's writer.

    Raises:
        PluginError: It lacks members, or calls itself otherwise.
    """
    if problem := writer_problem(value):
        raise plugin.error(problem)
    if value.name != plugin.name:
        raise plugin.error(f"the writer calls itself {value.name}, and both names must be the same")
    writer: MaskWriter = value
    return writer


WRITERS = PluginTable("writers", _BUILTIN, accept_writer)
"""The formats that are built in, and those of plugins (entry points ``lnsegfm.writers``)."""


def formats_named(names: str | Iterable[str], option: str = "--format") -> tuple[str, ...]:
    """The names of formats that a user gave, in the order of the table and each once.

    Args:
        names: Names, or one text with a comma between them.
        option: What the user calls the setting.

    Raises:
        ConfigError: A name that is not in the table.
        PluginError: A plugin's format that cannot be used.
    """
    given = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    for name in given:
        if name not in WRITERS:
            raise ConfigError(f"{option} {name}: not known. Use {', '.join(WRITERS)}.")
        WRITERS.require(name)
    return tuple(name for name in WRITERS if name in given)


def refers_to_dicom(formats: Iterable[str]) -> bool:
    """Whether one of the formats refers to a DICOM series, so that DICOM is meant where scans are looked for."""
    return any(WRITERS[name].needs_series for name in formats)
