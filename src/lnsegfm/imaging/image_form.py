"""What form an image file has, by its first bytes; its name and the metadata that tools copy into it do not count."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lnsegfm.imaging.nifti_header import first_bytes, parse_nifti_header

ImageForm = Literal["nifti", "nrrd", "meta"]
_LONGEST_HEADER = 1 << 22
"""Bytes of a header in text: those of segmentations name each segment."""
_META_KEYS = (b"ObjectType", b"NDims", b"Comment", b"Name", b"ID", b"BinaryData", b"TransformType")


def image_form(path: Path) -> ImageForm | None:
    """The form of a file: NIfTI-1 or -2 (packed or not), NRRD, MetaImage; None where it is none of them.

    Raises:
        OSError: It cannot be read.
    """
    start = first_bytes(path)
    if parse_nifti_header(start) is not None:
        return "nifti"
    if start[:4] == b"NRRD":
        return "nrrd"
    return "meta" if start.lstrip().startswith(_META_KEYS) and b"=" in start else None


def detached_data(path: Path, form: ImageForm) -> str | None:
    """Where a header says that its voxels are, other than in the file itself; None where they are in the file.

    Args:
        path: The file.
        form: Its form; a NIfTI has its voxels in itself.

    Returns:
        What stands there: the name of a file, a pattern, or ``LIST``.

    Raises:
        OSError: It cannot be read.
    """
    if form == "nifti":
        return None
    with path.open("rb") as file:
        text = file.read(_LONGEST_HEADER)
    for line in text.splitlines():
        if form == "nrrd" and not line.strip():
            return None  # the voxels follow
        key, _, value = line.partition(b":" if form == "nrrd" else b"=")
        name = key.strip().lower().replace(b" ", b"")
        if name == (b"datafile" if form == "nrrd" else b"elementdatafile"):
            stated = value.strip().decode("utf-8", "replace")
            return None if form == "meta" and stated.upper() == "LOCAL" else stated
    return None


def inside_folder(path: Path, stated: str) -> bool:
    """Whether the voxels that a header names are one file within the header's folder, links followed."""
    if not stated or stated.upper().startswith("LIST") or "%" in stated or "\0" in stated:
        return False
    folder = path.resolve().parent
    return (folder / stated).resolve().is_relative_to(folder)
