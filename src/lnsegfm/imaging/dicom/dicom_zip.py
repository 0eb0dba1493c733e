"""Zip archives of DICOM files, unpacked where they cannot do harm."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lnsegfm.errors import ArchiveError, UnsafeFile
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.unpacking import GIB, UnpackRules, is_zip, unpack

RULES = UnpackRules(
    limit_bytes=32 * GIB,  # about 60,000 slices
    members=500_000,
    portable_names=False,  # a PACS calls its files as it likes
    compressions=frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}),
    may_be_empty=True,
    name_members=False,
    remedy="unpack it by hand",
    disk_remedy="Set TMPDIR to a larger disk",
)
"""What a zip of DICOM files may hold."""


@contextmanager
def unpacked_tree(root: Path, *, rules: UnpackRules = RULES) -> Iterator[Path]:
    """Give the folder to look through: ``root`` itself, or the content of a zip in a temporary folder.

    The temporary folder, and with it every file that was found there, lives as long as the ``with`` block.

    Args:
        root: A folder, a file or a zip.
        rules: What a zip may hold.

    Raises:
        DicomError: A zip that is damaged or encrypted, unpacks to too much, or has members that would leave the
            folder (absolute names, "..") or are links.
    """
    if not is_zip(root):
        yield root
        return
    with tempfile.TemporaryDirectory(prefix="lnsegfm-zip-") as folder:
        yield unpack_zip(root, Path(folder), rules)


def unpacked_until_exit(root: Path) -> Path:
    """As ``unpacked_tree``, without a ``with`` block: the temporary folder lives until the process ends."""
    if not is_zip(root):
        return root
    folder = Path(tempfile.mkdtemp(prefix="lnsegfm-zip-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return unpack_zip(root, folder, RULES)


def unpack_zip(path: Path, folder: Path, rules: UnpackRules) -> Path:
    """Unpack a zip into a folder within ``folder``, which keeps its permissions; gives the inner one.

    Raises:
        DicomError: As ``unpacked_tree``.
    """
    content = folder / "content"
    try:
        unpack(path, content, rules, title=f"Zip {path.name}")
    except (UnsafeFile, ArchiveError) as error:
        raise DicomError(str(error)) from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DicomError(f"Zip {path.name}: it cannot be unpacked ({why}). Unpack it by hand.") from None
    return content
