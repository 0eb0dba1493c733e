"""The formats that masks are written in, by name."""

from __future__ import annotations

from collections.abc import Iterable

from lnsegfm.errors import ConfigError
from lnsegfm.prediction.writers.mask_writer import MaskWriter
from lnsegfm.prediction.writers.nifti_writer import NiftiWriter
from lnsegfm.prediction.writers.rtstruct_writer import RtstructWriter
from lnsegfm.prediction.writers.seg_writer import SegWriter

MASK = NiftiWriter.name
"""The mask itself, which is always written; its ending is the one of the model's ``dataset.json``."""
WRITERS: dict[str, MaskWriter] = {writer.name: writer for writer in (NiftiWriter(), RtstructWriter(), SegWriter())}


def formats_named(names: str | Iterable[str], option: str = "--format") -> tuple[str, ...]:
    """The names of formats that a user gave, in the order of the table and each once.

    Args:
        names: Names, or one text with a comma between them.
        option: What the user calls the setting.

    Raises:
        ConfigError: A name that is not in the table.
    """
    given = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    for name in given:
        if name not in WRITERS:
            raise ConfigError(f"{option} {name}: not known. Use {', '.join(WRITERS)}.")
    return tuple(name for name in WRITERS if name in given)


def refers_to_dicom(formats: Iterable[str]) -> bool:
    """Whether one of the formats refers to a DICOM series, so that DICOM is meant where scans are looked for."""
    return any(WRITERS[name].needs_series for name in formats)
