"""DICOM files and their values, read without trust: what is damaged raises DicomError or gives None."""

from __future__ import annotations

import io
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.config import disable_value_validation
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.sequence import Sequence
from pydicom.uid import UID

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.transfer_syntaxes import is_known, not_readable

_PIXEL_DATA, _UNDEFINED = 0x7FE00010, 0xFFFFFFFF
_META_START = 144  # bytes of preamble, mark and group length
MAX_INFLATED = 1 << 30
"""Bytes that a deflated file may unpack to."""
MAX_TEXT = 1024
"""Characters of a value: DICOM has 64 for names and UIDs, and 1024 for a paragraph."""
MAX_NUMBER = 1e12
"""No quantity of a header comes near it, and a millimetre times a voxel stays a number that numpy can hold."""


def read_dataset(path: Path, tags: list[str] | None = None, *, pixels: bool = False) -> Dataset:
    """Read a DICOM file: the named attributes, or all of them; the pixels only when asked for.

    Raises:
        DicomError: It cannot be read, is cut short or damaged, or unpacks to more than ``MAX_INFLATED`` bytes.
    """
    with _dicom_errors(path), quiet(), warnings.catch_warnings(record=True) as raised, _open_limited(path) as file:
        warnings.simplefilter("always", UserWarning)
        data = dcmread(file, force=True, stop_before_pixels=not pixels, specific_tags=list(tags) if tags else None)
        if tags is None and _ends_early(data, raised):
            raise EOFError
        return data


def read_start(path: Path, tags: list[str]) -> tuple[Dataset, int]:
    """Read the named attributes of a DICOM file, and count the bytes from the start of its pixels to its end.

    Raises:
        DicomError: As ``read_dataset``.
    """
    with _dicom_errors(path), quiet(), _open_limited(path) as file:
        data = dcmread(file, force=True, stop_before_pixels=True, specific_tags=list(tags))
        return data, os.fstat(file.fileno()).st_size - file.tell()  # it stops where the pixels start


@contextmanager
def _dicom_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DicomError:
        raise
    except PermissionError:
        raise DicomError(f"File {path.name} cannot be opened (no permission). Allow reading it.") from None
    except Exception as error:  # a damaged file may raise nearly anything within pydicom
        raise _damaged(path, error) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's warnings about values that break the standard: what matters of them is checked here."""
    with warnings.catch_warnings(), disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def text(data: Dataset, keyword: str) -> str:
    """A value as one line of text; several values are joined by a backslash; "" where there is none.

    It ends before a NUL, which no text holds: with a wrong length the value contains the elements that follow, and the
    patient's name with them. It also ends after ``MAX_TEXT`` characters.
    """
    value = value_of(data, keyword)
    if value is None or isinstance(value, (bytes, Dataset, Sequence)):
        return ""
    with quiet():
        if not isinstance(value, (str, int, float)):
            try:
                value = "\\".join(str(v).strip() for v in value)
            except TypeError:
                value = str(value)
        value = str(value).strip(" \0").partition("\0")[0][:MAX_TEXT]
    # no line breaks, and nothing that a terminal would obey
    return "".join(c if c.isprintable() else " " for c in value).strip()


def integer(data: Dataset, keyword: str) -> int | None:
    """A whole number; None where there is none, or one that DICOM has no room for."""
    try:
        value = int(value_of(data, keyword))
    except (TypeError, ValueError, OverflowError):
        return None
    return value if abs(value) < 1 << 32 else None


def numbers(data: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Exactly ``count`` numbers, none beyond ``MAX_NUMBER``; None where there are none."""
    value = value_of(data, keyword)
    try:
        if count > 1 and (isinstance(value, (str, bytes)) or len(value) != count):
            return None
        values = (float(value),) if count == 1 else tuple(float(v) for v in value)
    except (TypeError, ValueError, OverflowError):
        return None
    return values if all(abs(v) <= MAX_NUMBER for v in values) else None


def first_item(data: Dataset | None, keyword: str) -> Dataset | None:
    """The first item of a sequence; None where there is none."""
    items = value_of(data, keyword) if data is not None else None
    try:
        return items[0] if items else None
    except (TypeError, IndexError, KeyError):
        return None


def value_of(data: Dataset, keyword: str) -> Any:
    """A value as pydicom gives it; None where there is none or it is damaged."""
    # conversion happens on access, and a damaged value may raise nearly anything
    try:
        with quiet():
            return data.get(keyword)
    except Exception:
        return None


def group_item(own: Dataset | None, shared: Dataset | None, sequence: str) -> Dataset | None:
    """The functional group of a frame: its own, or else the one all frames share; None where there is neither."""
    return first_item(own, sequence) or first_item(shared, sequence)


def numbers_of(own: Dataset, shared: Dataset | None, sequence: str, keyword: str, count: int) -> Any:
    """Numbers out of a frame's functional group; None where there are none."""
    item = group_item(own, shared, sequence)
    return numbers(item, keyword, count) if item is not None else None


def _open_limited(path: Path) -> _LimitedReader:
    return _LimitedReader(path.open("rb", buffering=0))


class _LimitedReader(io.BufferedReader):
    """A file that cannot be read to its end where its inflated content would fill the memory.

    pydicom asks for all the rest of a file in one case only, to unpack a deflated one whole: so the limit is on the
    bytes that it unpacks, wherever a file says that they begin.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if size is None or size < 0:
            _check_inflated(Path(self.name).name, content)
        return content


def _check_inflated(name: str, content: bytes) -> None:
    decompressor, size, remaining = zlib.decompressobj(-zlib.MAX_WBITS), 0, content
    while remaining and not decompressor.eof:
        size += len(decompressor.decompress(remaining, 1 << 20))
        if size > MAX_INFLATED:
            what = f"unpacks to more than {MAX_INFLATED >> 20} MiB"
            raise DicomError(f"File {name} {what}, which no CT slice does. Export it uncompressed.")
        remaining = decompressor.unconsumed_tail


def _ends_early(data: Dataset, raised: list[warnings.WarningMessage]) -> bool:
    """Whether the file ended within an element: pydicom warns of it or cuts the value, and goes on with the rest."""
    if any("nd of file" in str(warning.message) for warning in raised):
        return True
    held = (data.get_item(tag) for tag in data.keys() if tag != _PIXEL_DATA)  # noqa: SIM118 - items would be converted
    return any(
        isinstance(raw, RawDataElement) and raw.value is not None and len(raw.value) < raw.length != _UNDEFINED
        for raw in held
    )


def _damaged(path: Path, error: BaseException) -> DicomError:
    if (line := unreadable_syntax(path)) is not None:
        return DicomError(line)
    kind = type(error).__name__
    return DicomError(f"File {path.name} is cut short or damaged ({kind}). Export or copy it again.")


def unreadable_syntax(path: Path) -> str | None:
    """The line about a file in a transfer syntax that is not the standard's; None where it is, or none can be read."""
    try:
        with quiet():
            meta = read_file_meta_info(path)
            syntax = UID(text(meta, "TransferSyntaxUID"))
        length = integer(meta, "FileMetaInformationGroupLength") or 0
        if path.stat().st_size <= _META_START + length:  # it ends there: the UID may be cut
            return None
    except Exception:  # damaged there as well
        return None
    return not_readable(syntax, f"File {path.name}") if syntax.is_valid and not is_known(syntax) else None
