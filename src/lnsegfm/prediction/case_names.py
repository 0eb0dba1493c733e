"""What cases are called: names that lead out of no folder, and that say of a patient only what was asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from lnsegfm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series import Series

Choice = TypeVar("Choice", bound=StrEnum)
MAX_NAME = 120
"""Bytes of a case's name: file systems take 255, and endings and the mark of a file under way come to it."""
_NOT_IN_NAMES = frozenset('/\\:*?"<>|')


class Names(StrEnum):
    """What a DICOM series' files are called."""

    CODE = "code"
    """A keyed pseudonym: nobody without the key finds the patient."""
    SERIES = "series"
    """SeriesInstanceUID."""
    PATIENT = "patient"
    """PatientID and series number: asked for, and for use within the clinic only."""


def one_of(kind: type[Choice], text: str, option: str) -> Choice:
    """The member of an enumeration that a user named.

    Raises:
        ConfigError: It has none of that name; the line names ``option`` and the members.
    """
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{option} {text}: not known. Use {', '.join(kind)}.") from None


def identity(series: Series) -> str:
    """What tells a series from every other: its UID, and which part of it where one UID holds several volumes."""
    first = series.slices[0].sop_instance_uid
    uid = series.uid or "|".join((series.study_uid, series.description, str(series.number), first))
    if not series.uid and not first:  # nothing names it: its place in space then does
        uid += f"|{series.grid.shape}|{series.grid.origin_mm}"
    return f"{uid}/{series.part}" if series.part else uid


def namer(names: Names, out: Path | None) -> Callable[[Series], str]:
    """Gives a series its name; two series may get the same.

    Args:
        names: Which kind of name.
        out: Where masks go: the key of the pseudonyms must not lie there.
    """

    def code(series: Series) -> str:
        from lnsegfm.imaging.dicom.pseudonyms import read_key

        return read_key(outside=out).case(identity(series))

    def by_series(series: Series) -> str:
        if series.uid:
            return _plain(identity(series))
        return f"no-uid-{hashlib.sha256(identity(series).encode()).hexdigest()[:16]}"

    def patient(series: Series) -> str:
        number = series.number if series.number is not None else 0
        return _plain(f"{series.patient_id or 'unknown'}_{number}" + (f"_{series.part}" if series.part else ""))

    return {Names.CODE: code, Names.SERIES: by_series, Names.PATIENT: patient}[names]


def numbered(name: str) -> Iterator[str]:
    """The name, and then the name with 2, 3, ..., for whoever comes later."""
    yield name
    number = 2
    while True:
        yield f"{name}_{number}"
        number += 1


def require_name(name: str) -> None:
    """Refuse a name for a case that is none for a file, or leads out of the folder of masks.

    Raises:
        DataError: It does.
    """
    odd = not name.isprintable() or not _NOT_IN_NAMES.isdisjoint(name) or name != name.strip()
    if odd or name.startswith(".") or name.endswith(".") or not 0 < len(name.encode()) <= MAX_NAME:
        shown = name if len(name) <= MAX_NAME else f"{name[:20]}..."
        raise DataError(
            f"case {shown!r} is no name for a file. Use letters, digits, blanks, dots within, dashes; {MAX_NAME} bytes."
        )


def _plain(text: str) -> str:
    """A name for files: letters, digits, dots, dashes; nothing that leads out of a folder."""
    return re.sub(r"[^\w.-]+", "-", text, flags=re.ASCII)[:MAX_NAME].strip(".-") or "scan"
